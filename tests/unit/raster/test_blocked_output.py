"""What is in the way in the output is named, fails what needs the place and nothing else, and is not retried."""

import errno
import os
from pathlib import Path

import pytest

from core.errors import classify
from jobs.all_jobs import build_registry
from jobs.flood_risk_cog import handlers
from jobs.flood_risk_cog.catalog import build_catalog
from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.inventory import list_rasters
from jobs.flood_risk_cog.job import FloodRiskCOGJob
from jobs.flood_risk_cog.target import OutputBlocked, blocked_in_words
from jobs.parameters import ParameterErrors
from tests.unit.raster.in_process import InThisProcess
from tests.unit.raster.made import pixels_of, write_raster

REGISTRY = build_registry(["tasks", "raster"])


def folder_for_cog(output):
    (output / "a.tif").mkdir(parents=True)


def folder_for_proof(output):
    (output / "a.proof.json").mkdir(parents=True)


def file_for_folder(output):
    output.touch()


def file_above(output):
    output.parent.rmdir()
    output.parent.touch()


def link_to_itself(output):
    output.symlink_to(output)


def link_to_itself_above(output):
    output.parent.rmdir()
    output.parent.symlink_to(output.parent)


@pytest.mark.parametrize(
    ("block", "name", "reason"),
    [
        (folder_for_cog, "a", r"/a\.tif: a folder is where this file belongs; move that away, or choose another"),
        (folder_for_proof, "a", r"/a\.proof\.json: a folder is where this file belongs"),
        (file_for_folder, "a", "/cogs.*: a file"),
        (file_above, "a", "a file is where a folder belongs"),
        (link_to_itself, "a", "/cogs.*: (?:a file, or a link that leads nowhere|its links lead in a circle)"),
        (link_to_itself_above, "a", "/out.*: its links lead in a circle"),
        (Path.mkdir, "x" * 252, "its name is too long for this file system; give the raster"),
    ],
)
def test_what_is_in_the_way_is_named_before_the_raster_is_read(tmp_path, monkeypatch, block, name, reason):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", side=20))
    output = tmp_path / "out" / "cogs"
    output.parent.mkdir()
    block(output)
    monkeypatch.delattr("jobs.flood_risk_cog.convert.read_facts")
    with pytest.raises(OutputBlocked, match=reason) as blocked:
        convert_raster(str(path), str(output), name=name)
    assert not classify(blocked.value).retryable


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "can only be read; let this app write there"),
        (errno.EACCES, "this app may not write there"),
        (errno.ELOOP, "in a circle"),
    ],
)
def test_a_place_that_cannot_be_written_is_not_retried(number, words):
    with pytest.raises(OutputBlocked, match=f"^/out/cogs/a.tif: .*{words}") as blocked, blocked_in_words():
        raise OSError(number, os.strerror(number), "/scratch/a.tif", None, "/out/cogs/a.tif")
    assert not classify(blocked.value).retryable


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EDQUOT])
def test_a_disk_that_is_full_or_away_is_retried(number):
    with pytest.raises(OSError, match=os.strerror(number)) as failed, blocked_in_words():
        raise OSError(number, os.strerror(number), "/out/cogs/a.tif")
    assert classify(failed.value).retryable


