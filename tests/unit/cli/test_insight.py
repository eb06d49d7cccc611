"""explain, failures and dead over real HTTP, against a fake API."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from coremachine.cli import overview
from tests.unit.cli.conftest import JOB_ID, FakeApi

Run = Callable[..., int]
AT = "2026-01-02T03:04:05Z"
FINGERPRINT = "0123456789abcdef"
EXPLANATION = {
    "job_id": JOB_ID,
    "status": "processing",
    "run": 2,
    "stage": 1,
    "total_stages": 3,
    "at": AT,
    "findings": [
        {"code": "lease_expired", "severity": "warning", "message": "in the hands of [x]", "advice": "look at its log"},
        {"code": "tasks_running", "severity": "info", "message": "running in y", "advice": None},
    ],
}
GROUP = {
    "fingerprint": FINGERPRINT,
    "error_type": "OSError",
    "message": "disk full",
    "count": 12,
    "job_types": ["a", "b"],
    "stages": [2],
    "last_at": AT,
}
TASK = {
    "job_id": JOB_ID,
    "stage": 2,
    "task_id": "s2-a",
    "name": None,
    "attempt": 3,
    "finished_at": AT,
    "fingerprint": FINGERPRINT,
    "error": {"type": "OSError", "message": "disk full"},
}
LETTER = {
    "dead_letter_id": 12,
    "queue": "tasks",
    "kind": "task",
    "job_id": JOB_ID,
    "stage": 2,
    "received_at": AT,
    "reason": "TTLExpiredException",
    "description": "too late",
    "resolution": None,
}


def redriven(*outcomes: str, remaining: int = 0) -> dict:
    items = [
        {"dead_letter_id": number, "queue": "tasks", "job_id": JOB_ID, "outcome": o, "detail": "d"}
        for number, o in enumerate(outcomes, start=12)
    ]
    return {
        "dry_run": False,
        "counts": {o: outcomes.count(o) for o in outcomes},
        "remaining": remaining,
        "value": items,
    }


def test_explanation_shows_findings_with_advice(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer(f"GET /api/jobs/{JOB_ID}/explain", EXPLANATION)
    assert run("explain", JOB_ID, "-o", "table") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == [
        "3f2a9c000000 processing · stage 1/3 · run 2",
        "! in the hands of [x]",
        "  → look at its log",
        "· running in y",
    ]
    assert run("explain", JOB_ID) == 0
    assert json.loads(capsys.readouterr().out) == EXPLANATION


def waiting(job_id: str, **reason: object) -> dict:
    finished_at = datetime.now(UTC).isoformat()
    job = {"job_id": job_id, "job_type": "tiles", "status": "processing", "reason": reason or None}
    return {**job, "finished_at": finished_at}


def test_whole_server_is_explained_by_cause(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    unread = {"code": "queue_without_app", "severity": "warning", "text": "No app reads the queue raster", "at": None}
    later = {"code": "starts_later", "severity": "info", "text": "Begins later", "at": AT}
    failed = {"code": "failed", "severity": "error", "text": "OSError: disk full", "at": None}
    jobs = [waiting(f"{number}" * 64, **unread) for number in range(5)]
    api.answer("GET /api/queues", {"value": [], "findings": EXPLANATION["findings"]})
    letters = {"count": 2, "queues": ["jobs"], "reason": "R", "description": "d", "fingerprint": FINGERPRINT}
    api.answer("GET /api/dead-letters", {"value": [letters]})
    api.answer("GET /api/schedules", {"value": [{"name": "nightly"}]})
    paused = {"code": "paused", "severity": "warning", "message": "it is paused by kim", "advice": "resume it"}
    api.answer("GET /api/schedules/nightly/explain", {"findings": [paused, EXPLANATION["findings"][1]]})
    long_ago = {**waiting("9" * 64, **failed), "finished_at": AT}
    open_jobs = [*jobs, waiting("a" * 64, **later), waiting("b" * 64)]
    api.answer("GET /api/jobs", {"value": open_jobs}, {"value": [waiting(JOB_ID, **failed), long_ago]})
    assert run("explain", "-o", "table") == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "✗ job of type tiles (3f2a9c000000): OSError: disk full",
        "  → coremachine explain 3f2a9c000000",
        "! in the hands of [x]",
        "  → look at its log",
        "! 2 dead letters on the queue jobs: R: d",
        f"  → coremachine dead list --fingerprint {FINGERPRINT}",
        "! schedule nightly: it is paused by kim",
        "  → resume it",
        f"! 5 jobs of type tiles ({'0' * 12}, {'1' * 12}, {'2' * 12} and others): No app reads the queue raster",
        f"  → coremachine explain {'0' * 12}",
    ]


def test_an_app_that_is_not_ready_still_has_its_jobs_explained(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module that could not be loaded hid all that stood: the answer of the queues ended the command."""
    problem = {"title": "Not ready", "code": "app_not_ready", "detail": "jobs/tiles.py, line 3"}
    api.answer("GET /api/queues", problem, status=503)
    api.answer("GET /api/dead-letters", {"value": []})
    api.answer("GET /api/schedules", {"value": []})
    failed = {"code": "failed", "severity": "error", "text": "OSError: disk full", "at": None}
    api.answer("GET /api/jobs", {"value": []}, {"value": [waiting(JOB_ID, **failed)]})
    assert run("explain", "-o", "table") == 0
    out = capsys.readouterr().out
    assert "✗ the app cannot tell what waits in its queues: Not ready (503, app_not_ready)" in out
    assert "jobs/tiles.py, line 3" in out
    assert "✗ job of type tiles (3f2a9c000000): OSError: disk full" in out


