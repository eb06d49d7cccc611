"""What the demo calls a good end."""

from pathlib import Path
from typing import Any

import pytest
from rio_cogeo.cogeo import cog_translate
from rio_cogeo.profiles import cog_profiles

from coremachine.cli import demo
from coremachine.cli.demo import DemoFailed, Outcome, judge, prepare_source, report
from jobs.flood_risk_cog.samples import generate_samples
from tests.unit.cli.conftest import job


@pytest.fixture(scope="module")
def cog(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cog")
    (source,) = generate_samples(folder, count=1)
    path = str(folder / "cog.tif")
    cog_translate(str(source), path, cog_profiles.get("deflate"), quiet=True)
    return path


def converted(path: str, **fields: Any) -> dict[str, Any]:
    result = {"path": path, "statistics": {"flooded_area_km2": 1.5, "mean_depth": 0.5, "max_depth": 2.0}}
    return {"task_id": "s2-0", "name": "a.tif", "task_type": "flood_risk_convert", "status": "completed"} | {
        "result": result,
        **fields,
    }


def failed(error: dict[str, Any] | None) -> dict[str, Any]:
    return converted("", name="b.tif", status="failed", result=None, error=error)


def test_valid_outputs_are_a_good_end(cog: str) -> None:
    outcome = judge(job("completed"), [converted(cog)])
    assert outcome.problems == []
    assert outcome.rows[0]["remark"] == "valid COG"
    assert outcome.rows[0]["flooded_area_km2"] == 1.5


def test_classes_are_called_so(cog: str) -> None:
    task = converted(cog)
    task["result"] |= {"kind": "classes", "statistics": {"flooded_area_km2": None}}
    assert judge(job("completed"), [task]).rows[0]["remark"] == "valid COG; classes, no depths"


def test_failures_with_a_reason_beside_an_output_are_a_good_end(cog: str) -> None:
    tasks = [converted(cog), failed({"type": "UnusableRaster", "message": "no georeference"})]
    outcome = judge(job("completed_with_errors"), tasks)
    assert outcome.problems == []
    assert outcome.rows[1]["reason"] == "UnusableRaster: no georeference"
    assert outcome.rows[1]["remark"] == "no georeference"


@pytest.mark.parametrize(("folder", "code"), [(None, 0), ("given", 1)])
def test_rasters_of_ones_own_that_fail_change_the_exit_code(
    run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cog: str, folder: str | None, code: int
) -> None:
    """Six of thirteen had failed, and a script went on."""
    outcome = judge(job("completed_with_errors"), [converted(cog), failed({"message": "no georeference " * 9})])
    assert outcome.rows[1]["remark"] == "no georeference no georeference no georeference no georefer…"
    monkeypatch.setattr(demo, "run_demo", lambda *_args, **_options: outcome)
    words = [] if folder is None else ["--rasters", str(tmp_path)]
    assert run("demo", "--output", str(tmp_path), *words) == code
    assert outcome.problems == ([] if folder is None else ["1 of 2 rasters were not converted"])


def test_failure_without_a_reason_is_no_good_end(cog: str) -> None:
    assert judge(job("completed_with_errors"), [converted(cog), failed(None)]).problems == [
        "b.tif: failed without an output or a reason"
    ]


def test_no_output_is_no_good_end() -> None:
    outcome = judge(job("completed_with_errors"), [failed({"message": "broken"})])
    assert outcome.problems == ["No output was made"]


def test_failed_job_is_no_good_end(cog: str) -> None:
    outcome = judge(job("failed", error={"type": "Boom", "message": "no disk"}), [converted(cog)])
    assert outcome.problems == ["The job ended as failed: Boom: no disk"]


def test_output_that_is_no_cog_or_not_there_is_no_good_end(tmp_path: Path) -> None:
    (plain,) = generate_samples(tmp_path, count=1)
    outcome = judge(job("completed"), [converted(str(plain)), converted(str(tmp_path / "none.tif"))])
    assert [row["remark"] for row in outcome.rows] == ["not valid", "not valid"]
    assert any("none.tif" in problem for problem in outcome.problems)
    assert len(outcome.problems) >= 2


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DemoFailed, match="RASTERS"):
        prepare_source(tmp_path / "none")
    assert prepare_source(tmp_path) == tmp_path


def test_what_is_no_raster_is_named_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """A README.md beside the rasters was ignored without a word."""
    ignored = [{"name": "README.md", "reason": "no raster: [its] name does not end in .tif"}]
    report(job("completed", result={"ignored": 21, "ignored_names": ignored}), Outcome())
    shown = capsys.readouterr().out
    assert "ignored README.md: no raster: [its] name does not end in .tif\n" in shown
    assert "ignored: 20 more files\n" in shown


def test_twelve_samples_are_made_where_no_folder_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jobs.flood_risk_cog.samples.write_depths", lambda path, *_, **__: made.append(path))
    folder = prepare_source(None)
    assert folder == tmp_path / ".coremachine" / "demo" / "samples"
    assert len({path.name for path in made if path.parent == folder}) == 12
