"""A web-optimized COG lies on whole tiles of a web map; morecantile knows where these are."""

import morecantile
import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.transform import Affine, from_bounds

from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.overlaps import overlapping
from jobs.flood_risk_cog.plan import ConversionOptions, UnusableRaster
from tests.unit.raster.made import SIDE, pixels_of, write_raster

TILES = morecantile.tms.get("WebMercatorQuad")


@pytest.mark.parametrize("tile_size", [256, 512])
@pytest.mark.parametrize(
    "place",
    [
        {},
        {"crs": "EPSG:4326", "transform": from_bounds(6, 50, 6.5, 50.4, SIDE, SIDE)},
        {"crs": "EPSG:3857", "transform": Affine(19.1, 0, 700_000, 0, -19.1, 6_500_000)},
    ],
    ids=["utm", "degrees", "mercator"],
)
def test_its_tiles_are_tiles_of_the_map(tmp_path, tile_size, place):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", "nodata"), "nodata", **place)
    result = convert_raster(str(path), str(tmp_path / "out"), web_optimized=True, tile_size=tile_size)
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        assert cog.crs.to_epsg() == 3857
        zoom = result["web_zoom"]
        # Tiles of 256 pixels have the resolution of the zoom; tiles of 512 that of the next.
        matrix = TILES.matrix(zoom)
        assert cog.res[0] == pytest.approx(matrix.cellSize * 256 / tile_size)
        assert (cog.width % tile_size, cog.height % tile_size) == (0, 0)
        for corner in ((cog.bounds.left, cog.bounds.top), (cog.bounds.right, cog.bounds.bottom)):
            tiles = [(corner[0] + 20037508.342789244) / (cog.res[0] * tile_size), (20037508.342789244 - corner[1])]
            tiles[1] /= cog.res[0] * tile_size
            assert np.allclose(tiles, np.round(tiles), atol=1e-6)
        # The nearest zoom: at most the square root of two finer or coarser than the source in the middle.
        grid, _, _ = rasterio.warp.calculate_default_transform(
            source.crs, cog.crs, source.width, source.height, *source.bounds
        )
        assert 0.7 <= grid.a / cog.res[0] <= 1.42
        assert (cog.read_masks(1) > 0).any()
    assert result["verification"]["values"] == "reprojected"


def test_it_takes_the_place_of_a_target_crs():
    ConversionOptions(target_crs="EPSG:3857", web_optimized=True)
    with pytest.raises(ValueError, match="expected web_optimized without target_crs"):
        ConversionOptions(target_crs="EPSG:4326", web_optimized=True)


def test_the_poles_are_not_in_the_world_of_web_maps(tmp_path):
    place = {"crs": "EPSG:4326", "transform": from_bounds(0, 86, 1, 87, SIDE, SIDE)}
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **place)
    with pytest.raises(UnusableRaster, match=r"beyond 85\.06 degrees of latitude"):
        convert_raster(str(path), str(tmp_path / "out"), web_optimized=True)


@pytest.mark.parametrize("west", [300, -195, 150])
def test_longitudes_beyond_half_a_turn_are_put_on_the_web_s_own_tiles(tmp_path, west):
    """Tiles reach beyond the raster: what lies there is beside it, and not a turn of the globe away."""
    place = Affine(0.01, 0, west, 0, -0.01, 10)
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), "nodata", crs="EPSG:4326", transform=place)
    result = convert_raster(str(path), str(tmp_path / "out"), web_optimized=True)
    assert result["bbox"][0] <= (west + 180) % 360 - 180 <= result["bbox"][2]
    assert result["verification"]["agreement"]["pixels"] > 0


def test_few_large_pixels_are_compared_with_their_source(tmp_path):
    """On a grid around the whole globe the places of most pixels are far from the source, with endless steps."""
    place = Affine(100_000, 0, 400_000, 0, -100_000, 3_300_000)
    path = write_raster(tmp_path / "a.tif", np.arange(6, dtype="float32").reshape(1, 2, 3), transform=place)
    result = convert_raster(str(path), str(tmp_path / "out"), web_optimized=True)
    assert result["verification"]["agreement"]["pixels"] > 0


