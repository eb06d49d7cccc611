"""`coremachine verify`: what is said of each output, and how it ends."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from coremachine.cli.proof import file_state
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
    assert lines[0] == ["name", "file", "values", "valid", "range", "lost"]
    assert lines[1] == ["a", "identical", "10", "0", "to", "2.5", "metadata:SHIP"]
    assert " ".join(lines[2]).startswith("b reprojected 10 (+1 bands) -> 12 (+1 bands) 0 to 2.5")


def test_a_raster_that_failed_is_a_line_too_and_the_end_says_so(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(api, a={"verification": PROOF}, **{"b.tif": "b.tif: its grid is rotated"})
    assert run("verify", JOB_ID, "-o", "table") == 1
    # Its name is in the first column.
    assert "UnusableRaster: its grid is rotated" in capsys.readouterr().out


def test_programs_get_the_whole_of_it(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    answer(api, a={"verification": PROOF, "checksum": "1220ab"})
    assert run("verify", JOB_ID) == 0
    (found,) = json.loads(capsys.readouterr().out)["value"]
    assert found == {"name": "a", "checksum": "1220ab", "verification": PROOF, "error": None, "file": None}


@pytest.fixture
def cog(tmp_path: Path) -> Path:
    (tmp_path / "a.tif").write_bytes(b"depths")
    return tmp_path / "a.tif"


def result_of(cog: Path) -> dict[str, Any]:
    checksum = f"1220{hashlib.sha256(b'depths').hexdigest()}"
    return {"verification": PROOF, "checksum": checksum, "path": str(cog), "bytes": 6}


def state(run: Run, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    """The exit code, what is said of the only file, and the summary."""
    code = run("verify", JOB_ID, "-o", "json", *options)
    said = capsys.readouterr()
    return code, json.loads(said.out)["value"][0]["file"], said.err


def test_a_file_is_read_again(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], cog: Path) -> None:
    answer(api, a=result_of(cog))
    code, file, summary = state(run, capsys)
    assert (code, file) == (0, "as verified")
    assert "1 of 1 files are as verified" in summary


@pytest.mark.parametrize("options", [(), ("--quick",)])
def test_a_file_that_is_gone_or_of_another_size_ends_with_1(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], cog: Path, options: tuple[str, ...]
) -> None:
    answer(api, a=result_of(cog))
    cog.write_bytes(b"deep")
    code, file, said = state(run, capsys, *options)
    assert (code, file) == (1, "changed: 4 bytes, 6 when it was verified")
    assert f"made again by: coremachine rerun {JOB_ID[:12]} --all" in said
    cog.unlink()
    assert state(run, capsys, *options)[:2] == (1, "missing")


def test_another_content_of_the_same_size_is_found_by_its_checksum(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], cog: Path
) -> None:
    answer(api, a=result_of(cog))
    cog.write_bytes(b"DEPTHS")
    assert state(run, capsys)[:2] == (1, "changed: another checksum")
    assert state(run, capsys, "--quick")[:2] == (0, "as verified")


def test_a_remote_file_is_read_through_fsspec(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/verified/a.tif", b"depths")
    answer(api, a={**result_of(Path("x")), "path": "memory://verified/a.tif"})
    assert state(run, capsys)[:2] == (0, "as verified")
    memory.pipe("/verified/a.tif", b"DEPTHS")
    assert state(run, capsys)[:2] == (1, "changed: another checksum")
    memory.rm("/verified", recursive=True)
    assert state(run, capsys)[:2] == (1, "missing")


def test_a_file_of_another_machine_is_not_judged() -> None:
    """A path of the server's may name another file here."""
    found = file_state({"path": "/cogs/a.tif", "bytes": 1}, quick=True, sees_files=False)
    assert found == "not checked: it is on the server's machine"


def test_a_job_without_outputs_says_that_there_are_none(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(api, greet={"text": "hello"})
    assert run("verify", JOB_ID, "-o", "table") == 0
    assert "No task of this job has verified an output." in capsys.readouterr().out
