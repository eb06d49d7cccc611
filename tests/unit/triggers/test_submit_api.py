"""Submissions with tags and start times, many at once, and those that are only tried."""

import asyncio
import sys
import threading
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from core.errors import JobTypeBusy, StoreUnavailable, SubmissionHangs
from core.models.job_filter import JobSort
from core.models.submission import SubmissionOutcome
from jobs.hello_world import HelloWorldJob
from tests.unit.triggers.fakes import JOB_ID, Api, FakeServices, client
from tests.unit.triggers.test_api import assert_problem, errors_of, links
from triggers import author_threads


def show(request):
    """The preview of a job; a test replaces it."""


class TestCodeOfAuthors:
    """Here the submission itself hangs; in an app, it is the validation of its job type."""

    @pytest.mark.parametrize("query", ["", "?dry_run=true"])
    def test_that_hangs_keeps_requests_of_its_job_type_alone(self, query, monkeypatch):
        monkeypatch.setattr(author_threads, "SHARE", 1)
        monkeypatch.setattr(author_threads, "WAIT_SECONDS", 0.0)
        api, began, go_on = Api(), threading.Event(), threading.Event()
        submit, draft = api.services.submit_job, api.services.draft_job

        def hang(call, request):
            if request.job_type == "hello_world":
                began.set()
                assert go_on.wait(30)
            return call(request)

        api.services.submit_job, api.services.draft_job = partial(hang, submit), partial(hang, draft)

        async def ask():
            async with client(api.app) as http:
                path = f"/api/jobs/submit/hello_world{query}"
                first = asyncio.create_task(http.post(path, json={}))
                await asyncio.to_thread(began.wait, 30)
                second = await http.post(path, json={})
                others = [await http.post("/api/jobs/submit/other", json={}), await http.get("/api/jobs")]
                go_on.set()
                return [second, *others, await first]

        busy, unknown, listed, first = asyncio.run(ask())
        assert_problem(busy, 503, "job_type_busy")
        assert busy.headers["retry-after"] == "5"
        assert (unknown.status_code, listed.status_code) == (404, 200)
        assert first.status_code == (200 if query else 202)

    def test_of_a_preview_is_bounded_as_well(self, monkeypatch):
        """A view that hangs took the threads of all requests; SystemExit in one reached the server's loop."""
        monkeypatch.setattr(author_threads, "SHARE", 1)
        monkeypatch.setattr(author_threads, "WAIT_SECONDS", 0.0)
        monkeypatch.setattr(HelloWorldJob, "view", f"{__name__}:show")
        api, began, go_on = Api(), threading.Event(), threading.Event()

        def hang(_):
            began.set()
            assert go_on.wait(30)
            raise SystemExit(4)

        monkeypatch.setattr(sys.modules[__name__], "show", hang)

        async def ask():
            async with client(api.app) as http:
                path = f"/api/jobs/{JOB_ID}/preview"
                first = asyncio.create_task(http.get(path))
                await asyncio.to_thread(began.wait, 30)
                second, listed = await http.get(path), await http.get("/api/jobs")
                go_on.set()
                return second, listed, await first

        busy, listed, first = asyncio.run(ask())
        assert_problem(busy, 503, "job_type_busy")
        assert listed.status_code == 200
        assert "SystemExit" in assert_problem(first, 500, "job_type_failed")["detail"]

    @pytest.mark.parametrize("query", ["", "?dry_run=true"])
    def test_that_hangs_is_answered_and_names_its_job_type(self, query):
        api = Api()
        problems = iter([SubmissionHangs("parameters of 'hello_world' to be validated"), JobTypeBusy("8 hang")])

        def give_up(_):
            raise next(problems)

        api.services.submit_job = api.services.draft_job = give_up
        hangs, busy = (api.post(f"/api/jobs/submit/hello_world{query}", json={}) for _ in range(2))
        detail = assert_problem(hangs, 504, "validation_hangs")["detail"]
        assert detail.startswith("expected parameters of 'hello_world' to be validated; nothing was written.")
        assert "Nothing was written" in assert_problem(busy, 503, "job_type_busy")["detail"]
        assert busy.headers["retry-after"] == "5"

    def test_of_several_job_types_hangs_apart_too(self, monkeypatch):
        monkeypatch.setattr(author_threads, "SHARE", 1)
        monkeypatch.setattr(author_threads, "WAIT_SECONDS", 0.0)
        api, began, go_on = Api(), threading.Event(), threading.Event()
        submit_jobs = api.services.submit_jobs

        def hang(requests):
            began.set()
            assert go_on.wait(30)
            return submit_jobs(requests)

        api.services.submit_jobs = hang

        async def ask():
            async with client(api.app) as http:
                batch = {"jobs": [{"job_type": "hello_world"}]}
                first = asyncio.create_task(http.post("/api/jobs/submit:batch", json=batch))
                await asyncio.to_thread(began.wait, 30)
                busy = [
                    await http.post("/api/jobs/submit:batch", json=batch),
                    await http.post(f"/api/jobs/{JOB_ID}/rerun", json={}),
                ]
                single = await http.post("/api/jobs/submit/hello_world", json={})
                go_on.set()
                return busy, single, await first

        busy, single, first = asyncio.run(ask())
        for answer in busy:
            assert_problem(answer, 503, "job_type_busy")
        assert (single.status_code, first.status_code) == (202, 200)


