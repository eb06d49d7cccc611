"""Commands that act on a job, over real HTTP against a fake API."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coremachine.cli.main import find_whole_command
from tests.unit.cli.conftest import JOB_ID, FakeApi, job

Run = Callable[..., int]
PATH = f"POST /api/jobs/{JOB_ID}"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


def state(**fields: Any) -> dict[str, Any]:
    return {"job_id": JOB_ID, "status": "processing", "paused": False, "run": 1, "stage": 1, "changed": True, **fields}


def test_cancel_sends_its_reason_and_grace_and_tells_a_conflict(api: FakeApi, run: Run) -> None:
    api.answer(f"{PATH}/cancel", {"job_id": JOB_ID, "status": "cancelling"}, status=202)
    assert run("cancel", JOB_ID, "--reason", "wrong folder", "--grace", "0") == 0
    assert api.requests[-1][2] == {"reason": "wrong folder", "cancel_grace_seconds": 0}
    assert run("cancel", JOB_ID) == 0
    assert api.requests[-1][2] == {}
    api.answer(f"{PATH}/cancel", {"title": "Conflict", "detail": "has ended"}, status=409)
    assert run("cancel", JOB_ID) == 4


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_pause_and_resume_say_where_the_job_stands(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    api.answer(f"{PATH}/{action}", state(paused=action == "pause"), state(paused=action == "pause", changed=False))
    assert run(action, JOB_ID, "--reason", "disk full", "-o", "table") == 0
    assert api.requests[-1][2] == {"reason": "disk full"}
    assert ("paused" in capsys.readouterr().out) == (action == "pause")
    assert run(action, JOB_ID, "-o", "table") == 0
    assert "as before" in capsys.readouterr().out
    api.answer(f"{PATH}/{action}", {"title": "Conflict", "detail": "it has ended"}, status=409)
    assert run(action, JOB_ID) == 4


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ([], {"mode": "failed"}),
        (["--failed"], {"mode": "failed"}),
        (["--from-stage", "2"], {"mode": "from_stage", "from_stage": 2}),
        (["--all", "--reason", "mended"], {"mode": "all", "reason": "mended"}),
        (["-p", "n=4"], {"mode": "failed", "parameters": {"n": 4}}),
        (["--run", "3"], {"mode": "failed", "expected_run": 3}),
    ],
)
def test_rerun_sends_what_is_to_be_done_again(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], options: list[str], body: dict[str, Any]
) -> None:
    api.answer(f"GET /api/jobs/{JOB_ID}", job("failed"))
    api.answer("GET /api/job-types", {"value": [{"job_type": "hello_world", "parameters_schema": SCHEMA}]})
    api.answer(f"{PATH}/rerun", state(run=2, kept_count=7, fresh_count=1), status=202)
    assert run("rerun", JOB_ID, *options, "-o", "table") == 0
    assert api.requests[-1][2] == {"expected_run": 1, **body}
    assert "run 2 from stage 1, 7 tasks kept, 1 task again" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--failed", "--all"], ["--all", "--from-stage", "1"], ["-p", "n"]])
def test_rerun_that_makes_no_sense_is_not_sent(api: FakeApi, run: Run, options: list[str]) -> None:
    api.answer(f"GET /api/jobs/{JOB_ID}", job("failed"))
    assert run("rerun", JOB_ID, *options) == 2
    assert not [call for call, _, _ in api.requests if call.startswith("POST")]


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1)])
def test_rerun_can_be_waited_for(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    api.answer(f"{PATH}/rerun", state(run=2, kept_count=0, fresh_count=None), status=202)
    api.answer(f"GET /api/jobs/{JOB_ID}", job(status, run=2))
    assert run("rerun", JOB_ID, "--all", "--wait", "-o", "json") == code
    assert json.loads(capsys.readouterr().out)["run"] == 2


def test_runs_are_listed_with_their_parameters(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"run": 1, "status": "failed", "parameters": {"n": 2}, "started_at": "2026-01-02T03:04:05Z"}
    api.answer(f"GET /api/jobs/{JOB_ID}/runs", {"value": [row]})
    assert run("runs", JOB_ID, "-o", "table") == 0
    assert '{"n": 2}' in capsys.readouterr().out
    assert run("runs", JOB_ID, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"value": [row]}


def test_status_and_watch_show_that_a_job_is_paused(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer(f"GET /api/jobs/{JOB_ID}", job(paused=True))
    assert run("status", JOB_ID, "-o", "table") == 0
    assert "paused" in capsys.readouterr().out
    api.answer(f"GET /api/jobs/{JOB_ID}", job(paused=True), job("completed"))
    assert run("watch", JOB_ID, "-o", "table") == 0
    assert "processing (paused)" in capsys.readouterr().err
    api.answer("GET /api/jobs", {"value": [job(paused_at="2026-01-02T03:04:05Z")]})
    assert run("list", "-o", "table") == 0
    assert "processing (paused)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (["--priority", "high"], {"priority": "high"}),
        (["--max-parallel", "4", "--stage", "2"], {"max_parallel": 4, "stage": 2}),
        (["--max-parallel", "none", "--reason", "why"], {"max_parallel": "none", "reason": "why"}),
    ],
)
def test_adjust_sends_what_is_to_change(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], options: list[str], body: dict[str, Any]
) -> None:
    answer = {"status": "processing", "stage": 2, "priority": "high", "max_parallel": 4, "changed": True}
    api.answer(f"PATCH /api/jobs/{JOB_ID}", answer)
    assert run("adjust", JOB_ID, *options, "-o", "table") == 0
    assert api.requests[-1][2] == body
    assert "processing, priority high, max_parallel 4 in stage 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [[], ["--reason", "x"], ["--max-parallel", "0"], ["--max-parallel", "1_0"], ["--priority", "urgent"]]
)
def test_adjust_refuses_what_changes_nothing_or_is_no_number(api: FakeApi, run: Run, options: list[str]) -> None:
    assert run("adjust", JOB_ID, *options) == 2
    assert not any(call.startswith("PATCH") for call, _, _ in api.requests)


def test_status_shows_the_trace_that_telemetry_has_it_under(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answer(f"GET /api/jobs/{JOB_ID}", job(trace_id="58838bf93ba3c78a0eca3a2247f9aa69"))
    assert run("status", JOB_ID, "-o", "table") == 0
    assert "trace 58838bf93ba3c78a0eca3a2247f9aa69\n" in capsys.readouterr().out


def _reasons(command: Any, path: str = "") -> Iterator[tuple[str, str]]:
    for each in command.params:
        if each.name == "reason":
            yield path.strip(), each.help
    for name, below in getattr(command, "commands", {}).items():
        yield from _reasons(below, f"{path} {name}")


def test_where_a_reason_is_kept_is_told_as_it_is() -> None:
    """That of a limit was said to be in the timeline of a job."""
    told = dict(_reasons(find_whole_command()))
    of_jobs = {"cancel", "pause", "resume", "adjust", "rerun", "bulk", "hold", "release"}
    assert {name for name, text in told.items() if "timeline" in text} == of_jobs
    assert set(told) - of_jobs == {"delete", "limits set", "schedules pause", "schedules resume"}
    assert all("audit" in text for text in told.values())


def test_rerun_from_a_stage_that_the_job_has_not(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer(f"GET /api/jobs/{JOB_ID}", job("failed"))
    assert run("rerun", JOB_ID, "--from-stage", "7") == 2
    assert (
        "--from-stage: expected one of the job's stages, found 7; hello_world has stages 1 to 2"
        in capsys.readouterr().err
    )
    assert not [call for call, _, _ in api.requests if call.startswith("POST")]
