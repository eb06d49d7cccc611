"""One job for one set of parameters, in every state of it; forced jobs; idempotency keys; many at one moment."""

import asyncio
import hashlib
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from core.advancing.unchecked import say_unchecked
from core.basics.canonical import job_id_for
from core.errors import IdempotencyKeyReused, StoreUnavailable, classify
from core.models import JobRecord
from core.models.submission import ForcedJob, KeyedPayload, SubmitRequest
from infrastructure.queries import JobQueries
from triggers.api import create_api

# Statuses of jobs are set by hand.
pytestmark = pytest.mark.breaks_invariants
HUNDRED = 100


@dataclass
class Services:
    """What the API asks for, on the rig."""

    machine: object
    queries: JobQueries
    registry: object

    def find_job_status(self, job_id):
        return self.queries.find_job_status(job_id)

    def check_readiness(self):
        return []


@pytest.fixture
def post(rig):
    """Submit over HTTP: `post({"n": 1}, key="k", force=True)`; each call has an event loop of its own."""
    app = create_api(lambda: Services(rig.machine, JobQueries(rig.engine.pool), rig.registry))

    def submit(parameters, *, key=None, force=False, job_type="shapes"):
        async def ask():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://jobs") as http:
                headers = {"Idempotency-Key": key} if key else {}
                query = {"force": "true"} if force else {}
                return await http.post(
                    f"/api/jobs/submit/{job_type}", json=parameters, headers=headers, params=query, timeout=120
                )

        return asyncio.run(ask())

    return submit


def at_one_moment(call, count=HUNDRED):
    """The results of so many calls that begin together."""
    start = threading.Barrier(count)

    def one(number):
        start.wait(timeout=60)
        return call(number)

    with ThreadPoolExecutor(count) as executor:
        return list(executor.map(one, range(count)))


def count_of(engine, table):
    (row,) = engine.query(f"select count(*) as n from app.{table}")  # noqa: S608 - names of this test
    return row["n"]


def job_events(engine, event):
    return engine.query("select job_id, detail from app.job_events where event = %s order by event_id", event)


class TestSameParameters:
    # Status of the job, how it gets there, and what the advice must name.
    STATES = (
        ("queued", None, ()),
        ("processing", None, ()),
        ("finalizing", None, ()),
        ("completed", None, ("force",)),
        ("completed_with_errors", None, ("rerun", "force")),
        ("failed", {"type": "StageFailed", "message": "no"}, ("rerun", "force")),
        ("cancelling", None, ("rerun", "force")),
        ("cancelled", None, ("rerun", "force")),
    )
    PATHS = {
        "queued": [],
        "processing": ["processing"],
        "finalizing": ["processing", "finalizing"],
        "completed": ["processing", "finalizing", "completed"],
        "completed_with_errors": ["processing", "finalizing", "completed_with_errors"],
        "failed": ["failed"],
        "cancelling": ["processing", "cancelling"],
        "cancelled": ["cancelled"],
    }

    @pytest.mark.parametrize(("status", "error", "named"), STATES, ids=[state[0] for state in STATES])
    def test_job_is_found_as_it_is_and_nothing_runs_again(self, rig, status, error, named):
        """A failed job was answered as if it were on its way, and its repetition hid it (lesson D14)."""
        first = rig.machine.submit_job(SubmitRequest("shapes", {"n": 1}, correlation_id="c-1"))
        rig.queues.clear()
        for step in self.PATHS[status]:
            rig.engine.execute("update app.jobs set status = %s", step)
        before = rig.engine.query("select * from app.jobs")

        again = rig.machine.submit_job(SubmitRequest("shapes", {"n": 1}, correlation_id="c-2"))

        assert (again.job_id, again.created, again.outcome) == (first.job_id, False, "existing")
        assert (again.status, again.run, again.correlation_id) == (status, 1, "c-1")
        assert bool(again.advice) == bool(named)
        assert all(word in again.advice for word in named)
        if "rerun" in named:
            assert f"`coremachine rerun {first.job_id[:12]} --failed`" in again.advice
            assert "--if-ended rerun" in again.advice
        assert rig.engine.query("select * from app.jobs") == before
        assert rig.queues.clear() == 0

    def test_names_in_another_order_and_spelled_out_defaults_are_the_same_job(self, rig):
        ids = {
            rig.machine.submit_job(SubmitRequest("shapes", parameters)).job_id
            for parameters in ({"n": 5, "label": "a"}, {"label": "a"}, {"label": "a", "bad": [], "n": 5})
        }
        assert len(ids) == 1

    def test_hundred_at_one_moment_over_http_make_one_job_one_run_one_planning(self, rig, post):
        """Concurrent submissions queued a job twice (lesson D13)."""
        answers = at_one_moment(lambda _: post({"n": 3}))

        assert Counter(answer.status_code for answer in answers) == {202: HUNDRED}
        bodies = [answer.json() for answer in answers]
        assert len({body["job_id"] for body in bodies}) == 1
        assert Counter(body["outcome"] for body in bodies) == {"created": 1, "existing": HUNDRED - 1}
        assert {(body["status"], body["run"]) for body in bodies} == {("queued", 1)}
        assert len({body["correlation_id"] for body in bodies}) == 1
        rig.queues.run(rig.machine)
        assert (count_of(rig.engine, "jobs"), count_of(rig.engine, "stages")) == (1, 3)
        assert len(job_events(rig.engine, "job_submitted")) == 1
        assert len(job_events(rig.engine, "stage_planned")) == 3
        assert set(rig.behave.calls.values()) == {1}

    def test_hundred_at_one_moment_at_the_database_make_one_row(self, engine):
        job_id = job_id_for("test", {})
        definition = {"job_type": "test", "stages": [{"number": 1}]}
        job = JobRecord(job_id=job_id, job_type="test", total_stages=1, definition=definition, correlation_id="c")
        answers = at_one_moment(lambda _: engine.jobs.submit_job(job))
        assert Counter(str(answer.outcome) for answer in answers) == {"created": 1, "existing": HUNDRED - 1}
        assert (count_of(engine, "jobs"), count_of(engine, "stages")) == (1, 1)


