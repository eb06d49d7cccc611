"""The HTTP API on fake services."""

import asyncio
import json
import logging
import re
import time

import pytest
from pydantic import BaseModel

from core.basics.canonical import ValueTooLarge
from core.basics.version import VERSION
from core.errors import (
    AuthorError,
    DeliveryError,
    IdempotencyKeyReused,
    InvalidParameters,
    OtherParameters,
    StoreUnavailable,
    SubmissionRefused,
    classify,
)
from core.models.submission import SubmissionOutcome
from infrastructure.base import (
    ChangeRefused,
    ConnectionsInUse,
    DatabaseReadOnly,
    DatabaseUnsuitable,
    StatementCancelled,
)
from jobs.hello_world import HANDLERS, HelloWorldJob
from jobs.registry import Registry
from triggers.api import create_api
from triggers.job_answers import MAX_WAITING
from triggers.ports import Check, ServicesNotReady
from triggers.request_body import MAX_BODY_BYTES

from .fakes import AT, COUNTS, DETAIL, EVENT, JOB_ID, JSON, SUMMARY, TASK, Api, FakeServices, client

BASE = "http://jobs.example:8080/api/jobs"
UNKNOWN_JOB = "cd" * 32


def links(job_id: str) -> dict:
    job = f"{BASE}/{job_id}"
    names = ("poll", "tasks", "events", "runs", "cancel", "pause", "resume", "rerun")
    operation = f"{BASE.removesuffix('/jobs')}/operations/{job_id}"
    return {"self": job, "operation": operation, **{name: f"{job}/{name}" for name in names}}


def assert_problem(response, status: int, code: str) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:coremachine:problem:{code}"
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["instance"].startswith("/")
    assert problem["title"]
    assert problem["detail"]
    return problem


def errors_of(problem: dict) -> dict[str, dict]:
    return {error["field"]: error for error in problem["errors"]}


def test_endpoints_are_put_together_once_for_all_apps_of_a_process():
    """The first request to each group of them took longer than all that it asked for."""
    one, two = (create_api(FakeServices).routes for _ in range(2))
    assert len(one) > 10
    assert all(first is second for first, second in zip(one, two, strict=True))


