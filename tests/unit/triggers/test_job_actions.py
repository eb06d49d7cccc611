"""Cancel, pause, resume and rerun over HTTP, on fake services."""

from dataclasses import replace

import pytest

from core.models import JobStatus
from core.models.control import AdjustOutcome, ControlAnswer, ControlOutcome, RerunMode, allowed_actions
from jobs.registry import UnknownJobType

from .fakes import JOB_ID, Api, FakeServices
from .test_api import assert_problem, errors_of, links

ACTOR = {"X-MS-CLIENT-PRINCIPAL-NAME": "ada@example.com"}


def answering(outcome: str, status: str = "processing", *, run: int = 1, is_paused: bool = False, **counts) -> Api:
    return Api(
        FakeServices(
            answer=ControlAnswer(ControlOutcome(outcome), JobStatus(status), run, 2, is_paused=is_paused, **counts)
        ),
        trusts_principal=True,
    )


class TestCancel:
    def test_reason_grace_and_actor_are_passed_on(self):
        api = Api(FakeServices(cancelled_as="cancelling"), trusts_principal=True)
        body = {"reason": "wrong tile", "cancel_grace_seconds": 30}
        response = api.post(f"/api/jobs/{JOB_ID}/cancel", json=body, headers=ACTOR)
        assert response.status_code == 202
        assert response.json() == {"job_id": JOB_ID, "status": "cancelling", "links": links(JOB_ID)}
        asked = {"job_id": JOB_ID, "reason": "wrong tile", "grace_seconds": 30, "actor": "ada@example.com"}
        assert api.services.calls == [("cancel_job", asked)]

    def test_no_body_means_no_reason_and_five_minutes(self):
        api = Api()
        assert api.post(f"/api/jobs/{JOB_ID}/cancel").json()["status"] == "cancelled"
        asked = api.services.calls[0][1]
        assert (asked["reason"], asked["grace_seconds"], asked["actor"]) == (None, 300, None)

    def test_ended_job_is_a_conflict_that_says_what_can_be_done(self):
        response = Api(FakeServices(cancelled_as="completed")).post(f"/api/jobs/{JOB_ID}/cancel")
        problem = assert_problem(response, 409, "job_has_ended")
        assert (problem["job_status"], problem["allowed_actions"]) == ("completed", ["rerun"])

    @pytest.mark.parametrize(
        "body",
        [{"reason": 3}, {"reason": ""}, {"reasn": "x"}, {"cancel_grace_seconds": -1}, {"cancel_grace_seconds": "5"}],
    )
    def test_wrong_body_is_refused(self, body):
        response = Api().post(f"/api/jobs/{JOB_ID}/cancel", json=body)
        assert set(errors_of(assert_problem(response, 400, "invalid_request"))) == set(body)

    def test_unknown_field_gets_the_nearest_name(self):
        response = Api().post(f"/api/jobs/{JOB_ID}/cancel", json={"reasn": "x"})
        assert response.json()["errors"][0]["hint"] == "did you mean 'reason'?"

    def test_job_in_a_status_of_a_newer_release_is_left_to_it(self):
        response = Api(FakeServices(cancelled_as="suspended")).post(f"/api/jobs/{JOB_ID}/cancel")
        problem = assert_problem(response, 409, "job_status_not_known")
        assert (problem["job_status"], problem["allowed_actions"]) == ("suspended", [])
        assert "newer release" in problem["detail"]


class TestPauseAndResume:
    @pytest.mark.parametrize(
        ("action", "outcome", "is_paused", "changed"),
        [
            ("pause", "paused", True, True),
            ("pause", "already_paused", True, False),
            ("resume", "resumed", False, True),
            ("resume", "not_paused", False, False),
        ],
    )
    def test_answers_where_the_job_stands_after_it(self, action, outcome, is_paused, changed):
        api = answering(outcome, is_paused=is_paused)
        response = api.post(f"/api/jobs/{JOB_ID}/{action}", json={"reason": "disk full"}, headers=ACTOR)
        assert response.status_code == 200
        assert response.json() == {
            "job_id": JOB_ID,
            "status": "processing",
            "paused": is_paused,
            "run": 1,
            "stage": 2,
            "changed": changed,
            "allowed_actions": ["cancel", "resume" if is_paused else "pause"],
            "links": links(JOB_ID),
        }
        asked = {"job_id": JOB_ID, "reason": "disk full", "actor": "ada@example.com"}
        assert api.services.calls == [(f"{action}_job", asked)]

    @pytest.mark.parametrize("action", ["pause", "resume"])
    @pytest.mark.parametrize(
        ("status", "code", "allowed"),
        [("failed", "job_has_ended", ["rerun"]), ("cancelling", "job_is_cancelling", ["cancel"])],
    )
    def test_state_that_does_not_allow_it_is_a_conflict(self, action, status, code, allowed):
        problem = assert_problem(answering("refused", status).post(f"/api/jobs/{JOB_ID}/{action}"), 409, code)
        assert (problem["job_status"], problem["allowed_actions"]) == (status, allowed)
        assert action in problem["detail"]

    def test_job_shows_that_it_is_paused_and_what_can_be_done(self):
        job = Api().get(f"/api/jobs/{JOB_ID}").json()
        assert (job["paused"], job["paused_at"], job["allowed_actions"]) == (False, None, ["cancel", "pause"])


