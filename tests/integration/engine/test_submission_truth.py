"""What a submission finds is only what was made with its parameters; and what it wants of a job that has ended.

The table of docs/reference/submitting.md, cell by cell, over HTTP, the command line and the jobs queue.
"""

import asyncio
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import psycopg
import pytest
from pydantic import ValidationError

from core.errors import MessageRefused
from core.models import JobQueueMessage
from core.models.control import IfEnded, RerunMode, RerunRequest
from core.models.submission import SubmitRequest
from coremachine.cli import jobs as cli_jobs
from coremachine.cli.client import ApiClient
from coremachine.cli.main import main
from infrastructure.queries import JobQueries
from triggers.api import create_api

# Statuses of jobs are set by hand.
pytestmark = pytest.mark.breaks_invariants


@dataclass
class Services:
    """What the API asks for, on the rig; whoever waits for a job's end lets the engine work."""

    rig: object
    queries: JobQueries

    @property
    def machine(self):
        return self.rig.machine

    @property
    def registry(self):
        return self.rig.registry

    def find_job_status(self, job_id):
        return self.queries.find_job_status(job_id)

    def find_ended_jobs(self, job_ids):
        self.rig.queues.run(self.rig.machine)
        return self.queries.find_ended_jobs(job_ids)

    def check_readiness(self):
        return []


class AppTransport(httpx.BaseTransport):
    """The way of a synchronous client to an app in this process."""

    def __init__(self, app):
        self._app = app

    def handle_request(self, request):
        async def ask():
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://jobs") as http:
                return await http.request(
                    request.method, request.url, headers=request.headers, content=request.read(), timeout=60
                )

        answer = asyncio.run(ask())
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


@pytest.fixture
def transport(rig):
    services = Services(rig, JobQueries(rig.engine.pool))
    return AppTransport(create_api(lambda: services))


@pytest.fixture
def http(transport):
    with httpx.Client(transport=transport, base_url="http://jobs/api/") as client:
        yield client


@pytest.fixture
def command(transport, monkeypatch, capsys):
    """Run a command: its exit code, what it printed as JSON, what it said to people."""
    monkeypatch.setattr(cli_jobs, "ApiClient", lambda url: ApiClient(url, transport))

    def run(*arguments):
        code = main([*arguments, "-o", "json", "--url", "http://jobs"])
        told = capsys.readouterr()
        return code, json.loads(told.out) if told.out else None, told.err

    return run