class TestForce:
    def test_makes_a_job_beside_the_first_that_runs_by_itself(self, rig):
        """Ids made of the parameters kept legitimate reruns out (lesson D35)."""
        first = rig.run(n=2, label="twice")
        forced = rig.machine.submit_job(SubmitRequest("shapes", {"n": 2, "label": "twice"}, force=True))
        assert (forced.created, forced.outcome, forced.status, forced.run) == (True, "forced", "queued", 1)
        assert forced.advice is None
        rig.queues.run(rig.machine)

        row = rig.job(forced.job_id)
        assert (row.status, row.forced_from) == ("completed", first)
        text = json.dumps(["shapes", row.parameters, row.nonce], sort_keys=True, separators=(",", ":"))
        assert row.job_id == hashlib.sha256(text.encode()).hexdigest()
        assert row.parameters == rig.job(first).parameters
        assert set(rig.behave.calls.values()) == {2}
        (_, event) = job_events(rig.engine, "job_submitted")
        assert event == {"job_id": forced.job_id, "detail": {"forced_from": first}}

    def test_each_force_is_another_job_and_all_come_from_the_first(self, rig):
        first = rig.machine.submit_job(SubmitRequest("shapes", {"n": 2})).job_id
        forced = [rig.machine.submit_job(SubmitRequest("shapes", {"n": 2}, force=True)).job_id for _ in range(3)]
        assert len({first, *forced}) == 4
        assert {rig.job(job_id).forced_from for job_id in forced} == {first}
        assert rig.machine.submit_job(SubmitRequest("shapes", {"n": 2})).job_id == first

    def test_without_an_earlier_job_is_a_submission_like_any_other(self, rig):
        forced = rig.machine.submit_job(SubmitRequest("shapes", {"n": 2}, force=True))
        assert forced.outcome == "created"
        row = rig.job(forced.job_id)
        assert (row.nonce, row.forced_from) == (None, None)
        assert rig.machine.submit_job(SubmitRequest("shapes", {"n": 2})).job_id == forced.job_id

    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    def test_works_in_every_status_of_the_first(self, rig, status):
        first = rig.machine.submit_job(SubmitRequest("shapes", {"n": 2}))
        rig.engine.execute("update app.jobs set status = %s", status)
        assert rig.machine.submit_job(SubmitRequest("shapes", {"n": 2}, force=True)).outcome == "forced"
        assert rig.job(first.job_id).status == status

    def test_many_at_one_moment_make_a_job_each(self, rig, post):
        answers = at_one_moment(lambda _: post({"n": 1}, force=True), 20)
        assert len({answer.json()["job_id"] for answer in answers}) == 20
        assert Counter(answer.json()["outcome"] for answer in answers) == {"created": 1, "forced": 19}


