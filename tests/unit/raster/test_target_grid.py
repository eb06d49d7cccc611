"""A raster over the seam of its target, or beyond the end of Mercator, is put on a grid of our own."""

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.transform import Affine, from_bounds

from jobs.flood_risk_cog import convert, header_check, plan, target_grid
from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.depth_grid import add_depths
from jobs.flood_risk_cog.facts import read_facts
from jobs.flood_risk_cog.picture_frame import Frame
from jobs.flood_risk_cog.plan import UnusableRaster
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.tiles import sample
from jobs.flood_risk_cog.web_grid import web_grid
from tests.unit.raster.made import pixels_of, write_raster

SIDE = 300
UTM = {"crs": "EPSG:32760", "transform": Affine(30, 0, 815_500, 0, -30, 8_170_000)}
DEGREES = {"crs": "EPSG:4326", "transform": from_bounds(170, -10, 190, 10, SIDE, SIDE)}
WEST = {"crs": "EPSG:4326", "transform": from_bounds(-190, -10, -170, 10, SIDE, SIDE)}
WORLD = {"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 180, 90, SIDE, SIDE)}
FROM_ZERO = {"crs": "EPSG:4326", "transform": from_bounds(0, -90, 360, 90, SIDE, SIDE)}
OVER_THE_SEAM = [
    (UTM, "EPSG:4326"),
    (UTM, "EPSG:3857"),
    (UTM, "EPSG:3395"),
    (UTM, "EPSG:6933"),
    (DEGREES, "EPSG:3857"),
    (DEGREES, "EPSG:6933"),
    (DEGREES, "EPSG:4269"),
    (WEST, "EPSG:3857"),
]


def expected_of(cog, path):
    """Values of the nearest source pixel of each pixel of a COG, NaN for none; and where a pixel's edge is near."""
    with rasterio.open(path) as source:
        columns, rows = np.meshgrid(np.arange(cog.width) + 0.5, np.arange(cog.height) + 0.5)
        x, y = cog.transform @ (columns, rows)
        way = pyproj.Transformer.from_crs(cog.crs.to_wkt(), source.crs.to_wkt(), always_xy=True)
        lon, lat = way.transform(x, y)
        if source.crs.is_geographic:
            lon = source.bounds.left + (lon - source.bounds.left) % 360
        column, row = ~source.transform @ (lon, lat)
        inside = (column >= 0) & (row >= 0) & (column < source.width) & (row < source.height)
        values = np.full(x.shape, np.nan)
        at = np.floor(row[inside]).astype(int), np.floor(column[inside]).astype(int)
        values[inside] = source.read(1)[at]
    # GDAL's approximation of places is good to an eighth of a pixel.
    is_near_edge = np.minimum(np.abs(column - np.round(column)), np.abs(row - np.round(row))) < 0.13
    return values, is_near_edge


@pytest.mark.parametrize(("place", "target"), [*OVER_THE_SEAM, (WORLD, "EPSG:3857"), (FROM_ZERO, "EPSG:3857")])
def test_every_pixel_is_that_of_its_place(tmp_path, place, target):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32") + 1, **place)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target, resampling="nearest")
    with rasterio.open(result["path"]) as cog:
        found = np.where(cog.read_masks(1) > 0, cog.read(1), np.nan)
        expected, is_near_edge = expected_of(cog, path)
    sure = ~is_near_edge
    assert sure.sum() > 5000
    assert np.array_equal(found[sure], expected[sure], equal_nan=True)
    assert np.isfinite(found).sum() > 0.9 * SIDE * SIDE


@pytest.mark.parametrize(("place", "target"), OVER_THE_SEAM)
def test_its_footprint_is_two_polygons_and_its_box_is_narrow(tmp_path, place, target):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **place)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target)
    west, south, east, north = result["bbox"]
    assert 169.5 < west <= 180
    assert -180 <= east < -169.5
    assert south < north
    assert result["geometry"]["type"] == "MultiPolygon"
    for polygon in result["geometry"]["coordinates"]:
        longitudes = [x for x, _ in polygon[0]]
        assert all(-180 <= x <= 180 for x in longitudes)
        assert max(longitudes) - min(longitudes) < 11


@pytest.mark.parametrize(("place", "target"), [(UTM, "EPSG:3857"), (DEGREES, "EPSG:3857"), (UTM, "EPSG:4326")])
def test_it_is_drawn_and_sampled_on_both_sides(tmp_path, place, target):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32") * 0 + 7, **place)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target)
    west, south, east, north = result["bbox"]
    frame = Frame.around([result["bbox"]])
    for part in ([west, south, 180, north], [-180, south, east, north]):
        depths = np.full((frame.rows, frame.columns), np.nan, "float32")
        add_depths(depths, frame, result["path"], part)
        wide = (part[2] - part[0]) / (east + 360 - west)
        assert np.nanmax(depths) == 7
        assert np.isfinite(depths).mean() == pytest.approx(wide * 0.88, abs=0.1)
        with open_raster(result["path"]) as cog:
            place_of = np.array([[(part[0] + part[2]) / 2]]), np.array([[(south + north) / 2]])
            assert sample(cog, *place_of)[0, 0] == 7


