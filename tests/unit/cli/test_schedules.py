"""`coremachine schedules` over real HTTP, against a fake API."""

import json
from collections.abc import Callable

import pytest

from tests.unit.cli.conftest import JOB_ID, FakeApi

Run = Callable[..., int]
AT = "2026-01-02T03:04:05Z"
SCHEDULE = {
    "name": "nightly",
    "job_type": "hello_world",
    "parameters": {"n": 3, "is_whole": True, "tiles": None},
    "cron": "30 2 * * *",
    "time_zone": "Europe/Berlin",
    "paused": False,
    "next_tick_at": AT,
    "description": None,
}
TICK = {"tick_at": AT, "status": "skipped", "reason": "overlap", "detail": "job x has not ended", "job_id": None}


@pytest.fixture
def answers(api: FakeApi) -> FakeApi:
    api.answer("GET /api/schedules", {"value": [SCHEDULE, {**SCHEDULE, "name": "old", "next_tick_at": None}]})
    api.answer("GET /api/schedules/nightly", SCHEDULE)
    api.answer("GET /api/schedules/nightly/ticks", {"value": [TICK]})
    api.answer("GET /api/schedules/nightly/next", {"value": ["2026-01-06T02:30:00+01:00"]})
    api.answer("PUT /api/schedules/nightly", {**SCHEDULE, "notes": ["not checked"]}, status=201)
    api.answer("POST /api/schedules/nightly/pause", {**SCHEDULE, "paused": True})
    api.answer("POST /api/schedules/nightly/resume", SCHEDULE)
    api.answer("POST /api/schedules/nightly/run", {**TICK, "status": "submitted", "job_id": JOB_ID}, status=202)
    api.answer("DELETE /api/schedules/nightly", {"name": "nightly"})
    api.answer("GET /api/schedules/nightly/explain", {"findings": [{"severity": "warning", "message": "it is paused"}]})
    api.answer("GET /api/job-types", {"value": []})
    return api


def test_a_paused_schedule_has_no_next_tick(answers, run, capsys):
    """It had the one that was the next when it was paused, which may be long over."""
    paused = {**SCHEDULE, "paused": True}
    answers.answer("GET /api/schedules", {"value": [paused]})
    answers.answer("GET /api/schedules/nightly", paused)
    for words in (["list"], ["show", "nightly", "--limit", "0"]):
        assert run("--utc", "schedules", *words, "-o", "table") == 0
        shown = capsys.readouterr().out
        assert "30 2 * * *" in shown
        assert "2026-01-02" not in shown


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["list", "--not-paused"], ["nightly", "active", "old", "ended"]),
        (
            ["show", "nightly"],
            ["30 2 * * *", "skipped", "overlap: job x has not ended", '{"n": 3, "is_whole": true, "tiles": null}'],
        ),
        (["pause", "nightly", "--reason", "why"], ["nightly paused"]),
        (["resume", "nightly"], ["nightly active, next tick"]),
        (["run", "nightly"], [JOB_ID]),
        (["delete", "nightly"], ["nightly is deleted"]),
        (["next", "nightly"], ["2026-01-06 02:30:00+01:00"]),
        (["explain", "nightly"], ["it is paused"]),
    ],
)
def test_people_read_what_came_of_it(answers, run, capsys, words, shown):
    assert run("schedules", *words, "-o", "table") == 0
    out = capsys.readouterr().out
    assert [text for text in shown if text not in out] == []
    assert run("schedules", *words, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)


def test_a_schedule_is_sent_as_it_is_asked_for(answers, run, capsys):
    words = ["--cron", "30 2 * * *", "--zone", "Europe/Berlin", "-p", "day={tick:%Y-%m-%d}", "--overlap", "wait"]
    code = run("schedules", "set", "nightly", "report", *words, "--starts", "2026-01-01T00:00+00:00", "-o", "json")
    assert code == 0
    assert "not checked" in capsys.readouterr().err
    (body,) = [body for call, _, body in answers.requests if call.startswith("PUT")]
    starts_at = body.pop("starts_at")
    assert starts_at[:4] in {"2025", "2026"}
    assert body == {
        "job_type": "report",
        "cron": "30 2 * * *",
        "time_zone": "Europe/Berlin",
        "overlap": "wait",
        "parameters": {"day": "{tick:%Y-%m-%d}"},
    }


def test_a_time_that_is_none_is_refused(answers, run, capsys):
    assert run("schedules", "set", "nightly", "report", "--cron", "* * * * *", "--ends", "soon") == 2
    assert "--ends: expected a time" in capsys.readouterr().err


def test_an_unknown_schedule_has_its_exit_code(api, run):
    assert run("schedules", "show", "nobody") == 3


def test_a_reason_is_sent_only_where_there_is_one(answers, run):
    run("schedules", "pause", "nightly", "--reason", "why")
    run("schedules", "resume", "nightly")
    assert [body for call, _, body in answers.requests if call.startswith("POST")] == [{"reason": "why"}, None]
