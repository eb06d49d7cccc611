"""Rare values and kinds of validity are kept as they are, and not refused."""

import warnings

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rasterio.windows import Window

from jobs.flood_risk_cog.convert import DifferentOutput, convert_raster
from jobs.flood_risk_cog.facts import validity
from jobs.flood_risk_cog.plan import UnusableRaster
from tests.unit.raster.made import PLACE, SIDE, pixels_of, write_nodata_text, write_raster


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


def test_what_alpha_hides_beside_nodata_is_not_mixed_into_overviews(tmp_path):
    pixels = np.full((4, 600, 600), 50, "uint8")
    pixels[3] = np.where(np.random.default_rng(0).random((600, 600)) > 0.5, 255, 0)
    pixels[:3][:, pixels[3] == 0] = 200
    path = write_raster(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES", nodata=0)
    result = convert_raster(str(path), str(tmp_path / "out"), kind="continuous")
    with rasterio.open(result["path"], overview_level=0) as overview:
        values = overview.read()
    assert np.unique(values[:3][:, values[3] > 0]).tolist() == [50]


@pytest.mark.parametrize(("dtype", "text"), [("uint8", "-10000"), ("uint16", "-32768")])
def test_what_alpha_hides_beside_nodata_beyond_the_type_is_not_mixed_into_overviews(tmp_path, dtype, text):
    """Mosaics of drones have -10000 in bytes: GDAL heeds it in overviews, though no pixel has it, and alpha no more."""
    pixels = np.full((4, 600, 600), 50, dtype)
    pixels[3] = np.where(np.random.default_rng(0).random((600, 600)) > 0.5, 255, 0)
    pixels[:3][:, pixels[3] == 0] = 200
    path = write_raster(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES")
    result = convert_raster(str(write_nodata_text(path, text)), str(tmp_path / "out"), kind="continuous")
    with rasterio.open(result["path"], overview_level=0) as overview:
        values = overview.read()
    assert np.unique(values[:3][:, values[3] > 0]).tolist() == [50]


@pytest.mark.parametrize("nodata", [255, 100])
def test_nodata_is_no_value_of_the_alpha_band_of_a_reprojected_raster(tmp_path, nodata):
    pixels = pixels_of("uint8", bands=4, side=200)
    pixels[3] = np.repeat([0, 100, 255, 255], 50)
    path = write_raster(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES", nodata=nodata)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:32615", resampling="nearest")
    with rasterio.open(result["path"]) as cog:
        colours, alpha = cog.read([1, 2, 3]), cog.read(4)
    assert colours[:, 0, 0].tolist() == [nodata] * 3
    assert alpha[0, 0] == 0
    row = alpha[alpha.shape[0] // 2].astype(int)
    middle = row[row > 0]
    assert (np.diff(middle) >= 0).all()
    assert np.mean(middle == 255) == pytest.approx(2 / 3, abs=0.02)


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


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_depths_beyond_what_can_be_summed_have_no_mean(tmp_path, target):
    pixels = pixels_of("float64")
    pixels[0, :50], pixels[0, 50:100] = 1.7e308, -1.7e308
    result = convert_raster(str(write_raster(tmp_path / "a.tif", pixels)), str(tmp_path / "out"), target_crs=target)
    statistics = result["statistics"]
    assert (statistics["max_depth"], statistics["mean_depth"]) == (1.7e308, None)
    if target is not None:
        assert result["resampling"]["warp"] == "nearest"
        assert any("are not mixed" in each for each in result["changed"])


def test_a_depth_beyond_all_numbers_is_not_known(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.full((1, 9, 9), 1.7e308))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales = (10.0,)
    statistics = convert_raster(str(path), str(tmp_path / "out"))["statistics"]
    assert [statistics[name] for name in ("min_depth", "mean_depth", "max_depth")] == [None] * 3
    assert statistics["flooded_pixels"] == 81


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 1.5), ("int16", -1.5)])
def test_nodata_that_is_no_value_of_the_type_is_kept_and_not_reprojected(tmp_path, dtype, nodata):
    path = write_raster(tmp_path / "a.tif", pixels_of(dtype), nodata=nodata)
    assert convert_raster(str(path), str(tmp_path / "out"))["nodata"] == nodata
    with pytest.raises(UnusableRaster, match=f"its nodata {nodata} is no value of its type {dtype}; give it a whole"):
        convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_raster_of_alpha_alone_is_kept_and_not_reprojected(tmp_path, dtype):
    path = write_raster(tmp_path / "a.tif", pixels_of(dtype))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.alpha]
    result = convert_raster(str(path), str(tmp_path / "out"))
    assert result["verification"]["values"] == "identical"
    assert (result["kind"], result["statistics"]["max_depth"]) == ("classes", None)
    with pytest.raises(UnusableRaster, match="an alpha band and no other to reproject"):
        convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")