@pytest.mark.parametrize("target", ["EPSG:3857", "EPSG:3395"])
@pytest.mark.parametrize("place", [WORLD, FROM_ZERO])
def test_a_whole_world_ends_where_mercator_does(tmp_path, place, target):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **place)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target)
    assert any("16 of its 300 rows lie beyond 85.06 degrees of latitude" in each for each in result["changed"])
    assert result["bbox"] == pytest.approx([-180, -85.06, 180, 85.06], abs=0.1)
    assert result["geometry"]["type"] == "Polygon"
    with rasterio.open(result["path"]) as cog:
        assert (cog.dataset_mask() > 0).mean() > 0.99


@pytest.mark.parametrize("options", [{"target_crs": "EPSG:4326"}, {"web_optimized": True}])
def test_the_grid_is_found_once(tmp_path, monkeypatch, options):
    """Its header decides about the place of a raster: a plan that is made after its pixels were read has the same."""
    plans = []

    def make(*given):
        plans.append(plan.make_plan(*given))
        return plans[-1]

    for module in (convert, header_check):
        monkeypatch.setattr(module, "make_plan", make)
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"))
    convert_raster(str(path), str(tmp_path / "out"), **options)
    first, last = plans
    assert last.placement is first.placement
    with open_raster(str(path)) as dataset:
        again = plan.make_plan(str(path), dataset, read_facts(dataset), plan.ConversionOptions(**options))
    assert again == last


def test_what_lies_beyond_mercator_alone_is_refused(tmp_path):
    place = {"crs": "EPSG:4326", "transform": from_bounds(10, 86, 20, 89, SIDE, SIDE)}
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **place)
    for options in ({"target_crs": "EPSG:3857"}, {"web_optimized": True}):
        with pytest.raises(UnusableRaster, match=r"beyond 85\.06 degrees of latitude, where Mercator ends"):
            convert_raster(str(path), str(tmp_path / "out"), **options)


@pytest.mark.parametrize(
    ("place", "options", "advice"),
    [
        (UTM, {"web_optimized": True}, "set target_crs to EPSG:3857 in the place of web_optimized"),
        (UTM, {"target_crs": "ESRI:54009"}, "choose a target_crs of its region"),
        ({**WEST, "crs": "EPSG:4269"}, {"target_crs": "EPSG:3857"}, "choose a target_crs of its region"),
        (WORLD, {"target_crs": "EPSG:3413"}, "choose a target_crs of its region"),
    ],
    ids=["web", "mollweide", "another datum", "world to pole"],
)
def test_what_no_grid_holds_is_refused_with_what_to_choose(tmp_path, place, options, advice):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **place)
    with pytest.raises(UnusableRaster, match=advice):
        convert_raster(str(path), str(tmp_path / "out"), **options)


def test_a_raster_of_another_datum_beyond_180_degrees_keeps_its_longitudes(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **{**WEST, "crs": "EPSG:4269"})
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")
    assert result["bbox"] == pytest.approx([170, -10, -170, 10], abs=0.1)


def test_pixels_that_are_much_wider_than_high_are_the_reason(tmp_path):
    path = write_raster(
        tmp_path / "a.tif", pixels_of("float32"), transform=Affine(1000, 0, 600_000, 0, -0.5, 3_300_000)
    )
    with pytest.raises(
        UnusableRaster, match=r"as its pixels are no squares \(1000 x 0.5\); give it such first \(gdalwarp -tr\)"
    ):
        convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")


# A satellite's view of the whole disk: the globe ends inside of the grid.
DISK = {
    "crs": "+proj=geos +h=35785831 +lon_0=0 +sweep=y +ellps=GRS80",
    "transform": from_bounds(*[-5.5e6] * 2, *[5.5e6] * 2, 100, 100),
}


@pytest.mark.parametrize(("target", "north"), [("EPSG:4326", 79), ("EPSG:6933", 79), ("EPSG:3035", 79)])
def test_all_of_a_satellites_disk_has_a_place(tmp_path, target, north):
    """GDAL looks at 21 by 21 places of it, and would leave out all beyond 64 degrees of latitude."""
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=100) + 1, **DISK)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target, resampling="nearest")
    assert result["bbox"][1] < -north
    assert result["bbox"][3] > north