class TestSubmit:
    def test_answers_with_the_job_and_where_to_look(self):
        api = Api()
        response = api.post("/api/jobs/submit/hello_world", json={"n": 5})
        job_id = HelloWorldJob.generate_job_id(HelloWorldJob.validate_job_parameters({"n": 5}))
        assert response.status_code == 202
        assert response.json() == {
            "job_id": job_id,
            "job_type": "hello_world",
            "status": "queued",
            "run": 1,
            "created": True,
            "outcome": "created",
            "advice": None,
            "correlation_id": "made-here",
            "links": links(job_id),
            "job": None,
        }
        assert response.headers["location"] == links(job_id)["poll"]
        assert response.headers["operation-location"] == links(job_id)["operation"]
        assert response.headers["retry-after"] == "1"
        assert response.headers["content-type"] == "application/json"

    def test_again_is_the_same_job_and_not_created(self):
        api = Api()
        first = api.post("/api/jobs/submit/hello_world", json={}).json()
        second = api.post("/api/jobs/submit/hello_world", json={})
        assert second.status_code == 202
        assert second.json() == {**first, "created": False, "outcome": "existing"}

    def test_advice_says_what_would_make_an_ended_job_run(self):
        api = Api(FakeServices(advice="This job has failed; rerun it"))
        assert api.post("/api/jobs/submit/hello_world", json={}).json()["advice"] == "This job has failed; rerun it"

    @pytest.mark.parametrize(("query", "force"), [("", False), ("?force=true", True), ("?force=false", False)])
    def test_force_is_a_query_parameter(self, query, force):
        api = Api()
        assert api.post(f"/api/jobs/submit/hello_world{query}", json={}).status_code == 202
        assert api.services.calls[0][1]["force"] is force

    @pytest.mark.parametrize("query", ["force=perhaps", "forced=true"])
    def test_force_that_cannot_be_read_is_refused_before_anything_is_written(self, query):
        api = Api()
        assert_problem(api.post(f"/api/jobs/submit/hello_world?{query}", json={}), 400, "invalid_request")
        assert api.services.calls == []

    @pytest.mark.parametrize("value", ["return", "rerun", "force", "fail"])
    def test_if_ended_is_a_query_parameter(self, value):
        api = Api()
        assert api.post(f"/api/jobs/submit/hello_world?if_ended={value}", json={}).status_code == 202
        assert api.services.calls[0][1]["if_ended"] == value

    def test_wait_as_a_query_parameter_is_led_to_its_header(self):
        problem = assert_problem(Api().post("/api/jobs/submit/hello_world?wait=10", json={}), 400, "invalid_request")
        assert problem["errors"][0]["hint"] == "to wait for the job's end here, send the header `Prefer: wait=10`"

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("if_ended=rerunn", "one of return, rerun, force, fail"),
            ("if_ended=", "one of return, rerun, force, fail"),
            ("if_ended=rerun&force=true", "force or if_ended, not both"),
            ("if_ended=fail&force=true", "force or if_ended, not both"),
        ],
    )
    def test_if_ended_that_makes_no_sense_is_refused_before_anything_is_written(self, query, expected):
        api = Api()
        problem = assert_problem(api.post(f"/api/jobs/submit/hello_world?{query}", json={}), 400, "invalid_request")
        assert expected in problem["detail"]
        assert api.services.calls == []

    def test_refused_submission_is_a_conflict_that_names_the_job(self):
        api = Api(FakeServices(failure=SubmissionRefused(JOB_ID, "failed", "This job has failed.")))
        problem = assert_problem(api.post("/api/jobs/submit/hello_world?if_ended=fail", json={}), 409, "job_is_there")
        assert problem["job_status"] == "failed"
        assert problem["detail"].startswith("Nothing was submitted: the job of these parameters is there already")
        assert JOB_ID in problem["detail"]
        assert "This job has failed." in problem["detail"]

    def test_idempotency_key_goes_with_the_submission_and_its_replay_is_told(self):
        api = Api()
        first = api.post("/api/jobs/submit/hello_world", json={}, headers={"Idempotency-Key": "order-7"})
        assert api.services.calls[0][1]["idempotency_key"] == "order-7"
        assert "idempotency-replayed" not in first.headers
        api.services.outcome = SubmissionOutcome.REPLAYED
        again = api.post("/api/jobs/submit/hello_world", json={}, headers={"Idempotency-Key": "order-7"})
        assert (again.status_code, again.json()["outcome"]) == (202, "replayed")
        assert again.headers["idempotency-replayed"] == "true"

    def test_key_of_another_request_is_refused(self):
        api = Api(FakeServices(failure=IdempotencyKeyReused("order-7", JOB_ID)))
        response = api.post("/api/jobs/submit/hello_world", json={}, headers={"Idempotency-Key": "order-7"})
        problem = assert_problem(response, 422, "idempotency_key_reused")
        assert "'order-7'" in problem["detail"]
        assert JOB_ID in problem["detail"]

    @pytest.mark.parametrize("key", ["", "two words", "x" * 256])
    def test_key_that_cannot_be_one_is_refused(self, key):
        response = Api().post("/api/jobs/submit/hello_world", json={}, headers={"Idempotency-Key": key})
        assert_problem(response, 400, "invalid_request")

    def test_no_body_means_the_defaults(self):
        api = Api()
        assert api.post("/api/jobs/submit/hello_world").status_code == 202
        assert api.services.calls[0][1]["parameters"] == {}

    def test_correlation_id_is_the_callers(self):
        api = Api()
        response = api.post("/api/jobs/submit/hello_world", json={}, headers={"X-Correlation-Id": "order-7"})
        assert response.json()["correlation_id"] == "order-7"
        refused = api.post("/api/jobs/submit/hello_world", json={}, headers={"X-Correlation-Id": "x" * 200})
        assert_problem(refused, 400, "invalid_request")

    def test_wrong_parameters_are_named_one_by_one(self):
        response = Api().post("/api/jobs/submit/hello_world", json={"n": "many", "massage": "hi"})
        errors = errors_of(assert_problem(response, 400, "invalid_parameters"))
        assert set(errors) == {"n", "massage"}
        assert errors["n"]["expected"] == "int"
        assert errors["n"]["found"] == "str 'many'"
        assert errors["n"]["hint"] == "write it without quotes"
        assert errors["massage"]["hint"] == "did you mean 'message'?"

    def test_job_type_whose_own_code_fails_is_an_answer_that_says_so(self):
        error = AuthorError(classify(SystemExit("no\x00 licence" + "x" * 20_000)))
        problem = assert_problem(self.submit_failing_with(error), 500, "job_type_failed")
        assert "SystemExit: expected an exception that names the problem, found sys.exit(no" in problem["detail"]
        assert len(problem["detail"]) < 2500

    def test_parameters_beyond_the_limit_are_refused_with_their_size(self):
        response = self.submit_failing_with(ValueTooLarge("parameters", 2048, 1024))
        errors = errors_of(assert_problem(response, 400, "invalid_parameters"))
        assert errors["parameters"]["expected"] == "at most 1024 bytes of JSON"
        assert errors["parameters"]["found"] == "2048"

    def test_parameters_that_a_validator_refuses_in_a_sentence_are_the_callers_to_change(self):
        response = self.submit_failing_with(InvalidParameters("tile: no such tile \ud800" + "x" * 20_000))
        problem = assert_problem(response, 400, "invalid_parameters")
        assert problem["detail"].startswith("tile: no such tile")
        assert len(problem["detail"]) < 9000

    @pytest.mark.parametrize(
        ("error", "code", "told"),
        [
            (StatementCancelled("submit_job", "host db.example"), "database_unavailable", "Raise statement_timeout"),
            (
                DatabaseReadOnly("submit_job", "host db.example"),
                "database_unavailable",
                "default_transaction_read_only",
            ),
            (ChangeRefused("submit_job", "not on a Monday\nCONTEXT: x"), "database_unsuitable", ": not on a Monday. "),
        ],
    )
    def test_database_that_refuses_is_not_said_to_be_away(self, error, code, told):
        detail = assert_problem(self.submit_failing_with(error), 503, code)["detail"]
        assert told in detail
        assert not {"reached", "CONTEXT", "db.example"} & set(detail.split())

    @staticmethod
    def submit_failing_with(error):
        return Api(FakeServices(failure=error)).post("/api/jobs/submit/hello_world", json={})

    def test_unknown_job_type_gets_the_nearest_name(self):
        response = Api().post("/api/jobs/submit/helo_world", json={})
        assert "did you mean 'hello_world'?" in assert_problem(response, 404, "unknown_job_type")["detail"]

    @pytest.mark.parametrize(
        ("body", "found"),
        [
            (b"[1]", "an array"),
            (b'"n"', "a string"),
            (b"3", "a number"),
            (b"null", "null"),
            (b"true", "true or false"),
            (b"{'n': 3}", "no JSON: Expecting property name enclosed in double quotes at line 1 column 2"),
            (b'{"n": NaN}', "NaN, which JSON does not know"),
            (b'{"n": 1, "n": 2}', "the name 'n' twice in one object"),
            (b"\xff{}", "a byte that is not UTF-8, at 0"),
            (b"[" * 200_000, "nesting without end"),
        ],
    )
    def test_body_must_be_a_json_object(self, body, found):
        response = Api().post("/api/jobs/submit/hello_world", content=body, headers=JSON)
        error = errors_of(assert_problem(response, 400, "invalid_request"))["body"]
        assert error["expected"] == "a JSON object"
        assert error["found"] == found

    def test_number_with_too_many_digits_is_refused(self):
        response = Api().post("/api/jobs/submit/hello_world", content=b'{"n": ' + b"9" * 10_000 + b"}", headers=JSON)
        assert_problem(response, 400, "invalid_request")

    def test_body_has_a_limit(self):
        api = Api()
        body = json.dumps({"message": "x" * MAX_BODY_BYTES}).encode()
        assert_problem(api.post("/api/jobs/submit/hello_world", content=body, headers=JSON), 413, "body_too_large")
        assert api.services.calls == []
        largest = body[: MAX_BODY_BYTES - 2] + b'"}'
        assert len(largest) == MAX_BODY_BYTES
        problem = assert_problem(
            api.post("/api/jobs/submit/hello_world", content=largest, headers=JSON), 400, "invalid_parameters"
        )
        assert set(errors_of(problem)) == {"message"}


