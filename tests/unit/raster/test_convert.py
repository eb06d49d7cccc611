import errno
import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
import rasterio
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rio_cogeo.cogeo import cog_validate

from core.errors import classify
from jobs.flood_risk_cog import convert
from jobs.flood_risk_cog.convert import InvalidOutput, convert_raster
from jobs.flood_risk_cog.memory import is_out_of_memory
from jobs.flood_risk_cog.plan import UnusableRaster, choose_resampling
from jobs.flood_risk_cog.source import SourceNotFound


@pytest.fixture
def output(tmp_path):
    return str(tmp_path / "output")


@pytest.mark.parametrize("tile_size", [256, 512])
@pytest.mark.parametrize("compression", ["deflate", "zstd", "lerc"])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_a_cog_is_valid_and_keeps_every_pixel(make_raster, output, tile_size, compression, dtype):
    pixels = (np.random.default_rng(0).random((1, 700, 640)) * 9).astype(dtype)
    result = convert_raster(make_raster(pixels=pixels), output, tile_size=tile_size, compression=compression)
    assert cog_validate(result["path"], strict=True, quiet=True) == (True, [], [])
    assert (result["tile_size"], result["compression"], result["reused"]) == (tile_size, compression, False)
    with rasterio.open(result["path"]) as cog:
        assert np.array_equal(cog.read(), pixels)
        predictor = cog.tags(ns="IMAGE_STRUCTURE").get("PREDICTOR")
        assert predictor == (None if compression == "lerc" else "3" if dtype == "float32" else "2")


def test_nodata_descriptions_and_tags_are_kept_also_when_warped(make_raster, output):
    pixels = np.ones((2, 300, 300), "float32")
    path = make_raster(pixels=pixels, nodata=-9999, descriptions=("depth", "velocity"), tags={"RETURN_PERIOD": "50"})
    result = convert_raster(path, output, target_crs="EPSG:4326")
    assert (result["crs"], result["nodata"], result["bands"]) == ("EPSG:4326", -9999, 2)
    with rasterio.open(result["path"]) as cog:
        assert cog.descriptions == ("depth", "velocity")
        assert cog.tags()["RETURN_PERIOD"] == "50"
        # The turned footprint leaves corners that are not known.
        assert set(np.unique(cog.read(1))) == {-9999.0, 1.0}


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_warped_raster_without_nodata_still_knows_its_empty_corners(make_raster, output, dtype):
    result = convert_raster(make_raster(pixels=np.ones((1, 300, 300), dtype)), output, target_crs="EPSG:4326")
    assert (result["bands"], result["nodata"]) == (1, None)
    with rasterio.open(result["path"]) as cog:
        mask = cog.dataset_mask()
        assert mask.min() == 0
        assert mask[150, 150] == 255


def test_overviews_of_classes_hold_only_classes(make_raster, output):
    pixels = np.random.default_rng(0).choice(np.array([1, 9], "uint8"), (1, 1100, 1100))
    colormap = {1: (255, 0, 0, 255), 9: (0, 0, 255, 255)}
    result = convert_raster(make_raster(pixels=pixels, colormap=colormap), output)
    assert result["overviews"] == [2, 4]
    with rasterio.open(result["path"]) as cog:
        assert set(np.unique(cog.read(1, out_shape=(275, 275)))) <= {1, 9}
        assert cog.colormap(1)[9] == (0, 0, 255, 255)


def test_overviews_of_depths_are_averages(make_raster, output):
    pixels = np.tile(np.array([[0, 2], [2, 4]], "float32"), (300, 300))[None]
    with rasterio.open(convert_raster(make_raster(pixels=pixels), output)["path"], overview_level=0) as overview:
        assert set(np.unique(overview.read(1))) == {2.0}


def test_a_named_resampling_is_used_for_both_where_overviews_know_it():
    assert choose_resampling("cubic", "classes") == ("nearest", "mode")
    assert choose_resampling("max", "classes") == ("max", "mode")


def test_the_same_source_gives_the_same_bytes(make_raster, tmp_path):
    path = make_raster()
    first, second = (convert_raster(path, str(tmp_path / name)) for name in ("one", "two"))
    assert Path(first["path"]).read_bytes() == Path(second["path"]).read_bytes()