class TestIdempotencyKey:
    def test_same_key_and_content_is_the_same_job_and_says_so(self, rig, post):
        first, second = post({"n": 1}, key="order-7"), post({"n": 1}, key="order-7")
        assert "idempotency-replayed" not in first.headers
        assert second.headers["idempotency-replayed"] == "true"
        assert second.status_code == first.status_code == 202
        assert second.json() == {**first.json(), "created": False, "outcome": "replayed"}
        assert count_of(rig.engine, "idempotency_keys") == 1

    @pytest.mark.parametrize(
        "other",
        [
            {"parameters": {"n": 2}},
            {"parameters": {}},
            {"parameters": {"n": 1}, "force": True},
        ],
    )
    def test_same_key_with_another_content_is_refused_and_writes_nothing(self, rig, post, other):
        first = post({"n": 1}, key="order-7").json()
        refused = post(key="order-7", **other)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
        assert refused.headers["content-type"] == "application/problem+json"
        assert first["job_id"] in refused.json()["detail"]
        assert (count_of(rig.engine, "jobs"), count_of(rig.engine, "idempotency_keys")) == (1, 1)

    def test_key_is_one_over_all_job_types(self, engine):
        """Ids made of the parameters kept legitimate reruns out (lesson D35)."""

        def submit(job_type, payload):
            job = JobRecord(
                job_id=job_id_for(job_type, {}),
                job_type=job_type,
                total_stages=1,
                definition={"job_type": job_type, "stages": [{"number": 1}]},
                correlation_id="c",
            )
            return engine.jobs.submit_job(job, key=KeyedPayload("order-7", payload)).outcome

        assert [submit("one", "a"), submit("two", "b"), submit("one", "a")] == ["created", "key_conflict", "replayed"]

    def test_forced_job_is_found_again_by_its_key(self, rig, post):
        """A client that did not hear the answer repeats its request, and must not get a second forced job."""
        post({"n": 1})
        first, second = (post({"n": 1}, key="again-1", force=True).json() for _ in range(2))
        assert (first["outcome"], second["outcome"]) == ("forced", "replayed")
        assert first["job_id"] == second["job_id"]
        assert count_of(rig.engine, "jobs") == 2

    def test_new_key_finds_the_job_of_the_same_parameters_and_stays_with_it(self, rig, post):
        first = post({"n": 1}, key="a").json()
        second = post({"n": 1}, key="b").json()
        assert (second["job_id"], second["outcome"]) == (first["job_id"], "existing")
        assert post({"n": 1}, key="b").json()["outcome"] == "replayed"

    def test_replay_of_a_failed_job_says_what_to_do(self, rig, post):
        post({"n": 1}, key="a")
        rig.engine.execute("update app.jobs set status = 'failed'")
        answer = post({"n": 1}, key="a").json()
        assert (answer["outcome"], answer["status"]) == ("replayed", "failed")
        assert "rerun" in answer["advice"]

    def test_replay_knows_the_request_again_after_a_release_changed_the_defaults(self, rig, monkeypatch):
        first = rig.machine.submit_job(SubmitRequest("shapes", {}, idempotency_key="a"))
        schema = {**rig.registry.get_job("shapes").parameters_schema, "n": {"type": "int", "default": 9}}
        monkeypatch.setattr(rig.registry.get_job("shapes"), "parameters_schema", schema)
        assert rig.machine.submit_job(SubmitRequest("shapes", {}, idempotency_key="a")).job_id == first.job_id

    def test_refused_parameters_leave_the_key_unused(self, post):
        assert post({"n": "x"}, key="a").status_code == 400
        assert post({"n": 1}, key="a").json()["outcome"] == "created"

    def test_key_goes_with_its_job(self, rig, post):
        post({"n": 1}, key="a")
        rig.engine.execute("delete from app.jobs")
        assert post({"n": 2}, key="a").json()["outcome"] == "created"

    def test_hundred_of_one_key_and_force_at_one_moment_make_one_job(self, rig, post):
        post({"n": 1})
        answers = [answer.json() for answer in at_one_moment(lambda _: post({"n": 1}, key="k", force=True))]
        assert Counter(answer["outcome"] for answer in answers) == {"forced": 1, "replayed": HUNDRED - 1}
        assert len({answer["job_id"] for answer in answers}) == 1
        assert count_of(rig.engine, "jobs") == 2

    def test_one_key_with_two_contents_at_one_moment_has_one_winner(self, rig):
        def submit(number):
            try:
                return rig.machine.submit_job(SubmitRequest("shapes", {"n": number % 2}, idempotency_key="k")).job_id
            except IdempotencyKeyReused as error:
                return f"refused for {error.job_id}"

        found = Counter(at_one_moment(submit, 40))
        assert sorted(found.values()) == [20, 20]
        (winner,) = [answer for answer in found if not answer.startswith("refused")]
        assert f"refused for {winner}" in found
        assert count_of(rig.engine, "jobs") == 1

    def test_keys_and_jobs_crossed_at_one_moment_do_not_deadlock(self, engine):
        """Each of four keys meets each of four jobs: locks are taken key first, then job."""

        def submit(number):
            content = number % 4
            job_id = job_id_for("test", {"content": content})
            job = JobRecord(
                job_id=job_id,
                job_type="test",
                total_stages=1,
                definition={"job_type": "test", "stages": [{"number": 1}]},
                correlation_id="c",
            )
            forced = ForcedJob(job_id_for("test", {"number": number}), str(number))
            key = KeyedPayload(f"key-{number // 4 % 4}", f"{content}")
            return engine.jobs.submit_job(job, forced=forced if number % 3 == 0 else None, key=key).outcome

        outcomes = Counter(at_one_moment(submit, 64))
        # Each key belongs to the first content that came with it.
        assert outcomes["key_conflict"] == 48
        assert outcomes["replayed"] == 12
        assert count_of(engine, "idempotency_keys") == 4