def test_an_alpha_band_before_the_depths_is_refused(tmp_path):
    """Depths are measured, drawn and classified by the first band."""
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", bands=2, side=20))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.alpha, ColorInterp.gray]
    with pytest.raises(UnusableRaster, match=r"its first band.* is an alpha band; put it last"):
        convert_raster(str(path), str(tmp_path / "out"))


@pytest.mark.parametrize("target", [None, "EPSG:4326"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_nodata_value_per_band_hides_where_all_bands_have_theirs(tmp_path, dtype, target):
    pixels = pixels_of(dtype, bands=3)
    pixels[:, 50:75, 25:125] = np.array([1, 2, 3], dtype)[:, None, None]
    pixels[0, 80:100, 25:125] = 1
    path = write_raster(tmp_path / "a.tif", pixels)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(NODATA_VALUES="1 2 3")
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target, resampling="nearest")
    hidden = int((pixels == np.array([1, 2, 3], dtype)[:, None, None]).all(axis=0).sum())
    valid = result["verification"]["valid_pixels"]
    assert valid["source"] == [SIDE * SIDE - hidden] * 3
    with rasterio.open(result["path"]) as cog:
        masks = cog.read_masks() > 0
        assert (masks[0] == masks[1]).all()
        everywhere = (cog.read() == np.array([1, 2, 3], dtype)[:, None, None]).all(axis=0)
        assert not (masks[0] & everywhere).any()
    if target is not None:
        assert "its NODATA_VALUES become a mask" in result["changed"]
        assert "metadata:NODATA_VALUES" in result["verification"]["lost"]


def camera():
    ones, zeros = [1.0] + [0.0] * 19, [0.0] * 20
    line, sample = list(zeros), list(zeros)
    line[2], sample[1] = -1.0, 1.0
    offsets = {"height_off": 100, "lat_off": 29.8, "long_off": -97.9, "line_off": 150, "samp_off": 150}
    scales = {"height_scale": 500, "lat_scale": 0.1, "long_scale": 0.1, "line_scale": 150, "samp_scale": 150}
    parts = {"line_num_coeff": line, "line_den_coeff": ones, "samp_num_coeff": sample, "samp_den_coeff": ones}
    return RPC(**offsets, **scales, **parts, err_bias=None, err_rand=None)


@pytest.mark.parametrize("profile", [{}, {"crs": "EPSG:4326"}])
def test_a_camera_s_model_without_a_grid_is_refused(tmp_path, profile):
    shape = {"width": 300, "height": 300, "count": 1, "dtype": "float32"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **shape, **profile) as dataset:
            dataset.write(pixels_of("float32", side=300))
            dataset.rpcs = camera()
    for target in (None, "EPSG:4326"):
        with pytest.raises(UnusableRaster, match=r"a camera's model \(RPC\) and no grid; .*gdalwarp -rpc"):
            convert_raster(str(tmp_path / "a.tif"), str(tmp_path / "out"), target_crs=target)


@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_a_camera_s_model_beside_a_grid_is_kept_with_the_grid_alone(tmp_path, target):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=300))
    with rasterio.open(path, "r+") as dataset:
        dataset.rpcs = camera()
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target)
    assert result["bbox"] == pytest.approx([-97.965, 29.799, -97.934, 29.826], abs=0.001)
    with rasterio.open(result["path"]) as cog:
        assert (cog.rpcs is None) is (target is not None)


NODATA_VALUES = [-9999.0, 0.0, -3.4028234663852886e38, 1e-30, -9999.1, float("inf"), float("nan")]