def test_the_outermost_rows_have_a_place_where_the_target_makes_them_narrow(tmp_path):
    """GDAL rounds the height of its grid, and half of its pixels at a pole are many rows of degrees."""
    place = {"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 180, 90, 720, 360)}
    path = write_raster(tmp_path / "a.tif", np.ones((1, 360, 720), "float32"), **place)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:6933", resampling="nearest")
    assert result["bbox"][1] < -89


def test_what_cannot_be_added_to_the_grid_is_reported(tmp_path, monkeypatch):
    """Where a projection has no end, a grid that has all of a source would be too large."""
    monkeypatch.setattr(target_grid, "MOST_LARGER", 1)
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=100), **DISK)
    with open_raster(str(path)) as dataset:
        assert target_grid.whole_grid(dataset, rasterio.CRS.from_epsg(4326)) == (None, True)


def test_all_of_a_satellites_disk_is_on_web_maps(tmp_path):
    """GDAL's grid ends at 64 degrees of latitude, in the tiles that end at 66."""
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=100) + 1, **DISK)
    with open_raster(str(path)) as dataset:
        grid = web_grid(dataset, 16)
    assert grid.transform.f > 15e6


@pytest.mark.parametrize("crs", ["EPSG:4269", "+proj=longlat +R=6371229"])
def test_a_region_beyond_180_degrees_on_another_datum_is_put_on_web_maps(tmp_path, crs):
    place = {"crs": crs, "transform": from_bounds(260, 30, 270, 40, SIDE, SIDE)}
    path = write_raster(tmp_path / "a.tif", pixels_of("float32") + 1, **place)
    result = convert_raster(str(path), str(tmp_path / "out"), web_optimized=True, resampling="nearest")
    with rasterio.open(result["path"]) as cog:
        found = np.where(cog.read_masks(1) > 0, cog.read(1), np.nan)
        expected, is_near_edge = expected_of(cog, path)
    assert np.array_equal(found[~is_near_edge], expected[~is_near_edge], equal_nan=True)
    assert np.isfinite(found).sum() > 10_000


@pytest.mark.parametrize("crs", ["EPSG:4269", "+proj=longlat +R=6371229"])
def test_a_world_from_zero_on_another_datum_is_refused_for_web_maps(tmp_path, crs):
    """Half of it was missing, and the proof took that for the way between the datums."""
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **{**FROM_ZERO, "crs": crs})
    with pytest.raises(UnusableRaster, match="reproject it to EPSG:4326 first"):
        convert_raster(str(path), str(tmp_path / "out"), web_optimized=True)


def test_a_world_with_columns_twice_is_not_reprojected(tmp_path):
    place = {"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 181, 90, 361, 180)}
    path = write_raster(tmp_path / "a.tif", np.ones((1, 180, 361), "float32"), **place)
    with pytest.raises(UnusableRaster, match=r"more than once .*361 columns.* -srcwin 0 0 360 180"):
        convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:6933")


@pytest.mark.parametrize("place", [WORLD, FROM_ZERO], ids=["from -180", "from 0"])
def test_a_small_world_is_compared_where_neither_pole_nor_seam_is(tmp_path, place):
    """One window has all of it: pixels at a pole are far apart in the source, and the others are not."""
    west, _, east, _ = (-180, 0, 180, 0) if place is WORLD else (0, 0, 360, 0)
    path = write_raster(
        tmp_path / "a.tif",
        pixels_of("float32", side=80)[:, :60],
        crs="EPSG:4326",
        transform=from_bounds(west, -90, east, 90, 80, 60),
    )
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:6933")
    assert result["verification"]["agreement"]["pixels"] > 2000


@pytest.mark.parametrize("options", [{"target_crs": "EPSG:6933"}, {"web_optimized": True}])
def test_the_target_is_at_fault_where_a_raster_has_no_place_in_it(tmp_path, options):
    place = {"crs": "+proj=laea +lat_0=90 +datum=WGS84", "transform": from_bounds(*[-12e6] * 2, *[12e6] * 2, 60, 60)}
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=60), **place)
    with pytest.raises(UnusableRaster, match=r"its edge.*choose a target_crs"):
        convert_raster(str(path), str(tmp_path / "out"), **options)


BAND = {"crs": "EPSG:4326", "transform": from_bounds(-180, -75, 180, 75, 288, 120)}
BAND_FROM_ZERO = {"crs": "EPSG:4326", "transform": from_bounds(0, -75, 360, 75, 288, 120)}
REGION = {"crs": "EPSG:4326", "transform": from_bounds(5.03, 47.11, 9.87, 50.42, 288, 120)}
SOUTH = {"crs": "EPSG:32733", "transform": Affine(31, 0, 300_000, 0, -29, 6_300_000)}


