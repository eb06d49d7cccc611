"""Commands that show what tasks did, and errors for programs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.orchestration_manager import task_id_for
from coremachine.cli import stack_log, tasks
from coremachine.cli.stack_log import StackLog

from .conftest import JOB_ID, FakeApi, job

Run = Callable[..., int]
AT = "2026-01-02T03:04:05.678000+00:00"
LOG = (
    "2026-01-02T03:04:05.600Z INFO a.handler: reading tile 7\n2026-01-02T03:04:05.601Z ERROR a.handler: no \x1b[31mtile"
)
ERROR = {
    "type": "NoTile",
    "message": "there is no [tile] 7",
    "attempt": 2,
    "retryable": False,
    "traceback": 'Traceback (most recent call last):\n  File "a.py", line 3, in read\n    open_tile(7)\nNoTile: none',
    "at": AT,
    "log": LOG,
}
TASK = {
    "task_id": "s1-a",
    "run": 2,
    "stage": 1,
    "task_index": 0,
    "task_type": "read_tile",
    "queue": "tasks",
    "name": "[a]",
    "parameters": {"number": 7},
    "status": "failed",
    "attempt": 3,
    "interruptions": 1,
    "lease_owner": "worker:7",
    "lease_expires_at": None,
    "due_at": None,
    "progress": {"percent": 40, "message": "reading"},
    "result": None,
    "error": ERROR,
    "created_at": AT,
    "started_at": AT,
    "finished_at": "2026-01-02T03:04:07.678000+00:00",
    "timed_out_at": None,
    "from_run": None,
}
RETRY = {
    "event_id": 7,
    "at": AT,
    "run": 2,
    "stage": 1,
    "task_id": "s1-a",
    "event": "retry_scheduled",
    "detail": {"type": "OSError", "message": "storage is away", "attempt": 1, "delay_seconds": 2.5, "log": LOG},
}
LOST = {**RETRY, "event_id": 8, "event": "task_interrupted", "detail": {"owner": "worker:6", "interruptions": 1}}
TASK_CALL, LOGS_CALL = f"GET /api/jobs/{JOB_ID}/tasks/s1-a", f"GET /api/jobs/{JOB_ID}/logs"


def test_task_is_shown_with_attempts_log_and_traceback(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answer(TASK_CALL, TASK)
    api.answer(LOGS_CALL, {"value": [RETRY, LOST]})
    assert run("task", JOB_ID, "s1-a", "-o", "table") == 0
    out = capsys.readouterr().out
    for expected in (
        "[a] failed",
        "read_tile · queue tasks · run 2",
        "3, 1 of them interrupted",
        "2.0 s",
        "worker:7",
        "number 7",
        "percent 40",
        "retry_scheduled attempt 1 OSError: storage is away, again in 2.5 s",
        "task_interrupted owner=worker:6",
        "NoTile: there is no [tile] 7",
        "INFO a.handler: reading tile 7",
        "open_tile(7)",
    ):
        assert expected in out
    assert "\x1b" not in out
    assert api.requests[-1] == (LOGS_CALL, {"task_id": "s1-a", "run": "2", "limit": "200"}, None)


def test_task_is_found_by_its_name(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Other commands show the name where a task has one."""
    api.answer(f"GET /api/jobs/{JOB_ID}", job(stages=[{"stage": 1}, {"stage": 2}]))
    api.answer(TASK_CALL, TASK)
    api.answer(LOGS_CALL, {"value": []})
    assert run("task", JOB_ID, "a", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["task_id"] == "s1-a"
    assert run("logs", JOB_ID, "--task", "a", "-o", "json") == 0
    assert api.requests[-1][1]["task_id"] == "s1-a"


def test_task_is_found_by_a_name_that_is_an_address(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Its id has a digest for what an id cannot have."""
    task_id = task_id_for(1, 0, "http://a/b.csv")
    api.answer(f"GET /api/jobs/{JOB_ID}", job(stages=[{"stage": 1}]))
    api.answer(f"GET /api/jobs/{JOB_ID}/tasks/{task_id}", {**TASK, "task_id": task_id})
    api.answer(LOGS_CALL, {"value": []})
    assert run("task", JOB_ID, "http://a/b.csv", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["task_id"] == task_id


def test_logs_of_a_task_that_is_not_there_are_an_error(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = {"title": "Not Found", "code": "unknown_task", "detail": "no task 'b'"}
    api.answer(f"GET /api/jobs/{JOB_ID}", job(run=2, stages=[{"stage": 1}]))
    api.answer(f"GET /api/jobs/{JOB_ID}/tasks/b", unknown, status=404)
    assert run("logs", JOB_ID, "--task", "b") == 3
    assert "no task 'b'" in capsys.readouterr().err
    asked = [query["run"] for call, query, _ in api.requests if call.endswith("/tasks/b")]
    assert asked == ["2", "1"]


def test_task_for_programs_has_everything(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer(TASK_CALL, TASK)
    api.answer(LOGS_CALL, {"value": [RETRY]})
    assert run("task", JOB_ID, "s1-a", "--run", "2", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {**TASK, "attempts": [RETRY]}
    assert api.requests[0][1] == {"run": "2"}


def test_long_values_of_a_task_are_shown_whole(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a server that lists no attempts."""
    api.answer(TASK_CALL, {**TASK, "result": {"text": "x" * 500 + "[end]"}, "error": None})
    assert run("task", JOB_ID, "s1-a", "-o", "table") == 0
    out = capsys.readouterr().out
    assert "x" * 500 + "[end]" in out
    assert "error" not in out
    assert run("task", JOB_ID, "a/b") == 3
    assert f"GET /api/jobs/{JOB_ID}/tasks/a%2Fb" in [call for call, _, _ in api.requests]


def test_timeline_is_one_line_for_each_event(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    cancel = {**RETRY, "event": "cancel_requested", "task_id": None, "stage": None}
    api.answer(
        f"GET /api/jobs/{JOB_ID}/events",
        {"value": [RETRY, {**cancel, "run": 3, "detail": {"reason": "wrong\nfolder", "actor": None}}]},
    )
    assert run("events", JOB_ID, "-o", "table") == 0
    run_two, retry, run_three, cancelled = capsys.readouterr().out.splitlines()
    assert (run_two, run_three) == ("run 2", "run 3")
    assert retry.endswith("stage 1 s1-a retry_scheduled attempt 1 OSError: storage is away, again in 2.5 s")
    assert cancelled.endswith("cancel_requested reason=wrong\\nfolder")


def test_logs_of_another_server_are_the_kept_lines(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer(f"GET /api/jobs/{JOB_ID}", job())
    api.answer(TASK_CALL, TASK)
    api.answer(LOGS_CALL, {"value": [RETRY]})
    assert run("logs", JOB_ID, "--task", "s1-a", "-o", "table") == 0
    shown = capsys.readouterr()
    assert "retry_scheduled attempt 1" in shown.out
    assert "    " in shown.out
    assert "INFO a.handler: reading tile 7" in shown.out
    assert f"customDimensions.job_id == '{JOB_ID}'" in shown.err
    assert run("logs", JOB_ID, "-o", "json") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [RETRY]


def test_following_ends_with_the_job_and_shows_nothing_twice(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_POLL_SECONDS", 0.0)
    job = {"job_id": JOB_ID, "run": 2}
    api.answer(f"GET /api/jobs/{JOB_ID}", {**job, "status": "processing"}, {**job, "status": "failed"})
    api.answer(LOGS_CALL, {"value": [RETRY]}, {"value": [RETRY, LOST]})
    assert run("logs", JOB_ID, "-f", "-o", "json") == 0
    assert [json.loads(line)["event_id"] for line in capsys.readouterr().out.splitlines()] == [7, 8]


HOST_LOG = f"""\
2026-01-02T10:00:00.000Z INFO    [worker 1] core: job_submitted job_id={JOB_ID} run=1
2026-01-02T10:00:01.000Z INFO    [worker 1] a.handler: mine job_id={JOB_ID} stage=1 task_id=s1-a attempt=1
2026-01-02T10:00:01.100Z INFO    [worker 2] a.handler: of another job job_id={"0" * 64} task_id=s1-a
    Traceback of another job
2026-01-02T10:00:02.000Z WARNING [worker 1] core: task_attempt_failed job_id={JOB_ID} task_id=s1-b
    Traceback (most recent call last):
    ValueError: broken
2026-01-02T10:00:03.000Z INFO    [worker 1] core: task_complete job_id={JOB_ID} run=2 task_ids=["s1-a", "s1-c"]
"""


def test_logs_of_the_stack_here_are_those_of_its_file(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    api.answer(f"GET /api/jobs/{JOB_ID}", job())
    api.answer(TASK_CALL, TASK)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "host.log").write_text(HOST_LOG)
    stack: Any = SimpleNamespace(url=api.url, data_dir=str(tmp_path))
    monkeypatch.setattr(stack_log, "find_stack_of", lambda _: stack)
    assert run("--utc", "logs", JOB_ID, "-o", "table") == 0
    shown = capsys.readouterr()
    lines = HOST_LOG.splitlines()
    whole = [lines[0], lines[1], *lines[4:]]
    without = [re.sub(rf" job_id={JOB_ID}| run=\d", "", line) for line in whole]
    without = [re.sub(r"^2026-01-02T(\S+)Z", r"2026-01-02 \1 UTC", line) for line in without]
    assert shown.out.splitlines() == [*without[:-1], "run 2", without[-1]]
    assert shown.err == ""
    assert run("logs", JOB_ID, "--task", "s1-a", "-o", "json") == 0
    assert [json.loads(line)["line"] for line in capsys.readouterr().out.splitlines()] == [lines[1], lines[7]]
    stack.url = "http://another"
    assert stack_log.find_stack_log(api.url) is None


def test_half_a_line_of_a_file_waits_for_its_rest(tmp_path: Path) -> None:
    file = tmp_path / "host.log"
    file.write_text(f"10:00:00.000 INFO [w] core: a job_id={JOB_ID}\n10:00:0")
    log = StackLog(file, JOB_ID)
    assert len(list(log.new_lines())) == 1
    with file.open("a") as more:
        more.write(f"1.000 INFO [w] core: b job_id={JOB_ID}\n")
    assert list(log.new_lines()) == [f"10:00:01.000 INFO [w] core: b job_id={JOB_ID}"]
    assert list(log.new_lines()) == []


def test_errors_are_json_where_json_was_asked_for(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"title": "No such job", "status": 404, "code": "unknown_job", "detail": "There is no job x."}
    api.answer(f"GET /api/jobs/{JOB_ID}", problem, status=404)
    assert run("status", JOB_ID, "-o", "json") == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    found = json.loads(shown.err)
    assert (found["code"], found["status"], found["exit_code"]) == ("unknown_job", 404, 3)
    # Text again for a command that did not ask for it.
    assert run("status", JOB_ID) == 3
    assert capsys.readouterr().err.startswith("No such job (404, unknown_job)")
    assert run("rerun", JOB_ID, "--all", "--failed", "-o", "json") == 2
    assert json.loads(capsys.readouterr().err)["exit_code"] == 2


def test_the_engine_s_frames_are_shown_on_request_and_no_line_of_code_is_broken(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = '  File "/x/site-packages/coremachine/core/running/task_batch.py", line 3, in _run\n    handler()\n'
    own = f'  File "/home/ann/a.py", line 3, in read\n    open_tile({"7" * 300})\n'
    trace = f"Traceback (most recent call last):\n{engine}{own}NoTile: none"
    for _ in range(2):
        api.answer(TASK_CALL, {**TASK, "error": {**ERROR, "traceback": trace}})
        api.answer(LOGS_CALL, {"value": []})
    assert run("task", JOB_ID, "s1-a", "-o", "table") == 0
    out = capsys.readouterr().out
    assert f"      open_tile({'7' * 300})\n" in out
    assert "    (1 frame of CoreMachine left out; --full shows all)\n" in out
    assert "task_batch.py" not in out
    assert run("task", JOB_ID, "s1-a", "--full", "-o", "table") == 0
    assert '    File "/x/site-packages/coremachine/core/running/task_batch.py", line 3' in capsys.readouterr().out


def test_events_are_followed_until_the_job_has_ended(api, run, capsys):
    at = "2026-01-02T03:04:05Z"
    pages = [
        {"value": [{"event": "job_submitted", "run": 1, "at": at}], "next_cursor": "one"},
        {"value": [{"event": "job_failed", "run": 1, "at": at}, {"event": "job_rerun", "run": 2, "at": at}]},
        {"value": [{"event": "job_completed", "run": 2, "at": at}]},
    ]
    api.answer(f"GET /api/jobs/{JOB_ID}/events", *({"next_cursor": "two", **page} for page in pages))
    assert run("events", JOB_ID, "--follow", "-o", "table") == 0
    shown = capsys.readouterr().out
    assert [word for word in ("job_submitted", "job_failed", "run 2", "job_completed") if word not in shown] == []
    assert [call for call, *_ in api.requests].count(f"GET /api/jobs/{JOB_ID}/events") == 3
