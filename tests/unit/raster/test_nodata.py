"""A nodata value that the file does not mean, as GDAL reads its text, hides nothing in silence."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.facts import validity
from jobs.flood_risk_cog.plan import UnusableRaster
from jobs.flood_risk_cog.stac import item_of
from jobs.flood_risk_cog.tiff import nodata_text
from tests.unit.raster.made import SIDE, pixels_of, write_nodata_text, write_raster


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
    assert result["verification"]["valid_pixels"]["cog"] == [(SIDE - 50) * SIDE]
    assert item_of(result, "a", "cogs/a.tif", "c")["assets"]["data"]["bands"][0]["nodata"] == value


@pytest.mark.parametrize("value", [2**53 + 1, 2**64 - 1])
def test_nodata_beyond_double_precision_is_not_reprojected(tmp_path, value):
    """rasterio has 2^53 for the one, and no nodata for the other."""
    pixels = pixels_of("uint64")
    pixels[0, :50] = value
    path = write_nodata_text(write_raster(tmp_path / "a.tif", pixels), str(value))
    with pytest.raises(UnusableRaster, match=r"beyond 2\^53"):
        convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")


@pytest.mark.parametrize(
    ("dtype", "texts", "found"),
    [("uint8", "a b c", "'a'"), ("float32", "1 2 0x10", "'0x10'"), ("uint8", "1 2 3.5", "'3.5'")],
)
def test_values_per_band_that_are_none_of_the_type_are_refused(tmp_path, dtype, texts, found):
    """GDAL takes `a` for 0, and 3.5 for 3."""
    path = write_raster(tmp_path / "a.tif", pixels_of(dtype, bands=3, side=50))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(NODATA_VALUES=texts)
    with pytest.raises(UnusableRaster, match=f"its NODATA_VALUES have the text {found}, which is no value of its type"):
        convert_raster(str(path), str(tmp_path / "out"))


def test_values_per_band_of_another_number_hide_nothing(tmp_path):
    """As GDAL has it: a band that was taken out of an image has the image's."""
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", side=50))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(NODATA_VALUES="0 0 0")
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")
    assert result["verification"]["valid_pixels"]["source"] == [50 * 50]
    assert result["changed"] == ["a mask tells what lies outside of the source"]


@pytest.mark.parametrize("nodata", [-10_000, 0.5, 0, float("nan"), float("-inf")])
def test_nodata_of_short_floats_is_reprojected(tmp_path, nodata):
    """Outside of the source nothing is valid: its value is that of the nodata when it is read back."""
    pixels = pixels_of("float32", side=100) + 1
    path = write_raster(tmp_path / "a.tif", pixels, nodata=nodata, nbits=16)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")
    with rasterio.open(result["path"]) as cog:
        valid = cog.read_masks(1) > 0
        assert 0 < valid.sum() < valid.size
        assert cog.read(1)[valid].min() >= 1


@pytest.mark.parametrize("nodata", [-9999, 1e6])
def test_nodata_that_short_floats_round_is_not_reprojected(tmp_path, nodata):
    """A half has -10000 for -9999: what lies outside of the source would be a value."""
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=100), nodata=nodata, nbits=16)
    assert convert_raster(str(path), str(tmp_path / "kept"))["verification"]["values"] == "identical"
    with pytest.raises(UnusableRaster, match="is no value of floats of 16 bits"):
        convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")