@pytest.mark.parametrize("nodata", NODATA_VALUES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_validity_by_nodata_is_that_of_gdal_for_each_neighbour_of_it(tmp_path, dtype, nodata):
    steps = np.full(40, nodata, dtype)
    for index in range(1, 40):
        steps[index] = np.nextafter(steps[index - 1], np.asarray(0 if nodata else 1, dtype))
    pixels = np.concatenate([steps, np.array([0, 1, -1, np.nan, np.inf, -np.inf, nodata], dtype)])[None, None]
    for part in (pixels, pixels[..., [0, 41, 42, 43]]):
        path = write_raster(tmp_path / "a.tif", part.astype(dtype), nodata=nodata)
        with rasterio.open(path) as dataset:
            window = Window(0, 0, dataset.width, dataset.height)
            found = validity(dataset, [1], window, dataset.read([1]))
            assert np.array_equal(found, dataset.read_masks([1]) > 0)


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("uint8", 1.5), ("int16", -1), ("int64", 5)])
def test_validity_of_whole_numbers_is_that_of_gdal(tmp_path, dtype, nodata):
    path = write_raster(tmp_path / "a.tif", np.arange(9).reshape(1, 3, 3).astype(dtype), nodata=nodata)
    with rasterio.open(path) as dataset:
        found = validity(dataset, [1], Window(0, 0, 3, 3), dataset.read([1]))
        assert np.array_equal(found, dataset.read_masks([1]) > 0)


@pytest.mark.parametrize(("validity", "nodata"), [("none", 7), ("mask", None), ("mask", 7)])
def test_nan_beside_other_nodata_takes_nothing_from_its_neighbours(tmp_path, validity, nodata):
    """GDAL's warp makes NaN of each pixel around one, where NaN is a value."""
    pixels = np.full((1, 300, 300), 2, "float32")
    pixels[0, 150:160, 100:200] = np.nan
    path = write_raster(tmp_path / "a.tif", pixels, validity, nodata=nodata)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:32613")
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        known = cog.read(1)[cog.read_masks(1) > 0]
        expected = (source.read_masks(1) > 0) & ~np.isnan(source.read(1))
        assert set(known) == {2.0}
        ground = abs(cog.transform.determinant / source.transform.determinant)
        assert known.size * ground == pytest.approx(expected.sum(), rel=0.02)
    assert result["changed"][0].startswith("NaN, which was a value, becomes its nodata")


def test_a_raster_of_nan_alone_has_no_valid_pixel_when_it_is_reprojected(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.full((1, 100, 100), np.nan, "float32"))
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")
    assert result["verification"]["valid_pixels"] == {"source": [10_000], "cog": [0]}


@pytest.mark.parametrize(
    ("validity", "profile", "reason"),
    [
        ("none", {"nodata": 255, "nbits": 7}, "its nodata 255 is more than its 7 bits hold"),
        ("alpha", {}, "it has an alpha band and a mask"),
    ],
)
def test_two_ways_to_hide_that_a_warp_would_mix_are_refused(tmp_path, validity, profile, reason):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8"), validity, **profile)
    if validity == "alpha":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
            dataset.write_mask(pixels_of("uint8")[0] > 30)
    assert convert_raster(str(path), str(tmp_path / "kept"))["verification"]["values"] == "identical"
    with pytest.raises(UnusableRaster, match=reason):
        convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")


@pytest.mark.parametrize(
    ("bands", "side", "dtype", "options", "reason"),
    [
        (600, 4, "float32", {}, "of its 600 bands take 1800 MB .overviews: 0., and a conversion has 376 MB"),
        (800, 600, "uint8", {}, "of its 800 bands take 1100 MB .overviews: 1."),
        (20, 1100, "float64", {"target_crs": "EPSG:4326", "tile_size": 256}, "20 bands take 320 MB .* has 280 MB"),
    ],
)
def test_more_bands_than_tiles_can_hold_are_refused_before_they_are_read(
    tmp_path, monkeypatch, bands, side, dtype, options, reason
):
    monkeypatch.delattr("jobs.flood_risk_cog.convert.read_facts")
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "width": side, "height": side, "count": bands, "dtype": dtype, "sparse_ok": True}
    with rasterio.open(path, "w", crs="EPSG:32614", transform=PLACE, **profile):
        pass
    with pytest.raises(UnusableRaster, match=f"{reason}.*; divide its bands"):
        convert_raster(str(path), str(tmp_path / "out"), **options)


