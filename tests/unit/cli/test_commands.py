"""Commands over real HTTP, against a fake API: what is sent, what is shown, how it ends."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coremachine.cli import client as client_module
from coremachine.cli.client import ApiClient, Server
from coremachine.cli.main import main
from coremachine.cli.parameters import with_whole_paths
from coremachine.client import Client, exchange, waiting
from tests.unit.cli.conftest import DROPPED, JOB_ID, FakeApi, job

Run = Callable[..., int]
SUBMITTED = {"job_id": JOB_ID, "job_type": "hello_world", "status": "queued", "run": 1, "created": True, "links": {}}
JSON_SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "failure_rate": {"type": "number"},
        "message": {"type": "string"},
        "target_crs": {"type": ["string", "null"]},
        "limit": {"type": ["integer", "null"]},
        "names": {"type": "array"},
        "loud": {"type": "boolean"},
    },
}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FOLLOW_SECONDS", "_SLOW_POLL_SECONDS"):
        monkeypatch.setattr(waiting, name, 0.001)
    monkeypatch.setattr(exchange, "_FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
def hello(api: FakeApi) -> FakeApi:
    api.answer("GET /api/job-types", {"value": [{"job_type": "hello_world", "parameters_schema": JSON_SCHEMA}]})
    api.answer("POST /api/jobs/submit/hello_world", SUBMITTED, status=202)
    return api


def test_texts_become_what_the_schema_says(hello: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["n=5", "failure_rate=0.5", "message=5", "target_crs=null", "limit=null", 'names=["a", 1]', "loud=yes"]
    code = run("submit", "hello_world", *(word for text in texts for word in ("--param", text)))
    assert code == 0
    assert hello.requests[-1][2] == {
        "n": 5,
        "failure_rate": 0.5,
        "message": "5",
        "target_crs": "null",
        "limit": None,
        "names": ["a", 1],
        "loud": True,
    }
    assert json.loads(capsys.readouterr().out) == SUBMITTED


def test_list_that_is_no_json_is_answered_with_what_one_is(
    hello: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("submit", "hello_world", "-p", "names=a") == 2
    assert 'names: expected list as JSON, such as ["a", "b"], found str \'a\'' in capsys.readouterr().err


def test_unknown_job_type_is_one_error(hello: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A remark about the schema of a type that is not there hid that."""
    assert run("submit", "helo", "-p", "n=5") == 3
    assert "schema" not in capsys.readouterr().err
    assert hello.requests[-1][0] == "POST /api/jobs/submit/helo"


def test_force_and_key_go_with_the_submission(hello: FakeApi, run: Run) -> None:
    assert run("submit", "hello_world") == 0
    assert hello.requests[-1][1] == {}
    assert "Idempotency-Key" not in hello.headers[-1]
    assert run("submit", "hello_world", "--force", "--idempotency-key", "order-7") == 0
    assert hello.requests[-1][1] == {"force": "true"}
    assert hello.headers[-1]["Idempotency-Key"] == "order-7"


