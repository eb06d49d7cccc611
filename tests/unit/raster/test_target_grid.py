"""A raster over the seam of its target, or beyond the end of Mercator, is put on a grid of our own."""

import re

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.transform import Affine, from_bounds

from jobs.flood_risk_cog import convert, header_check, plan, target_grid
from jobs.flood_risk_cog.convert import DifferentOutput, convert_raster
from jobs.flood_risk_cog.depth_grid import add_depths
from jobs.flood_risk_cog.facts import read_facts
from jobs.flood_risk_cog.ground import around, same_datum, sides
from jobs.flood_risk_cog.picture_frame import Frame
from jobs.flood_risk_cog.plan import UnusableRaster
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.tiles import sample
from jobs.flood_risk_cog.web_grid import web_grid
from tests.unit.raster.made import SIDE, pixels_of, write_raster

UTM = {"crs": "EPSG:32760", "transform": Affine(60, 0, 815_500, 0, -60, 8_170_000)}
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
        with np.errstate(invalid="ignore"):
            column, row = ~source.transform @ (lon, lat)
        inside = (column >= 0) & (row >= 0) & (column < source.width) & (row < source.height)
        values = np.full(x.shape, np.nan)
        at = np.floor(row[inside]).astype(int), np.floor(column[inside]).astype(int)
        values[inside] = source.read(1)[at]
    # GDAL's approximation of places is good to an eighth of a pixel.
    with np.errstate(invalid="ignore"):
        is_near_edge = np.minimum(np.abs(column - np.round(column)), np.abs(row - np.round(row))) < 0.13
    return values, is_near_edge


@pytest.fixture(scope="module")
def reprojected(tmp_path_factory):
    """A raster at a place and its result by nearest in a target, once for the tests that look at them."""
    made = {}

    def reproject(place, target):
        key = (*place.values(), target)
        if key not in made:
            folder = tmp_path_factory.mktemp("reprojected")
            path = write_raster(folder / "a.tif", pixels_of("float32") + 1, **place)
            made[key] = path, convert_raster(str(path), str(folder / "out"), target_crs=target, resampling="nearest")
        return made[key]

    return reproject


@pytest.mark.parametrize(("place", "target"), [*OVER_THE_SEAM, (WORLD, "EPSG:3857"), (FROM_ZERO, "EPSG:3857")])
def test_every_pixel_is_that_of_its_place(reprojected, place, target):
    path, result = reprojected(place, target)
    with rasterio.open(result["path"]) as cog:
        found = np.where(cog.read_masks(1) > 0, cog.read(1), np.nan)
        expected, is_near_edge = expected_of(cog, path)
    sure = ~is_near_edge
    assert sure.sum() > 5000
    assert np.array_equal(found[sure], expected[sure], equal_nan=True)
    assert np.isfinite(found).sum() > 0.9 * SIDE * SIDE


@pytest.mark.parametrize(("place", "target"), OVER_THE_SEAM)
def test_its_footprint_is_two_polygons_and_its_box_is_narrow(reprojected, place, target):
    _, result = reprojected(place, target)
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
def test_a_whole_world_ends_where_mercator_does(reprojected, place, target):
    _, result = reprojected(place, target)
    assert any("8 of its 150 rows lie beyond 85.06 degrees of latitude" in each for each in result["changed"])
    assert result["bbox"] == pytest.approx([-180, -85.06, 180, 85.06], abs=0.2)
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


def test_gdal_is_asked_once_for_its_grid_around_rasters_in_one_place(tmp_path, monkeypatch):
    target_grid._kept_choice.cache_clear()
    ask, asked = target_grid.WarpedVRT, []
    monkeypatch.setattr(target_grid, "WarpedVRT", lambda *given, **named: asked.append(given) or ask(*given, **named))
    grids = []
    for name, side in (("a", 60), ("b", 60), ("c", 59)):
        path = write_raster(tmp_path / f"{name}.tif", pixels_of("float32", side=side))
        result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")
        grids.append((result["transform"], result["width"], result["height"]))
    assert len(asked) == 2
    assert grids[0] == grids[1] != grids[2]


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
        ({**WEST, "crs": "EPSG:4269"}, {"target_crs": "EPSG:3857"}, "reproject it to EPSG:4326 first"),
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
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=288)[:, :120] + 1, **place)
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