@pytest.mark.parametrize("off", [0, 4e-4, -4e-4], ids=["exact", "a digit more", "a digit less"])
@pytest.mark.parametrize(("zoom", "column", "row"), [(6, 33, 21), (15, 17_000, 11_000)])
def test_a_raster_on_the_grid_already_keeps_its_tiles(tmp_path, zoom, column, row, off):
    """A rounded digit took in a row and a column of tiles more."""
    pixel = TILES.matrix(zoom).cellSize
    left, top = -20037508.342789244 + column * 256 * pixel, 20037508.342789244 - row * 256 * pixel
    place = Affine(pixel * (1 + off / 512), 0, left - off * pixel, 0, -pixel * (1 + off / 256), top + off * pixel)
    random = np.random.default_rng(0).integers(1, 90, (1, 256, 512)).astype("float32")
    path = write_raster(tmp_path / "a.tif", random, crs="EPSG:3857", transform=place)
    options = {"web_optimized": True, "tile_size": 256, "resampling": "nearest"}
    result = convert_raster(str(path), str(tmp_path / "out"), **options)
    assert (result["width"], result["height"]) == (512, 256)
    with rasterio.open(result["path"]) as cog:
        assert np.array_equal(cog.read(), random)
        assert cog.dataset_mask().all()


PLACES = [
    {"crs": "EPSG:4326", "transform": from_bounds(6, 50, 6.5, 50.4, SIDE, SIDE)},
    {"crs": "EPSG:32733", "transform": Affine(62, 0, 300_000, 0, -58, 6_300_000)},
    {"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 180, 90, SIDE, SIDE)},
]


@pytest.mark.parametrize("place", PLACES, ids=["degrees", "utm", "world"])
@pytest.mark.parametrize("options", [{"web_optimized": True}, {"target_crs": "EPSG:3857"}], ids=["tiles", "grid"])
def test_its_item_is_about_its_data_and_not_about_whole_tiles(tmp_path, place, options):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **place)
    result = convert_raster(str(path), str(tmp_path / "out"), **options)
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        along, no, end = np.linspace(0, SIDE, 2001), np.zeros(2001), np.full(2001, SIDE)
        columns, rows = np.concatenate([along, end, along[::-1], no]), np.concatenate([no, along, end, along[::-1]])
        way = pyproj.Transformer.from_crs(source.crs.to_wkt(), "OGC:CRS84", always_xy=True)
        lon, lat = way.transform(*(source.transform @ (columns, rows)))
        assert result["bounds"] == list(cog.bounds)
    # Mercator ends there, in the midst of a pixel.
    lat = np.clip(lat, -85.06, 85.06)
    near = 0.2 if place is PLACES[-1] else 0.1
    assert result["bbox"] == pytest.approx([lon.min(), lat.min(), lon.max(), lat.max()], abs=near)
    ring = np.array(result["geometry"]["coordinates"][0]).T
    assert area_of(*ring) == pytest.approx(area_of(lon, lat), rel=2e-3)


def area_of(x, y):
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def test_neighbours_on_tiles_do_not_overlap(tmp_path):
    """Their grids do, as both have the whole tile in which they meet."""
    results = []
    for name, west in (("a", 6.0), ("b", 6.5)):
        place = {"crs": "EPSG:4326", "transform": from_bounds(west, 50, west + 0.5, 50.4, SIDE, SIDE)}
        path = write_raster(tmp_path / f"{name}.tif", pixels_of("float32"), **place)
        results.append(convert_raster(str(path), str(tmp_path / "out"), web_optimized=True))
    assert overlapping(results) == []
    assert overlapping([results[0], {**results[0], "name": "again"}]) == [("a.tif", "again")]


@pytest.mark.parametrize("west", [19_990_000, -20_090_000, 20_090_000])
def test_web_mercator_beyond_its_seam_is_refused_by_the_header(make_raster, tmp_path, monkeypatch, west):
    """It was converted whole, and then half of its pixels had no place."""
    monkeypatch.setattr("jobs.flood_risk_cog.convert.write_warped", None)
    place = Affine(1000, 0, west, 0, -1000, 50_000)
    path = make_raster(pixels=np.ones((1, 100, 100), "float32"), crs="EPSG:3857", transform=place)
    with pytest.raises(
        UnusableRaster, match="across the antimeridian or beyond it, where web maps end; set target_crs"
    ):
        convert_raster(path, str(tmp_path / "out"), web_optimized=True)


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("asked", [{"web_optimized": True}, {"target_crs": "EPSG:6933"}])
def test_a_world_in_a_pixel_or_two_is_refused_with_what_to_do(make_raster, tmp_path, columns, asked):
    place = Affine(360 / columns, 0, -180, 0, -180, 90)
    path = make_raster(pixels=np.ones((1, 1, columns), "float32"), crs="EPSG:4326", transform=place)
    with pytest.raises(UnusableRaster, match="that few pixels of its own: divide them first"):
        convert_raster(path, str(tmp_path / "out"), **asked)
