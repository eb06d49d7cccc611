"""Map tiles of COGs, compared with their values."""

import base64
import io
import math

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject

from jobs.flood_risk_cog import tiles
from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.panels import DEEP
from jobs.flood_risk_cog.preview import box_of_tile
from jobs.flood_risk_cog.quicklook import GROUND
from jobs.flood_risk_cog.tiles import SIDE, depths_of, draw_tile, values_at
from jobs.flood_risk_cog.web_grid import HALF_WORLD


def tile_of(longitude, latitude, zoom):
    """Column and row of the tile that holds a place."""
    x = (longitude + 180) / 360
    y = (1 - math.asinh(math.tan(math.radians(latitude))) / math.pi) / 2
    return int(x * 2**zoom), int(y * 2**zoom)


def place_of(zoom, column, row):
    """The transform of a tile's pixels in Web Mercator."""
    tile = 2 * HALF_WORLD / 2**zoom
    pixel = tile / SIDE
    return Affine(pixel, 0, column * tile - HALF_WORLD, 0, -pixel, HALF_WORLD - row * tile)


@pytest.fixture
def cog(make_raster, tmp_path):
    def make(**options):
        source = make_raster(
            nodata=options.pop("nodata", None), pixels=options.pop("pixels", None), **options.pop("profile", {})
        )
        return convert_raster(source, str(tmp_path / "cogs"), **options)["path"]

    return make


def test_a_tile_of_a_cog_on_the_web_grid_has_exactly_its_pixels(cog):
    path = cog(web_optimized=True, tile_size=256)
    with rasterio.open(path) as dataset:
        zoom = round(math.log2(2 * HALF_WORLD / 256 / dataset.transform.a))
        tile = 2 * HALF_WORLD / 2**zoom
        column = round((dataset.bounds.left + HALF_WORLD) / tile) + 1
        row = round((HALF_WORLD - dataset.bounds.top) / tile) + 1
        expected = dataset.read(1, window=((256, 512), (256, 512)), masked=True).astype(float).filled(np.nan)
    found, problems = depths_of([path], zoom, column, row)
    assert problems == []
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(found).any()


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32614"])
def test_a_tile_is_what_a_warp_by_nearest_gives(cog, crs):
    path = cog(target_crs=crs)
    zoom = 14
    with rasterio.open(path) as dataset:
        west, south, east, north = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
        column, row = tile_of((west + east) / 2, (south + north) / 2, zoom)
        expected = np.full((SIDE, SIDE), np.nan)
        reproject(
            dataset.read(1, masked=True).astype(float).filled(np.nan),
            expected,
            src_transform=dataset.transform,
            src_crs=dataset.crs,
            src_nodata=np.nan,
            dst_transform=place_of(zoom, column, row),
            dst_crs="EPSG:3857",
            dst_nodata=np.nan,
            resampling=Resampling.nearest,
            tolerance=0,
        )
    found, _ = depths_of([path], zoom, column, row)
    both = np.isfinite(found) & np.isfinite(expected)
    assert both.mean() > 0.9
    assert (np.isfinite(found) == np.isfinite(expected)).mean() > 0.999
    # A centre on the border of two pixels may be taken for either.
    assert (found[both] == expected[both].astype("float32")).mean() > 0.99


def test_a_tile_from_far_away_is_read_from_an_overview(cog, monkeypatch):
    pixels = np.full((1, 4000, 4000), 2, dtype="float32")
    path = cog(pixels=pixels)
    reads = []
    read = tiles._read

    def noted(dataset, window):
        found = read(dataset, window)
        reads.append(found.shape)
        return found

    monkeypatch.setattr(tiles, "_read", noted)
    found, problems = depths_of([path], 8, *tile_of(-97.7, 29.6, 8))
    assert problems == []
    assert reads
    assert max(reads[0]) <= tiles.MOST_SIDE
    assert np.nanmax(found) == 2


def test_a_file_without_overviews_is_not_read_whole(make_raster):
    """It stands where a COG was, and would have to be decoded whole for one tile."""
    pixels = np.zeros((1, 5000, 5000), dtype="uint8")
    path = make_raster(pixels=pixels, tiled=True, blockxsize=256, blockysize=256)
    _, problems = depths_of([path], 6, *tile_of(-97.7, 29.6, 6))
    assert len(problems) == 1
    assert "overviews" in problems[0]


def test_nodata_is_transparent_dry_is_ground_and_the_deepest_is_darkest(cog):
    pixels = np.zeros((1, 900, 900), dtype="float32")
    pixels[0, :300], pixels[0, 600:] = -9999, 3
    path = cog(pixels=pixels, nodata=-9999)
    with rasterio.open(path) as dataset:
        west, south, east, north = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    zoom = 12
    column, row = tile_of((west + east) / 2, (south + north) / 2, zoom)
    answer = draw_tile([path], zoom, column, row, 3.0)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["png"]))))
    colours = {tuple(colour) for colour in picture.reshape(-1, 4).tolist()}
    assert colours == {(0, 0, 0, 0), (*GROUND, tiles.DRY_OPACITY), (*DEEP, 255)}


def test_the_deepest_of_several_rasters_is_on_top(make_raster, tmp_path):
    paths = []
    for name, depth in (("a.tif", 1.0), ("b.tif", 4.0), ("c.tif", 2.0)):
        source = make_raster(name, np.full((1, 300, 300), depth, dtype="float32"))
        paths.append(convert_raster(source, str(tmp_path / "cogs"))["path"])
    found, _ = depths_of(paths, 12, *tile_of(-97.96, 29.81, 12))
    assert np.nanmin(found) == np.nanmax(found) == 4


def test_scale_offset_and_unit_are_applied(make_raster, tmp_path):
    source = make_raster(pixels=np.full((1, 300, 300), 50, dtype="int16"))
    with rasterio.open(source, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.units = (2.0,), (10.0,), ("cm",)
    path = convert_raster(source, str(tmp_path / "cogs"), kind="continuous")["path"]
    with rasterio.open(path) as dataset:
        (longitude,), (latitude,) = rasterio.warp.transform(dataset.crs, "EPSG:4326", [601_000], [3_299_000])
    (value,) = values_at([path], longitude, latitude)["values"]
    assert value == {"value": pytest.approx(1.1), "unit": "m"}


@pytest.mark.parametrize("left", [179.0, -181.0, 539.0])
def test_both_sides_of_the_antimeridian_are_drawn(make_raster, left):
    source = make_raster(
        pixels=np.full((1, 200, 200), 1, dtype="float32"), crs="EPSG:4326", transform=Affine(0.01, 0, left, 0, -0.01, 1)
    )
    for column in (255, 0):
        found, _ = depths_of([source], 8, column, 127)
        assert np.isfinite(found).any()
    west = box_of_tile(8, 0, 127)[0]
    assert values_at([source], west + 0.5, 0.5)["values"][0]["value"] == 1


def test_a_file_that_is_no_raster_is_named_and_the_others_are_drawn(cog, tmp_path):
    path = cog()
    broken = tmp_path / "broken.tif"
    broken.write_text("<VRTDataset/>")
    with rasterio.open(path) as dataset:
        west, south, east, north = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    answer = draw_tile([str(broken), path], 13, *tile_of((west + east) / 2, (south + north) / 2, 13), 4.0)
    assert len(answer["problems"]) == 1
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["png"])))).any()
