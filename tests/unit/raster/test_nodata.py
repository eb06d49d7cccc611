"""A nodata value that the file does not mean, as GDAL reads its text, hides nothing in silence."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.facts import validity
from jobs.flood_risk_cog.plan import UnusableRaster
from jobs.flood_risk_cog.stac import item_of
from jobs.flood_risk_cog.tiff import nodata_text
from tests.unit.raster.made import pixels_of, write_nodata_text, write_raster


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("float32", "none"),
        ("float32", " "),
        ("float64", "-nan"),
        ("uint8", "0x10"),
        ("int64", "-9.223372036854776e18"),
        ("int64", "1e300"),
        ("uint64", "1.8446744073709552e+19"),
        ("uint64", "3.5"),
        ("uint64", "-1"),
    ],
)
def test_a_text_that_is_no_number_of_the_type_is_refused(tmp_path, dtype, text):
    path = write_nodata_text(write_raster(tmp_path / "a.tif", pixels_of(dtype)), text)
    with pytest.raises(UnusableRaster, match=r"its nodata is the text .*gdal_edit -unsetnodata"):
        convert_raster(str(path), str(tmp_path / "out"))


@pytest.mark.parametrize("text", ["-9999", " -9999.0 ", "-9999,5", "nan", "1.#QNAN", "-1.#IND", "1.#INF", "1e400", "0"])
def test_each_spelling_of_a_number_is_kept(tmp_path, text):
    path = write_nodata_text(write_raster(tmp_path / "a.tif", pixels_of("float32")), text)
    result = convert_raster(str(path), str(tmp_path / "out"))
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        assert repr(source.nodata) == repr(cog.nodata)
        assert np.array_equal(source.read_masks(), cog.read_masks())


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int64", -(2**63)), ("int64", 2**53 + 1), ("uint64", 2**64 - 1), ("uint64", 2**53 + 1)],
)
def test_nodata_of_64_bits_is_exact_in_the_result(tmp_path, dtype, value):
    pixels = pixels_of(dtype)
    pixels[0, :50] = value
    path = write_nodata_text(write_raster(tmp_path / "a.tif", pixels), str(value))
    result = convert_raster(str(path), str(tmp_path / "out"))
    assert json.loads(Path(result["path"]).with_suffix(".proof.json").read_text())["nodata"] == value
    assert nodata_text(result["path"]) == str(value)
    assert result["verification"]["valid_pixels"]["cog"] == [250 * 300]
    assert item_of(result, "a", "cogs/a.tif", "c")["assets"]["data"]["bands"][0]["nodata"] == value


@pytest.mark.parametrize("nodata", [-3.4e38, -3.40282e38, float(np.finfo("float32").min), 3e38, -1e35, -1e30])
def test_validity_by_a_huge_nodata_is_that_of_gdal(tmp_path, nodata):
    """For GDAL two values are equal whose sum is infinite: -3.4028e38 is hidden by -3.4e38."""
    most = float(np.finfo("float32").max)
    row = np.array([sign * share * most for sign in (-1, 1) for share in (1, 0.9, 0.5, 0.1, 1e-3, 1e-7, 0)], "float32")
    path = write_raster(tmp_path / "a.tif", np.tile(row, (20, 1))[None], nodata=nodata)
    with rasterio.open(path) as dataset:
        values = dataset.read()
        assert np.array_equal(validity(dataset, [1], None, values), dataset.read_masks() > 0)