class TestTags:
    def test_are_part_of_the_submission(self):
        api = Api()
        answer = api.post("/api/jobs/submit/hello_world?tag=team=geo&tag=order=a=b", json={})
        assert answer.status_code == 202
        assert api.services.calls[0][1]["tags"] == {"team": "geo", "order": "a=b"}

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("tag=team", "'team'"),
            ("tag=te am=geo", "'te am=geo'"),
            ("tag=team=%00", "NUL at 0"),
            ("tag==geo", "'=geo'"),
            ("tag=team=geo&tag=team=ops", "'team' twice"),
        ],
    )
    def test_that_are_none_are_refused(self, query, found):
        problem = assert_problem(Api().post(f"/api/jobs/submit/hello_world?{query}", json={}), 400, "invalid_request")
        assert found in problem["detail"]

    def test_with_a_credential_is_refused(self):
        query = "tag=url=postgresql://user:hunter2secret@host/db"
        problem = assert_problem(Api().post(f"/api/jobs/submit/hello_world?{query}", json={}), 400, "invalid_request")
        assert "hunter2secret" not in problem["detail"]

    def test_filter_lists_by_value_or_by_name(self):
        api = Api()
        assert api.get("/api/jobs?tag=team=geo&tag=order").status_code == 200
        assert api.services.calls[0][1]["wanted"].tags == {"team": "geo", "order": None}

    def test_filter_that_no_row_can_hold_is_refused(self):
        assert_problem(Api().get("/api/jobs?tag=team=%00"), 400, "invalid_request")


class TestFilters:
    def test_time_error_correlation_id_and_order_are_passed_on(self):
        api = Api()
        query = (
            "created_after=2026-01-01T00:00:00Z&created_before=2026-02-01T00:00:00%2B01:00&error=no space"
            "&correlation_id=order-7&sort=finished_at"
        )
        assert api.get(f"/api/jobs?{query}").status_code == 200
        asked = api.services.calls[0][1]
        wanted = asked["wanted"]
        assert wanted.created_after == datetime(2026, 1, 1, tzinfo=UTC)
        assert wanted.created_before == datetime(2026, 1, 31, 23, tzinfo=UTC)
        assert (wanted.error, wanted.correlation_id, asked["sort"]) == ("no space", "order-7", JobSort.FIRST_ENDED)

    def test_beginning_of_an_id_is_passed_on_if_it_can_be_one(self):
        api = Api()
        assert api.get("/api/jobs?job_id=29E4acb3d8").status_code == 200
        assert api.services.calls[0][1]["wanted"].id_begins == "29E4acb3d8"
        for text in ("", "29e4x", "a" * 65):
            assert "job_id" in errors_of(assert_problem(api.get(f"/api/jobs?job_id={text}"), 400, "invalid_request"))

    def test_order_that_is_not_known_is_refused_with_the_nearest(self):
        errors = errors_of(assert_problem(Api().get("/api/jobs?sort=createdat"), 400, "invalid_request"))
        assert errors["sort"]["hint"] == "did you mean 'created_at'?"

    def test_time_without_a_zone_is_refused(self):
        errors = errors_of(
            assert_problem(Api().get("/api/jobs?created_after=2026-01-01T00:00:00"), 400, "invalid_request")
        )
        assert "created_after" in errors