def test_oldest_jobs_are_looked_at_first_and_what_was_not_is_said(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest 500 were, without a word of the others: what does not move is usually old."""
    monkeypatch.setattr(overview, "MOST_JOBS", 2)
    monkeypatch.setattr(overview, "MOST_SCHEDULES", 1)
    api.answer("GET /api/queues", {"value": [], "findings": []})
    api.answer("GET /api/dead-letters", {"value": []})
    api.answer("GET /api/schedules", {"value": [{"name": "a"}, {"name": "b"}]})
    api.answer("GET /api/schedules/a/explain", {"findings": []})
    api.answer("GET /api/jobs", {"value": [waiting(f"{number}" * 64) for number in range(3)]}, {"value": []})
    assert run("explain", "-o", "table") == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "· looked at the 2 oldest open jobs only; there are more",
        "· looked at the 1 first schedules by name only; there are more",
    ]
    (asked, _) = [query for call, query, _ in api.requests if call == "GET /api/jobs"]
    assert (asked["sort"], asked["limit"]) == ("created_at", "3")


def test_jobs_that_wait_for_a_limit_and_those_with_failed_tasks_are_named(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """While two jobs were blocked by a limit, and others had ended with errors, it found that every job moves."""
    limit = {"code": "waits_for_limit", "severity": "info", "text": "Waits for the limit api", "at": None}
    errors = {"code": "completed_with_errors", "severity": "warning", "text": "OSError: disk full", "at": None}
    api.answer("GET /api/queues", {"value": [], "findings": []})
    api.answer("GET /api/dead-letters", {"value": []})
    api.answer("GET /api/schedules", {"value": []})
    blocked = [waiting(f"{number}" * 64, **limit) for number in range(2)]
    api.answer("GET /api/jobs", {"value": blocked}, {"value": [waiting(JOB_ID, **errors)]})
    assert run("explain", "-o", "table") == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "! job of type tiles (3f2a9c000000) completed with errors: OSError: disk full",
        "  → coremachine explain 3f2a9c000000",
        f"· 2 jobs of type tiles ({'0' * 12}, {'1' * 12}): Waits for the limit api",
        f"  → coremachine explain {'0' * 12}",
    ]
    (_, asked) = [query for call, query, _ in api.requests if call == "GET /api/jobs"]
    assert "completed_with_errors" in str(asked["status"])


def test_server_where_all_goes_well_has_nothing_to_explain(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answer("GET /api/queues", {"value": [], "findings": []})
    api.answer("GET /api/dead-letters", {"value": []})
    api.answer("GET /api/schedules", {"value": []})
    api.answer("GET /api/jobs", {"value": []})
    assert run("explain", "-o", "table") == 0
    assert "Every job moves" in "".join(capsys.readouterr())
    assert run("explain", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"findings": []}


def test_failures_are_grouped_then_listed_by_fingerprint(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answer("GET /api/failures", {"value": [GROUP]}, {"value": [TASK]}, {"value": []})
    assert run("failures", "--type", "a", "-o", "table") == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("12", FINGERPRINT, "a, b", "OSError: disk full"))
    assert "[2]" not in shown
    assert run("failures", JOB_ID, "--fingerprint", FINGERPRINT, "-o", "table") == 0
    shown = capsys.readouterr()
    assert "s2-a" in shown.out
    assert f"coremachine rerun {JOB_ID} --failed" in shown.err
    assert run("failures", "--each", "-o", "table") == 0
    assert "No failed tasks." in capsys.readouterr().out
    assert [query for _, query, _ in api.requests] == [
        {"job_type": "a", "group": "true", "limit": "50"},
        {"job_id": JOB_ID, "fingerprint": FINGERPRINT, "group": "false", "limit": "50"},
        {"group": "false", "limit": "50"},
    ]


def test_dead_messages_are_listed_and_grouped(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    group = {
        "fingerprint": FINGERPRINT,
        "count": 3,
        "queues": ["tasks"],
        "last_at": AT,
        "reason": "r",
        "description": None,
    }
    api.answer("GET /api/dead-letters", {"value": [LETTER]}, {"value": [group]})
    assert run("dead", "list", "--queue", "tasks", "-o", "table") == 0
    shown = capsys.readouterr().out
    assert "TTLExpiredException: too late" in shown
    assert "resolution" not in shown
    assert run("dead", "list", "--group", "--all", "-o", "table") == 0
    assert FINGERPRINT in capsys.readouterr().out
    assert [query for _, query, _ in api.requests] == [
        {"queue": "tasks", "limit": "50"},
        {"resolved": "all", "group": "true", "limit": "50"},
    ]
    assert run("dead", "list", "--group", "--fingerprint", FINGERPRINT) == 2


def test_dead_message_is_shown_with_its_body(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer("GET /api/dead-letters/12", {**LETTER, "body": '{"a": [1]}'})
    assert run("dead", "show", "12", "-o", "table") == 0
    shown = capsys.readouterr().out
    assert '{"a": [1]}' in shown
    assert "reason TTLExpiredException" in shown
    assert run("dead", "show", "13") == 3


def test_redrive_asks_for_ids_or_a_filter(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer(
        "POST /api/dead-letters/redrive", redriven("sent", "sent"), redriven("to_be_sent", remaining=7), redriven()
    )
    assert run("dead", "redrive", "12", "13", "-o", "table") == 0
    assert "sent" in capsys.readouterr().out
    assert run("dead", "redrive", "--queue", "tasks", "--job", JOB_ID, "--dry-run", "-o", "table") == 0
    assert "7 more fit" in capsys.readouterr().err
    assert run("dead", "redrive", "--fingerprint", FINGERPRINT, "-o", "table") == 0
    assert "No dead message fits." in capsys.readouterr().out
    assert [body for _, _, body in api.requests] == [
        {"dry_run": False, "ids": [12, 13]},
        {"dry_run": True, "queue": "tasks", "job_id": JOB_ID},
        {"dry_run": False, "fingerprint": FINGERPRINT},
    ]
    assert run("dead", "redrive") == 2
    assert "--queue, --job, --fingerprint" in capsys.readouterr().err


def test_message_that_is_not_there_is_named(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """`counts` had the others alone, with exit code 0."""
    api.answer("POST /api/dead-letters/redrive", redriven("sent", "resolved"))
    assert run("dead", "redrive", "12", "13", "99", "98", "-o", "json") == 1
    assert "no such dead message: 98, 99; see `dead list`" in capsys.readouterr().err


@pytest.mark.parametrize("outcome", ["not_sent", "unreadable", "incomplete"])
def test_message_that_could_not_be_sent_is_a_failure(api: FakeApi, run: Run, outcome: str) -> None:
    api.answer("POST /api/dead-letters/redrive", redriven("sent", outcome))
    assert run("dead", "redrive", "--queue", "tasks") == 1