def test_a_link_in_the_place_of_a_cog_is_replaced(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", side=20))
    output = tmp_path / "cogs"
    output.mkdir()
    for name in ("a.tif", "a.proof.json"):
        (output / name).symlink_to(output / "nowhere")
    assert convert_raster(str(path), str(output))["reused"] is False
    assert sorted(each.name for each in output.iterdir() if not each.is_symlink()) == ["a.proof.json", "a.tif"]


def test_a_folder_in_the_place_of_one_cog_costs_no_other(run_job, tmp_path, monkeypatch):
    monkeypatch.setattr(handlers, "PROCESSES", InThisProcess())
    (tmp_path / "source").mkdir()
    for name in ("a.tif", "b.tif"):
        write_raster(tmp_path / "source" / name, pixels_of("float32", side=20))
    parameters = {"source": str(tmp_path / "source"), "output": str(tmp_path / "out")}
    run_job(REGISTRY, "flood_risk_cog", parameters)
    (tmp_path / "out" / "cogs" / name).unlink()
    (tmp_path / "out" / "cogs" / name).mkdir()
    run = run_job(REGISTRY, "flood_risk_cog", parameters)
    assert (run.status, run.summary["converted"], run.summary["reused"]) == ("completed_with_errors", 1, 1)
    (failure,) = run.summary["failures"]
    assert failure["name"] == name
    assert "a folder is where this file belongs" in failure["reason"]
    assert [task.error["attempt"] for task in run.stages[1].failures] == [1]


@pytest.mark.parametrize(
    ("name", "is_folder"),
    [("collection.json", True), ("items.parquet", True), (".coremachine-output.json", True), ("cogs", False)],
)
def test_an_output_with_something_else_in_a_place_is_refused_at_submission(tmp_path, name, is_folder):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.tif").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).mkdir() if is_folder else (tmp_path / "out" / name).touch()
    with pytest.raises(ParameterErrors, match=f"output: expected a folder of this job's own, found .*{name}: a f"):
        FloodRiskCOGJob.validate_job_parameters(
            {"source": str(tmp_path / "source"), "output": f"file://{tmp_path / 'out'}"}
        )


def test_a_result_whose_item_has_no_place_is_left_out_of_the_catalog(tmp_path):
    paths = [write_raster(tmp_path / name, pixels_of("float32", side=20)) for name in ("a.tif", "b.tif")]
    items = [convert_raster(str(path), str(tmp_path / "cogs")) for path in paths]
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / Path(items[0]["name"]).stem).touch()
    result = build_catalog(items, [], str(tmp_path), collection_id="floods", title="Floods")
    assert result["totals"]["converted"] == 1
    (left_out,) = result["left_out"]
    assert left_out["name"] == items[0]["name"]
    assert "is where this folder belongs" in left_out["reason"]


def test_a_folder_in_the_place_of_a_mosaic_is_a_reason_and_stays(tmp_path):
    """Results that no source has any more are removed; a folder is none."""
    cogs = str(tmp_path / "cogs")
    items = []
    for name in ("a", "b"):
        path = write_raster(tmp_path / f"{name}_rp10.tif", pixels_of("float32", side=20))
        items.append(convert_raster(str(path), cogs))
    (tmp_path / "mosaic-rp10.vrt").mkdir()
    build_catalog(items, [], str(tmp_path), collection_id="floods", title="Floods", stale_results="remove")
    assert (tmp_path / "mosaic-rp10.vrt").is_dir()
    assert '"reason": "' in (tmp_path / "summary.json").read_text()


def test_a_name_that_is_too_long_with_its_folders_is_shortened(tmp_path):
    folder = tmp_path / ("f" * 200)
    folder.mkdir()
    write_raster(folder / f"{'x' * 100}.tif", pixels_of("uint8", side=20))
    (raster,) = list_rasters(str(tmp_path), recursive=True).rasters
    assert len(raster["output"]) == 197
    assert convert_raster(raster["path"], str(tmp_path / "out"), name=raster["output"])["name"].startswith("f" * 150)


def test_a_long_name_is_written_with_overviews(tmp_path):
    """GDAL appends to the name of what it writes."""
    path = write_raster(tmp_path / f"{'x' * 250}.tif", pixels_of("uint8", side=600))
    assert convert_raster(str(path), str(tmp_path / "out"))["name"] == path.name


def test_a_raster_that_is_called_as_a_copy_between_is_reprojected(tmp_path):
    for name in ("copy.tif", "filled.tif"):
        path = write_raster(tmp_path / name, pixels_of("float32", "nodata and mask", side=60), "nodata and mask")
        result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")
        assert result["verification"]["problems"] == []
