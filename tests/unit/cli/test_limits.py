"""`coremachine limits` over real HTTP, against a fake API."""

import json

import pytest

from tests.unit.cli.conftest import JOB_ID

LIMIT = {
    "name": "tiles-api",
    "at_once": 4,
    "rate": "100/min",
    "is_edited": True,
    "held": 3,
    "reserved": 1,
    "begun": 7,
    "waiting": 2,
    "next_at": None,
    "edited_by": "kim",
    "edited_at": None,
    "reason": None,
    "holders": [{"job_id": JOB_ID, "run": 1, "stage": 2, "count": 3}],
}


@pytest.fixture
def answers(api):
    api.answer("GET /api/limits", {"value": [LIMIT, {**LIMIT, "name": "disk", "is_edited": False, "holders": []}]})
    api.answer("PUT /api/limits/tiles-api", LIMIT)
    api.answer("DELETE /api/limits/tiles-api", {"name": "tiles-api"})
    return api


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["list"], ["tiles-api", "100/min", "kim", f"{JOB_ID[:12]} stage 2 (3)", "disk"]),
        (["set", "tiles-api", "--at-once", "4", "--rate", "100/min", "--reason", "why"], ["tiles-api", "100/min"]),
        (["forget", "tiles-api"], ["tiles-api: the numbers are those that stages declare"]),
    ],
)
def test_people_read_what_came_of_it(answers, run, capsys, monkeypatch, words, shown):
    monkeypatch.setenv("COLUMNS", "200")
    assert run("limits", *words, "-o", "table") == 0
    out = capsys.readouterr().out
    assert [text for text in shown if text not in out] == []
    assert run("limits", *words, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)


def test_set_sends_what_was_chosen(answers, run):
    assert run("limits", "set", "tiles-api", "--at-once", "0") == 0
    assert answers.requests[1:] == [("PUT /api/limits/tiles-api", {}, {"at_once": 0})]


def test_numbers_for_a_limit_that_no_stage_names_are_noted(answers, run, capsys):
    """A wrong letter in a name limited nothing, in silence."""
    assert run("limits", "set", "tiles-api", "--at-once", "0", "-o", "table") == 0
    assert "no stage" not in capsys.readouterr().err
    answers.answer("PUT /api/limits/tiles-ipa", {**LIMIT, "name": "tiles-ipa"})
    for output in ("table", "json"):
        assert run("limits", "set", "tiles-ipa", "--at-once", "0", "-o", output) == 0
        noted = capsys.readouterr().err
        assert "no stage has needed a limit 'tiles-ipa' lately (did you mean tiles-api?)" in noted
        assert "coremachine limits forget tiles-ipa" in noted
