"""Where a raster lies when a part of its grid, or a pole, is not what a plain map has."""

from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine, from_bounds

from jobs.flood_risk_cog.area import pixel_areas
from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.facts import read_facts
from jobs.flood_risk_cog.footprint import NoFootprint, _boxes, footprint_of
from jobs.flood_risk_cog.ground import ground_of
from jobs.flood_risk_cog.plan import UnusableRaster, check_source
from jobs.flood_risk_cog.source import open_raster

SINUSOIDAL = "+proj=sinu +R=6371007.181 +units=m"
AROUND_52_NORTH = "+proj=aeqd +lat_0=52 +lon_0=10 +datum=WGS84"
MODIS_SIDE, MODIS_WEST, MODIS_NORTH = 1_111_950.519667, -20_015_109.354, 10_007_554.677
EARTH_KM2 = 510_065_622


def grid(crs, west, south, east, north, side=120):
    transform = from_bounds(west, south, east, north, side, side)
    return SimpleNamespace(width=side, height=side, crs=CRS.from_user_input(crs), transform=transform)


def modis(column, row, side=120):
    west, north = MODIS_WEST + column * MODIS_SIDE, MODIS_NORTH - row * MODIS_SIDE
    return grid(SINUSOIDAL, west, north - MODIS_SIDE, west + MODIS_SIDE, north, side)


def test_rasters_on_one_grid_have_their_footprint_once():
    """A conversion looked it up five times: a tenth of its time, where the raster is small."""
    bounds = (5.9e5, 3.2e6, 6.1e5, 3.3e6)
    assert footprint_of(grid("EPSG:32614", *bounds)) is footprint_of(grid("EPSG:32614", *bounds))
    others = [grid("EPSG:32615", *bounds), grid("EPSG:32614", *bounds, side=60), grid("EPSG:32614", 5.8e5, *bounds[1:])]
    assert len({str(footprint_of(each)) for each in [*others, grid("EPSG:32614", *bounds)]}) == 3
    assert all(footprint_of(each) is not footprint_of(grid("EPSG:32614", *bounds)) for each in others)


@pytest.mark.parametrize(
    ("crs", "bounds", "bbox"),
    [
        # The equator is nearer to the edge than the pole is.
        ("EPSG:6931", (-9e6, -9e6, 9e6, 9e6), [-180, -84.634, 180, 90]),
        ("EPSG:6932", (-9e6, -9e6, 9e6, 9e6), [-180, -90, 180, 84.634]),
        # A pole in the corner, on an edge, and just beside one.
        ("EPSG:3413", (0, 0, 8e5, 6e5), [45, 80.789, 135, 90]),
        ("EPSG:3413", (-8e5, 0, 0, 6e5), [135, 80.789, -135, 90]),
        ("EPSG:3413", (-4e5, 0, 4e5, 6e5), [45, 83.35, -135, 90]),
        ("EPSG:3031", (-3.3e5, -6e5, 4.7e5, 0), [90, -90, -90, -82.994]),
        ("EPSG:3031", (-3.3e5, -6e5, 4.7e5, 2000), [-180, -90, 180, -82.994]),
    ],
)
def test_a_pole_is_in_the_box_where_it_is_in_the_raster(crs, bounds, bbox):
    found = footprint_of(grid(crs, *bounds)).bbox
    assert found == pytest.approx(bbox, abs=0.01)
    # On an edge, too.
    assert 90 in map(abs, found)