class TestJob:
    def test_detail_has_stages_counts_and_links(self):
        response = Api().get(f"/api/jobs/{JOB_ID}")
        assert response.status_code == 200
        job = response.json()
        assert job.pop("links") == links(JOB_ID)
        stage = job["stages"][0]
        assert stage["counts"] == COUNTS
        times = {"run_started_at", "duration_seconds"}
        made = {"paused", "cancel_deadline_at", "allowed_actions", "trace_id"}
        assert set(job) == (set(DETAIL) - {"traceparent"}) | times | made
        assert job["trace_id"] == "58838bf93ba3c78a0eca3a2247f9aa69"
        assert set(stage) == set(DETAIL["stages"][0]) | {"counted_at", "max_parallel"}
        assert job["created_at"] == AT.replace("+00:00", "Z")
        # It has run since long, so that it need not be looked at again soon.
        assert response.headers["retry-after"] == "30"

    def test_ended_job_needs_no_retry(self):
        response = Api(FakeServices(statuses=["completed"])).get(f"/api/jobs/{JOB_ID}")
        assert "retry-after" not in response.headers

    def test_unknown_job(self):
        for path in ("", "/tasks", "/tasks/s1-000000", "/events", "/runs", "/runs/1"):
            assert_problem(Api().get(f"/api/jobs/{UNKNOWN_JOB}{path}"), 404, "unknown_job")
        for action in ("cancel", "pause", "resume", "rerun"):
            assert_problem(Api().post(f"/api/jobs/{UNKNOWN_JOB}/{action}"), 404, "unknown_job")

    @pytest.mark.parametrize(
        ("job_id", "found", "hint"),
        [
            (
                "12",
                "'12'",
                "give all of it: only the command line takes the beginning of an id; GET /api/jobs lists them",
            ),
            ("1_2", "'1_2'", "submit answers with it"),
            ("AB" * 32, f"'{'AB' * 32}'", "ids are written in lower case"),
            ("a" * 70, "70 characters", "submit answers with it"),
        ],
    )
    def test_id_that_can_be_none_is_explained(self, job_id, found, hint):
        error = errors_of(assert_problem(Api().get(f"/api/jobs/{job_id}"), 400, "invalid_request"))["job_id"]
        assert (error["expected"], error["found"], error["hint"]) == ("64 hexadecimal digits", found, hint)