@pytest.mark.parametrize("nodata", [-3.4e38, -3.40282e38, float(np.finfo("float32").min), 3e38, -1e35, -1e30])
def test_validity_by_a_huge_nodata_is_that_of_gdal(tmp_path, nodata):
    """For GDAL two values are equal whose sum is infinite: -3.4028e38 is hidden by -3.4e38."""
    most = float(np.finfo("float32").max)
    row = np.array([sign * share * most for sign in (-1, 1) for share in (1, 0.9, 0.5, 0.1, 1e-3, 1e-7, 0)], "float32")
    path = write_raster(tmp_path / "a.tif", np.tile(row, (20, 1))[None], nodata=nodata)
    with rasterio.open(path) as dataset:
        values = dataset.read()
        assert np.array_equal(validity(dataset, [1], None, values), dataset.read_masks() > 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nodata", [-9999.0, 100.0, 3e38])
def test_a_window_without_nodata_is_decided_as_any_other(tmp_path, dtype, nodata):
    """Values next to nodata, of which GDAL takes some for it, and values on one side of it.

    GDAL compares floats of 64 bits with the precision of those of 32.
    """
    near = [np.nextafter(np.dtype(dtype).type(nodata), np.dtype(dtype).type(to)) for to in (-np.inf, np.inf)]
    rows = [[1, 2, 3], [1, 2, near[0]], [near[1], 2, 3], [1, np.nan, 3], [1, nodata, 3]]
    rows += [[1, 2, nodata * (1 + away)] for away in (-1e-9, 1e-9, 2e-7, 4e-7, -6e-7, 1e-6, -3e-6)]
    path = write_raster(tmp_path / "a.tif", np.array([rows], dtype), nodata=nodata)
    with rasterio.open(path) as dataset:
        for row in range(len(rows)):
            window = Window(0, row, 3, 1)
            values = dataset.read(window=window)
            expected = dataset.read_masks(window=window) > 0
            assert np.array_equal(validity(dataset, [1], window, values), expected)


def write_nodata_beside(path, *texts):
    """GDAL's metadata file with a nodata for each band."""
    bands = "".join(
        f'<PAMRasterBand band="{number}"><NoDataValue>{text}</NoDataValue></PAMRasterBand>'
        for number, text in enumerate(texts, start=1)
    )
    path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    return path


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("int64", "1e300"),
        ("int64", "-9.99900000000000E+03"),
        ("int64", "3.5"),
        ("int64", "nan"),
        ("int64", "9223372036854775808"),
        ("uint64", "-1"),
        ("uint64", "7.0"),
    ],
)
def test_nodata_of_64_bits_beside_a_raster_is_a_value_of_its_type(tmp_path, dtype, text):
    """GDAL takes the digits that it begins with: 1e300 would hide 1, and -1 the largest."""
    path = write_nodata_beside(write_raster(tmp_path / "a.tif", pixels_of(dtype, side=20), nodata=5), text)
    found = f"the text {re.escape(repr(text))}, which is no whole number of its type {dtype} in digits"
    with pytest.raises(UnusableRaster, match=f"its nodata is {found}: GDAL would hide another value"):
        convert_raster(str(path), str(tmp_path / "out"))


@pytest.mark.parametrize(("dtype", "value"), [("int64", -9999), ("int64", 2**53 + 1), ("uint64", 2**64 - 1)])
def test_nodata_of_64_bits_beside_a_raster_goes_before_its_own(tmp_path, dtype, value):
    pixels = pixels_of(dtype, side=600)
    pixels[0, :50] = value
    path = write_nodata_beside(write_raster(tmp_path / "a.tif", pixels, nodata=5), str(value))
    result = convert_raster(str(path), str(tmp_path / "out"), kind="continuous")
    assert (result["nodata"], nodata_text(result["path"])) == (value, str(value))
    assert result["verification"]["valid_pixels"]["cog"] == [550 * 600]
    if value > 2**53:
        assert result["resampling"]["overviews"] == "nearest"
        with pytest.raises(UnusableRaster, match=r"beyond 2\^53"):
            convert_raster(str(path), str(tmp_path / "warped"), target_crs="EPSG:4326")


def test_nodata_of_64_bits_that_differs_between_bands_is_refused(tmp_path):
    """rasterio has none of both."""
    path = write_raster(tmp_path / "a.tif", pixels_of("uint64", bands=2, side=20))
    write_nodata_beside(path, str(2**64 - 1), str(2**64 - 3))
    with pytest.raises(UnusableRaster, match="its bands have different nodata values"):
        convert_raster(str(path), str(tmp_path / "out"))