def test_who_asked_and_what_was_not_checked_stand_in_the_first_event(rig, engine, monkeypatch):
    """An event of a submission that found its job would tell of something that did not happen: there is none."""
    rig.machine.submit_job(SubmitRequest("shapes", {}, actor="ada"))
    rig.machine.submit_job(SubmitRequest("shapes", {}, actor="bob"))
    forced = rig.machine.submit_job(SubmitRequest("shapes", {}, actor="eve", force=True))
    plain = rig.machine.submit_job(SubmitRequest("shapes", {}, force=True))
    job = rig.registry.get_job("shapes")
    validate = job.validate_job_parameters

    def unchecked(parameters):
        say_unchecked("source", "no answer in 5.0 s")
        return validate(parameters)

    monkeypatch.setattr(job, "validate_job_parameters", unchecked)
    rig.machine.submit_job(SubmitRequest("shapes", {}, force=True))
    first, second, third, fourth = [row["detail"] for row in job_events(engine, "job_submitted")]
    assert first == {"actor": "ada"}
    assert second == {"actor": "eve", "forced_from": first_id(engine, forced.job_id)}
    assert third == {"forced_from": first_id(engine, plain.job_id)}
    assert fourth["unchecked"] == [{"parameter": "source", "reason": "no answer in 5.0 s"}]


def first_id(engine, job_id):
    (row,) = engine.query("select forced_from from app.jobs where job_id = %s", job_id)
    return row["forced_from"]


def test_outage_while_it_is_noted_who_asked_does_not_hide_that_the_job_is_written(rig, monkeypatch, caplog):
    def away(*_):
        raise StoreUnavailable("gone")

    monkeypatch.setattr(rig.state._jobs, "note_submission", away)
    assert rig.machine.submit_job(SubmitRequest("shapes", {}, actor="ada")).created
    assert "submission_not_noted" in caplog.messages


def test_credential_in_an_error_is_not_stored(rig, engine):
    error = RuntimeError("https://a.blob/x?sv=1&SIG=abc123 refused, Password=hunter2")
    stored = classify(error).to_json(1)
    assert stored["message"] == "https://a.blob/x?sv=1&SIG=*** refused, Password=***"