class TestRerun:
    def test_mode_stage_parameters_reason_and_actor_are_passed_on(self):
        api = answering("rerun", "queued", run=2, kept_count=7)
        body = {"mode": "from_stage", "from_stage": 2, "parameters": {"n": 4}, "reason": "mended"}
        response = api.post(f"/api/jobs/{JOB_ID}/rerun", json=body, headers=ACTOR)
        assert response.status_code == 202
        assert response.headers["location"] == links(JOB_ID)["poll"]
        answer = response.json()
        assert (answer["run"], answer["kept_count"], answer["fresh_count"], answer["changed"]) == (2, 7, None, True)
        (call,) = api.services.calls
        assert call == (
            "rerun_job",
            {
                "job_id": JOB_ID,
                "mode": RerunMode.FROM_STAGE,
                "from_stage": 2,
                "parameters": {"n": 4},
                "expected_run": None,
                "reason": "mended",
                "actor": "ada@example.com",
            },
        )

    @pytest.mark.parametrize(
        ("body", "mode"),
        [({}, "failed"), ({"from_stage": 1}, "from_stage"), ({"mode": "all"}, "all"), ({"mode": "failed"}, "failed")],
    )
    def test_mode_may_be_left_out(self, body, mode):
        api = answering("rerun", run=2, kept_count=3, fresh_count=1)
        assert api.post(f"/api/jobs/{JOB_ID}/rerun", json=body).json()["fresh_count"] == 1
        assert api.services.calls[0][1]["mode"] == mode

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"mode": "al"}, "mode"),
            ({"from_stage": 0}, "from_stage"),
            ({"from_stage": "2"}, "from_stage"),
            ({"parameters": [1]}, "parameters"),
            ({"mode": "from_stage"}, "body"),
            ({"mode": "all", "from_stage": 2}, "body"),
            ({"stage": 2}, "stage"),
            ({"expected_run": 0}, "expected_run"),
            ({"run": 1}, "run"),
        ],
    )
    def test_wrong_body_is_refused(self, body, field):
        api = answering("rerun")
        errors = errors_of(assert_problem(api.post(f"/api/jobs/{JOB_ID}/rerun", json=body), 400, "invalid_request"))
        assert set(errors) == {field}
        assert api.services.calls == []

    def test_run_that_was_seen_is_handed_on(self):
        api = answering("rerun", run=3, kept_count=0, fresh_count=None)
        assert api.post(f"/api/jobs/{JOB_ID}/rerun", json={"expected_run": 2}).status_code == 202
        assert api.services.calls[0][1]["expected_run"] == 2

    def test_unknown_mode_gets_the_nearest_name(self):
        response = Api().post(f"/api/jobs/{JOB_ID}/rerun", json={"mode": "al"})
        assert response.json()["errors"][0]["hint"] == "did you mean 'all'?"

    @pytest.mark.parametrize(
        ("outcome", "status", "is_paused", "code", "allowed"),
        [
            ("refused", "processing", False, "job_has_not_ended", ["cancel", "pause"]),
            ("refused", "queued", True, "job_has_not_ended", ["cancel", "resume"]),
            ("refused", "cancelling", False, "job_has_not_ended", ["cancel"]),
            ("nothing_failed", "completed", False, "nothing_failed", ["rerun"]),
            ("stage_not_reached", "failed", False, "stage_not_reached", ["rerun"]),
            ("other_run", "failed", False, "other_run", ["rerun"]),
        ],
    )
    def test_what_cannot_be_rerun_is_a_conflict_with_what_can_be_done(self, outcome, status, is_paused, code, allowed):
        response = answering(outcome, status, is_paused=is_paused).post(f"/api/jobs/{JOB_ID}/rerun")
        problem = assert_problem(response, 409, code)
        assert (problem["job_status"], problem["allowed_actions"]) == (status, allowed)

    @pytest.mark.parametrize(
        ("outcome", "words"),
        [
            ("nothing_failed", ["`from_stage` (--from-stage)", "'all' (--all)"]),
            ("pruned", ["'all' (--all)"]),
            ("stage_not_reached", ["`from_stage` (--from-stage)"]),
        ],
    )
    def test_what_to_do_instead_is_said_in_words_of_the_command_too(self, outcome, words):
        detail = answering(outcome, "completed").post(f"/api/jobs/{JOB_ID}/rerun").json()["detail"]
        assert all(word in detail for word in words)

    def test_runs_are_listed_with_their_parameters(self):
        runs = Api().get(f"/api/jobs/{JOB_ID}/runs").json()["value"]
        assert [(run["run"], run["parameters"], run["status"]) for run in runs] == [
            (2, {"n": 3}, "processing"),
            (1, {"n": 2}, "failed"),
        ]