@pytest.mark.parametrize(
    ("crs", "bounds", "bbox"),
    [
        ("ESRI:54009", (-18_041_000, -9_000_000, 18_041_000, 9_000_000), [-180, -87.9, 180, 87.9]),
        ("EPSG:3408", (-9_036_842, -9_036_842, 9_036_842, 9_036_842), [-180, -90, 180, 90]),
        ("+proj=igh +datum=WGS84", (-20e6, -8.6e6, 20e6, 8.6e6), [-180, -87.36, 180, 87.36]),
        (
            "+proj=geos +h=35785831 +lon_0=0 +a=6378169 +b=6356583.8",
            (-5.57e6, -5.57e6, 5.57e6, 5.57e6),
            [-81, -81, 81, 81],
        ),
    ],
)
def test_a_grid_around_the_globe_is_taken_with_its_part_on_it(crs, bounds, bbox):
    found = footprint_of(grid(crs, *bounds))
    assert found.bbox == pytest.approx(bbox, abs=1.5)


@pytest.mark.parametrize(
    ("tile", "bbox"),
    [
        # Canada and Alaska; beyond the antimeridian the projection has no ground.
        ((11, 2), [-180, 60, -120, 70]),
        ((12, 1), [-180, 70, -146.19, 73.872]),
        ((18, 4), [0, 40, 15.557, 50]),
    ],
)
def test_a_tile_at_the_end_of_the_globe_has_no_place_beyond_it(tile, bbox):
    found = footprint_of(modis(*tile))
    assert found.bbox == pytest.approx(bbox, abs=0.05)
    assert found.geometry["type"] == "Polygon"


def test_a_tile_beside_the_globe_has_no_place():
    with pytest.raises(NoFootprint, match="assign the right one"):
        footprint_of(modis(0, 0))


def test_pixels_off_the_globe_have_no_area():
    whole = grid(SINUSOIDAL, MODIS_WEST, -MODIS_NORTH, -MODIS_WEST, MODIS_NORTH, 360)
    everywhere = pixel_areas(whole).total(np.ones((360, 360), bool), 0, 0) / 1e6
    assert everywhere == pytest.approx(EARTH_KM2, rel=5e-3)


def test_areas_of_a_tall_grid_are_kept_for_some_rows_and_are_true_between_them():
    transform = Affine(1000, 0, 4_300_000, 0, -1, 3_600_000)
    tall = SimpleNamespace(width=64, height=600_000, crs=CRS.from_epsg(3035), transform=transform)
    areas = pixel_areas(tall)
    assert areas.areas.size < 1 << 15
    # The projection is of equal area.
    for row in (0, 1234, 599_900):
        assert areas.total(np.ones((100, 64), bool), row, 0) == pytest.approx(100 * 64 * 1000, rel=1e-4)


@pytest.mark.parametrize("half", [0.5, 1])
def test_pixel_centres_may_lie_on_the_poles(make_raster, half):
    step = 2.5
    transform = Affine(step, 0, -180, 0, -step, 90 + half * step)
    path = make_raster(pixels=np.ones((1, 73, 144), "float32"), crs="EPSG:4326", transform=transform)
    with open_raster(path) as dataset:
        check_source(path, dataset)


def test_latitudes_beyond_the_poles_are_refused(make_raster):
    transform = Affine(0.01, 0, 10, 0, -0.01, 91)
    path = make_raster(pixels=np.ones((1, 50, 50), "float32"), crs="EPSG:4326", transform=transform)
    with open_raster(path) as dataset, pytest.raises(UnusableRaster, match="lie outside of its coordinate system"):
        check_source(path, dataset)


def test_the_checksum_is_the_same_for_tiles_and_strips(make_raster):
    """Digests of a row of cells are closed when the next one begins."""
    pixels = np.random.default_rng(1).random((2, 1300, 1100), dtype="float32")
    found = set()
    for name, layout in (("a.tif", {"tiled": True, "blockxsize": 256, "blockysize": 256}), ("b.tif", {})):
        with open_raster(make_raster(name, pixels, **layout)) as dataset:
            found.add(read_facts(dataset).checksum)
    assert len(found) == 1