class TestGateways:
    @pytest.mark.parametrize("query", ["api-version=2026-11-01", "api-version=1", "subscription-key=k", "code=x"])
    def test_their_parameters_mean_nothing(self, query):
        assert Api().get(f"/api/jobs?{query}").status_code == 200
        assert Api().post(f"/api/jobs/submit/hello_world?{query}", json={}).status_code == 202

    def test_version_that_is_none_is_refused(self):
        assert_problem(Api().get("/api/jobs?api-version=latest"), 400, "invalid_request")

    def test_next_link_holds_no_key(self):
        page = Api().get("/api/jobs?limit=1&code=secret&subscription-key=secret").json()
        assert "secret" not in page["nextLink"]
        assert "cursor=next" in page["nextLink"]


class TestStart:
    def test_is_part_of_the_submission(self):
        api = Api()
        at = datetime.now(UTC) + timedelta(hours=1)
        answer = api.post("/api/jobs/submit/hello_world", params={"start_at": at.isoformat()}, json={})
        assert answer.status_code == 202
        assert api.services.calls[0][1]["start_at"] == at

    def test_too_far_away_is_refused(self):
        for edge in ("0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:00-12:00"):
            answer = Api().post(f"/api/jobs/submit/hello_world?start_at={edge}", json={})
            assert "start_at" in errors_of(assert_problem(answer, 400, "invalid_request"))
        answer = Api().post("/api/jobs/submit/hello_world?start_at=2999-01-01T00:00:00Z", json={})
        assert errors_of(assert_problem(answer, 400, "invalid_request"))["start_at"]["expected"].endswith("366 days")


def test_dry_run_answers_with_the_first_stage():
    api = Api()
    answer = api.post("/api/jobs/submit/hello_world?dry_run=true", json={"n": 2})
    assert answer.status_code == 200
    draft = answer.json()
    assert (draft["dry_run"], draft["job_id"], draft["found_status"]) == (True, JOB_ID, None)
    assert draft["parameters"]["n"] == 2
    assert draft["first_stage"] == {
        "number": 1,
        "name": "greet",
        "task_count": 1,
        "is_counted": True,
        "tasks": [
            {
                "task_id": "s1-a",
                "name": "a",
                "task_type": "hello_world_greeting",
                "queue": "tasks",
                "parameters": {"number": 0},
            }
        ],
    }
    assert [name for name, _ in api.services.calls] == ["draft_job"]