@pytest.mark.parametrize("action", ["pause", "resume", "rerun"])
def test_status_that_only_a_newer_release_knows_is_told_as_such(action):
    answer = ControlAnswer(ControlOutcome.REFUSED, JobStatus.stored("suspended"), 1, 2, is_paused=False)
    response = Api(FakeServices(answer=answer)).post(f"/api/jobs/{JOB_ID}/{action}")
    problem = assert_problem(response, 409, "job_status_not_known")
    assert (problem["job_status"], problem["allowed_actions"]) == ("suspended", [])
    assert "newer release" in problem["detail"]


def test_job_in_a_status_that_is_not_known_shows_no_actions():
    assert allowed_actions(JobStatus.stored("suspended"), is_paused=False) == ()


def test_rerun_of_a_job_whose_type_is_not_known_says_that_another_release_may_know_it():
    response = Api(FakeServices(failure=UnknownJobType("gone", ["hello_world"]))).post(f"/api/jobs/{JOB_ID}/rerun")
    detail = assert_problem(response, 404, "unknown_job_type")["detail"]
    assert "The job is there" in detail
    assert "another release" in detail


class TestAdjust:
    PATH = f"/api/jobs/{JOB_ID}"

    @pytest.mark.parametrize(
        ("body", "changes", "stage"),
        [
            ({"priority": "high"}, {"priority": "high"}, None),
            ({"max_parallel": 4, "stage": 2}, {"max_parallel": 4}, 2),
            ({"max_parallel": "none", "priority": "low"}, {"priority": "low", "max_parallel": None}, None),
        ],
    )
    def test_what_is_to_change_is_passed_on_with_reason_and_actor(self, body, changes, stage):
        api = Api(trusts_principal=True)
        answer = api("PATCH", self.PATH, json={**body, "reason": "late"}, headers=ACTOR)
        assert answer.status_code == 200
        assert answer.json()["priority"] == "high"
        assert (answer.json()["max_parallel"], answer.json()["changed"]) == (4, True)
        asked = {"changes": changes, "stage": stage, "reason": "late", "actor": "ada@example.com"}
        assert api.services.calls == [("adjust_job", {"job_id": JOB_ID, **asked})]

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, ""),
            ({"reason": "x"}, ""),
            ({"priority": "urgent"}, "priority"),
            ({"priority": None, "max_parallel": None}, ""),
            ({"max_parallel": 0}, "max_parallel"),
            ({"max_parallel": "many"}, "max_parallel"),
            ({"max_parallel": 2**31}, "max_parallel"),
            ({"priority": "low", "stage": 2}, ""),
            ({"prioritty": "low", "priority": "low"}, "prioritty"),
        ],
    )
    def test_what_changes_nothing_or_cannot_be_is_refused(self, body, field):
        api = Api()
        problem = assert_problem(api("PATCH", self.PATH, json=body), 400, "invalid_request")
        assert any(each["field"].startswith(field) for each in problem["errors"])
        assert api.services.calls == []

    @pytest.mark.parametrize(
        ("outcome", "status", "code"),
        [
            (AdjustOutcome.REFUSED, JobStatus.COMPLETED, "job_has_ended"),
            (AdjustOutcome.REFUSED, JobStatus.CANCELLING, "job_is_cancelling"),
            (AdjustOutcome.OTHER_STAGE, JobStatus.PROCESSING, "other_stage"),
            (AdjustOutcome.NOTHING_WAITS, JobStatus.PROCESSING, "nothing_waits"),
        ],
    )
    def test_what_the_job_does_not_allow_is_a_conflict(self, outcome, status, code):
        services = FakeServices()
        services.adjusted = replace(services.adjusted, outcome=outcome, status=status)
        answer = Api(services)("PATCH", self.PATH, json={"priority": "high"})
        assert assert_problem(answer, 409, code)["job_status"] == status

    def test_unknown_job_is_not_found(self):
        answer = Api()("PATCH", f"/api/jobs/{'cd' * 32}", json={"priority": "high"})
        assert_problem(answer, 404, "unknown_job")