class TestSubmitAndWait:
    @pytest.mark.parametrize("query", ["", "?force=false"], ids=["plain", "with_query"])
    def test_answers_when_the_job_has_ended_and_has_it_whole(self, query):
        api = Api(FakeServices(statuses=["processing", "processing", "completed"]))
        response = api.post(f"/api/jobs/submit/hello_world{query}", json={}, headers={"Prefer": "wait=20"})
        answer = response.json()
        assert (response.status_code, response.headers["preference-applied"]) == (202, "wait=20")
        assert (answer["created"], answer["status"], "retry-after" in response.headers) == (True, "completed", False)
        assert (
            answer["job"]
            == Api(FakeServices(statuses=["completed"], seen={answer["job_id"]}))
            .get(f"/api/jobs/{answer['job_id']}")
            .json()
        )

    def test_run_of_other_parameters_is_neither_waited_for_nor_handed_out(self):
        api = Api(FakeServices(failure=OtherParameters(JOB_ID, "processing", 2, "not theirs")))
        response = api.post("/api/jobs/submit/hello_world", json={}, headers={"Prefer": "wait=20"})
        problem = assert_problem(response, 409, "other_parameters")
        assert problem["detail"].startswith("Nothing was submitted: the job of these parameters is there already")
        assert "run again with other ones" in problem["detail"]
        assert (problem["job_status"], problem["job_run"]) == ("processing", 2)
        assert problem["run_url"].endswith(f"/api/jobs/{JOB_ID}/runs/2")
        assert not {"location", "retry-after", "preference-applied"} & set(response.headers)

    def test_run_that_began_during_the_wait_is_not_handed_out(self):
        api = Api(FakeServices(statuses=["completed"], run=3))
        response = api.post("/api/jobs/submit/hello_world", json={}, headers={"Prefer": "wait=20"})
        answer = response.json()
        assert (answer["job"], answer["run"]) == (None, 3)
        assert "While run 3 of this job was waited for, run 1 began" in answer["advice"]

    def test_answers_with_what_there_is_when_the_time_is_over(self):
        answer = Api().post("/api/jobs/submit/hello_world", json={}, headers={"Prefer": "wait=1"}).json()
        assert (answer["status"], answer["job"]["status"]) == ("processing", "processing")

    @pytest.mark.parametrize("prefer", ["wait=0", "wait=soon", "respond-async"])
    def test_does_not_wait_unasked(self, prefer):
        api = Api(FakeServices(statuses=["completed"]))
        response = api.post("/api/jobs/submit/hello_world", json={}, headers={"Prefer": prefer})
        assert (response.json()["status"], response.json()["job"], api.services.looks) == ("queued", None, 0)
        assert "preference-applied" not in response.headers

    def test_database_that_goes_away_meanwhile_does_not_hide_that_the_job_is_written(self, monkeypatch, caplog):
        def away(_services, _job_ids):
            raise StoreUnavailable("gone")

        monkeypatch.setattr(FakeServices, "find_ended_jobs", away)
        response = Api().post("/api/jobs/submit/hello_world", json={}, headers={"Prefer": "wait=20"})
        assert (response.status_code, response.json()["created"], response.json()["job"]) == (202, True, None)
        assert "wait_given_up" in caplog.messages

    def test_refused_submission_is_refused_at_once(self):
        response = Api().post("/api/jobs/submit/hello_world", json={"nn": 1}, headers={"Prefer": "wait=20"})
        assert_problem(response, 400, "invalid_parameters")


class TestWait:
    def test_answers_as_soon_as_the_job_has_ended(self):
        api = Api(FakeServices(statuses=["processing", "processing", "completed"]))
        started = time.monotonic()
        response = api.get(f"/api/jobs/{JOB_ID}?wait=20")
        assert response.json()["status"] == "completed"
        assert api.services.looks == 3
        assert time.monotonic() - started < 5

    def test_answers_with_what_there_is_when_the_time_is_over(self):
        api = Api()
        response = api.get(f"/api/jobs/{JOB_ID}?wait=0.12")
        assert response.json()["status"] == "processing"
        assert api.services.looks >= 2

    def test_header_says_the_same_and_is_confirmed(self):
        api = Api(FakeServices(statuses=["processing", "completed"]))
        response = api.get(f"/api/jobs/{JOB_ID}", headers={"Prefer": "respond-async, wait=25"})
        assert response.json()["status"] == "completed"
        assert response.headers["preference-applied"] == "wait=25"

    def test_header_is_cut_to_the_longest_wait(self):
        api = Api(FakeServices(statuses=["completed"]))
        response = api.get(f"/api/jobs/{JOB_ID}", headers={"Prefer": "wait=900"})
        assert response.headers["preference-applied"] == "wait=30"

    def test_query_parameter_wins_over_the_header(self):
        api = Api()
        response = api.get(f"/api/jobs/{JOB_ID}?wait=0", headers={"Prefer": "wait=20"})
        assert api.services.looks == 0
        assert "preference-applied" not in response.headers

    @pytest.mark.parametrize("prefer", ["wait", "wait=soon", "await=3", "wait=3x", "return=minimal"])
    def test_header_that_asks_for_nothing_known_is_ignored(self, prefer):
        api = Api()
        response = api.get(f"/api/jobs/{JOB_ID}", headers={"Prefer": prefer})
        assert response.status_code == 200
        assert api.services.looks == 0
        assert "preference-applied" not in response.headers

    @pytest.mark.parametrize("wait", ["31", "-1", "nan", "soon"])
    def test_query_parameter_has_bounds(self, wait):
        problem = assert_problem(Api().get(f"/api/jobs/{JOB_ID}?wait={wait}"), 400, "invalid_request")
        assert set(errors_of(problem)) == {"wait"}

    def test_unknown_job_is_not_waited_for(self):
        assert_problem(Api().get(f"/api/jobs/{UNKNOWN_JOB}?wait=20"), 404, "unknown_job")

    def test_beyond_a_number_of_waiting_clients_others_are_answered_at_once(self):
        services = FakeServices()
        app = create_api(lambda: services)

        async def scenario() -> None:
            async with client(app, timeout=30) as http:
                waiting = [asyncio.create_task(http.get(f"/api/jobs/{JOB_ID}?wait=30")) for _ in range(MAX_WAITING)]
                while app.state.ends.count < MAX_WAITING:  # noqa: ASYNC110 - no event tells it
                    await asyncio.sleep(0)
                one_more = await http.get(f"/api/jobs/{JOB_ID}", headers={"Prefer": "wait=30"})
                assert one_more.json()["status"] == "processing"
                assert "preference-applied" not in one_more.headers
                services.statuses = ["completed"]
                answers = await asyncio.gather(*waiting)
                assert {answer.json()["status"] for answer in answers} == {"completed"}
            assert app.state.ends.count == 0

        asyncio.run(scenario())