def test_a_finished_result_is_reused_until_source_or_options_change(make_raster, output):
    path = make_raster()
    steps: list[str] = []
    first = convert_raster(path, output, report=lambda step, _share: steps.append(step))
    assert list(dict.fromkeys(steps)) == ["read", "write", "validate", "verify", "store"]
    again = convert_raster(path, output)
    assert again == {**first, "reused": True}
    assert convert_raster(path, output, compression="zstd")["reused"] is False
    os.utime(path, (1, 1))
    assert convert_raster(path, output, compression="zstd")["reused"] is False
    Path(first["path"]).write_bytes(b"half a file")
    assert convert_raster(path, output, compression="zstd")["reused"] is False


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ({"crs": None}, "no coordinate reference system"),
        ({"transform": Affine.translation(6e5, 3e6) @ Affine.rotation(20) @ Affine.scale(10, -10)}, "rotated"),
        ({"transform": Affine(10, 3, 6e5, 0, -10, 3e6)}, "skewed"),
    ],
)
def test_a_raster_without_a_usable_place_is_refused(make_raster, output, profile, reason):
    path = make_raster(**profile)
    with pytest.raises(UnusableRaster, match=reason):
        convert_raster(path, output)
    assert not list(Path(output).iterdir())


def test_a_system_that_gdal_does_not_read_is_named(make_raster, output):
    path = Path(make_raster(crs=None))
    path.with_suffix(".prj").write_text(CRS.from_epsg(32614).to_wkt())
    with pytest.raises(UnusableRaster, match=r"assign that of its .prj, .* \(gdal_edit -a_srs a.prj\)"):
        convert_raster(str(path), output)


def test_damaged_blocks_are_found_and_nothing_is_left_behind(make_raster, output):
    path = make_raster(tiled=True, blockxsize=256, blockysize=256, compress="deflate")
    content = bytearray(Path(path).read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 4] = b"\xff" * (len(content) // 4)
    Path(path).write_bytes(content)
    with pytest.raises(UnusableRaster, match="its data is damaged in rows 0 to 511"):
        convert_raster(path, output)
    assert not list(Path(output).iterdir())


# numpy has no complex integers.
@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_complex_values_are_refused(tmp_path, output, dtype):
    place = {"crs": "EPSG:32614", "transform": rasterio.Affine(10, 0, 600_000, 0, -10, 3_300_000)}
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 9, 9, 1, dtype=dtype, **place):
        pass
    with pytest.raises(UnusableRaster, match="its values are complex numbers"):
        convert_raster(str(tmp_path / "a.tif"), output)


def test_a_file_that_is_no_raster_or_is_missing_is_refused(tmp_path, output):
    (tmp_path / "a.tif").write_bytes(b"no raster")
    with pytest.raises(UnusableRaster, match=r"cannot be opened as a GeoTIFF \('a\.tif' not recognized"):
        convert_raster(str(tmp_path / "a.tif"), output)
    with pytest.raises(SourceNotFound):
        convert_raster(str(tmp_path / "b.tif"), output)


@pytest.mark.parametrize(
    "option",
    [
        {"tile_size": 300},
        {"compression": "jpeg"},
        {"resampling": "best"},
        {"resampling": "gauss", "target_crs": "EPSG:4326"},
        {"resampling": "gauss", "web_optimized": True},
        {"target_crs": "EPSG:0"},
    ],
)
def test_an_unknown_option_is_refused(make_raster, output, option):
    with pytest.raises(ValueError, match=f"expected {next(iter(option))}"):
        convert_raster(make_raster(), output, **option)


def test_the_source_is_never_overwritten(make_raster):
    path = make_raster()
    with pytest.raises(ValueError, match="other than the source's"):
        convert_raster(path, str(Path(path).parent))