# One kilometre or more; around a pole, beside one, and in pixels that are no squares.
PRESSED = {
    "around a pole": {"crs": "EPSG:3413", "transform": from_bounds(-3.6e6, -4e6, 3.6e6, 4e6, 180, 200)},
    "at a pole": {"crs": "EPSG:3413", "transform": from_bounds(-1e5, -1e5, 1e5, 1e5, 180, 200)},
    "a pole at its corner": {"crs": "EPSG:3031", "transform": from_bounds(0, -2e6, 1.8e6, 0, 180, 200)},
    "in the north": {"crs": "EPSG:3413", "transform": Affine(1e4, 0, 5e5, 0, -1e4, 1.5e6)},
    "wide pixels": {"crs": "EPSG:32633", "transform": Affine(100, 0, 6e5, 0, -10, 5e6)},
    "high pixels": {"crs": "EPSG:32633", "transform": Affine(10, 0, 6e5, 0, -100, 5e6)},
}


@pytest.mark.parametrize("name", PRESSED)
def test_each_row_and_column_of_the_source_is_in_a_result_without_much_more_pixels(tmp_path, name):
    """GDAL's pixels are squares of one size: around a pole a row of them covered 4 to 90 of the source."""
    numbers = np.stack(np.meshgrid(np.arange(180), np.arange(200))).astype("int32")
    path = write_raster(tmp_path / "a.tif", numbers, **PRESSED[name])
    options = {"target_crs": "EPSG:4326", "resampling": "nearest", "kind": "continuous"}
    result = convert_raster(str(path), str(tmp_path / "out"), **options)
    assert result["width"] * result["height"] < 4 * 180 * 200
    with open_raster(str(path)) as source, rasterio.open(result["path"]) as cog:
        found = sides(source, cog.crs, cog.transform)
        values, valid = cog.read(), cog.read_masks(1) > 0
    assert max(found.across, found.down) < 2.5
    pairs = np.unique(values[0][valid] * 1000 + values[1][valid])
    assert pairs.size > 0.4 * 180 * 200


def test_detail_that_the_squares_of_web_maps_lose_is_named(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **PRESSED["wide pixels"])
    result = convert_raster(str(path), str(tmp_path / "out"), web_optimized=True)
    (note,) = [each for each in result["changed"] if "finer detail is not kept" in each]
    assert 2.5 < float(re.search(r"as long as ([\d.]+)", note)[1]) < 5


@pytest.mark.parametrize("options", [{"target_crs": "EPSG:3857"}, {"web_optimized": True}])
def test_pixels_beyond_the_end_of_mercator_are_named_where_no_whole_row_is(tmp_path, options):
    """Around a pole no row lies beyond it: the middle of the raster was left out in silence."""
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **PRESSED["around a pole"])
    result = convert_raster(str(path), str(tmp_path / "out"), **options)
    assert "pixels beyond 85.06 degrees of latitude are left out, as Mercator ends there" in result["changed"]


@pytest.mark.parametrize("target", ["EPSG:4326", "EPSG:3857", "EPSG:6933"])
@pytest.mark.parametrize(("west", "east"), [(-5.5e6, 5.5e6), (2e6, 5.5e6)], ids=["the disk", "its edge"])
def test_a_satellites_view_over_the_antimeridian_has_a_narrow_grid(tmp_path, target, west, east):
    """A part of it is off the globe. GDAL's grid is around the whole globe, with pixels up to seven times as large."""
    crs = "+proj=geos +h=35785831 +lon_0=140.7 +sweep=y +ellps=WGS84 +datum=WGS84"
    place = {"crs": crs, "transform": from_bounds(west, -3.5e6, east, 3.5e6, 150, 150)}
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=150) + 1, **place)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target, resampling="nearest")
    assert result["bbox"][0] > 50
    assert -145 < result["bbox"][2] < -130
    with open_raster(str(path)) as source, rasterio.open(result["path"]) as cog:
        assert (cog.read_masks(1) > 0).mean() > 0.5
        assert sides(source, cog.crs, cog.transform).mean < 1.5
        found = np.where(cog.read_masks(1) > 0, cog.read(1), np.nan)
        expected, is_near_edge = expected_of(cog, path)
    both = np.isfinite(found) & np.isfinite(expected) & ~is_near_edge
    assert both.sum() > 5000
    assert np.array_equal(found[both], expected[both])


SINUSOIDAL = pyproj.CRS("+proj=sinu +datum=WGS84").to_wkt()


