"""What users of other converters have reported; each name is a repository and its report."""

import math

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.transform import Affine

from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.plan import UnusableRaster
from tests.unit.raster.made import NODATA, hidden, pixels_of, write_raster


@pytest.fixture
def convert(tmp_path):
    def convert(pixels, validity="none", edit=None, profile=None, **options):
        path = write_raster(tmp_path / "a.tif", pixels, validity, **(profile or {}))
        if edit is not None:
            with rasterio.open(path, "r+") as dataset:
                edit(dataset)
        return convert_raster(str(path), str(tmp_path / "cogs"), **options)

    return convert


@pytest.mark.parametrize(
    ("validity", "flag"),
    [("nodata", MaskFlags.nodata), ("mask", MaskFlags.per_dataset), ("alpha", MaskFlags.alpha)],
)
@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_validity_stays_what_it_is(convert, validity, flag, target):
    """rio-cogeo#54: nodata and alpha were turned into a mask."""
    result = convert(pixels_of("uint8", validity, bands=3), validity, target_crs=target)
    with rasterio.open(result["path"]) as cog:
        assert all(flag in flags for flags in cog.mask_flag_enums[:3])
        assert (cog.colorinterp[-1] is ColorInterp.alpha) is (validity == "alpha")


def test_an_internal_mask_of_many_bands_survives_a_warp(convert):
    """rasterio#1454: a reprojected raster of twelve bands with a mask was valid everywhere."""
    result = convert(pixels_of("float32", bands=12), "mask", target_crs="EPSG:4326")
    with rasterio.open(result["path"]) as cog:
        # A tenth of the pixels is hidden, and the corners are.
        assert 0.8 < (cog.dataset_mask() > 0).mean() < (~hidden()).mean()
        assert cog.count == 12


@pytest.mark.parametrize("validity", ["nodata and mask"])
def test_nodata_and_a_mask_hide_both_after_a_warp(convert, validity):
    """rasterio#2233: of a raster with nodata and a mask, the mask was lost."""
    pixels = pixels_of("float32", validity)
    pixels[0, hidden()] = 5000
    result = convert(pixels, validity, target_crs="EPSG:4326")
    with rasterio.open(result["path"]) as cog:
        assert cog.read(1)[cog.read_masks(1) > 0].max() < NODATA


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average", "mode"])
def test_zeros_of_unsigned_numbers_stay_zeros(convert, dtype, resampling):
    """GDAL#11711: zeros became ones."""
    result = convert(np.zeros((1, 100, 100), dtype), target_crs="EPSG:4326", resampling=resampling)
    with rasterio.open(result["path"]) as cog:
        assert set(np.unique(cog.read(1)).tolist()) == {0}
        assert (cog.read_masks(1) > 0).mean() > 0.9


@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_scale_and_offset_are_kept(convert, target):
    """rio-cogeo#118: they were missing in the output."""

    def describe(dataset):
        dataset.scales, dataset.offsets = (0.01, 1.0), (-5.0, 3.0)

    result = convert(pixels_of("int16", bands=2), edit=describe, target_crs=target)
    with rasterio.open(result["path"]) as cog:
        assert (cog.scales, cog.offsets) == ((0.01, 1.0), (-5.0, 3.0))


@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_a_palette_is_kept(convert, target):
    """rio-cogeo#121: the table and the interpretation were dropped."""
    colours = {0: (0, 0, 0, 255), 1: (9, 8, 7, 255), 2: (1, 2, 3, 255)}
    pixels = np.random.default_rng(0).integers(0, 3, (1, 300, 300)).astype("uint8")
    result = convert(pixels, edit=lambda dataset: dataset.write_colormap(1, colours), target_crs=target)
    with rasterio.open(result["path"]) as cog:
        assert cog.colorinterp == (ColorInterp.palette,)
        assert {value: cog.colormap(1)[value] for value in colours} == colours


@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_tags_are_kept(convert, target):
    """rio-cogeo#19: TIFFTAG_SOFTWARE and the bands' tags were dropped."""

    def describe(dataset):
        dataset.update_tags(TIFFTAG_SOFTWARE="pix4dmapper")
        dataset.update_tags(1, QUALITY="good")

    result = convert(pixels_of("float32"), edit=describe, target_crs=target)
    with rasterio.open(result["path"]) as cog:
        assert cog.tags()["TIFFTAG_SOFTWARE"] == "pix4dmapper"
        assert cog.tags(1)["QUALITY"] == "good"
    assert result["verification"]["lost"] == []


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_json_cannot_hold_is_spelt_out(convert, value):
    """rio-stac#25: nodata of infinity and NaN made items that are no JSON."""
    pixels = pixels_of("float32")
    pixels[0, :50] = value
    result = convert(pixels, profile={"nodata": value})
    assert result["nodata"] in {"inf", "-inf", "nan"}
    with rasterio.open(result["path"]) as cog:
        assert repr(cog.nodata) == repr(value)
        assert (cog.read_masks(1)[:50] == 0).all()


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_nodata_of_64_bits_is_in_no_overview(convert, dtype):
    """Of 64-bit numbers, GDAL does not tell nodata of an overview."""
    pixels = np.full((1, 1100, 1100), NODATA, dtype)
    pixels[0, 300:800, 301:803] = np.arange(502, dtype=dtype) % 70
    result = convert(pixels, "nodata", kind="continuous")
    with rasterio.open(result["path"], overview_level=0) as overview:
        values = overview.read(1)
        assert set(np.unique(values[values != NODATA]).tolist()) <= set(range(70))
        assert (values == NODATA).mean() > 0.7


