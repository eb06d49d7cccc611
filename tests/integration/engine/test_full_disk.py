"""A database whose disk is full: it reads, and refuses each write with 53100, until there is room again.

Triggers stand in for the disk. A file system of a limited size would need a right to mount.
"""

import contextlib

import pytest

from core.basics.outage import outage
from core.errors import StoreUnavailable
from core.operating.explain import explain
from infrastructure.base import RepositoryError
from infrastructure.insight import InsightQueries
from infrastructure.verify import verify

from . import test_submission_truth

transport, http = test_submission_truth.transport, test_submission_truth.http

REFUSE = """
create or replace function public.refuse() returns trigger language plpgsql as $$
begin
  raise exception 'could not extend file "base/5/1": No space left on device' using errcode = '53100';
end $$
"""


class Disk:
    """The disk of the engine's database."""

    def __init__(self, engine):
        self._engine = engine
        engine.execute(REFUSE)

    def fill(self, *tables):
        for table in tables:
            self._engine.execute(
                f"create trigger a_full before insert or update or delete on app.{table} for each statement "
                "execute function public.refuse()"
            )

    def free(self, *tables):
        for table in tables:
            self._engine.execute(f"drop trigger a_full on app.{table}")
        outage.end()


@pytest.fixture
def disk(rig, monkeypatch):
    # What was said of an outage in a test before keeps this one's from being said.
    outage.end()
    monkeypatch.setattr(outage, "_said", None)
    return Disk(rig.engine)


def test_submission_is_refused_for_now_and_nothing_of_it_is_written(rig, disk, http, caplog):
    disk.fill("jobs")
    for _ in range(3):
        answer = http.post("jobs/submit/shapes", json={"n": 2}, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    (line,) = [record for record in caplog.records if record.getMessage() == "database_away"]
    assert "No space left on device" in line.reason
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    disk.free("jobs")
    assert rig.engine.query("select 1 from app.jobs union all select 1 from app.stages") == []

    answer = http.post("jobs/submit/shapes", json={"n": 2}, headers={"Idempotency-Key": "k", "Prefer": "wait=20"})
    assert (answer.json()["outcome"], answer.json()["job"]["status"]) == ("created", "completed")


@pytest.mark.parametrize("tables", [("stages",), ("tasks",), ("jobs", "stages", "tasks", "job_events")], ids=str)
def test_step_that_cannot_be_written_stays_with_its_message(rig, disk, tables):
    job_id = rig.submit(n=2)
    disk.fill(*tables)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="No space left"):
            rig.queues.run(rig.machine)
    disk.free(*tables)
    rig.queues.run(rig.machine)

    assert rig.job(job_id).status == "completed"
    assert rig.engine.query("select attempt from app.jobs") == [{"attempt": 0}]
    assert set(rig.behave.calls.values()) == {1}


def test_result_that_cannot_be_written_is_an_interruption_and_no_failure(rig, disk):
    """The handler has done its work; its row is leased until the lease runs out, and then it is done again."""
    rig.behave.before["s1-000000"] = lambda _: disk.fill("tasks") if rig.behave.calls["s1-000000"] == 1 else None
    job_id = rig.submit(n=2)
    with pytest.raises(StoreUnavailable, match="No space left"):
        rig.queues.run(rig.machine)
    disk.free("tasks")
    rig.engine.execute("update app.tasks set lease_expires_at = lease_expires_at - interval '1 day'")
    disk.fill("tasks")
    report = rig.janitor.sweep()
    assert report.outages == len(report.errors) > 0
    assert all("No space left" in error for error in report.errors.values())
    disk.free("tasks")
    rig.janitor.sweep()
    rig.queues.run(rig.machine)

    assert rig.job(job_id).status == "completed"
    (task,) = rig.tasks(job_id, 1)
    assert (task["attempt"], task["interruptions"], task["error"]) == (2, 1, None)
    failures = ["task_failed", "retry_scheduled", "job_step_retry_scheduled", "job_failed"]
    assert rig.engine.query("select event from app.job_events where event = any(%s)", failures) == []
    assert verify(rig.engine.pool) == []


@pytest.fixture
def picky(rig):
    """A database that takes claims, and one outcome not: a large one on a full disk, or past a `statement_timeout`."""

    def refuse(condition, code="53100"):
        rig.engine.execute(REFUSE.replace("53100", code))
        rig.engine.execute(
            f"create trigger picky before update on app.tasks for each row when ({condition}) "
            "execute function public.refuse()"
        )

    return refuse


def interrupt(rig, times):
    for _ in range(times):
        with contextlib.suppress(StoreUnavailable, RepositoryError):
            rig.queues.run(rig.machine)
        rig.engine.execute("update app.tasks set lease_expires_at = lease_expires_at - interval '1 day'")
        rig.janitor.sweep()


@pytest.mark.parametrize("code", ["53100", "57014", "P0001"], ids=["disk", "statement_timeout", "own_trigger"])
def test_task_whose_outcome_is_never_taken_fails_with_that_reason(rig, picky, code, caplog):
    """It had "its process ended without an outcome 6 times, and 3 times it ran alone there": no process had ended."""
    picky("new.status = 'completed'", code)
    job_id = rig.submit(n=2)
    interrupt(rig, 6)

    (task,) = rig.tasks(job_id, 1)
    assert (task["status"], task["interruptions"]) == ("failed", 6)
    assert task["error"]["type"] == "InterruptedTooOften"
    message = task["error"]["message"]
    assert message.startswith("the database did not take its outcome 6 times, last: complete_task_and_check_stage: ")
    assert message.endswith("No space left on device")
    noted = rig.engine.query(
        "select event, task_id from app.job_events where event in ('outcome_not_written', %s)", "task_runs_alone"
    )
    assert noted == [{"event": "outcome_not_written", "task_id": task["task_id"]}] * 6
    lines = [record for record in caplog.records if record.getMessage() == "outcome_not_written"]
    assert [(line.job_id, line.task_ids) for line in lines] == [(job_id, [task["task_id"]])] * 6
    assert all("No space left" in line.reason for line in lines)


def test_lost_processes_are_told_apart_from_outcomes_that_were_not_taken(rig, picky):
    picky("new.status = 'completed' and old.interruptions < 4")
    job_id = rig.submit(n=2)
    interrupt(rig, 4)
    facts = InsightQueries(rig.engine.pool).get_job_facts(job_id)
    (finding,) = [each for each in explain(facts) if each.code == "interrupted"]
    assert "4 times it had ended, and the database did not take its outcome: complete_task" in finding.message
    for _ in range(2):
        rig.engine.execute(
            "update app.tasks set status = 'processing', attempt = attempt + 1, lease_owner = 'lost-process', "
            "lease_id = gen_random_uuid(), lease_expires_at = clock_timestamp() - interval '1 s', announced_at = null, "
            "started_at = clock_timestamp()"
        )
        rig.janitor.sweep()

    (task,) = rig.tasks(job_id, 1)
    assert "did not take its outcome 4 times" in task["error"]["message"]
    lost = "; its process died, or lost the database, 2 times without an outcome (last: lost-process). Usually"
    assert lost in task["error"]["message"]
