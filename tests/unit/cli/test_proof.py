"""`coremachine verify`: what is said of each output, and how it ends."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.cli.conftest import JOB_ID, FakeApi

Run = Callable[..., int]
PROOF = {
    "values": "identical",
    "valid_pixels": {"source": [10], "cog": [10]},
    "range": {"source": [[0.0, 2.5]], "cog": [[0.0, 2.5]]},
    "allowed": [],
    "lost": ["metadata:SHIP"],
    "problems": [],
}
WARPED = {**PROOF, "values": "reprojected", "valid_pixels": {"source": [10, 9], "cog": [12, 11]}, "lost": []}


def answer(api: FakeApi, **results: Any) -> None:
    """Tasks by name: a result, or an error."""
    tasks = []
    for name, result in results.items():
        task = {"task_id": name, "name": name, "status": "completed", "error": None}
        if isinstance(result, str):
            task |= {"status": "failed", "error": {"type": "UnusableRaster", "message": result}}
        tasks.append(task)
        api.answer(f"GET /api/jobs/{JOB_ID}/tasks/{name}", {**task, "result": result})
    api.answer(f"GET /api/jobs/{JOB_ID}/tasks", {"value": tasks, "next_link": None})


def test_each_output_is_a_line_of_the_table(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    answer(api, inventory={"rasters": 2}, a={"verification": PROOF}, b={"verification": WARPED})
    assert run("verify", JOB_ID, "-o", "table") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["name", "values", "valid", "range", "lost", "allowed", "not", "allowed"]
    assert lines[1] == ["a", "identical", "10", "0", "to", "2.5", "metadata:SHIP"]
    assert " ".join(lines[2]).startswith("b reprojected 10 (+1 bands) -> 12 (+1 bands) 0 to 2.5")


def test_a_raster_that_failed_is_a_line_too_and_the_end_says_so(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(api, a={"verification": PROOF}, b="b.tif: its grid is rotated")
    assert run("verify", JOB_ID, "-o", "table") == 1
    assert "UnusableRaster: b.tif: its grid is rotated" in capsys.readouterr().out


def test_programs_get_the_whole_of_it(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    answer(api, a={"verification": PROOF, "checksum": "1220ab", "path": "/cogs/a.tif"})
    assert run("verify", JOB_ID) == 0
    (found,) = json.loads(capsys.readouterr().out)["value"]
    assert found == {"name": "a", "checksum": "1220ab", "path": "/cogs/a.tif", "verification": PROOF, "error": None}


def test_a_job_without_outputs_says_that_there_are_none(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(api, greet={"text": "hello"})
    assert run("verify", JOB_ID, "-o", "table") == 0
    assert "No task of this job has verified an output." in capsys.readouterr().out
