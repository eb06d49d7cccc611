"""Rare values and kinds of validity are kept as they are, and not refused."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from jobs.flood_risk_cog.convert import convert_raster
from tests.unit.raster.made import pixels_of, write_raster


def test_nan_of_another_pattern_of_bits_is_the_same_value(tmp_path):
    pixels = pixels_of("float32")
    pixels.view("uint32")[0, 10:20, 10:20] = 0xFFC00000
    path = write_raster(tmp_path / "a.tif", pixels, "nan")
    result = convert_raster(str(path), str(tmp_path / "out"), compression="lerc")
    assert result["verification"]["values"] == "identical"


@pytest.mark.parametrize("target", [None, "EPSG:4326"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_alpha_hides_beside_nodata(tmp_path, dtype, target):
    path = write_raster(tmp_path / "a.tif", pixels_of(dtype, "nodata"), "alpha", nodata=99)
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[1] is ColorInterp.alpha
        shown = (dataset.read(1) != 99) & (dataset.read(2) > 0)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target)
    assert result["verification"]["valid_pixels"]["source"][0] == shown.sum()
    assert result["statistics"]["valid_pixels"] == shown.sum()


def test_where_pixels_of_the_old_grid_lie_is_not_copied_to_the_new_one(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="GEOLOCATION", X_DATASET="x.tif", LINE_STEP="1")
        dataset.update_tags(ns="OURS", KEPT="1")
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")
    with rasterio.open(result["path"]) as cog:
        assert cog.tags(ns="GEOLOCATION") == {}
        assert cog.tags(ns="OURS") == {"KEPT": "1"}
    assert "GEOLOCATION:LINE_STEP" in result["verification"]["lost"]


def test_values_near_the_limit_of_their_type_are_not_summed(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.full((1, 1100, 1100), 3e38, "float32"))
    assert convert_raster(str(path), str(tmp_path / "out"))["resampling"]["overviews"] == "nearest"


def test_that_the_lowest_value_is_white_is_named_as_lost(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8"), photometric="MINISWHITE")
    assert "that its lowest value is white" in convert_raster(str(path), str(tmp_path / "out"))["verification"]["lost"]
