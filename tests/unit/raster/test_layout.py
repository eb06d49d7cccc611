"""The verdict on a written file, beside that of rio-cogeo."""

import shutil

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy
from rio_cogeo.cogeo import cog_validate

from jobs.flood_risk_cog.layout import find_layout_problems
from tests.unit.raster.made import PLACE, pixels_of, write_raster

TILES = {"tiled": True, "blockxsize": 256, "blockysize": 256}


@pytest.fixture(scope="module")
def cog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout")
    source = write_raster(folder / "a.tif", pixels_of("uint8", side=700), "mask")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        copy(source, folder / "cog.tif", driver="COG", BLOCKSIZE=256)
    return folder / "cog.tif"


def verdict_of_rio_cogeo(path):
    valid, _, _ = cog_validate(str(path), strict=True, quiet=True)
    return valid


def test_a_cog_with_a_mask_and_overviews_is_one(cog):
    assert find_layout_problems(str(cog)) == []
    assert verdict_of_rio_cogeo(cog)


def test_a_cog_without_a_value_is_one(tmp_path):
    source = write_raster(tmp_path / "a.tif", np.full((1, 700, 700), 99, "uint8"), "nodata", sparse_ok=True)
    copy(source, tmp_path / "cog.tif", driver="COG", BLOCKSIZE=256, SPARSE_OK=True)
    assert find_layout_problems(str(tmp_path / "cog.tif")) == []
    assert verdict_of_rio_cogeo(tmp_path / "cog.tif")


@pytest.mark.parametrize(
    ("profile", "problem"),
    [
        ({}, "the full size is not tiled"),
        (TILES, "expected overviews of an image of 700 x 700, found none"),
    ],
)
def test_a_plain_tiff_is_none(tmp_path, profile, problem):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", side=700), **profile)
    assert problem in find_layout_problems(str(path))
    assert not verdict_of_rio_cogeo(path)


def test_overviews_that_came_later_are_behind_the_data(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", side=700), **TILES)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    assert "the data of the full size (image) are before those of overview 1" in find_layout_problems(str(path))
    assert not verdict_of_rio_cogeo(path)


def test_a_cog_that_was_changed_is_none_any_more(cog, tmp_path):
    path = shutil.copy(cog, tmp_path / "a.tif")
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK=True) as dataset:
        dataset.write(np.random.default_rng(1).integers(0, 255, (700, 700), "uint8"), 1)
    assert any("changed after it was written" in each for each in find_layout_problems(path))
    assert not verdict_of_rio_cogeo(path)


def test_two_pages_and_no_tiff_are_none(tmp_path):
    path = tmp_path / "a.tif"
    for number in range(2):
        with rasterio.open(
            path, "w", driver="GTiff", width=9, height=9, count=1, dtype="uint8", transform=PLACE,
            APPEND_SUBDATASET=bool(number), **TILES
        ) as page:  # fmt: skip
            page.write(np.ones((1, 9, 9), "uint8"))
    assert any("found another order or more images" in each for each in find_layout_problems(str(path)))
    path.write_text("no TIFF")
    assert find_layout_problems(str(path)) == ["it is no TIFF"]