def test_tiles_are_smaller_where_those_of_many_bands_would_not_fit(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", bands=600, side=20))
    result = convert_raster(str(path), str(tmp_path / "out"))
    assert (result["tile_size"], result["verification"]["values"]) == (256, "identical")
    assert result["changed"] == ["its tiles have 256 pixels along a side, as larger ones of all bands do not fit"]


def write_mask_file(path, *flags, masks=1):
    """A mask beside a raster, which has these flags for its bands."""
    mask = np.full((masks, SIDE, SIDE), 255, "uint8")
    mask[:, :50] = 0
    profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": masks, "dtype": "uint8"}
    with rasterio.open(f"{path}.msk", "w", **profile) as dataset:
        dataset.write(mask)
        known = [(number, flag) for number, flag in enumerate(flags, start=1) if flag is not None]
        dataset.update_tags(**{f"INTERNAL_MASK_FLAGS_{number}": flag for number, flag in known})


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (0, "band 1 has a mask of its own"),
        (1, "has INTERNAL_MASK_FLAGS_1=1, so that GDAL does not take it for .*; set INTERNAL_MASK_FLAGS_1=2 in it"),
        (6, "has INTERNAL_MASK_FLAGS_1=6"),
        (8, "has INTERNAL_MASK_FLAGS_1=8"),
        (16, "has INTERNAL_MASK_FLAGS_1=16"),
        (18, "has INTERNAL_MASK_FLAGS_1=18"),
        ("none", "band 1 has a mask of its own"),
        (None, "has no INTERNAL_MASK_FLAGS_1, so that"),
    ],
)
def test_masks_of_single_bands_and_mask_files_that_are_none_are_named(tmp_path, flags, reason):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8"))
    write_mask_file(path, flags)
    with pytest.raises(UnusableRaster, match=reason):
        convert_raster(str(path), str(tmp_path / "out"))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("flags", "masks", "reason"),
    [
        ((2, None), 1, "has no INTERNAL_MASK_FLAGS_2"),
        ((2, 8), 1, "has INTERNAL_MASK_FLAGS_2=8"),
        ((2, 6), 2, "has INTERNAL_MASK_FLAGS_2=6"),
        ((2, 0), 2, "band 2 has a mask of its own"),
        ((8, 8), 2, "has INTERNAL_MASK_FLAGS_1=8"),
        ((6, 2), 1, "has INTERNAL_MASK_FLAGS_1=6"),
    ],
)
def test_a_mask_file_with_other_flags_for_each_band_is_refused(tmp_path, flags, masks, reason):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", bands=2))
    write_mask_file(path, *flags, masks=masks)
    with pytest.raises(UnusableRaster, match=reason):
        convert_raster(str(path), str(tmp_path / "out"))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("flags", ["2 ", "2.0"])
def test_a_mask_file_that_is_one_for_gdal_hides_what_it_hides_there(tmp_path, flags):
    """GDAL takes the number that the text begins with."""
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", bands=2))
    write_mask_file(path, flags, flags)
    with rasterio.open(path) as dataset:
        expected = dataset.read_masks()
    with rasterio.open(convert_raster(str(path), str(tmp_path / "out"))["path"]) as cog:
        assert np.array_equal(cog.read_masks(), expected)
        assert not expected[:, :50].any()
        assert expected[:, 50:].all()


def test_a_scale_of_zero_is_refused(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("int16"))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales = (0.0,)
    with pytest.raises(UnusableRaster, match="its scale is 0, by which all values are the same"):
        convert_raster(str(path), str(tmp_path / "out"))


def test_averages_that_would_be_nodata_are_not_made_beside_a_mask(tmp_path):
    """GDAL makes another value of an average that is equal to nodata, whatever hides pixels."""
    path = write_raster(tmp_path / "a.tif", np.full((1, 600, 600), 99, "uint16"), "nodata and mask")
    result = convert_raster(str(path), str(tmp_path / "out"), kind="continuous")
    assert result["resampling"]["overviews"] == "nearest"


def test_nodata_that_no_double_holds_is_nodata_of_overviews_too(tmp_path):
    most = np.iinfo("uint64").max
    pixels = pixels_of("uint64", side=600)
    pixels[:, :200, :200] = most
    path = write_nodata_text(write_raster(tmp_path / "a.tif", pixels), str(most))
    result = convert_raster(str(path), str(tmp_path / "out"), kind="continuous")
    assert (result["nodata"], result["resampling"]["overviews"]) == (most, "nearest")


def test_roots_of_squares_beyond_their_type_are_not_made(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.full((1, 600, 600), 1e200))
    result = convert_raster(str(path), str(tmp_path / "out"), resampling="rms")
    assert result["resampling"]["overviews"] == "nearest"


