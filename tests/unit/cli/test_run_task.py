"""A task of a job once more, in this process."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import JOB_ID, FakeApi

Run = Callable[..., int]
JOB = {"job_id": JOB_ID, "job_type": "tiles", "status": "failed", "run": 2, "correlation_id": "c"}
JOB |= {"parameters": {"folder": "data"}, "stages": [{"stage": 1}]}
TASK = {"task_id": "s1-a", "run": 2, "stage": 1, "task_index": 0, "task_type": "read", "attempt": 3, "name": "a"}
TASK |= {"parameters": {"number": 7}, "result": None, "error": None, "status": "failed"}
CODE = """
import json
import logging
from core.fan_in import load_fan_in_results
from jobs.registry import Handler, Registry

def read(params, context):
    logging.getLogger("tiles").info("reading")
    context.progress(50, "half")
    if params["number"] == 13:
        raise OSError("no tile 13")
    if params["number"] == 14:
        json.loads("{")
    if params["number"] == 15:
        raise SystemExit("\\x1b[2J")
    return {"number": params["number"], "folder": context.job_parameters["folder"], "attempt": context.attempt}

def collect(params, context):
    loaded = load_fan_in_results(params)
    return {"all": [task.result["text"] for task in loaded.results()], "failed": len(list(loaded.failures()))}

def nonsense(params, context):
    return 7

def build_registry(queues):
    handlers = [Handler("read", read, queue="tasks", isolation="process")]
    handlers += [Handler("collect", collect, queue="tasks"), Handler("nonsense", nonsense, queue="tasks")]
    return Registry([], handlers, queues)
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "function_app.py").write_text("")
    (tmp_path / "host.json").write_text("{}")
    (tmp_path / "tiles_of_a_user.py").write_text(CODE)
    settings = {"Values": {"COREMACHINE_JOBS": "tiles_of_a_user:build_registry"}}
    (tmp_path / "local.settings.json").write_text(json.dumps(settings))
    monkeypatch.setenv("COREMACHINE_JOBS", "")
    monkeypatch.delenv("COREMACHINE_JOBS")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    yield tmp_path
    sys.modules.pop("tiles_of_a_user", None)


def answer(api: FakeApi, **changes: object) -> None:
    api.answer(f"GET /api/jobs/{JOB_ID}", JOB)
    api.answer(f"GET /api/jobs/{JOB_ID}/tasks/s1-a", {**TASK, **changes})


def test_task_runs_with_its_parameters_and_touches_nothing(
    app: Path, api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer(api)
    assert run("run-task", JOB_ID, "a", "-o", "json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"number": 7, "folder": "data", "attempt": 3}
    assert "50 % half" in shown.err
    assert "not stored" in shown.err
    assert [record.getMessage() for record in caplog.records if record.name == "tiles"] == ["reading"]
    assert {call.split()[0] for call, _, _ in api.requests} == {"GET"}


def test_run_that_is_over_has_its_own_parameters(
    app: Path, api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(api, run=1)
    api.answer(f"GET /api/jobs/{JOB_ID}/runs/1", {"run": 1, "parameters": {"folder": "older"}})
    assert run("run-task", JOB_ID, "s1-a", "--run", "1", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["folder"] == "older"


def test_failure_is_shown_from_the_handler_on_and_the_debugger_opens_there(
    app: Path, api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(api, parameters={"number": 13})
    assert run("run-task", JOB_ID, "s1-a") == 1
    shown = capsys.readouterr()
    assert 'raise OSError("no tile 13")' in shown.err
    assert "run_task.py" not in shown.err
    assert "the handler failed: OSError: no tile 13" in shown.err
    for number in (13, 14):
        monkeypatch.setattr(sys, "stdin", io.StringIO("p params\nq\n"))
        answer(api, parameters={"number": number})
        assert run("run-task", JOB_ID, "s1-a", "--pdb") == 1
        assert f"(Pdb) {{'number': {number}}}" in capsys.readouterr().out


def test_handler_that_exits_has_failed_and_steers_no_terminal(
    app: Path, api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ended the command, with status 0 after `sys.exit()`."""
    answer(api, parameters={"number": 15})
    assert run("run-task", JOB_ID, "s1-a") == 1
    shown = capsys.readouterr().err
    assert "the handler failed: SystemExit: " in shown
    assert "\x1b" not in shown


def test_fan_in_reads_the_results_of_the_job_in_their_order(
    app: Path, api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    source = {"job_id": JOB_ID, "run": 2, "stage": 1, "expected_count": 3}
    answer(api, task_type="collect", stage=2, parameters={"fan_in_source": source})
    row = {**TASK, "status": "completed"}
    rows = [
        {**row, "task_id": "s1-a", "task_index": 1, "result": {"text": "second"}},
        {**row, "task_id": "s1-b", "result": {"truncated": True, "stored_bytes": 70_000, "whole": "/api/..."}},
    ]
    failed = {**row, "task_id": "s1-c", "task_index": 2, "error": {"type": "E"}}
    api.answer(f"GET /api/jobs/{JOB_ID}/tasks", {"value": rows}, {"value": [failed]})
    api.answer(f"GET /api/jobs/{JOB_ID}/tasks/s1-b", {**rows[1], "result": {"text": "first, which is long"}})
    api.answer(f"GET /api/jobs/{JOB_ID}/tasks/s1-c", failed)
    assert run("run-task", JOB_ID, "s1-a", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"all": ["first, which is long", "second"], "failed": 1}


def test_what_cannot_be_run_is_named(app: Path, api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    answer(api, task_type="unknown")
    assert run("run-task", JOB_ID, "s1-a") == 2
    assert "expected a handler for task type 'unknown' in tiles_of_a_user:build_registry" in capsys.readouterr().err
    answer(api, task_type="nonsense")
    assert run("run-task", JOB_ID, "s1-a") == 1
    assert "expected it to return a mapping or None" in capsys.readouterr().err