def submit(http, parameters, **query):
    """Submit over HTTP, wait for the end, and answer with the body."""
    headers = {"Prefer": "wait=20"} | ({"Idempotency-Key": query.pop("key")} if "key" in query else {})
    answer = http.post("jobs/submit/shapes", json=parameters, params=query, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


def refused(http, parameters, **query):
    """Submit over HTTP what only a run of other parameters is there for, and answer with the problem."""
    headers = {"Prefer": "wait=20"} | ({"Idempotency-Key": query.pop("key")} if "key" in query else {})
    answer = http.post("jobs/submit/shapes", json=parameters, params=query, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert "location" not in answer.headers
    problem = answer.json()
    assert (problem["code"], problem["type"]) == ("other_parameters", "urn:coremachine:problem:other_parameters")
    return problem


def rerun(rig, job_id, **parameters):
    answer = rig.machine.rerun_job(job_id, RerunRequest(mode=RerunMode.ALL, parameters=parameters))
    assert answer.outcome == "rerun"


def message(parameters, **fields):
    return JobQueueMessage(job_type="shapes", parameters=parameters, **fields)


class TestOtherParameters:
    def test_result_of_other_parameters_is_handed_to_nobody(self, rig, http, command):
        """After a rerun with n=3 a submission of n=2 was answered with that job, and Location led to its result."""
        first = submit(http, {"n": 2})
        assert first["job"]["result"] == {"total": 1, "failed": 0}
        rerun(rig, first["job_id"], n=3)
        rig.queues.run(rig.machine)

        problem = refused(http, {"n": 2})
        assert (problem["job_status"], problem["job_run"]) == ("completed", 2)
        assert http.get(problem["run_url"]).json()["parameters"]["n"] == 3
        for said in (first["job_id"], "run 2 (completed)", "Now submit with if_ended=rerun", "?force=true"):
            assert said in problem["detail"]
        for options in ((), ("--wait",)):
            code, answer, said = command("submit", "shapes", "-p", "n=2", *options)
            assert (code, answer) == (4, None)
            assert problem["detail"] in said

    def test_refused_submission_leaves_its_key_unused(self, rig, http):
        first = submit(http, {"n": 2})
        rerun(rig, first["job_id"], n=3)
        rig.queues.run(rig.machine)
        refused(http, {"n": 2}, key="k")
        again = submit(http, {"n": 2}, key="k", if_ended="rerun")
        assert (again["outcome"], again["job"]["result"]["total"]) == ("rerun", 1)

    def test_submission_of_the_new_parameters_is_a_job_of_its_own(self, rig, http):
        first = submit(http, {"n": 2})
        rerun(rig, first["job_id"], n=3)
        rig.queues.run(rig.machine)
        other = submit(http, {"n": 3})
        assert (other["outcome"], other["job"]["result"]["total"]) == ("created", 5)
        assert other["job_id"] != first["job_id"]

    def test_rerun_with_the_first_parameters_again_makes_it_their_job_again(self, rig, http):
        first = submit(http, {"n": 2})
        for n in (3, 2):
            rerun(rig, first["job_id"], n=n)
            rig.queues.run(rig.machine)
        found = submit(http, {"n": 2})
        assert (found["outcome"], found["run"]) == ("existing", 3)
        assert found["job"]["result"]["total"] == 1

    @pytest.mark.parametrize(("from_stage", "outcome"), [(1, "existing"), (2, "other_parameters")])
    def test_results_that_were_kept_from_a_run_of_others_are_theirs(self, rig, http, from_stage, outcome):
        """The parameters are the first ones again, but stage 1 may be that of the run before."""
        first = submit(http, {"n": 2})
        rerun(rig, first["job_id"], n=3)
        rig.queues.run(rig.machine)
        rig.machine.rerun_job(
            first["job_id"], RerunRequest(mode=RerunMode.FROM_STAGE, from_stage=from_stage, parameters={"n": 2})
        )
        rig.queues.run(rig.machine)
        assert rig.job(first["job_id"]).parameters["n"] == 2
        found = submit(http, {"n": 2})["outcome"] if outcome == "existing" else refused(http, {"n": 2})["code"]
        assert found == outcome

    def test_parameter_that_is_not_in_the_id_may_be_another(self, rig, http, monkeypatch):
        """What changes how a job runs, but not what it makes: a rerun with another made every schedule fail."""
        monkeypatch.setattr(rig.registry.get_job("shapes"), "parameters_outside_job_id", frozenset({"label"}))
        first = submit(http, {"n": 2, "label": "monday"})
        rerun(rig, first["job_id"], label="tuesday")
        rig.queues.run(rig.machine)
        for label in ("monday", "tuesday", "sunday"):
            found = submit(http, {"n": 2, "label": label})
            assert (found["job_id"], found["outcome"]) == (first["job_id"], "existing")
        rerun(rig, first["job_id"], n=3)
        refused(http, {"n": 2, "label": "monday"})

    def test_rerun_without_other_parameters_stays_their_job(self, rig, http):
        first = submit(http, {"n": 2})
        rig.machine.rerun_job(first["job_id"], RerunRequest(mode=RerunMode.ALL))
        found = submit(http, {"n": 2})
        assert (found["outcome"], found["run"], found["job"]["status"]) == ("existing", 2, "completed")

    @pytest.mark.parametrize("query", [{}, {"force": "true"}, {"if_ended": "force"}], ids=str)
    def test_replay_of_a_key_is_refused_too(self, rig, http, query):
        submit(http, {"n": 2})
        first = submit(http, {"n": 2}, key="k", **query)
        assert (first["outcome"] == "forced") is bool(query)
        rerun(rig, first["job_id"], n=3)
        rig.queues.run(rig.machine)
        problem = refused(http, {"n": 2}, key="k", **query)
        assert first["job_id"] in problem["detail"]
        assert "under a new idempotency key" in problem["detail"]

    def test_replay_after_a_release_with_other_defaults_is_the_answer_that_it_was(self, rig, http, monkeypatch):
        """Validation makes other parameters of the same request then; no rerun did."""
        submit(http, {}, key="k")
        schema = {**rig.registry.get_job("shapes").parameters_schema, "n": {"type": "int", "default": 9}}
        monkeypatch.setattr(rig.registry.get_job("shapes"), "parameters_schema", schema)
        replay = submit(http, {}, key="k")
        assert (replay["outcome"], replay["job"]["status"]) == ("replayed", "completed")

    def test_job_type_whose_id_leaves_a_parameter_out_says_itself_what_is_the_same(self, rig, http, monkeypatch):
        job_type = rig.registry.get_job("shapes")
        made = job_type.generate_job_id
        monkeypatch.setattr(job_type, "generate_job_id", lambda params: made({**params, "label": ""}))
        first = submit(http, {"n": 2, "label": "monday"})
        found = submit(http, {"n": 2, "label": "tuesday"})
        assert (found["job_id"], found["outcome"]) == (first["job_id"], "existing")


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
DOORS = ("command", "http", "queue")
# Outcome of each `if_ended`, and the exit code; these two are 409 with a code over HTTP, and an error over the queue.
REFUSED = {"refused": "job_is_there", "other_parameters": "other_parameters"}
JOINED = dict.fromkeys(IfEnded, ("existing", 0))
ENDED = {IfEnded.RERUN: ("rerun", 0), IfEnded.FORCE: ("forced", 0), IfEnded.FAIL: ("refused", 4)}
OTHERS_RUN = {**ENDED, IfEnded.RETURN: ("other_parameters", 4), IfEnded.RERUN: ("other_parameters", 4)}
# (status, whether its run has other parameters) -> the row of the table.
TABLE = {
    ("queued", False): JOINED,
    ("processing", False): JOINED,
    ("finalizing", False): JOINED,
    ("completed", False): {**ENDED, IfEnded.RETURN: ("existing", 0)},
    ("completed_with_errors", False): {**ENDED, IfEnded.RETURN: ("existing", 0)},
    ("failed", False): {**ENDED, IfEnded.RETURN: ("existing", 1)},
    ("cancelled", False): {**ENDED, IfEnded.RETURN: ("existing", 1)},
    ("cancelling", False): {**ENDED, IfEnded.RETURN: ("existing", 1), IfEnded.RERUN: ("existing", 1)},
    ("queued", True): OTHERS_RUN,
    ("processing", True): OTHERS_RUN,
    ("finalizing", True): OTHERS_RUN,
    ("cancelling", True): OTHERS_RUN,
    ("completed", True): {**OTHERS_RUN, IfEnded.RERUN: ("rerun", 0)},
    ("completed_with_errors", True): {**OTHERS_RUN, IfEnded.RERUN: ("rerun", 0)},
    ("failed", True): {**OTHERS_RUN, IfEnded.RERUN: ("rerun", 0)},
    ("cancelled", True): {**OTHERS_RUN, IfEnded.RERUN: ("rerun", 0)},
}
CELLS = [(*state, if_ended, *cell) for state, row in TABLE.items() for if_ended, cell in row.items()]


class TestTable:
    """Each cell three times, on a job of its own: over HTTP, the command line, and the queue."""

    @pytest.fixture
    def job_in(self, rig):
        def make(label, status, *, has_others):
            job_id = rig.submit(n=2, label=label)
            if has_others:
                # It ends at once, as its end is not what these tests are about.
                rig.engine.jobs.cancel_job(job_id, reason=None, actor=None)
                rerun(rig, job_id, n=4)
            rig.queues.clear()
            for step in PATHS[status]:
                rig.engine.execute("update app.jobs set status = %s where job_id = %s", step, job_id)
            return job_id

        return make

    @pytest.mark.parametrize(("status", "has_others", "if_ended", "outcome", "code"), CELLS)
    def test_cell(self, rig, http, command, caplog, job_in, status, has_others, if_ended, outcome, code):
        asked = {"if_ended": if_ended.value}

        job_id = job_in("http", status, has_others=has_others)
        before = rig.job(job_id)
        answer = http.post("jobs/submit/shapes", json={"n": 2, "label": "http"}, params=asked)
        body = answer.json()
        if outcome in REFUSED:
            assert (answer.status_code, body["code"], body["job_status"]) == (409, REFUSED[outcome], status)
            assert body.get("job_run") == (before.run if outcome == "other_parameters" else None)
        else:
            assert (answer.status_code, body["outcome"]) == (202, outcome)
            assert (body["advice"] is None) is (outcome in {"rerun", "forced"} or TABLE[status, has_others] is JOINED)
        self.check_rows(rig, before, outcome)

        job_id = job_in("command", status, has_others=has_others)
        before = rig.job(job_id)
        found, _, said = command("submit", "shapes", "-p", "n=2", "-p", "label=command", "--if-ended", if_ended.value)
        assert found == code
        assert bool(said) is (outcome in REFUSED or body["advice"] is not None)
        self.check_rows(rig, before, outcome)

        job_id = job_in("queue", status, has_others=has_others)
        before = rig.job(job_id)
        sent = message({"n": 2, "label": "queue"}, idempotency_key="k", **asked)
        caplog.clear()
        for _ in range(2):
            if outcome in REFUSED:
                with pytest.raises(MessageRefused, match=job_id) as refusal:
                    rig.machine.process_job_message(sent)
                assert (refusal.value.reason == "OtherParameters") is (outcome == "other_parameters")
            else:
                rig.machine.process_job_message(sent)
        runs_nothing = outcome not in REFUSED and body["advice"] is not None
        assert ("submission_ran_nothing" in caplog.messages) is runs_nothing
        self.check_rows(rig, before, outcome)

    @pytest.mark.parametrize("if_ended", list(IfEnded))
    def test_job_that_does_not_exist_is_made_whatever_is_wanted_of_one_that_does(self, rig, http, command, if_ended):
        asked = {"if_ended": if_ended.value}
        answer = http.post("jobs/submit/shapes", json={"n": 2, "label": "http"}, params=asked).json()
        assert (answer["outcome"], answer["created"], answer["advice"]) == ("created", True, None)
        code, made, said = command("submit", "shapes", "-p", "n=2", "-p", "label=command", "--if-ended", if_ended.value)
        assert (code, made["outcome"], said) == (0, "created", "")
        rig.machine.process_job_message(message({"n": 2, "label": "queue"}, idempotency_key="k", **asked))
        rig.queues.run(rig.machine)
        rows = rig.engine.query("select status, run, forced_from, parameters ->> 'label' as label from app.jobs")
        done = [{"status": "completed", "run": 1, "forced_from": None, "label": each} for each in DOORS]
        assert sorted(rows, key=lambda row: row["label"]) == done

    @pytest.mark.parametrize(("status", "has_others"), [*((each, False) for each in PATHS), ("completed", True)])
    def test_force_makes_a_job_beside_one_in_any_status(self, rig, http, command, job_in, status, has_others):
        first = rig.job(job_in("http", status, has_others=has_others))
        body = {"n": 2, "label": "http"}
        answer = http.post("jobs/submit/shapes", json=body, params={"force": "true"}).json()
        assert (answer["outcome"], answer["advice"]) == ("forced", None)
        code, forced, _ = command("submit", "shapes", "-p", "n=2", "-p", "label=http", "--force")
        assert (code, forced["outcome"]) == (0, "forced")
        assert rig.job(first.job_id) == first
        rows = rig.engine.query("select job_id from app.jobs where forced_from = %s", first.job_id)
        assert {row["job_id"] for row in rows} == {answer["job_id"], forced["job_id"]}
        assert len(rows) == 2

    @staticmethod
    def check_rows(rig, before, outcome):
        """What the rows say afterwards; a rerun and a forced job run to their end with the parameters submitted."""
        after = rig.job(before.job_id)
        forced = rig.engine.query("select * from app.jobs where forced_from = %s", before.job_id)
        assert len(forced) == (outcome == "forced")
        if outcome != "rerun":
            assert after == before
        if outcome not in {"rerun", "forced"}:
            assert rig.queues.clear() == 0
            return
        rig.queues.run(rig.machine)
        done = rig.job(forced[0]["job_id"] if forced else before.job_id)
        assert (done.status, done.parameters["n"], done.result["total"]) == ("completed", 2, 1)
        assert done.run == (1 if forced else before.run + 1)


class TestIfEnded:
    def test_schedule_of_the_same_parameters_runs_each_time_and_waits_for_its_own(self, rig, command):
        codes_and_runs = []
        for _ in range(3):
            code, job, _ = command("submit", "shapes", "-p", "n=2", "--if-ended", "rerun", "--wait")
            codes_and_runs.append((code, job["run"], job["status"]))
        assert codes_and_runs == [(0, run, "completed") for run in (1, 2, 3)]
        assert set(rig.behave.calls.values()) == {3}

    def test_many_at_one_moment_begin_one_run(self, rig, crowd):
        job_id = rig.run(n=2, label="nightly")

        def submit_again():
            return rig.machine.submit_job(SubmitRequest("shapes", {"n": 2, "label": "nightly"}, if_ended=IfEnded.RERUN))

        answers = crowd(*[submit_again] * 16)
        assert Counter(answer.outcome for answer in answers) == {"rerun": 1, "existing": 15}
        assert {(answer.job_id, answer.run) for answer in answers} == {(job_id, 2)}
        rig.queues.run(rig.machine)
        assert (rig.job(job_id).run, rig.job(job_id).status) == (2, "completed")

    def test_run_that_another_began_and_ended_meanwhile_is_found(self, rig, database_url):
        """Both saw run 1; the second waited for the row until run 2 had ended, and must not begin run 3."""
        job_id = rig.run(n=2, label="nightly")
        job = rig.job(job_id)
        with psycopg.connect(database_url) as holder, ThreadPoolExecutor(1) as executor:
            holder.execute("select 1 from app.jobs for update")
            request = SubmitRequest("shapes", {"n": 2, "label": "nightly"}, if_ended=IfEnded.RERUN)
            late = executor.submit(rig.machine.submit_job, request)
            rig.engine.wait_for_lock()
            values = (job_id, json.dumps(job.parameters), json.dumps(job.definition))
            holder.execute("select app.rerun_job(%s, 1, 'all', null, %s, %s, null, null)", values)
            for step in PATHS["completed"]:
                holder.execute("update app.jobs set status = %s", (step,))
            holder.commit()
            answer = late.result(timeout=60)
        assert (answer.outcome, answer.run, answer.status) == ("existing", 2, "completed")
        assert rig.job(job_id).run == 2

    def test_timeline_says_that_a_submission_began_the_run(self, rig):
        job_id = rig.run(n=2, label="nightly")
        rig.machine.submit_job(SubmitRequest("shapes", {"n": 2, "label": "nightly"}, if_ended=IfEnded.RERUN))
        (event,) = rig.engine.query("select * from app.job_events where event = 'job_rerun'")
        assert (event["job_id"], event["run"], event["detail"]["mode"]) == (job_id, 2, "all")
        assert event["detail"]["reason"] == "submitted again"

    def test_same_key_begins_one_run_and_another_if_ended_is_another_content(self, rig, http):
        submit(http, {"n": 2})
        first = submit(http, {"n": 2}, key="monday", if_ended="rerun")
        again = submit(http, {"n": 2}, key="monday", if_ended="rerun")
        assert [(answer["outcome"], answer["run"]) for answer in (first, again)] == [("rerun", 2), ("replayed", 2)]
        for if_ended in ("return", "force", "fail"):
            refused = http.post(
                f"jobs/submit/shapes?if_ended={if_ended}", json={"n": 2}, headers={"Idempotency-Key": "monday"}
            )
            assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
        assert submit(http, {"n": 2}, key="tuesday", if_ended="rerun")["run"] == 3

    def test_refused_submission_leaves_its_key_unused(self, rig, http):
        job_id = submit(http, {"n": 2})["job_id"]
        headers = {"Idempotency-Key": "k"}
        refused = http.post("jobs/submit/shapes?if_ended=fail", json={"n": 2}, headers=headers)
        assert refused.status_code == 409
        rig.engine.execute("delete from app.jobs where job_id = %s", job_id)
        assert submit(http, {"n": 2}, key="k", if_ended="fail")["outcome"] == "created"
        assert submit(http, {"n": 2}, key="k", if_ended="fail")["outcome"] == "replayed"

    @pytest.mark.parametrize("if_ended", ["rerun", "force"])
    def test_message_that_makes_something_run_again_needs_a_key(self, if_ended):
        with pytest.raises(ValidationError, match="idempotency_key"):
            message({}, if_ended=if_ended)
        with pytest.raises(ValidationError, match="only where a job is submitted"):
            JobQueueMessage(job_type="shapes", job_id="a" * 64, if_ended=if_ended, idempotency_key="k")

    def test_message_without_a_wish_is_that_of_the_release_before(self):
        """An older release refuses fields that it does not know."""
        sent = JobQueueMessage(job_type="shapes", job_id="a" * 64).model_dump_json(exclude_none=True)
        assert not {"if_ended", "idempotency_key"} & set(json.loads(sent))


def test_duration_is_of_the_run_not_since_the_first_submission(rig, http):
    job_id = submit(http, {"n": 2})["job_id"]
    rig.engine.execute(
        "update app.jobs set created_at = created_at - interval '9 days', finished_at = finished_at - interval '8 days'"
    )
    first = http.get(f"jobs/{job_id}").json()
    assert first["run_started_at"] == first["created_at"]
    assert 86_000 < first["duration_seconds"] < 87_000

    rerun(rig, job_id)
    running = http.get(f"jobs/{job_id}").json()
    assert running["duration_seconds"] is None
    rig.queues.run(rig.machine)

    job = http.get(f"jobs/{job_id}").json()
    (listed,) = http.get("jobs").json()["value"]
    runs = {run["run"]: run for run in http.get(f"jobs/{job_id}/runs").json()["value"]}
    assert job["created_at"] == first["created_at"]
    for shown in (job, listed):
        assert shown["run_started_at"] == runs[2]["started_at"] == running["run_started_at"]
        assert 0 <= shown["duration_seconds"] < 3600