@pytest.mark.parametrize(
    ("place", "options"),
    [
        *((BAND, {"target_crs": target}) for target in ("EPSG:3857", "EPSG:3395", "EPSG:6933", "EPSG:4269")),
        *((BAND_FROM_ZERO, {"target_crs": target}) for target in ("EPSG:3857", "EPSG:6933")),
        *((REGION, {"target_crs": target}) for target in ("EPSG:3857", "EPSG:32632", "EPSG:3035", "EPSG:4269")),
        *((SOUTH, {"target_crs": target}) for target in ("EPSG:4326", "EPSG:3857", "EPSG:32734")),
        *((place, {"web_optimized": True}) for place in (BAND, BAND_FROM_ZERO, REGION, SOUTH)),
    ],
)
def test_the_grid_reaches_to_each_edge_of_the_source(tmp_path, place, options):
    """GDAL rounds the size of its grid: up to half a pixel of any raster was outside, and of a world at 180 degrees."""
    path = write_raster(tmp_path / "a.tif", pixels_of("float32")[:, :120, :288] + 1, **place)
    result = convert_raster(str(path), str(tmp_path / "out"), resampling="nearest", **options)
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        across, down = np.linspace(0, source.width, 5001), np.linspace(0, source.height, 5001)
        columns = np.concatenate([across, across, 0 * down, 0 * down + source.width])
        rows = np.concatenate([0 * across, 0 * across + source.height, down, down])
        way = pyproj.Transformer.from_crs(source.crs.to_wkt(), cog.crs.to_wkt(), always_xy=True)
        x, y = way.transform(*(source.transform @ (columns, rows)))
        left, bottom, right, top = cog.bounds
        if place is BAND_FROM_ZERO:
            # Of a turn, every longitude is there.
            x = np.array([-1, 1]) * (180 if cog.crs.is_geographic else way.transform(180, 0)[0])
        tolerance = 2e-3 * cog.transform.a
        assert left <= x.min() + tolerance
        assert right >= x.max() - tolerance
        assert bottom <= y.min() + tolerance
        assert top >= y.max() - tolerance
        beyond = 512 if options.get("web_optimized") else 1.01
        assert max(x.min() - left, right - x.max(), y.min() - bottom, top - y.max()) < beyond * cog.transform.a


@pytest.mark.parametrize("place", [BAND, BAND_FROM_ZERO], ids=["from -180", "from 0"])
@pytest.mark.parametrize("target", ["EPSG:3857", "EPSG:3395", "EPSG:6933"])
def test_a_world_s_columns_are_a_turn_and_each_has_values(tmp_path, place, target):
    pixels = np.broadcast_to(np.arange(1, 289, dtype="float32"), (1, 120, 288))
    path = write_raster(tmp_path / "a.tif", pixels, **place)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target, resampling="nearest")
    half = pyproj.Transformer.from_crs("EPSG:4326", target, always_xy=True).transform(180, 0)[0]
    with rasterio.open(result["path"]) as cog:
        assert (cog.bounds.left, cog.bounds.right) == pytest.approx((-half, half))
        row = np.where(cog.read_masks(1) > 0, cog.read(1), 0)[cog.height // 2]
    step = 360 / row.size
    longitude = -180 + step * (np.arange(row.size) + 0.5)
    expected = (longitude - (0 if place is BAND_FROM_ZERO else -180)) % 360 / 1.25
    # GDAL's approximation of places is good to an eighth of a pixel.
    assert np.all(np.abs(row - 0.5 - expected) < 0.5 + 0.13)


@pytest.mark.parametrize(("half", "side"), [(9e6, 60), (9e6, 150), (3e6, 100)])
def test_its_pixels_cover_as_much_as_those_of_the_source(tmp_path, half, side):
    """GDAL took 800 times as many around the antipode of EPSG:3035. Both projections keep areas."""
    wkt = rasterio.CRS.from_epsg(3035).to_wkt().replace('"latitude_of_center",52', '"latitude_of_center",90')
    wkt = wkt.replace("4321000", "0").replace("3210000", "0").replace(',AUTHORITY["EPSG","3035"]', "")
    place = {"crs": wkt, "transform": from_bounds(*[-half] * 2, *[half] * 2, side, side)}
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=side) + 1, **place)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:3035", resampling="nearest")
    pixel = result["transform"][0]
    assert pixel**2 == pytest.approx((2 * half / side) ** 2, rel=0.5)
    with rasterio.open(result["path"]) as cog:
        # As large an area in all, which reaches to where the globe ends.
        assert (cog.dataset_mask() > 0).sum() * pixel**2 == pytest.approx(4 * half**2, rel=0.03)