def test_histograms_beside_a_raster_are_named_as_lost(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8"))
    histogram = "<HistItem><HistMin>0</HistMin><HistMax>9</HistMax><BucketCount>1</BucketCount></HistItem>"
    band = f'<PAMRasterBand band="1"><Histograms>{histogram}</Histograms></PAMRasterBand>'
    (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    assert "its histograms" in convert_raster(str(path), str(tmp_path / "out"))["verification"]["lost"]


def test_infinities_that_are_mixed_are_recorded(tmp_path):
    pixels = pixels_of("float32", side=64)
    pixels[0, 30, 30] = np.inf
    path = str(write_raster(tmp_path / "a.tif", pixels))
    words = "what bilinear makes of infinities and the pixels around them is infinite or no number"
    assert words in convert_raster(path, str(tmp_path / "out"), target_crs="EPSG:4326")["changed"]
    nearest = convert_raster(path, str(tmp_path / "out"), target_crs="EPSG:4326", resampling="nearest")
    assert not any("infinities" in each for each in nearest["changed"])


def test_pixels_that_are_no_squares_are_named_where_a_reprojection_would_be_coarse(tmp_path):
    """Up to four times the pixels keep each row and column of most."""
    pixels = pixels_of("uint8", side=64)
    path = write_raster(tmp_path / "a.tif", pixels, transform=PLACE * PLACE.scale(1, 100))
    convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")
    path = write_raster(tmp_path / "b.tif", pixels, transform=Affine(9000, 0, 5e5, 0, -0.01, 3.3e6))
    with pytest.raises(UnusableRaster, match=r"as its pixels are no squares \(9000 x 0.01\); give it such first"):
        convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")


def test_a_corner_that_is_no_place_is_named(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", side=64), transform=(10, 0, np.inf, 0, -10, 0))
    with pytest.raises(UnusableRaster, match=r"its corner .* is no place"):
        convert_raster(str(path), str(tmp_path / "out"))


PALETTE = """<PAMDataset><PAMRasterBand band="1"><ColorInterp>Palette</ColorInterp><ColorTable>
<Entry c1="1" c2="2" c3="3" c4="255"/><Entry c1="9" c2="2" c3="3" c4="{}"/></ColorTable></PAMRasterBand></PAMDataset>"""


@pytest.mark.parametrize(
    ("dtype", "opacity", "reason"),
    [
        ("float32", 255, "of the type float32"),
        ("int16", 255, "of the type int16"),
        ("uint8", 128, r"transparent colour \(value 1\)"),
    ],
)
def test_a_palette_that_no_geotiff_holds_is_refused(tmp_path, dtype, opacity, reason):
    path = write_raster(tmp_path / "a.tif", (pixels_of(dtype) > 3).astype(dtype))
    (tmp_path / "a.tif.aux.xml").write_text(PALETTE.format(opacity))
    with pytest.raises(UnusableRaster, match=reason):
        convert_raster(str(path), str(tmp_path / "out"))


def test_control_points_beside_a_raster_with_a_grid_are_named(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"))
    points = "".join(f'<GCP Id="{n}" Pixel="{n}" Line="{n * n}" X="{n}" Y="{n * n}"/>' for n in range(4))
    (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset><GCPList>{points}</GCPList></PAMDataset>")
    with pytest.raises(UnusableRaster, match=r"its \.aux\.xml has ground control points"):
        convert_raster(str(path), str(tmp_path / "out"))


def test_lerc_and_a_negative_zero_are_named(tmp_path):
    row, column = np.mgrid[0:60, 0:80]
    pixels = np.maximum(np.round(np.sin(column / 17) * np.cos(row / 13) * 5, 2), -0.0)
    path = write_raster(tmp_path / "a.tif", pixels[None].astype("float32"))
    with pytest.raises(DifferentOutput, match=r"not keep the sign of a zero .*: choose the compression deflate"):
        convert_raster(str(path), str(tmp_path / "out"), compression="lerc")


def test_lerc_reports_that_it_keeps_nothing_below_a_hiding_alpha(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8"), "alpha")
    result = convert_raster(str(path), str(tmp_path / "out"), compression="lerc")
    assert result["changed"] == ["values where its alpha is 0 may become 0, as lerc keeps none there"]