@pytest.mark.parametrize("validity", ["none", "nodata", "nan", "alpha"])
@pytest.mark.parametrize("target", ["EPSG:8857", SINUSOIDAL], ids=["equal earth", "sinusoidal"])
def test_nothing_is_off_the_globe(tmp_path, target, validity):
    """PROJ counts longitudes on beyond the edge of these: corners had what is on the other side of the globe."""
    place = {"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 180, 90, 100, 100)}
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", validity, side=100), validity, **place)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target)
    with rasterio.open(result["path"]) as cog:
        columns, rows = np.meshgrid(np.arange(cog.width) + 0.5, np.arange(cog.height) + 0.5)
        x, y = cog.transform @ (columns, rows)
        way = pyproj.Transformer.from_crs("OGC:CRS84", cog.crs.to_wkt(), always_xy=True)
        edge, _ = way.transform(np.full(x.shape, 179.9999), way.transform(x, y, direction="INVERSE")[1])
        is_off = np.abs(x) > edge + 2 * cog.transform.a
        valid = cog.read(2) > 0 if validity == "alpha" else cog.read_masks(1) > 0
    assert is_off.mean() > 0.1
    assert not valid[is_off].any()
    assert valid[~is_off].mean() > 0.7


def test_what_is_put_off_the_globe_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.flood_risk_cog.write.end_of_globe", lambda _: None)
    place = {"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 180, 90, 100, 100)}
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=100), **place)
    with pytest.raises(DifferentOutput, match="valid where nothing of the original is"):
        convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:8857")


@pytest.mark.parametrize("longitude", [180, 150, 30.1234, -100, 0])
def test_the_middle_of_a_cylindrical_system_is_between_both_sides_of_its_seam(longitude):
    crs = rasterio.CRS.from_user_input(f"+proj=eqc +lon_0={longitude} +x_0=1000 +datum=WGS84")
    assert around(crs).middle == pytest.approx(1000, abs=1e-3)


def test_a_world_in_a_system_whose_seam_is_elsewhere_is_on_a_grid_of_its_size(tmp_path):
    """It was taken for one beyond its seam, and had 4.5 times the pixels and 0.3 rows too few."""
    crs = "+proj=eqc +lon_0=180 +datum=WGS84"
    place = {"crs": crs, "transform": from_bounds(-20_025_000, -9_975_000, 20_025_000, 9_975_000, 267, 133)}
    path = write_raster(tmp_path / "a.tif", np.ones((1, 133, 267), "float32"), **place)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326", resampling="nearest")
    assert (result["width"], result["height"]) == (267, 133)


@pytest.mark.parametrize("crs", ["EPSG:8857", "EPSG:4979", "EPSG:6933", "EPSG:32633"])
def test_a_datum_is_the_same_in_each_text_of_it(crs):
    """Places were not judged in systems that only WKT 2 can describe, where the datum is called an ensemble."""
    assert same_datum(rasterio.CRS.from_user_input(crs), rasterio.CRS.from_epsg(4326))
    assert not same_datum(rasterio.CRS.from_user_input(crs), rasterio.CRS.from_epsg(4258))


@pytest.mark.parametrize(
    ("crs", "half"), [(SINUSOIDAL, (20_037_508, 10_001_965)), ("ESRI:54030", (17_005_833, 8_625_155))]
)
@pytest.mark.parametrize("target", ["EPSG:3857", "EPSG:6933"])
def test_a_world_that_ends_in_a_curve_keeps_its_columns(tmp_path, crs, half, target):
    """Its corners off the globe counted as places: of 240 columns, 50 were left."""
    place = {"crs": crs, "transform": from_bounds(-half[0], -half[1], half[0], half[1], 120, 60)}
    path = write_raster(tmp_path / "a.tif", np.ones((1, 60, 120), "float32"), **place)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target, resampling="nearest")
    assert result["width"] > 90
    with rasterio.open(result["path"]) as cog:
        assert cog.bounds.right == pytest.approx(around(cog.crs).turn / 2, abs=0.01 * cog.transform.a)