@pytest.mark.parametrize("dtype", ["float32", "int16", "int64"])
def test_what_an_alpha_band_hides_is_in_no_overview(convert, dtype):
    """GDAL takes alpha bands of unsigned 8 and 16 bits for masks only."""
    pixels = np.full((1, 1100, 1100), 5, dtype)
    pixels[0, hidden(1100)] = 9000
    result = convert(pixels, "alpha", kind="continuous")
    with rasterio.open(result["path"], overview_level=0) as overview:
        assert set(np.unique(overview.read(1)[overview.read(2) > 0]).tolist()) == {5}
    assert result["statistics"]["max_depth"] == 5


@pytest.mark.parametrize("left", [179.9, -180.1])
def test_a_raster_across_the_antimeridian_has_two_polygons_and_a_narrow_box(tmp_path, left):
    """rio-stac#28: its item was a belt around the whole world."""
    place = Affine(0.002, 0, left, 0, -0.002, -17)
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), crs="EPSG:4326", transform=place)
    result = convert_raster(str(path), str(tmp_path / "cogs"))
    west, _, east, _ = result["bbox"]
    assert (west, east) == (pytest.approx(179.9), pytest.approx(left + 0.3 - 360 * (left > 0)))
    sides = [[x for x, _ in polygon[0]] for polygon in result["geometry"]["coordinates"]]
    assert result["geometry"]["type"] == "MultiPolygon"
    assert [(round(min(side), 6), round(max(side), 6)) for side in sides] == [(179.9, 180), (-180, round(east, 6))]


def test_a_projected_raster_across_the_antimeridian_has_two_polygons_and_a_narrow_box(tmp_path):
    """rio-stac#28: so had one of a UTM zone beside it."""
    place = Affine(200, 0, 155_000, 0, -200, 8_000_000)
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), crs="EPSG:32701", transform=place)
    result = convert_raster(str(path), str(tmp_path / "cogs"))
    west, _, east, _ = result["bbox"]
    assert 179 < west < 180
    assert -180 < east < -179
    assert result["geometry"]["type"] == "MultiPolygon"


@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_overviews_of_a_masked_raster_are_masked_too(convert, target):
    """rasterio#1373: reads of an overview had a wrong mask."""
    pixels = np.full((1, 1200, 1200), 5, "float32")
    pixels[0, hidden(1200)] = 9000
    result = convert(pixels, "mask", target_crs=target)
    with rasterio.open(result["path"]) as cog, rasterio.open(result["path"], overview_level=0) as overview:
        whole, small = cog.dataset_mask() > 0, overview.dataset_mask() > 0
        assert abs(whole.mean() - small.mean()) < 0.01
        assert set(np.unique(overview.read(1)[small]).tolist()) == {5}


def test_nodata_of_the_source_is_nodata_after_a_warp(convert):
    """rasterio#3320: where the target had another nodata value, the source's was left among the values."""
    pixels = pixels_of("float32", "nodata")
    result = convert(pixels, "nodata", target_crs="EPSG:4326")
    with rasterio.open(result["path"]) as cog:
        assert cog.nodata == NODATA
        assert NODATA not in cog.read(1)[cog.read_masks(1) > 0]
        assert (cog.read_masks(1) == 0).mean() > 0.02


def test_a_raster_of_nodata_alone_is_converted_and_has_no_numbers(convert):
    """rasterio#2758: statistics of a raster without a valid pixel were an error."""
    result = convert(np.full((1, 300, 300), NODATA, "float32"), "nodata")
    assert result["kind"] == "continuous"
    assert result["statistics"]["valid_pixels"] == 0
    assert result["statistics"]["max_depth"] is None
    assert result["verification"]["range"]["cog"] == [[None, None]]


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_kind_of_a_raster_of_nodata_alone_is_not_classes(convert, dtype):
    """Nothing is known of its values: few they are not."""
    assert convert(np.full((1, 300, 300), NODATA, dtype), "nodata")["kind"] == "continuous"


def test_bands_with_different_nodata_are_refused(tmp_path):
    """A GeoTIFF has one; a metadata file beside it may name others."""
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", bands=2))
    bands = "".join(
        f'<PAMRasterBand band="{n}"><NoDataValue>{value}</NoDataValue></PAMRasterBand>' for n, value in ((1, 3), (2, 4))
    )
    path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    with pytest.raises(UnusableRaster, match="different nodata"):
        convert_raster(str(path), str(tmp_path / "cogs"))
