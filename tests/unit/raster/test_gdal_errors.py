"""What GDAL raises reaches a person as a reason with what to do, and is tried again where that may help."""

import errno
import re

import pytest
from rasterio._err import CPLE_AppDefinedError
from rasterio.errors import RasterioError
from rasterio.transform import from_bounds

from core.errors import classify
from jobs.flood_risk_cog import convert
from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.gdal_errors import MachineFailed, failure_of
from jobs.flood_risk_cog.memory import is_out_of_memory
from jobs.flood_risk_cog.plan import UnusableRaster
from tests.unit.raster.made import pixels_of, write_raster

WORLD = {"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 180, 90, 120, 120)}


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("Reprojection failed, err = 2050", "ESRI:54009", "some of it has no place there .*choose a target_crs that"),
        ("PROJ: utm: Invalid latitude", None, "its place cannot be computed .*gdal_edit -a_srs"),
        ("Maximum TIFF file size exceeded", None, "too large for what GDAL writes .*divide it"),
        ("something new", "EPSG:4326", "GDAL cannot convert it .*write it anew .*or leave target_crs out"),
        ("something new", None, r"GDAL cannot convert it .*write it anew \(gdal_translate -of GTiff\)$"),
    ],
)
@pytest.mark.parametrize("kind", [RasterioError, lambda text: CPLE_AppDefinedError(3, 1, text)])
def test_an_error_about_the_raster_is_permanent_and_names_what_to_do(text, target, expected, kind):
    failure = failure_of("/data/a.tif", kind(text), target)
    assert isinstance(failure, UnusableRaster)
    assert re.search(expected, str(failure))
    assert f"(GDAL: {text})" in str(failure)
    assert not classify(failure).retryable


@pytest.mark.parametrize(
    "text", ["/x.tif: Input/output error", "Unable to open EPSG support file", "Stale file handle"]
)
def test_an_error_of_the_machine_is_tried_again(text):
    failure = failure_of("/data/a.tif", RasterioError(text), None)
    assert isinstance(failure, MachineFailed)
    assert classify(failure).retryable


def test_a_full_disk_and_a_lack_of_memory_keep_their_kinds():
    full = failure_of("/data/a.tif", RasterioError("write error: No space left on device"), None)
    assert isinstance(full, OSError)
    assert full.errno == errno.ENOSPC
    assert is_out_of_memory(failure_of("/data/a.tif", RasterioError("Cannot allocate 400 bytes"), None))


@pytest.mark.parametrize("step", ["write_cog", "verify_cog", "describe_cog", "find_layout_problems"])
def test_no_step_lets_an_error_of_gdal_through(tmp_path, monkeypatch, step):
    def fail(*_arguments, **_keywords):
        raise CPLE_AppDefinedError(3, 1, "Reprojection failed, err = 2050")

    monkeypatch.setattr(convert, step, fail)
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"))
    with pytest.raises(UnusableRaster, match=r"a\.tif: its place cannot be computed \(GDAL: Reprojection failed"):
        convert_raster(str(path), str(tmp_path / "out"))


@pytest.mark.parametrize(
    "target", ["ESRI:54009", "ESRI:54030", "ESRI:54052", "ESRI:102008", "EPSG:27700", "EPSG:3035", "ESRI:54098"]
)
def test_a_world_in_a_system_with_edges_is_right_or_refused_in_words(tmp_path, target):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=120), **WORLD)
    outcome = outcome_of(str(path), str(tmp_path / "out"), target)
    if isinstance(outcome, Exception):
        assert not classify(outcome).retryable
        assert "target_crs" in str(outcome)
        assert "err = " not in str(outcome)
    else:
        assert outcome["verification"]["problems"] == []
        west, _, east, _ = outcome["bbox"]
        assert west < east


def outcome_of(path, output, target):
    try:
        return convert_raster(path, output, target_crs=target)
    except Exception as error:  # noqa: BLE001 - which one is what is judged
        return error


def test_a_system_that_proj_cannot_compute_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"a system that PROJ can compute, .* found 'ESRI:54099'; choose another"):
        convert_raster(str(tmp_path / "none.tif"), str(tmp_path / "out"), target_crs="ESRI:54099")