def test_an_invalid_result_never_replaces_a_good_one(make_raster, output, monkeypatch):
    """Files were half written, or overwritten by an older attempt (lesson D22)."""
    path = make_raster()
    good = Path(convert_raster(path, output)["path"]).read_bytes()
    monkeypatch.setattr(convert, "find_layout_problems", lambda _cog: ["broken on purpose"])
    with pytest.raises(InvalidOutput, match="broken on purpose"):
        convert_raster(path, output, compression="zstd")
    assert {left.name for left in Path(output).iterdir()} == {"a.tif", "a.proof.json"}
    assert (Path(output) / "a.tif").read_bytes() == good


def test_a_url_is_converted_through_fsspec(make_raster, output):
    memory = fsspec.filesystem("memory")
    memory.pipe("/floods/a.tif", Path(make_raster()).read_bytes())
    try:
        assert convert_raster("memory://floods/a.tif", output)["reused"] is False
        assert convert_raster("memory://floods/a.tif", output)["reused"] is True
    finally:
        memory.rm("/floods", recursive=True)


def test_a_full_disk_is_said_in_words_and_tried_again(make_raster, output, monkeypatch):
    def write(*_arguments):
        raise RasterioError("TIFFAppendToStrip:Write error at scanline 0: No space left on device")

    monkeypatch.setattr(convert, "write_cog", write)
    with pytest.raises(OSError, match="the disk of the output or the scratch folder is full") as caught:
        convert_raster(make_raster(), output)
    assert caught.value.errno == errno.ENOSPC
    assert classify(caught.value).retryable


@pytest.mark.parametrize(
    "text",
    [
        "Cannot allocate 400000000 bytes",
        "Out of memory",
        "VSIMalloc3(): failed",
        "TIFFWriteBufferSetup:No space for output buffer",
    ],
)
def test_what_gdal_says_of_memory_is_known_whatever_the_error(text):
    error = RasterioError("Read failed")
    error.__cause__ = RasterioError(text)
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RasterioError("Read failed"))


def leave_beside(cog):
    """As an older raster of that name had them."""
    Path(f"{cog}.aux.xml").write_text("<PAMDataset><SRS>EPSG:3857</SRS></PAMDataset>")
    with rasterio.open(cog) as dataset:
        profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "width": dataset.width, "height": dataset.height}
    with rasterio.open(f"{cog}.msk", "w", **profile) as mask:
        mask.write(np.zeros((profile["height"], profile["width"]), "uint8"), 1)
        mask.update_tags(INTERNAL_MASK_FLAGS_1="2")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_files_of_an_older_raster_do_not_change_what_the_cog_says(make_raster, tmp_path):
    path, output = make_raster(), tmp_path / "out"
    output.mkdir()
    for is_there in (False, True):
        leave_beside(output / "a.tif" if is_there else path)
        if not is_there:
            for ending in (".aux.xml", ".msk"):
                Path(path + ending).rename(output / f"a.tif{ending}")
        result = convert_raster(path, str(output))
        assert result["reused"] is is_there
        assert sorted(each.name for each in output.iterdir()) == ["a.proof.json", "a.tif"]
        with rasterio.open(result["path"]) as cog:
            assert cog.crs.to_epsg() == 32614
            assert cog.read_masks(1).all()


@pytest.mark.parametrize("error", [OverflowError("date value out of range"), ProjError("no operation")])
def test_what_cannot_be_computed_is_a_reason_with_a_name(make_raster, output, monkeypatch, error):
    def fail(_cog, _footprint):
        raise error

    monkeypatch.setattr(convert, "describe_cog", fail)
    with pytest.raises(UnusableRaster, match=r"a\.tif: its place, time or values are beyond what can be computed"):
        convert_raster(make_raster(), output)


@pytest.mark.parametrize(
    ("begin", "found"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b"\x1f\x8b\x08", "a file of gzip"),
        (b"PK\x03\x04", "a zip file"),
        (b"\x89HDF\r\n", "an HDF5 or netCDF file"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    ],
)
def test_a_file_that_is_no_tiff_is_called_what_it_is(tmp_path, begin, found):
    path = tmp_path / "a.tif"
    path.write_bytes(begin)
    with pytest.raises(UnusableRaster, match=f"it is no GeoTIFF but {found}"):
        convert_raster(str(path), str(tmp_path / "out"))