class TestPolls:
    def test_tag_of_an_answer_spares_the_next_one(self):
        api = Api()
        first = api.get(f"/api/jobs/{JOB_ID}")
        tag = first.headers["etag"]
        again = api.get(f"/api/jobs/{JOB_ID}", headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        api.services.statuses = ["completed"]
        changed = api.get(f"/api/jobs/{JOB_ID}", headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag

    @pytest.mark.parametrize(
        ("status", "word"),
        [
            ("queued", "Running"),  # for its second stage
            ("processing", "Running"),
            ("finalizing", "Running"),
            ("cancelling", "Running"),
            ("completed", "Succeeded"),
            ("completed_with_errors", "Succeeded"),
            ("failed", "Failed"),
            ("cancelled", "Canceled"),
        ],
    )
    def test_operation_has_the_word_of_azure_clients(self, status, word):
        answer = Api(FakeServices(statuses=[status])).get(f"/api/operations/{JOB_ID}")
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["jobStatus"]) == (word, status)
        assert ("retry-after" in answer.headers) == (word == "Running")
        assert (answer.json()["error"] is not None) == (word in {"Failed", "Canceled"})

    def test_poll_is_202_until_the_end(self):
        api = Api()
        answer = api.get(f"/api/jobs/{JOB_ID}/poll")
        assert answer.status_code == 202
        assert answer.headers["location"] == links(JOB_ID)["poll"]
        api.services.statuses = ["failed"]
        ended = api.get(f"/api/jobs/{JOB_ID}/poll")
        assert (ended.status_code, ended.json()["status"]) == (200, "failed")
        assert "location" not in ended.headers


class TestDurable:
    def test_start_answers_with_the_addresses(self):
        api = Api()
        answer = api.post("/api/durable/orchestrators/hello_world", json={"n": 2})
        assert answer.status_code == 202
        payload = answer.json()
        instance = f"http://jobs.example:8080/api/durable/instances/{payload['id']}"
        assert payload["statusQueryGetUri"] == answer.headers["location"] == instance
        assert payload["terminatePostUri"] == f"{instance}/terminate?reason={{text}}"
        assert api.get(f"/api/durable/instances/{payload['id']}/management").json() == payload

    @pytest.mark.parametrize(
        ("status", "code", "word"),
        [("processing", 202, "Running"), ("completed", 200, "Completed"), ("failed", 200, "Failed")],
    )
    def test_status_document(self, status, code, word):
        answer = Api(FakeServices(statuses=[status])).get(f"/api/durable/instances/{JOB_ID}")
        assert (answer.status_code, answer.json()["runtimeStatus"]) == (code, word)
        assert answer.json()["instanceId"] == JOB_ID

    def test_actions_pass_the_reason_on(self):
        api = Api()
        assert api.post(f"/api/durable/instances/{JOB_ID}/terminate?reason=wrong").status_code == 202
        assert api.post(f"/api/durable/instances/{JOB_ID}/suspend?reason=full").status_code == 202
        assert [(name, asked["reason"]) for name, asked in api.services.calls] == [
            ("cancel_job", "wrong"),
            ("pause_job", "full"),
        ]

    def test_ended_instance_is_gone(self):
        answer = Api(FakeServices(cancelled_as="completed")).post(f"/api/durable/instances/{JOB_ID}/terminate")
        assert_problem(answer, 410, "instance_has_ended")


class TestBatch:
    def test_each_has_its_own_outcome(self):
        api = Api()
        jobs = [
            {"job_type": "hello_world", "parameters": {"n": 1}, "tags": {"team": "geo"}},
            {"job_type": "hello_world", "parameters": {"n": 1}},
            {"job_type": "hello_world", "paramters": {}},
            {"job_type": "hello_world", "idempotency_key": "a b"},
            None,
            {"job_type": "hello_world", "priority": "urgent"},
        ]
        answer = api.post("/api/jobs/submit:batch", json={"jobs": jobs})
        assert answer.status_code == 200
        value = answer.json()["value"]
        assert [each["index"] for each in value] == [0, 1, 2, 3, 4, 5]
        assert [each["status"] for each in value] == [202, 202, 400, 400, 400, 400]
        assert [value[0]["job"]["outcome"], value[1]["job"]["outcome"]] == ["created", "existing"]
        assert value[0]["job"]["links"] == links(value[0]["job"]["job_id"])
        assert value[2]["problem"]["errors"][0]["hint"] == "did you mean 'parameters'?"
        assert answer.json()["counts"] == {"created": 1, "existing": 1, "refused": 4}
        nothing = value[4]["problem"]["errors"][0]
        assert (nothing["field"], nothing["expected"], nothing["found"]) == ("jobs.4", "an object", "None")
        assert api.services.calls[0][1]["tags"] == {"team": "geo"}

    @pytest.mark.parametrize("jobs", [[], [{}] * 1001, "x", None])
    def test_that_is_none_is_refused(self, jobs):
        answer = Api().post("/api/jobs/submit:batch", json={"jobs": jobs})
        assert_problem(answer, 400, "invalid_request")

    def test_is_refused_as_a_whole_where_the_database_is_away(self):
        class Away(FakeServices):
            def submit_jobs(self, requests):
                return [StoreUnavailable("away")] * len(requests)

        answer = Api(Away()).post("/api/jobs/submit:batch", json={"jobs": [{"job_type": "hello_world"}]})
        assert assert_problem(answer, 503, "database_unavailable")
        assert answer.headers["retry-after"] == "5"

    def test_that_was_sent_before_is_told_as_such(self):
        api = Api(FakeServices(outcome=SubmissionOutcome.REPLAYED))
        answer = api.post("/api/jobs/submit:batch", json={"jobs": [{"job_type": "hello_world"}]})
        assert answer.json()["counts"] == {"replayed": 1}


def test_start_in_the_past_is_told():
    """A wrong year ran a job at once, in silence."""
    past, soon = "2020-03-01T06:00:00+01:00", (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    told = "start_at, 2020-03-01 05:00:00Z, is in the past: it begins at once"
    api = Api()
    answer = api.post("/api/jobs/submit/hello_world", params={"start_at": past}, json={})
    assert answer.json()["advice"] == told
    # This one begins nothing.
    answer = api.post("/api/jobs/submit/hello_world", params={"start_at": past}, json={})
    assert answer.json()["advice"] is None
    answer = api.post("/api/jobs/submit/hello_world", params={"start_at": soon}, json={"n": 7})
    assert answer.json()["advice"] is None
    jobs = [{"job_type": "hello_world", "parameters": {"n": n}, "start_at": at} for n, at in ((8, past), (9, soon))]
    answer = api.post("/api/jobs/submit:batch", json={"jobs": jobs})
    assert [each["job"]["advice"] for each in answer.json()["value"]] == [told, None]