def test_advice_is_said_beside_the_answer(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {**SUBMITTED, "created": False, "status": "failed", "advice": "This job has failed; rerun it."}
    api.answer("POST /api/jobs/submit/hello_world", answer, status=202)
    assert run("submit", "hello_world") == 1
    told = capsys.readouterr()
    assert json.loads(told.out) == answer
    assert told.err == "This job has failed; rerun it.\n"


@pytest.mark.parametrize(
    ("status", "code", "strict_code"),
    [
        ("queued", 0, 0),
        ("processing", 0, 0),
        ("finalizing", 0, 0),
        ("completed", 0, 0),
        ("completed_with_errors", 0, 1),
        ("failed", 1, 1),
        ("cancelling", 1, 1),
        ("cancelled", 1, 1),
    ],
)
def test_submission_that_runs_nothing_after_a_failure_does_not_end_well(
    api: FakeApi, run: Run, status: str, code: int, strict_code: int
) -> None:
    api.answer("POST /api/jobs/submit/hello_world", {**SUBMITTED, "created": False, "status": status}, status=202)
    assert run("submit", "hello_world") == code
    assert run("submit", "hello_world", "--strict") == strict_code


@pytest.mark.parametrize("options", [(), ("--wait",), ("--wait", "--strict")])
def test_run_of_other_parameters_is_no_answer(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    problem = {"title": "Conflict", "code": "other_parameters", "detail": "Nothing was run.", "job_run": 2}
    api.answer("POST /api/jobs/submit/hello_world", problem, status=409)
    assert run("submit", "hello_world", *options, "-o", "table") == 4
    told = capsys.readouterr()
    assert (told.out, "Nothing was run." in told.err) == ("", True)
    assert [call for call, _, _ in api.requests][-1].startswith("POST")


@pytest.mark.parametrize("value", ["return", "rerun", "force", "fail"])
def test_if_ended_goes_with_the_submission(hello: FakeApi, run: Run, value: str) -> None:
    assert run("submit", "hello_world", "--if-ended", value) == 0
    assert hello.requests[-1][1] == {"if_ended": value}


def test_if_ended_and_force_that_contradict_are_refused(hello: FakeApi, run: Run) -> None:
    assert run("submit", "hello_world", "--if-ended", "perhaps") == 2
    for value in ("return", "rerun", "fail"):
        assert run("submit", "hello_world", "--force", "--if-ended", value) == 2
    assert hello.requests == []


def test_refused_submission_is_a_conflict(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"title": "Conflict", "code": "job_is_there", "detail": "This job has failed."}
    api.answer("POST /api/jobs/submit/hello_world", problem, status=409)
    assert run("submit", "hello_world", "--if-ended", "fail", "--wait") == 4
    assert "This job has failed." in capsys.readouterr().err


def test_run_that_began_during_the_wait_is_no_answer(
    hello: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    hello.answer(f"GET /api/jobs/{JOB_ID}", job("processing"), job("completed", run=2))
    assert run("submit", "hello_world", "--wait") == 4
    assert "While run 1 was waited for, run 2 began" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--strict",), 1)])
def test_strict_takes_errors_for_a_failure(hello: FakeApi, run: Run, options: tuple[str, ...], code: int) -> None:
    hello.answer(f"GET /api/jobs/{JOB_ID}", job("completed_with_errors"))
    hello.answer(f"POST /api/jobs/{JOB_ID}/rerun", {"run": 1, "stage": 1, "status": "queued"}, status=202)
    assert run("submit", "hello_world", "--wait", *options) == code
    assert run("watch", JOB_ID, *options) == code
    assert run("rerun", JOB_ID, "--wait", *options) == code


def test_times_are_of_the_run_not_since_the_first_submission(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    again = job("failed", run=2, run_started_at="2026-01-02T03:05:06Z", correlation_id="c")
    api.answer(f"GET /api/jobs/{JOB_ID}", again)
    api.answer("GET /api/jobs", {"value": [again]})
    first = {"run": 1, "status": "failed", "started_at": "2026-01-02T03:04:05Z", "finished_at": "2026-01-02T03:04:12Z"}
    api.answer(f"GET /api/jobs/{JOB_ID}/runs", {"value": [first]})
    for command in (("status", JOB_ID), ("watch", JOB_ID), ("list",)):
        run(*command, "-o", "table")
        assert "4.0 s" in capsys.readouterr().out, command
    assert run("runs", JOB_ID, "-o", "table") == 0
    assert "7.0 s" in capsys.readouterr().out


def test_command_line_wins_over_the_file(hello: FakeApi, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "parameters.json"
    file.write_text('{"n": 1, "message": "from the file"}')
    assert run("submit", "hello_world", "--params-file", str(file), "-p", "n=2") == 0
    assert hello.requests[-1][2] == {"n": 2, "message": "from the file"}


@pytest.mark.parametrize("text", ["n=five", "n", "=5"])
def test_text_that_does_not_fit_is_refused_before_anything_is_sent(hello: FakeApi, run: Run, text: str) -> None:
    assert run("submit", "hello_world", "-p", text) == 2
    assert not [call for call, _, _ in hello.requests if call.startswith("POST")]


def test_name_given_twice_is_refused(hello: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("submit", "hello_world", "-p", "n=1", "-p", "n=2") == 2
    assert "found 'n' twice" in capsys.readouterr().err
    assert hello.requests == []


def test_name_is_a_name_and_no_query(api: FakeApi, run: Run) -> None:
    """`?force=true` was cut off from the name as a query, and dropped."""
    api.answer("POST /api/jobs/submit/rev%3Fforce%3Dtrue", {"title": "Not Found"}, status=404)
    run("submit", "rev?force=true")
    assert api.requests == [("POST /api/jobs/submit/rev%3Fforce%3Dtrue", {}, {})]


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_name_that_no_path_can_have_is_refused(api: FakeApi, run: Run, name: str) -> None:
    assert run("submit", name) == 2
    assert api.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_proxy_does_not_stand_before_this_machine(
    api: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    api.answer("GET /api/jobs", {"value": []})
    assert run("list", "--url", api.url.replace("127.0.0.1", host)) == 0


HOSTILE_FILES = [
    "[1]",
    "{",
    None,
    '{"n": NaN}',
    '{"n": -Infinity}',
    '{"n": 1e999}',
    '{"n": 1, "n": 2}',
    '{"a": {"n": 1, "n": 2}}',
    '{"n": ' + "9" * 5000 + "}",
    '{"n": ' + "[" * 100_000,
]


@pytest.mark.parametrize("content", HOSTILE_FILES)
def test_parameter_file_that_is_no_object_is_refused(
    hello: FakeApi, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    file = tmp_path / "parameters.json"
    if content is not None:
        file.write_text(content)
    assert run("submit", "hello_world", "--params-file", str(file)) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert hello.requests == []


def test_problem_is_shown_field_by_field(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    errors = [{"field": "n", "expected": "at least 1", "found": "0", "hint": "count from 1"}, {"message": "tile: no"}]
    problem = {"title": "Bad Request", "code": "invalid_parameters", "detail": "long", "errors": errors}
    api.answer("POST /api/jobs/submit/hello_world", problem, status=400)
    assert run("submit", "hello_world") == 2
    error = capsys.readouterr().err
    assert "Bad Request (400, invalid_parameters)" in error
    assert "n: expected at least 1, found 0; count from 1" in error
    assert "tile: no" in error


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("completed_with_errors", 0), ("failed", 1)])
def test_wait_ends_with_the_jobs_code(
    hello: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    hello.answer(f"GET /api/jobs/{JOB_ID}", job("queued"), job("processing"), job(status))
    assert run("submit", "hello_world", "--wait", "-o", "json") == code
    assert json.loads(capsys.readouterr().out)["status"] == status
    assert hello.requests[-1][1] == {"wait": "20"}


def test_wait_that_is_too_long_ends_with_code_5(hello: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    hello.answer(f"GET /api/jobs/{JOB_ID}", job("processing"))
    assert run("submit", "hello_world", "--wait", "--timeout", "0.05") == 5
    assert f"coremachine watch {JOB_ID[:12]}" in capsys.readouterr().err


AWAY = (503, {"title": "Service Unavailable", "code": "database_unavailable", "detail": "later"})


def test_outage_does_not_end_a_wait(hello: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A database that was away for two seconds ended `submit --wait` of a job that went on and succeeded."""
    states = [
        (200, job("processing")),
        AWAY,
        (502, {}),
        DROPPED,
        (500, {"code": "invocation_aborted"}),
        AWAY,
        (200, job("processing")),
        (200, job("completed")),
    ]
    for command in (("submit", "hello_world", "--wait"), ("watch", JOB_ID), ("watch", JOB_ID, "-o", "table")):
        hello.answers[f"GET /api/jobs/{JOB_ID}"] = list(states)
        assert run(*command) == 0
        lines = capsys.readouterr().err.splitlines()
        assert [line for line in lines if "asking again" in line] == [
            "Service Unavailable (503, database_unavailable); asking again"
        ]
        assert lines.count("The server answers again.") == 1


@pytest.mark.parametrize("timeout", [("--timeout", "0.05"), ()])
def test_outage_without_end_ends_a_wait_as_a_timeout(
    hello: FakeApi,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    timeout: tuple[str, ...],
) -> None:
    monkeypatch.setattr(waiting, "OUTAGE_SECONDS", 0.05)
    hello.answer("GET /api/jobs", {"value": [job()]})
    hello.answer(f"POST /api/jobs/{JOB_ID}/rerun", {"run": 1, "stage": 1, "status": "queued"}, status=202)
    for command in (("submit", "hello_world", "--wait"), ("watch", JOB_ID[:6]), ("rerun", JOB_ID, "--wait")):
        # A rerun looks at the job before it begins.
        seen = [(200, job("failed"))] if command[0] == "rerun" else []
        hello.answers[f"GET /api/jobs/{JOB_ID}"] = [*seen, DROPPED]
        assert run(*command, *timeout) == 5
        assert f"the job is written and goes on: see `coremachine watch {JOB_ID[:12]}`" in capsys.readouterr().err


def test_answer_that_is_no_outage_ends_a_wait(hello: FakeApi, run: Run) -> None:
    hello.answers[f"GET /api/jobs/{JOB_ID}"] = [(200, job("processing")), (404, {"code": "unknown_job"})]
    assert run("watch", JOB_ID) == 3


def test_server_that_was_never_seen_is_not_waited_for(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for command in (("watch", JOB_ID), ("submit", "hello_world", "--wait")):
            assert run(*command, "--url", url) == 6
    assert "asking again" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "calls"),
    [
        (("--wait",), 0, 3),
        (("--wait", "--if-ended", "return"), 0, 3),
        (("--wait", "--force", "--idempotency-key", "k"), 0, 3),
        (("--wait", "--force"), 6, 1),
        (("--wait", "--if-ended", "rerun"), 6, 1),
        ((), 0, 3),
    ],
)
def test_submission_is_repeated_where_that_makes_no_second_job(
    hello: FakeApi, run: Run, options: tuple[str, ...], code: int, calls: int
) -> None:
    hello.answers["POST /api/jobs/submit/hello_world"] = [AWAY, DROPPED, (202, SUBMITTED)]
    hello.answer(f"GET /api/jobs/{JOB_ID}", job("completed"))
    assert run("submit", "hello_world", *options) == code
    assert len([call for call, _, _ in hello.requests if call.startswith("POST")]) == calls


def test_submission_is_not_repeated_for_long(
    hello: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client_module, "_OUTAGE_SECONDS", 0.05)
    hello.answers["POST /api/jobs/submit/hello_world"] = [AWAY]
    assert run("submit", "hello_world", "--wait") == 6
    assert "goes on" not in capsys.readouterr().err


def test_long_error_is_shown_in_one_line(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """64 KB of a message scrolled everything else away."""
    error = {"type": "Boom", "message": "no disk " + "xxx " * 16_384 + "\nsecond line"}
    api.answer(f"GET /api/jobs/{JOB_ID}", job("failed", error=error))
    for command in ("status", "watch"):
        run(command, JOB_ID, "-o", "table")
        told = capsys.readouterr()
        assert "Boom: no disk xxx" in told.out
        assert f"(64 KB in all; see `coremachine status {JOB_ID[:12]} -o json`)" in told.out.replace("\n", " ")
        assert len(told.out) < 2000
        assert "second line" not in told.out
    run("status", JOB_ID, "-o", "json")
    assert json.loads(capsys.readouterr().out)["error"] == error


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [(401, None, 1), (403, None, 1), (403, "foreign_host", 0), (403, "foreign_origin", 0)],
)
def test_key_is_advised_where_one_would_help(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], status: int, code: str | None, advice: int
) -> None:
    api.answer("GET /api/jobs", {"title": "No", "code": code, "detail": "no"}, status=status)
    assert run("list") == 2
    assert capsys.readouterr().err.count("COREMACHINE_FUNCTION_KEY") == advice


def test_errors_that_are_not_listed_are_counted(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"title": "Bad Request", "code": "x", "errors": [{"message": "n: no"}], "more_errors": 4980}
    api.answer("POST /api/jobs/submit/hello_world", problem, status=400)
    assert run("submit", "hello_world") == 2
    assert capsys.readouterr().err.splitlines()[-1] == "  and 4,980 more"


def test_interruptions_are_shown_where_there_are_any(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"task_id": "s1-0", "stage": 1, "task_type": "t", "status": "queued", "attempt": 2}
    for interruptions in (0, 2):
        api.answer(f"GET /api/jobs/{JOB_ID}/tasks", {"value": [{**task, "interruptions": interruptions}]})
        assert run("tasks", JOB_ID, "-o", "table") == 0
        assert ("interruptions" in capsys.readouterr().out) is bool(interruptions)


def test_a_task_that_a_limit_holds_back_says_so(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    task = {"task_id": "s1-0", "stage": 1, "task_type": "t", "status": "pending_retry", "attempt": 0}
    api.answer(f"GET /api/jobs/{JOB_ID}/tasks", {"value": [{**task, "held_for": "api"}]})
    assert run("tasks", JOB_ID, "-o", "table") == 0
    assert "waits for limit api" in capsys.readouterr().out


def test_watch_says_each_change_once(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer(f"GET /api/jobs/{JOB_ID}", job(), job(), job("failed", error={"type": "Boom", "message": "no disk"}))
    assert run("watch", JOB_ID, "-o", "table") == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        f"{JOB_ID[:12]} processing · greet 10/10 (1 failed) · reply 7/10 (1 failed)",
        f"{JOB_ID[:12]} failed · greet 10/10 (1 failed) · reply 7/10 (1 failed)",
    ]
    assert "Boom: no disk" in captured.out
    assert "1:05 min" in captured.out


def test_beginning_of_an_id_is_enough(api: FakeApi, run: Run) -> None:
    """An id was looked for among the newest 1,000 jobs: an older one was not found, or another job was taken."""
    api.answer("GET /api/jobs", {"value": [{"job_id": JOB_ID}]})
    api.answer(f"GET /api/jobs/{JOB_ID}", job())
    assert run("status", "3f2a") == 0
    asked = [query for call, query, _ in api.requests if call == "GET /api/jobs"]
    assert asked == [{"job_id": "3f2a", "limit": "6"}]


def test_ambiguous_and_unknown_ids_are_told_apart(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer("GET /api/jobs", {"value": [{"job_id": "ab" * 32}, {"job_id": "ac" * 32}]})
    assert run("status", "a") == 2
    assert "begins 2 job ids" in capsys.readouterr().err
    api.answer("GET /api/jobs", {"value": [{"job_id": f"a{digit}" * 32} for digit in "012345"]})
    assert run("status", "a") == 2
    assert "begins more than 5 job ids" in capsys.readouterr().err
    api.answer("GET /api/jobs", {"value": []})
    assert run("status", "f") == 3
    asked = len(api.requests)
    assert run("status", "no-id") == 3
    assert len(api.requests) == asked
    assert run("status", JOB_ID) == 3


def test_list_of_paused_jobs(api: FakeApi, run: Run) -> None:
    api.answer("GET /api/jobs", {"value": []})
    assert run("list", "--paused", "-o", "json") == 0
    assert run("list", "--not-paused", "-o", "json") == 0
    assert [query["paused"] for _, query, _ in api.requests] == ["true", "false"]


def test_list_says_why_each_job_waits(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    reason = {"code": "queue_without_app", "severity": "warning", "text": "No app reads the queue raster", "at": None}
    api.answer("GET /api/jobs", {"value": [{**job(), "reason": reason}, {**job(), "reason": None}]})
    assert run("list", "-o", "table") == 0
    shown = capsys.readouterr().out
    assert shown.count("No app reads the queue raster") == 1


def test_narrow_list_folds_reasons_and_nothing_else(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = "OSError: the source answers nothing since it was moved to another place"
    reason = {"code": "failed", "severity": "error", "text": text, "at": None}
    api.answer("GET /api/jobs", {"value": [{**job(), "reason": reason}]})
    assert run("list", "-o", "table") == 0
    head, first, *rest = capsys.readouterr().out.splitlines()
    assert head.split() == ["job", "id", "job", "type", "status", "why"]
    assert first.startswith(f"{JOB_ID[:12]}  hello_world  ")
    assert "left out, since the terminal is narrow: took, stage, created at" in " ".join(rest)


def test_nothing_of_a_table_is_cut_in_a_pipe(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had 80 columns there: ids and reasons were cut, or folded onto lines of their own."""
    monkeypatch.delenv("COLUMNS")
    text = "OSError: " + "the source answers nothing since it was moved to another place; " * 10
    reason = {"code": "failed", "severity": "error", "text": text, "at": None}
    api.answer("GET /api/jobs", {"value": [{**job(), "reason": reason}]})
    assert run("list", "-o", "table") == 0
    head, line = capsys.readouterr().out.splitlines()
    assert {"took", "stage"} < set(head.split())
    assert JOB_ID in line
    assert text.strip() in line
    assert not line.endswith("  ")


def test_list_reads_all_pages_up_to_the_limit(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [{"value": [job(), job()], "next_cursor": "c1"}, {"value": [job(), job()], "next_cursor": "c2"}]
    api.answer("GET /api/jobs", *pages)
    assert run("list", "--status", "failed", "--type", "hello_world", "--limit", "3", "-o", "json") == 0
    assert len(json.loads(capsys.readouterr().out)["value"]) == 3
    first, second = (query for _, query, _ in api.requests)
    assert first == {"status": "failed", "job_type": "hello_world", "reasons": "true", "limit": "3"}
    assert second == {**first, "cursor": "c1"}


def test_limit_beyond_what_a_list_can_have_is_all(api: FakeApi, run: Run) -> None:
    api.answer("GET /api/jobs", {"value": [job()]})
    assert run("list", "--limit", "9" * 20, "-o", "json") == 0


def test_tables_show_what_matters(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    failed = {"task_id": "s1-0", "stage": 1, "name": "[a.tif]", "task_type": "t", "status": "failed", "attempt": 2}
    error = {"type": "UnusableRaster", "message": "no [georeference]"}
    api.answer(f"GET /api/jobs/{JOB_ID}/tasks", {"value": [{**failed, "error": error}]})
    api.answer(f"GET /api/jobs/{JOB_ID}/events", {"value": [{"at": "2026-01-02T03:04:05Z", "event": "job_failed"}]})
    assert run("tasks", JOB_ID, "--status", "failed", "-o", "table") == 0
    out = capsys.readouterr().out
    assert "[a.tif]" in out
    assert "UnusableRaster: no [georeference]" in out
    assert run("events", JOB_ID, "-o", "table") == 0
    assert "job_failed" in capsys.readouterr().out


def test_end_with_failures_names_the_command_that_shows_them(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for status, is_named in (("failed", True), ("completed_with_errors", True), ("completed", False)):
        api.answer(f"GET /api/jobs/{JOB_ID}", job(status))
        run("watch", JOB_ID, "-o", "table")
        assert (f"why: coremachine failures {JOB_ID[:12]}" in capsys.readouterr().out) is is_named


def test_answer_of_another_stack_than_that_of_the_folder_is_said_to_be_one(
    api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of two projects, the one whose stack was stopped showed the jobs of the other."""
    monkeypatch.setattr(client_module, "DEFAULT_URL", api.url)
    monkeypatch.delenv("COREMACHINE_URL", raising=False)
    (tmp_path / "mine" / ".coremachine").mkdir(parents=True)
    (tmp_path / "mine" / "jobs").mkdir()
    api.answer("GET /api/jobs", {"value": []})
    for folder, is_said in ((tmp_path / "mine" / "jobs", True), (tmp_path, False)):
        monkeypatch.chdir(folder)
        assert main(["list", "-o", "json"]) == 0
        remark = f"The stack of {tmp_path / 'mine'} does not run; this is from {api.url}."
        assert (remark in capsys.readouterr().err) is is_said


def test_no_server_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert main(["list", "--url", f"http://127.0.0.1:{unused.getsockname()[1]}"]) == 6
    assert "coremachine up" in capsys.readouterr().err


def test_address_of_another_server_is_said_to_be_one(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answer("GET /api/jobs", ["not", "an", "object"])  # type: ignore[arg-type]
    assert run("list") == 1
    assert "is it CoreMachine?" in capsys.readouterr().err


def test_unknown_option_is_a_usage_error() -> None:
    assert main(["list", "--nonsense"]) == 2
    assert main(["--help"]) == 0


ANSWERS = [
    {},
    [],
    None,
    {"value": [3], "job_id": 5, "status": 7, "run": "y"},
    {"value": "abc", "job_id": JOB_ID, "status": None},
    {"value": {"a": 1}, "job_id": None, "status": ["completed"], "run": 1},
]


@pytest.mark.parametrize("answer", ANSWERS, ids=str)
def test_server_of_another_kind_is_told(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], answer: object
) -> None:
    """Any server answers some JSON: a trace of ours told nobody that it was the wrong one."""
    for path in ("jobs", "failures", "dead-letters", f"jobs/{JOB_ID}", f"jobs/{JOB_ID}/runs", f"jobs/{JOB_ID}/events"):
        api.answer(f"GET /api/{path}", answer)
    api.answer("GET /api/job-types", {"value": []})
    for path in ("submit/hello_world", f"{JOB_ID}/cancel", f"{JOB_ID}/rerun"):
        api.answer(f"POST /api/jobs/{path}", answer, status=202)
    commands = [
        ["list"],
        ["failures"],
        ["dead", "list"],
        ["submit", "hello_world"],
        ["submit", "hello_world", "--wait"],
    ]
    commands += [[name, JOB_ID] for name in ("status", "watch", "runs", "events", "cancel", "rerun")]
    for command in commands:
        assert run(*command) == 1, command
        assert "is it CoreMachine?" in capsys.readouterr().err, command


def test_nesting_without_end_is_no_answer(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer(f"GET /api/jobs/{JOB_ID}", b"[" * 100_000)
    assert run("status", JOB_ID) == 1
    assert "is it CoreMachine?" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_empty_variable_of_a_script_is_no_job(api: FakeApi, run: Run, text: str) -> None:
    """The beginning of every id: with one job in the list, `coremachine cancel "$JOB"` cancelled it."""
    api.answer("GET /api/jobs", {"value": [job("processing")]})
    api.answer(f"POST /api/jobs/{JOB_ID}/cancel", {"status": "cancelling"}, status=202)
    for command in ("cancel", "rerun", "pause", "status", "watch", "events"):
        assert run(command, text) == 2
    assert api.requests == []


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "ftp://x", "localhost:7071", "http://", "http://127.0.0.1:99999", "http://a:b", "x", "http:x"],
)
def test_address_that_is_none_is_a_usage_problem(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["list", "--url", url]) == 2
    assert "expected an address such as http://127.0.0.1:7071" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["", "\u00fc", "a\nb", "a b", "\udcff"])
def test_text_that_no_header_can_hold_is_a_usage_problem(
    hello: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    assert run("submit", "hello_world", "--idempotency-key", value) == 2
    assert "--idempotency-key: expected visible ASCII characters" in capsys.readouterr().err
    assert [call for call, _, _ in hello.requests if call.startswith("POST")] == []
    if value:
        monkeypatch.setenv("COREMACHINE_FUNCTION_KEY", "secret" + value)
        assert run("list") == 2
        told = capsys.readouterr().err
        assert ("COREMACHINE_FUNCTION_KEY: expected" in told, "secret" in told) == (True, False)


def test_disk_that_is_full_is_told_in_one_line() -> None:
    command = [sys.executable, "-m", "coremachine.cli", "--help"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("cannot go on: [Errno 28]")
    assert len(done.stderr.splitlines()) == 1


def test_a_result_is_shown_whole(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    reason = "its grid is rotated " * 30
    result = {
        "totals": {"converted": 2, "mean_depth": None},
        "failures": [{"name": "a.tif", "reason": reason}, {"name": "b[red].tif", "reason": "\x1b[31mdamaged"}],
        "names": ["x", "y"],
        "nothing": [],
    }
    api.answer(f"GET /api/jobs/{JOB_ID}", {**job("completed"), "result": result})
    assert run("result", JOB_ID, "-o", "table") == 0
    said = capsys.readouterr().out
    assert "…" not in said
    assert " ".join(said.split()).count("rotated") == 30
    for text in ("converted", "b[red].tif", "mean_depth none", "- y", "nothing []"):
        assert text in said
    assert "\x1b" not in said
    assert run("result", JOB_ID) == 0
    assert json.loads(capsys.readouterr().out) == result


def test_where_a_result_is_is_shown_whole_with_the_host_of_the_api(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = "/data/" + "deep/" * 60
    preview = f"/api/jobs/{JOB_ID}/preview"
    result = {"collection": f"{folder}collection.json", "preview": preview, "summary": "s3://b/x.json", "title": "x"}
    links = {"self": f"http://localhost:7071/api/jobs/{JOB_ID}"}
    api.answer(f"GET /api/jobs/{JOB_ID}", {**job("completed"), "result": result, "links": links})
    assert run("status", JOB_ID, "-o", "table") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"collection {folder}collection.json" in lines
    assert f"preview http://localhost:7071{preview}" in lines
    assert "summary s3://b/x.json" in lines
    assert "title x" not in lines


@pytest.mark.parametrize(("status", "code"), [("processing", 4), ("failed", 1)])
def test_a_job_without_a_result_says_so(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    found = {**job(status), "result": None, "error": {"message": "the disk is full"}}
    api.answer(f"GET /api/jobs/{JOB_ID}", found)
    assert run("result", JOB_ID) == code
    said = capsys.readouterr().err
    assert f"is {status} and has no result" in said
    assert ("the disk is full" in said) is (status == "failed")


def types_with_a_path() -> dict:
    entry = {"type": "string", "format": "path"}
    schema = {"type": "object", "properties": {"source": entry, "title": {"type": "string"}}}
    return {"value": [{"job_type": "maps", "parameters_schema": schema}]}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("./in/*.tif", "{here}/in/*.tif"),
        ("in/../other", "{here}/other"),
        ("/data", "/data"),
        ("s3://bucket/in", "s3://bucket/in"),
        ("file:///data", "file:///data"),
    ],
)
def test_a_relative_path_is_of_the_callers_folder(
    api: FakeApi, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, sent: str
) -> None:
    """The server works in another folder, and would take it from there."""
    monkeypatch.chdir(tmp_path)
    api.answer("GET /api/job-types", types_with_a_path())
    api.answer("POST /api/jobs/submit/maps", SUBMITTED, status=202)
    assert run("submit", "maps", "-p", f"source={given}", "-p", "title=./in") == 0
    (tmp_path / "parameters.json").write_text(json.dumps({"source": given, "title": "./in"}))
    assert run("submit", "maps", "--params-file", "parameters.json") == 0
    bodies = [body for call, _, body in api.requests if call.startswith("POST")]
    assert bodies == [{"source": sent.format(here=tmp_path), "title": "./in"}] * 2


def test_paths_for_a_server_elsewhere_are_left_to_it() -> None:
    client = ApiClient(Server("https://floods.example"))
    assert not client.is_on_this_machine
    values = {"source": "./in"}
    assert with_whole_paths(client, {"source": {"type": "str", "format": "path"}}, values) == values


def test_job_types_have_types_defaults_and_what_is_required(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    properties = {"source": {"type": "string"}, "n": {"type": ["integer", "null"], "default": 5}, "any": {}}
    schema = {"type": "object", "properties": properties, "required": ["source"]}
    api.answer("GET /api/job-types", {"value": [{"job_type": "hello_world", "parameters_schema": schema}]})
    assert run("job-types", "-o", "table") == 0
    assert "source: string (required), n: integer or null = 5, any" in capsys.readouterr().out


@pytest.fixture
def silent_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its processes are stopped: the system takes connections and requests, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(client_module, "_PATIENCE_SECONDS", 0.05)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_server_that_takes_requests_and_does_not_answer_is_there(
    silent_server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Client.ask
    monkeypatch.setattr(Client, "ask", lambda self, call: real(self, replace(call, timeout_seconds=0.3)))
    assert main(["list", "--url", silent_server]) == 6
    told = capsys.readouterr().err
    assert f"waiting for an answer of {silent_server}, at most 30 s" in told
    assert f"no answer from {silent_server}: it took the request, and did not answer within 0.3 s" in told
    assert "A server is there" in told
    assert "coremachine up" not in told


def test_answer_in_time_is_not_announced(hello: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    hello.answer("GET /api/jobs", {"value": [], "next_cursor": None})
    assert run("list") == 0
    assert "waiting" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stages", "found"), [(3, "found 9; hello_world has stages 1 to 3"), (1, "found 9; hello_world has stage 1 alone")]
)
def test_tasks_of_a_stage_that_the_job_has_not(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], stages: int, found: str
) -> None:
    api.answer(f"GET /api/jobs/{JOB_ID}/tasks", {"value": [], "next_cursor": None})
    api.answer(f"GET /api/jobs/{JOB_ID}", job() | {"total_stages": stages})
    assert run("tasks", JOB_ID, "--stage", "9") == 2
    assert found in capsys.readouterr().err
    assert run("tasks", JOB_ID, "--stage", "1", "-o", "table") == 0
    assert "No tasks." in capsys.readouterr().out
