"""Submissions from a file, with tags and start times, tried only; lists by all filters. Over real HTTP."""

import json

import pytest

from coremachine.cli import batch
from tests.unit.cli.conftest import JOB_ID, job

SUBMITTED = {"job_id": JOB_ID, "job_type": "t", "status": "queued", "run": 1, "created": True, "links": {}}
DONE = {"index": 0, "status": 202, "job": {**SUBMITTED, "outcome": "created", "advice": None}}
REFUSED = {"index": 1, "status": 400, "problem": {"detail": "n: expected a number"}}


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "jobs.jsonl"
    # Editors of Windows begin a file with a mark.
    path.write_text('{"job_type": "t", "parameters": {"n": 1}}\n\n{"job_type": "t"}\n', encoding="utf-8-sig")
    return path


class TestFromLines:
    def test_each_line_is_one_submission_and_a_refused_one_is_named_by_its_line(self, api, run, capsys, lines):
        api.answer("POST /api/jobs/submit:batch", {"value": [DONE, REFUSED], "counts": {"created": 1, "refused": 1}})
        assert run("submit", "--from-jsonl", str(lines), "-o", "table") == 1
        assert api.requests[-1][2] == {"jobs": [{"job_type": "t", "parameters": {"n": 1}}, {"job_type": "t"}]}
        shown = capsys.readouterr().out
        assert "2 submissions: 1 created, 1 refused" in shown
        assert "line 3 n: expected a number" in shown

    def test_json_has_every_outcome_with_its_line(self, api, run, capsys, lines):
        api.answer("POST /api/jobs/submit:batch", {"value": [DONE, {**DONE, "index": 1}], "counts": {"created": 2}})
        assert run("submit", "--from-jsonl", str(lines)) == 0
        shown = json.loads(capsys.readouterr().out)
        assert [each["line"] for each in shown["value"]] == [1, 3]
        assert shown["counts"] == {"created": 2}

    def test_more_than_a_thousand_go_in_several_requests(self, api, run, tmp_path):
        path = tmp_path / "many.jsonl"
        path.write_text('{"job_type": "t"}\n' * 1001)
        api.answers["POST /api/jobs/submit:batch"] = [
            (200, {"value": [DONE] * 1000, "counts": {}}),
            (200, {"value": [DONE], "counts": {}}),
        ]
        assert run("submit", "--from-jsonl", str(path)) == 0
        assert [len(body["jobs"]) for _, _, body in api.requests] == [1000, 1]

    def test_line_without_an_end_is_read_as_far_as_it_may_be_long(self, api, run, capsys, tmp_path, monkeypatch):
        """`/dev/zero` took the memory."""
        monkeypatch.setattr(batch, "_LONGEST_LINE", 20)
        path = tmp_path / "long.jsonl"
        path.write_text('{"job_type": "t"}\n\n{"job_type": "twenty"}\n')
        assert run("submit", "--from-jsonl", str(path)) == 2
        assert "line 3: expected at most 20 bytes, found more; write one job per line" in capsys.readouterr().err
        assert run("submit", "--from-jsonl", "/dev/zero") == 2
        assert "line 1: expected at most 20 bytes" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            (b"nonsense", "line 1: expected a JSON object"),
            (b"{}\n[1]", "line 2: expected a JSON object, found an array"),
            (b"{}\n\n\xff", "line 3: expected a JSON object, found a byte that is not UTF-8, at 0"),
            (b'{"n": NaN}', "line 1: expected a JSON object, found NaN"),
            (b'{"n": 1e999}', "line 1: expected a JSON object, found a number beyond a float"),
            (b'{"n": ' + b"9" * 5000 + b"}", "line 1: expected a JSON object, found a number of more than 4300 digits"),
            (b'{"n": 1, "n": 2}', "line 1: expected a JSON object, found the name 'n' twice"),
        ],
    )
    def test_wrong_line_submits_nothing(self, api, run, capsys, tmp_path, text, told):
        path = tmp_path / "jobs.jsonl"
        path.write_bytes(text)
        assert run("submit", "--from-jsonl", str(path)) == 2
        assert told in capsys.readouterr().err
        assert api.requests == []

    def test_options_of_one_submission_do_not_go_with_it(self, run, capsys, lines):
        assert run("submit", "t", "--from-jsonl", str(lines)) == 2
        assert "expected it alone" in capsys.readouterr().err
        assert run("submit") == 2
        assert "JOB_TYPE or --from-jsonl" in capsys.readouterr().err


def test_tags_and_start_are_sent(api, run):
    api.answer("GET /api/job-types", {"value": []})
    api.answer("POST /api/jobs/submit/t", SUBMITTED, status=202)
    assert run("submit", "t", "--tag", "team=geo", "--start-at", "2026-03-01T06:00+01:00") == 0
    assert api.requests[-1][1] == {"tag": "team=geo", "start_at": "2026-03-01T05:00:00+00:00"}


def test_start_that_is_no_time_is_refused(api, run, capsys):
    api.answer("GET /api/job-types", {"value": []})
    assert run("submit", "t", "--start-at", "tomorrow") == 2
    assert "--start-at: expected a time such as" in capsys.readouterr().err


def test_dry_run_shows_the_first_stage(api, run, capsys):
    draft = {
        "dry_run": True,
        "job_id": JOB_ID,
        "job_type": "t",
        "parameters": {"n": 3},
        "found_status": None,
        "stages": [{"name": "list"}, {"name": "sum"}],
        "first_stage": {
            "number": 1,
            "name": "list",
            "task_count": 3,
            "is_counted": True,
            "tasks": [{"task_id": "s1-a", "name": "a", "task_type": "x", "queue": "tasks", "parameters": {}}],
        },
    }
    api.answer("POST /api/jobs/submit/t", draft)
    assert run("submit", "t", "--dry-run", "-o", "table") == 0
    assert api.requests[-1][1] == {"dry_run": "true"}
    shown = capsys.readouterr().out
    assert "would be new; nothing was written" in shown
    assert "list: 3 tasks" in shown


def test_list_sends_every_filter(api, run):
    api.answer("GET /api/jobs", {"value": [job()]})
    options = ["--tag", "team=geo", "--error", "disk", "--correlation-id", "o-7", "--sort", "finished_at"]
    assert run("list", *options, "--since", "2026-03-01T06:00+00:00", "--until", "2026-03-02T06:00+00:00") == 0
    assert api.requests[-1][1] == {
        "tag": "team=geo",
        "error": "disk",
        "correlation_id": "o-7",
        "created_after": "2026-03-01T06:00:00+00:00",
        "created_before": "2026-03-02T06:00:00+00:00",
        "sort": "finished_at",
        "reasons": "true",
        "limit": "20",
    }