def test_degrees_over_180_on_another_datum_are_refused_with_the_way_that_works(tmp_path):
    place = {"crs": "EPSG:4269", "transform": from_bounds(170, 50, 190, 65, SIDE, SIDE)}
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **place)
    with pytest.raises(UnusableRaster, match=r"across 180 degrees and on another datum .* to EPSG:4326 first"):
        convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:3857")
    first = convert_raster(str(path), str(tmp_path / "first"), target_crs="EPSG:4326")
    convert_raster(first["path"], str(tmp_path / "out"), target_crs="EPSG:3857")


@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_a_grid_that_is_rotated_by_a_rounded_digit_is_taken(tmp_path, target):
    """By less than a thousandth of a pixel in all; more is refused."""
    for skew, is_taken in ((1e-5, True), (1e-4, False)):
        place = {"transform": Affine(10, skew, 600_000, -skew, -10, 3_300_000)}
        path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **place)
        if is_taken:
            convert_raster(str(path), str(tmp_path / "out"), target_crs=target)
            continue
        with pytest.raises(UnusableRaster, match="its grid is rotated or skewed"):
            convert_raster(str(path), str(tmp_path / "out"), target_crs=target)


@pytest.mark.parametrize(("crs", "target"), [("EPSG:5041", "EPSG:32661"), ("EPSG:32761", "EPSG:5042")])
def test_systems_that_differ_in_the_order_of_their_axes_have_the_same_places(tmp_path, crs, target):
    """Files have x before y whatever the order of the axes is, and PROJ changes them between such systems."""
    place = Affine(100, 0, 2_274_000, 0, -100, 1_522_000)
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", side=60), crs=crs, transform=place)
    result = convert_raster(str(path), str(tmp_path / "cogs"), target_crs=target, resampling="nearest")
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        assert cog.crs.to_string() == target
        assert cog.transform.almost_equals(place, 1e-6)
        assert np.array_equal(cog.read(), source.read())


@pytest.mark.parametrize("validity", ["none", "nodata", "alpha"])
def test_a_mode_of_minus_one_is_a_value(tmp_path, validity):
    """GDAL's mode takes -1 for no value: such pixels had none."""
    pixels = np.where(
        pixels_of("int16", validity, side=40) == 99, 99, np.indices((40, 40)).sum(axis=0) // 3 % 2 * 2 - 1
    )
    place = Affine(0.002, 0, 8.9, 0, -0.002, 47.1)
    path = write_raster(tmp_path / "a.tif", pixels.astype("int16"), validity, crs="EPSG:4326", transform=place)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:8857", resampling="mode")
    with rasterio.open(result["path"]) as cog:
        valid = cog.read(cog.count) > 0 if validity == "alpha" else cog.read_masks(1) > 0
        assert set(np.unique(cog.read(1)[valid])) == {-1, 1}
    assert "nearest in the place of mode, for which GDAL takes -1 for no value" in result["changed"]


def test_a_pixel_at_the_end_of_the_globe_has_the_value_of_its_middle(tmp_path):
    path = write_raster(
        tmp_path / "a.tif",
        np.full((1, 147, 251), 10, "float32"),
        crs="EPSG:4326",
        transform=Affine(0.0665374, 0, 172.036, 0, -0.0665374, -11.6162),
    )
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="ESRI:54009", resampling="average")
    assert "pixels at the end of the globe, over its seam or a pole have the value of their middle" in result["changed"]


@pytest.mark.parametrize(("target", "rows"), [("EPSG:3413", 40), ("ESRI:54030", 90), ("EPSG:8857", 90)])
def test_areas_do_not_go_around_the_globe(tmp_path, target, rows):
    """Over the seam of the source GDAL takes whole rows for a pixel, and at the end of the globe its other side."""
    pixels = np.full((1, rows, 180), 10, "float32")
    pixels[:, :, 90:] = 200
    path = write_raster(tmp_path / "a.tif", pixels, crs="EPSG:4326", transform=Affine(2, 0, -180, 0, -2, 90))
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target, resampling="average")
    with rasterio.open(result["path"]) as cog:
        columns, rows = np.meshgrid(np.arange(cog.width) + 0.5, np.arange(cog.height) + 0.5)
        to_degrees = pyproj.Transformer.from_crs(cog.crs, "OGC:CRS84", always_xy=True)
        longitude, latitude = to_degrees.transform(*(cog.transform @ (columns, rows)))
        away = (cog.read_masks(1) > 0) & (np.abs(longitude) > 10) & (np.abs(latitude) < 85)
        assert set(np.unique(cog.read(1)[away])) == {10, 200}
        assert away.sum() > 1000
