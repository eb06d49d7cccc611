"""`coremachine webhooks` over real HTTP, against a fake API."""

import json
from collections.abc import Callable

import pytest

from tests.unit.cli.conftest import JOB_ID, FakeApi

Run = Callable[..., int]
ID = "0b0c3f0e-0000-4000-8000-000000000001"
SECRET = "whsec_dGhpcyBpcyBzaG93biBvbmNl"  # noqa: S105 - of a fake
WEBHOOK = {
    "name": "team",
    "url": "https://example.org/hook",
    "url_setting": None,
    "events": ["job.failed"],
    "job_types": ["flood_*"],
    "paused": False,
}
DELIVERY = {"id": ID, "event": "job.failed", "subject": JOB_ID, "status": "dead", "attempts": 9, "reason": "found 500"}


@pytest.fixture
def answers(api: FakeApi) -> FakeApi:
    api.answer("GET /api/webhooks", {"value": [WEBHOOK]})
    api.answer("GET /api/webhooks/team", WEBHOOK)
    api.answer("GET /api/webhooks/team/deliveries", {"value": [DELIVERY]})
    api.answer("PUT /api/webhooks/team", {**WEBHOOK, "secret": SECRET}, status=201)
    api.answer("POST /api/webhooks/team/rotate-secret", {"name": "team", "secret": SECRET})
    api.answer("POST /api/webhooks/team/test", {**DELIVERY, "status": "pending"}, status=202)
    api.answer(f"POST /api/webhooks/team/deliveries/{ID}/redeliver", {**DELIVERY, "status": "pending"}, status=202)
    api.answer("DELETE /api/webhooks/team", {"name": "team"})
    return api


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["list"], ["team", "https://example.org/hook", "job.failed"]),
        (["show", "team"], ["flood_*", ID[:12], "dead", "found 500"]),
        (["deliveries", "team", "--status", "dead"], [ID[:12], "found 500"]),
        (["rotate-secret", "team"], [SECRET]),
        (["test", "team"], [f"{ID} pending"]),
        (["redeliver", "team", ID], [f"{ID} pending"]),
        (["redeliver", "team", ID[:12]], [f"{ID} pending"]),
        (["delete", "team"], ["team is deleted"]),
        (["set", "team", "https://example.org/hook"], ["team is set", SECRET]),
    ],
)
def test_people_read_what_came_of_it(answers, run, capsys, words, shown):
    assert run("webhooks", *words, "-o", "table") == 0
    out = capsys.readouterr().out
    assert [text for text in shown if text not in out] == []
    assert run("webhooks", *words, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)


def test_a_webhook_is_sent_as_it_is_asked_for(answers, run):
    words = ["-e", "job.failing", "--failed-tasks", "5", "--type", "flood_*", "--tag", "team=geo", "--paused"]
    assert run("webhooks", "set", "team", "--address-setting", "COREMACHINE_WEBHOOK_URL_TEAM", *words) == 0
    (body,) = [body for call, _, body in answers.requests if call.startswith("PUT")]
    assert body == {
        "url_setting": "COREMACHINE_WEBHOOK_URL_TEAM",
        "events": ["job.failing"],
        "job_types": ["flood_*"],
        "tags": {"team": "geo"},
        "failed_tasks": 5,
        "paused": True,
    }


def test_a_tag_without_a_value_is_refused(answers, run, capsys):
    assert run("webhooks", "set", "team", "https://example.org/", "--tag", "geo") == 2
    assert "--tag: expected NAME=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("0b0c3f0e", 2, "begins 2 ids of deliveries"),
        ("no-such", 3, "expected the id of a delivery or its beginning, found none that begins with 'no-such'; see "),
        ("", 3, "found none that begins with ''"),
    ],
)
def test_a_delivery_that_is_not_the_only_one(answers, run, capsys, text, code, told):
    """The error was a regular expression."""
    answers.answer("GET /api/webhooks/team/deliveries", {"value": [DELIVERY, {**DELIVERY, "id": f"{ID[:-1]}2"}]})
    assert run("webhooks", "redeliver", "team", text) == code
    assert told in capsys.readouterr().err


def test_the_server_looks_for_the_beginning_of_an_id(answers, run):
    assert run("webhooks", "redeliver", "team", ID[:12]) == 0
    assert [query for call, query, _ in answers.requests if call.startswith("GET")] == [
        {"delivery_id": ID[:12], "limit": "6"}
    ]


def test_a_delivery_is_a_line_on_a_terminal_and_whole_in_a_pipe(answers, run, capsys, monkeypatch):
    assert run("webhooks", "deliveries", "team", "-o", "table") == 0
    assert ID not in capsys.readouterr().out
    monkeypatch.delenv("COLUMNS")
    assert run("webhooks", "deliveries", "team", "-o", "table") == 0
    assert ID in capsys.readouterr().out