class TestLists:
    def test_jobs_come_in_pages(self):
        api = Api()
        first = api.get("/api/jobs?limit=1")
        assert first.status_code == 200
        assert first.json()["next_cursor"] == "next"
        assert first.json()["nextLink"] == f"{BASE}?limit=1&cursor=next"
        (job,) = first.json()["value"]
        assert job.pop("links") == links(JOB_ID)
        assert set(job) == set(SUMMARY) | {"run_started_at", "duration_seconds", "tags", "start_at"}
        last = api.get("/api/jobs?limit=1&cursor=next").json()
        assert set(last) == {"value"}

    def test_cursor_of_another_list_is_refused(self):
        errors = errors_of(assert_problem(Api().get("/api/jobs?cursor=abc"), 400, "invalid_request"))
        assert (errors["cursor"]["found"], errors["cursor"]["hint"]) == (
            "'abc'",
            "leave it out to begin at the first page",
        )

    def test_filters_are_repeated_or_joined_by_commas(self):
        api = Api()
        api.get("/api/jobs?status=failed,cancelled&status=queued&job_type=hello_world")
        asked = api.services.calls[0][1]
        assert [str(status) for status in asked["wanted"].statuses] == ["failed", "cancelled", "queued"]
        assert asked["wanted"].job_types == ("hello_world",)
        assert (asked["limit"], asked["cursor"]) == (100, None)

    def test_tasks_are_filtered_by_run_stage_and_status(self):
        api = Api()
        response = api.get(f"/api/jobs/{JOB_ID}/tasks?run=2&stage=1&status=completed&limit=7&cursor=c")
        (task,) = response.json()["value"]
        assert {name: task[name] for name in ("task_id", "status", "result")} == {
            name: TASK[name] for name in ("task_id", "status", "result")
        }
        (_, asked) = api.services.calls[0]
        assert (asked["run"], asked["stage"], asked["limit"], asked["cursor"]) == (2, 1, 7, "c")
        assert [str(status) for status in asked["statuses"]] == ["completed"]

    def test_one_task_is_read_whole(self):
        api = Api()
        assert api.get(f"/api/jobs/{JOB_ID}/tasks/t-1?run=2").json()["result"] == TASK["result"]
        assert api.services.calls == [("get_task", {"job_id": JOB_ID, "task_id": "t-1", "run": 2})]
        problem = assert_problem(api.get(f"/api/jobs/{JOB_ID}/tasks/t-2"), 404, "unknown_task")
        advice = f"GET /api/jobs/{JOB_ID}/tasks (`coremachine tasks {JOB_ID[:12]}`) lists them"
        assert problem["detail"] == f"The current run of job {JOB_ID} has no task 't-2'; {advice}."
        errors = errors_of(assert_problem(api.get(f"/api/jobs/{JOB_ID}/tasks/t-1?rum=2"), 400, "invalid_request"))
        assert errors["rum"]["hint"] == "did you mean 'run'?"
        errors_of(assert_problem(api.get(f"/api/jobs/{JOB_ID}/tasks/{'x' * 101}"), 400, "invalid_request"))

    def test_one_run_is_read_whole(self):
        assert Api().get(f"/api/jobs/{JOB_ID}/runs/1").json()["error"] == {"message": "x"}
        problem = assert_problem(Api().get(f"/api/jobs/{JOB_ID}/runs/7"), 404, "unknown_run")
        assert problem["detail"] == f"Job {JOB_ID} has no run 7."
        assert_problem(Api().get(f"/api/jobs/{JOB_ID}/runs/0"), 400, "invalid_request")

    def test_no_tasks_of_a_job_that_exists_is_an_empty_list(self):
        assert Api().get(f"/api/jobs/{JOB_ID}/tasks?stage=2").json() == {"value": []}

    def test_logs_of_a_task_from_a_place_on(self):
        api = Api()
        (event,) = api.get(f"/api/jobs/{JOB_ID}/logs?task_id=s1-x&run=2&after=7&limit=5").json()["value"]
        assert event["event_id"] == EVENT["event_id"]
        asked = {"job_id": JOB_ID, "task_id": "s1-x", "run": 2, "after": 7, "limit": 5, "cursor": None}
        assert api.services.calls[-1] == ("list_logs", asked)
        assert_problem(api.get(f"/api/jobs/{'0' * 64}/logs"), 404, "unknown_job")

    def test_events(self):
        (event,) = Api().get(f"/api/jobs/{JOB_ID}/events").json()["value"]
        assert {name: event[name] for name in ("event_id", "event", "detail")} == {
            name: EVENT[name] for name in ("event_id", "event", "detail")
        }

    @pytest.mark.parametrize(
        ("path", "name", "hint"),
        [
            ("/api/jobs?stauts=failed", "stauts", "did you mean 'status'?"),
            (f"/api/jobs/{JOB_ID}?waitt=3", "waitt", "did you mean 'wait'?"),
            (f"/api/jobs/{JOB_ID}/tasks?stages=3", "stages", "did you mean 'stage'?"),
            ("/api/job-types?x=1", "x", "no names are known here; leave it out"),
            ("/api/livez?x=1", "x", "no names are known here; leave it out"),
            ("/api/readyz?x=1", "x", "no names are known here; leave it out"),
        ],
    )
    def test_unknown_query_parameter_gets_the_nearest_name(self, path, name, hint):
        api = Api()
        errors = errors_of(assert_problem(api.get(path), 400, "invalid_request"))
        assert errors[name]["hint"] == hint
        assert api.services.calls == []

    @pytest.mark.parametrize(
        ("method", "path", "name"),
        [
            ("POST", "/api/jobs/submit/hello_world?if_ended=rerun&if_ended=fail", "if_ended"),
            ("POST", "/api/jobs/submit/hello_world?force=false&force=true", "force"),
            ("GET", "/api/jobs?limit=1&status=failed&limit=2", "limit"),
            ("GET", f"/api/jobs/{JOB_ID}?wait=0&wait=", "wait"),
            ("GET", "/api/failures?job_type=a&job_type=b", "job_type"),
            ("GET", "/api/livez?code=a&code=b", "code"),
        ],
    )
    def test_one_value_is_given_once(self, method, path, name):
        """The last one won in silence: `if_ended=rerun&if_ended=fail` was a fail."""
        api = Api(FakeServices())
        response = api.post(path, json={}) if method == "POST" else api.get(path)
        problem = assert_problem(response, 400, "invalid_request")
        assert problem["errors"][0]["field"] == name
        assert "expected one value, found 2 of them" in problem["detail"]
        assert api.services.calls == []

    def test_functions_hosts_key_is_no_unknown_parameter(self):
        assert Api().get("/api/jobs?code=secret&clientId=default").status_code == 200

    def test_reasons_are_in_a_list_for_those_who_ask(self):
        (asked,) = Api().get("/api/jobs?reasons=true").json()["value"]
        assert (asked["reason"]["code"], asked["reason"]["severity"], asked["reason"]["at"]) == (
            "paused",
            "warning",
            None,
        )
        (plain,) = Api().get("/api/jobs").json()["value"]
        assert "reason" not in plain

    def test_unknown_status_gets_the_nearest_name(self):
        errors = errors_of(assert_problem(Api().get("/api/jobs?status=faild"), 400, "invalid_request"))
        assert errors["status"]["hint"] == "did you mean 'failed'?"

    @pytest.mark.parametrize("limit", ["0", "1001", "-1", "ten", "1.5"])
    def test_limit_has_bounds(self, limit):
        for path in ("/api/jobs", f"/api/jobs/{JOB_ID}/tasks", f"/api/jobs/{JOB_ID}/events"):
            errors = errors_of(assert_problem(Api().get(f"{path}?limit={limit}"), 400, "invalid_request"))
            assert errors["limit"]["found"] == f"'{limit}'"

    def test_job_types_have_schema_and_stages(self):
        (job_type,) = Api().get("/api/job-types").json()["value"]
        assert job_type["job_type"] == "hello_world"
        assert [stage["name"] for stage in job_type["stages"]] == ["greet", "reply"]
        assert job_type["parameters_schema"]["properties"]["n"]["maximum"] == 100_000

    def test_job_type_whose_schema_cannot_be_made_hides_no_other(self, monkeypatch):
        class Odd(BaseModel):
            @classmethod
            def __get_pydantic_json_schema__(cls, core_schema, handler):
                raise KeyError("odd")

        api = Api()
        monkeypatch.setattr(HelloWorldJob, "parameters_schema", Odd)
        (job_type,) = api.get("/api/job-types").json()["value"]
        assert "cannot be made now (KeyError)" in job_type["parameters_schema"]["description"]


