"""What a reprojection keeps of alpha bands, floats of few bits and values near a limit, as gdalwarp does."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from jobs.flood_risk_cog.convert import DifferentOutput, convert_raster
from jobs.flood_risk_cog.plan import UnusableRaster
from tests.unit.raster.made import pixels_of, write_raster

TARGET = "EPSG:32615"
SIDE = 80


@pytest.fixture
def reproject(tmp_path):
    def reproject(pixels, *, is_alpha=False, **given):
        """With the last band as alpha; `nodata` and `nbits` are the raster's, other keywords the conversion's."""
        profile = {name: given.pop(name) for name in ("nodata", "nbits") if name in given}
        path = write_raster(tmp_path / "a.tif", pixels, **profile, **({"alpha": "YES"} if is_alpha else {}))
        given = {"target_crs": TARGET, "kind": "continuous", **given}
        return path, convert_raster(str(path), str(tmp_path / "out"), **given)

    return reproject


def smooth(dtype, low=1.0, high=90.0):
    return np.broadcast_to(np.linspace(low, high, SIDE), (1, SIDE, SIDE)).astype(dtype)


@pytest.mark.parametrize(("high", "dtype"), [(200, "uint8"), (80, "int8")])
def test_sums_beyond_their_type_are_refused(tmp_path, high, dtype):
    """Pixels of 30 x 10 metres become squares of about 27, of whose sums GDAL makes the end of the type."""
    pixels = smooth(dtype, high=high)
    path = write_raster(tmp_path / "a.tif", pixels, transform=Affine(30, 0, 600_000, 0, -10, 3_300_000))
    with pytest.raises(DifferentOutput, match=f"sums are beyond its type {dtype}; give it a wider one"):
        convert_raster(str(path), str(tmp_path / "a"), target_crs="EPSG:3857", resampling="sum", kind="continuous")
    path = write_raster(tmp_path / "a.tif", pixels.astype("int16"), transform=Affine(30, 0, 6e5, 0, -10, 33e5))
    convert_raster(str(path), str(tmp_path / "b"), target_crs="EPSG:3857", resampling="sum", kind="continuous")


def with_alpha(dtype, low, high):
    """A hole on the left, then the lower alpha, then the higher one."""
    alpha = np.broadcast_to(np.repeat([0, low, high], [20, 30, 30]), (1, SIDE, SIDE))
    return np.concatenate([smooth(dtype), alpha.astype(dtype)])


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
@pytest.mark.parametrize(
    ("dtype", "low", "high", "nbits"),
    [("uint16", 3, 100, None), ("int16", 3, 255, None), ("float32", 0.5, 1, None), ("float32", 100, 255, 16)],
)
def test_each_pixel_with_some_alpha_is_kept(reproject, dtype, low, high, nbits, resampling):
    """GDAL takes what is usual for the type as opaque, and leaves out what is a ten-thousandth of it."""
    given = {"nbits": nbits} if nbits else {}
    path, result = reproject(with_alpha(dtype, low, high), is_alpha=True, resampling=resampling, **given)
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        assert source.colorinterp[1] is ColorInterp.alpha
        place = {"crs": cog.crs, "transform": cog.transform, "width": cog.width, "height": cog.height}
        with WarpedVRT(source, resampling=rasterio.enums.Resampling[resampling], SRC_ALPHA_MAX=high, **place) as warped:
            assert np.allclose(cog.read(1), warped.read(1), rtol=1e-3, atol=1)
        assert np.mean(cog.read(2) > 0) == pytest.approx(np.mean(source.read(2) > 0), abs=0.1)


def test_alpha_that_gdal_leaves_out_beside_a_much_higher_one_is_named(reproject):
    _, result = reproject(with_alpha("uint16", 3, 65535), is_alpha=True, resampling="bilinear")
    assert result["changed"] == ["pixels whose alpha is less than 6.5535 (1/10,000 of the highest) may be left out"]
    _, result = reproject(with_alpha("uint16", 0, 65535), is_alpha=True, resampling="bilinear")
    assert result["changed"] == []


def test_floats_of_16_bits_are_not_mixed_to_values_that_are_rounded_to_nodata(reproject):
    """A bilinear value of 50.003 would be written as 50, and be a hole."""
    pixels = smooth("float16", 49.5, 50.5).astype("float32")
    _, result = reproject(pixels, nodata=50, nbits=16)
    assert result["resampling"]["warp"] == "nearest"
    assert result["changed"] == ["its values are not mixed, as what is between them could be rounded to its nodata"]
    with pytest.raises(UnusableRaster, match=r"its nodata 50 is among its values, .* lanczos .* resampling to nearest"):
        reproject(pixels, nodata=50, nbits=16, resampling="lanczos")


def test_rounding_of_floats_of_16_bits_is_no_other_value(reproject):
    _, result = reproject(np.full((1, SIDE, SIDE), 7, "float32"), nbits=16, resampling="lanczos")
    assert result["verification"]["problems"] == []


@pytest.mark.parametrize("resampling", ["bilinear", "lanczos", "rms", "sum"])
def test_sums_beyond_their_type_are_refused_at_once(reproject, monkeypatch, resampling):
    monkeypatch.setattr("jobs.flood_risk_cog.convert.write_warped", None)
    pixels = smooth("float64", 1, 1e200 if resampling == "rms" else 1.7e308).copy()
    pixels[0, 0, 0] = np.inf
    with pytest.raises(UnusableRaster, match=rf"what {resampling} computes of them is beyond float64; give them"):
        reproject(pixels, resampling=resampling)


@pytest.mark.parametrize(("dtype", "target"), [("int16", None), ("int32", TARGET), ("int64", None)])
def test_classes_with_a_negative_nodata_have_right_overviews(tmp_path, dtype, target):
    """GDAL's mode makes valid zeros of it."""
    pixels = np.full((1, 600, 600), -99, dtype)
    pixels[0, :, 400:] = 4
    path = write_raster(tmp_path / "a.tif", pixels, nodata=-99)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target, kind="classes")
    assert result["resampling"]["overviews"] == "nearest"
    with rasterio.open(result["path"], overview_level=0) as overview:
        assert set(np.unique(overview.read())) == {-99, 4}


@pytest.mark.parametrize("target", [None, TARGET])
def test_bilinear_overviews_beside_a_mask_are_averages(tmp_path, target):
    """GDAL's bilinear makes valid zeros of what a mask hides, from the second overview on."""
    pixels = np.full((1, 700, 1100), 120, "uint8")
    path = write_raster(tmp_path / "a.tif", pixels)
    hidden = np.arange(700)[:, None] * 0.03 > np.arange(1100) - 150
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write(np.where(hidden, 0, pixels[0]), 1)
        dataset.write_mask(~hidden)
    options = {"target_crs": target, "kind": "continuous", "resampling": "bilinear"}
    result = convert_raster(str(path), str(tmp_path / "out"), **options)
    assert result["resampling"] == {"warp": "bilinear" if target else None, "overviews": "average"}
    with rasterio.open(result["path"], overview_level=1) as overview:
        assert set(np.unique(overview.read(1)[overview.read_masks(1) > 0])) == {120}


def test_other_classes_keep_the_mode(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("int16", "nodata"))
    result = convert_raster(str(path), str(tmp_path / "out"), kind="classes")
    assert result["resampling"]["overviews"] == "mode"
