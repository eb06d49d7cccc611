"""Commands for many jobs, deletions, holds and the audit log. Over real HTTP."""

import json

import pytest

from coremachine.cli.main import main
from tests.unit.cli.conftest import JOB_ID, job

COUNTED = {
    "action": "cancel",
    "dry_run": True,
    "matched": 2,
    "remaining": 2,
    "counts": {},
    "value": [],
    "sample": [job()],
}


def acted(outcome="cancelled", *, remaining=0):
    value = [{"job_id": JOB_ID, "outcome": outcome}]
    cursor = "place" if remaining else None
    return {**COUNTED, "dry_run": False, "remaining": remaining, "next_cursor": cursor, "value": value}


class TestBulk:
    def test_dry_run_sends_the_filter_and_no_confirm(self, api, run, capsys):
        api.answer("POST /api/jobs/bulk", COUNTED)
        options = ["--type", "t", "--tag", "team=geo", "--tag", "order", "--until", "2026-01-01T00:00+00:00"]
        assert run("bulk", "cancel", *options, "--dry-run", "--reason", "why", "-o", "table") == 0
        ((_, _, body),) = api.requests
        assert body == {
            "action": "cancel",
            "filter": {
                "job_type": ["t"],
                "tags": {"team": "geo", "order": None},
                "created_before": "2026-01-01T00:00:00+00:00",
            },
            "reason": "why",
        }
        assert "2 jobs match; nothing was done" in capsys.readouterr().out

    def test_goes_on_until_all_that_were_counted_are_done(self, api, run, capsys):
        api.answer("POST /api/jobs/bulk", COUNTED, acted(remaining=1), acted())
        assert run("bulk", "cancel", "--all", "--yes") == 0
        sent = [(body.get("confirm"), body.get("cursor")) for _, _, body in api.requests]
        assert sent == [(None, None), (2, None), (1, "place")]
        assert len(json.loads(capsys.readouterr().out)["value"]) == 2

    def test_request_that_fails_comes_after_what_was_done(self, api, run, capsys):
        """The jobs of the requests before it are not lost from the answer."""
        refused = {"title": "Conflict", "status": 409, "code": "more_jobs_match", "detail": "more"}
        answers = [(200, COUNTED), (200, acted(remaining=1)), (409, refused)]
        api.answers["POST /api/jobs/bulk"] = answers
        assert run("bulk", "rerun", "--all", "--yes") == 4
        said = capsys.readouterr()
        assert [each["job_id"] for each in json.loads(said.out)["value"]] == [JOB_ID]
        assert "more" in said.err

    def test_nobody_is_asked_in_a_script(self, api, run, capsys):
        api.answer("POST /api/jobs/bulk", COUNTED)
        assert run("bulk", "cancel", "--all") == 2
        assert "expected --yes" in capsys.readouterr().err
        assert len(api.requests) == 1

    @pytest.mark.parametrize("options", [[], ["--all", "--type", "t"]])
    def test_which_jobs_has_to_be_said(self, api, run, capsys, options):
        assert run("bulk", "cancel", *options) == 2
        assert "chooses jobs, or --all" in capsys.readouterr().err
        assert api.requests == []

    def test_job_that_refused_is_exit_code_1(self, api, run, capsys):
        api.answer("POST /api/jobs/bulk", {**COUNTED, "matched": 1}, acted("refused"))
        assert run("bulk", "cancel", "--all", "--yes", "-o", "table") == 1
        assert "refused" in capsys.readouterr().out


def test_delete_goes_on_while_a_part_is_left(api, run):
    api.answer("GET /api/jobs", {"value": [job()]})
    api.answer(f"DELETE /api/jobs/{JOB_ID}", {"outcome": "deleting"}, {"outcome": "deleted"})
    assert run("delete", JOB_ID, "--reason", "test data", "--yes") == 0
    assert [(call, query) for call, query, _ in api.requests] == [
        (f"DELETE /api/jobs/{JOB_ID}", {"reason": "test data"})
    ] * 2


def test_delete_asks_for_yes_in_a_script(api, run, capsys):
    assert run("delete", JOB_ID) == 2
    assert "expected --yes" in capsys.readouterr().err


def test_hold_and_release(api, run, capsys):
    api.answer(f"POST /api/jobs/{JOB_ID}/hold", {"status": "completed", "hold": {"reason": "x"}, "changed": True})
    api.answer(f"POST /api/jobs/{JOB_ID}/release", {"status": "completed", "hold": None, "changed": False})
    assert run("hold", JOB_ID, "--reason", "x", "-o", "table") == 0
    assert run("release", JOB_ID, "-o", "table") == 0
    shown = capsys.readouterr().out
    assert "under a legal hold" in shown
    assert "under no hold (as before)" in shown


@pytest.mark.parametrize(
    ("kept", "noted"), [({"reason": "one"}, "keeps its reason 'one'"), ({}, "stays without a reason")]
)
def test_a_reason_that_a_hold_does_not_take_is_not_dropped_in_silence(api, run, capsys, kept, noted):
    answer = {"status": "completed", "hold": {"at": "2026-01-02T03:04:05Z", **kept}, "changed": False}
    api.answer(f"POST /api/jobs/{JOB_ID}/hold", answer)
    assert run("hold", JOB_ID, "--reason", "two", "-o", "table") == 0
    shown = " ".join("".join(capsys.readouterr()).split())
    assert f"the hold {noted}; for another one: coremachine release {JOB_ID}, then hold it again" in shown
    assert run("hold", JOB_ID, "-o", "table") == 0
    assert "for another one" not in "".join(capsys.readouterr())


def test_audit_shows_who_did_what(api, run, capsys):
    row = {
        "audit_id": 1,
        "job_id": JOB_ID,
        "action": "cancel",
        "actor": "kim",
        "reason": "why",
        "detail": {},
        "at": "x",
    }
    api.answer("GET /api/audit", {"value": [row]})
    assert run("audit", "--action", "cancel", "--actor", "kim", "-o", "table") == 0
    assert api.requests[-1][1] == {"action": "cancel", "actor": "kim", "limit": "50"}
    assert "kim" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["banana", "d", "1.5d", "²d", "-1d"])
def test_age_that_is_none_names_its_option(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "prune", "--older-than", text]) == 2
    assert f"--older-than: expected a number and d, h or m, such as 90d, found {text!r}" in capsys.readouterr().err