class TestErrors:
    def test_unknown_path_and_wrong_method(self):
        problem = assert_problem(Api().get("/api/job"), 404, "not_found")
        assert "/api/docs" in problem["detail"]
        response = Api()("PUT", f"/api/jobs/{JOB_ID}")
        problem = assert_problem(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"
        expected = "DELETE or GET or HEAD or OPTIONS or PATCH"
        assert problem["detail"] == f"/api/jobs/{JOB_ID}: expected {expected}, found PUT."

    def test_database_that_does_not_suit_says_what_to_do(self):
        versions = "schema version 7, this release has 8; run `coremachine db migrate`"
        failure = DatabaseUnsuitable("submit_job", "function app.f(text) does not exist")
        services = FakeServices(failure=failure, database=Check("database", ok=False, detail=versions))
        response = Api(services).post("/api/jobs/submit/hello_world", json={})
        problem = assert_problem(response, 503, "database_unsuitable")
        assert versions in problem["detail"]
        assert "app.f(text) does not exist" in problem["detail"]
        assert response.headers["Retry-After"] == "5"

    @pytest.mark.parametrize(
        ("failure", "code"),
        [
            (StoreUnavailable("get_job: connection to 10.0.0.4 refused"), "database_unavailable"),
            (DeliveryError("jobs", "no answer"), "queue_unavailable"),
        ],
    )
    def test_what_is_down_for_now_asks_to_come_back(self, failure, code):
        api = Api(FakeServices(failure=failure))
        for response in (
            api.get(f"/api/jobs/{JOB_ID}"),
            api.get(f"/api/jobs/{JOB_ID}?wait=5"),
            api.get("/api/jobs"),
            api.post("/api/jobs/submit/hello_world", json={}),
        ):
            problem = assert_problem(response, 503, code)
            assert response.headers["retry-after"] == "5"
            assert "10.0.0.4" not in problem["detail"]

    def test_process_without_a_free_connection_says_so(self):
        """It said that the database could not be reached."""
        failure = ConnectionsInUse("get_job", "expected a connection within 10 s", 4)
        api = Api(FakeServices(failure=failure))
        for response in (api.get(f"/api/jobs/{JOB_ID}"), api.post("/api/jobs/submit/hello_world", json={})):
            problem = assert_problem(response, 503, "database_unavailable")
            assert problem["detail"].startswith("All 4 database connections of this process are in use")

    def test_unforeseen_error_is_a_problem_too_and_its_trace_is_logged(self, caplog):
        api = Api(FakeServices(failure=RuntimeError("secret detail")))
        with caplog.at_level(logging.ERROR, logger="triggers.problems"):
            response = api.get(f"/api/jobs/{JOB_ID}")
        assert "secret" not in assert_problem(response, 500, "internal_error")["detail"]
        assert any(record.message == "request_failed" and record.exc_info for record in caplog.records)

    def test_app_that_cannot_work_says_why_everywhere_but_is_alive(self):
        """An import that failed switched a feature off in silence (lesson D39)."""

        def refuse():
            raise ServicesNotReady("COREMACHINE_DATABASE_URL: expected a URL, found nothing; set it")

        api = Api()
        api.app = create_api(refuse)
        assert api.get("/api/livez").json() == {"status": "alive"}
        ready = api.get("/api/readyz")
        assert ready.status_code == 503
        assert ready.headers["retry-after"] == "5"
        (check,) = ready.json()["checks"]
        assert (check["name"], check["ok"]) == ("settings", False)
        assert "COREMACHINE_DATABASE_URL" in check["detail"]
        for response in (api.get("/api/jobs"), api.post("/api/jobs/submit/hello_world", json={})):
            assert "COREMACHINE_DATABASE_URL" in assert_problem(response, 503, "app_not_ready")["detail"]
        assert api.get("/api/openapi.json").status_code == 200


class TestHealth:
    def test_ready_with_every_check(self):
        response = Api().get("/api/readyz")
        assert (response.status_code, response.json()) == (
            200,
            {"status": "ready", "checks": [{"name": "database", "ok": True, "detail": "version 1"}]},
        )

    def test_one_failed_check_is_not_ready(self):
        checks = [Check("database", ok=False, detail="no answer"), Check("registry", ok=True, detail="2 job types")]
        response = Api(FakeServices(checks=checks)).get("/api/readyz")
        assert response.status_code == 503
        assert response.json()["status"] == "not_ready"
        assert [check["ok"] for check in response.json()["checks"]] == [False, True]


class TestDocument:
    def test_every_endpoint_is_described_with_its_problems(self):
        document = Api().get("/api/openapi.json").json()
        assert {(path, method) for path, item in document["paths"].items() for method in item} == {
            ("/api/jobs/submit/hello_world", "post"),
            ("/api/jobs/submit:batch", "post"),
            ("/api/jobs/bulk", "post"),
            ("/api/messages/submission", "get"),
            ("/api/jobs/{job_id}", "delete"),
            ("/api/jobs/{job_id}", "patch"),
            ("/api/jobs/{job_id}/hold", "post"),
            ("/api/jobs/{job_id}/release", "post"),
            ("/api/audit", "get"),
            ("/api/jobs/{job_id}/poll", "get"),
            ("/api/operations/{job_id}", "get"),
            ("/api/durable/orchestrators/{job_type}", "post"),
            ("/api/durable/instances/{job_id}", "get"),
            ("/api/durable/instances/{job_id}/management", "get"),
            ("/api/durable/instances/{job_id}/terminate", "post"),
            ("/api/durable/instances/{job_id}/suspend", "post"),
            ("/api/durable/instances/{job_id}/resume", "post"),
            ("/api/durable/instances/{job_id}/rewind", "post"),
            ("/api/jobs/{job_id}", "get"),
            ("/api/jobs", "get"),
            ("/api/jobs/{job_id}/tasks", "get"),
            ("/api/jobs/{job_id}/tasks/{task_id}", "get"),
            ("/api/jobs/{job_id}/runs/{run}", "get"),
            ("/api/jobs/{job_id}/events", "get"),
            ("/api/jobs/{job_id}/logs", "get"),
            ("/api/jobs/{job_id}/runs", "get"),
            ("/api/jobs/{job_id}/cancel", "post"),
            ("/api/jobs/{job_id}/pause", "post"),
            ("/api/jobs/{job_id}/resume", "post"),
            ("/api/jobs/{job_id}/rerun", "post"),
            ("/api/jobs/{job_id}/explain", "get"),
            ("/api/apps", "get"),
            ("/api/queues", "get"),
            ("/api/failures", "get"),
            ("/api/dead-letters", "get"),
            ("/api/dead-letters/{dead_letter_id}", "get"),
            ("/api/dead-letters/redrive", "post"),
            ("/api/schedules", "get"),
            ("/api/schedules/{name}", "get"),
            ("/api/schedules/{name}", "put"),
            ("/api/schedules/{name}", "delete"),
            ("/api/schedules/{name}/pause", "post"),
            ("/api/schedules/{name}/resume", "post"),
            ("/api/schedules/{name}/run", "post"),
            ("/api/schedules/{name}/next", "get"),
            ("/api/schedules/{name}/ticks", "get"),
            ("/api/schedules/{name}/explain", "get"),
            ("/api/limits", "get"),
            ("/api/limits/{name}", "get"),
            ("/api/limits/{name}", "put"),
            ("/api/limits/{name}", "delete"),
            ("/api/webhooks", "get"),
            ("/api/webhooks/{name}", "get"),
            ("/api/webhooks/{name}", "put"),
            ("/api/webhooks/{name}", "delete"),
            ("/api/webhooks/{name}/rotate-secret", "post"),
            ("/api/webhooks/{name}/test", "post"),
            ("/api/webhooks/{name}/deliveries", "get"),
            ("/api/webhooks/{name}/deliveries/{delivery_id}/redeliver", "post"),
            ("/api/job-types", "get"),
            ("/api/livez", "get"),
            ("/api/readyz", "get"),
        }
        for path, item in document["paths"].items():
            for method, operation in item.items():
                responses = operation["responses"]
                assert "default" not in responses
                assert {"400", "401", "405", "429", "500", "503"} <= set(responses)
                assert ("requestBody" in operation) == ({"411", "413", "415"} <= set(responses))
                may_be_missing = ("{" in path and method != "put") or "submit/" in path or path == "/api/failures"
                assert ("404" in responses) == may_be_missing, path
                problems = [each for status, each in responses.items() if status >= "4"]
                assert {name for each in problems for name in each["content"]} <= {
                    "application/problem+json",
                    "application/json",  # /api/readyz
                }

    def test_body_of_a_submission_is_its_job_types_schema(self):
        submit = Api().get("/api/openapi.json").json()["paths"]["/api/jobs/submit/hello_world"]["post"]
        schema = submit["requestBody"]["content"]["application/json"]["schema"]
        assert (schema["properties"]["n"]["maximum"], schema["additionalProperties"]) == (100_000, False)
        assert {"Location", "Retry-After", "Idempotency-Replayed"} <= set(submit["responses"]["202"]["headers"])

    def test_all_references_lead_somewhere(self):
        document = Api().get("/api/openapi.json").json()
        names = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
        assert "#/components/schemas/RerunMode" in names
        for name in names:
            place = document
            for step in name.removeprefix("#/").split("/"):
                place = place[step]

    def test_job_ids_have_their_pattern(self):
        operation = Api().get("/api/openapi.json").json()["paths"]["/api/jobs/{job_id}"]["get"]
        (job_id,) = [each for each in operation["parameters"] if each["name"] == "job_id"]
        assert job_id["schema"]["pattern"] == "^[0-9a-f]{64}$"

    def test_each_operation_has_a_name_of_its_own(self):
        """A client is generated from these: of `a-b`, `a.b` and `a_b` only one was left."""
        named = [type("Named", (HelloWorldJob,), {"job_type": name}) for name in ("a-b", "a.b", "a_b", "A_b", "job")]
        document = Api(FakeServices(registry=Registry(named, HANDLERS, ["tasks"]))).get("/api/openapi.json").json()
        ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
        assert len(set(ids)) == len(ids)
        assert {"submit_a_b", "submit_A_b", "submit_job"} <= set(ids)
        assert all(re.fullmatch("[A-Za-z0-9_]+", each) for each in ids)

    def test_app_that_cannot_say_its_job_types_describes_any(self):
        def refuse():
            raise ServicesNotReady("a setting is wrong")

        api = Api()
        api.app = create_api(refuse)
        assert "/api/jobs/submit/{job_type}" in api.get("/api/openapi.json").json()["paths"]

    def test_version_is_the_projects(self):
        assert Api().get("/api/openapi.json").json()["info"]["version"] == VERSION