def test_the_box_reaches_as_far_as_a_curved_edge(make_raster):
    """Eleven points along a side missed the southernmost place by a tenth of a pixel and more."""
    transform = Affine(20_000, 0, -2_000_000, 0, -20_000, -1_000_000)
    path = make_raster(pixels=np.zeros((1, 200, 220), "uint8"), crs="EPSG:3577", transform=transform)
    with rasterio.open(path) as dataset:
        footprint = footprint_of(dataset)
        lat = ground_of(dataset).lon_lat(np.linspace(0, 220, 100_001), np.full(100_001, 200.0))[1]
    assert footprint.bbox[1] == pytest.approx(lat.min(), abs=0.001)
    ring = np.array(footprint.geometry["coordinates"][0])
    assert footprint.bbox == pytest.approx([*ring.min(axis=0), *ring.max(axis=0)], abs=1e-6)
    assert len(ring) <= 60


@pytest.mark.parametrize(
    ("crs", "transform", "width", "height", "limits"),
    [
        ("EPSG:3413", Affine(25_000, 0, -3_850_000, 0, -25_000, 5_850_000), 304, 448, (None, 90)),
        (AROUND_52_NORTH, Affine(50_000, 0, -5_000_000, 0, -50_000, 5_000_000), 200, 200, (None, 90)),
        ("EPSG:4326", Affine(2.5, 0, -180, 0, -2.5, 90), 144, 72, (-90, 90)),
        ("EPSG:4326", Affine(2.5, 0, -180, 0, -2.5, 91.25), 144, 73, (-90, 90)),
    ],
)
def test_the_box_of_a_reprojected_raster_ends_at_a_pole_inside(
    make_raster, tmp_path, crs, transform, width, height, limits
):
    """A thousandth of a pixel of EPSG:6933 is a tenth of a degree there."""
    path = make_raster(pixels=np.ones((1, height, width), "float32"), crs=crs, transform=transform)
    bbox = convert_raster(path, str(tmp_path / "out"), target_crs="EPSG:6933")["bbox"]
    assert bbox[3] == limits[1]
    assert limits[0] is None or bbox[1] == limits[0]


@pytest.mark.parametrize(
    ("crs", "half_width", "half_height", "columns", "rows", "expected"),
    [
        ("EPSG:6933", 17_367_530.445, 7_314_540.83, 1, 14, EARTH_KM2),
        ("EPSG:6933", 17_367_530.445, 7_314_540.83, 2, 2, EARTH_KM2),
        ("EPSG:6933", 17_367_530.445, 7_314_540.83, 1, 1, EARTH_KM2),
        # To 85.05 degrees of latitude.
        ("EPSG:3857", 20_037_508.343, 20_037_508.343, 1, 1, 508_170_000),
        ("ESRI:54009", 18_040_095.696, 9_020_047.848, 2, 2, EARTH_KM2),
    ],
)
def test_a_world_in_few_pixels_has_its_whole_area(crs, half_width, half_height, columns, rows, expected):
    """The sides of such a pixel ended at one meridian, or off the globe: it had no area, or ten times as much."""
    place = from_bounds(-half_width, -half_height, half_width, half_height, columns, rows)
    areas = pixel_areas(SimpleNamespace(width=columns, height=rows, crs=CRS.from_user_input(crs), transform=place))
    assert areas.total(np.ones((rows, columns), bool), 0, 0) / 1e6 == pytest.approx(expected, rel=0.005)


def test_boxes_have_longitudes_of_one_turn():
    lon = np.array([-540.5, -180.0, -0.0, 179.5, 180.0, 180.25, 359.0, 720.5])
    turned = [179.5, -180.0, 0.0, 179.5, 180.0, -179.75, -1.0, 0.5]
    south, north = np.full(lon.size, -1.5), np.full(lon.size, 2.5)
    assert _boxes(lon, south, lon[::-1], north).tolist() == [
        [west, -1.5, east, 2.5] for west, east in zip(turned, turned[::-1], strict=True)
    ]
    with pytest.raises(OverflowError, match="found infinity"):
        _boxes(np.array([np.inf]), south[:1], lon[:1], north[:1])
