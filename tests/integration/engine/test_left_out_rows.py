"""A trigger of somebody else's that leaves rows out without a word: a write that relies on such a row is refused."""

import itertools
from contextlib import suppress

import pytest

from core.errors import RetryableTaskError
from core.models import JobQueueMessage
from core.models.control import RerunMode, RerunRequest
from core.models.submission import SubmitRequest
from core.operating.dead_letters import DeadLetters
from infrastructure.base import ChangeRefused
from infrastructure.dead_letters import DeadLetterRepository

from .machine_suite import Rig
from .test_dead_letters import letter


def told(table):
    return pytest.raises(ChangeRefused, match=f"trigger or a rule of the table {table} keeps rows out; drop it")


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("table", ["stages", "job_events", "idempotency_keys"])
def test_submission_without_all_of_its_rows_is_refused(engine, leave_out, table, many):
    """Without its stage a job never moved; without its key the same request made another job."""
    rig = Rig(engine)
    request = SubmitRequest("shapes", {}, idempotency_key="k")
    leave_out(table)
    with told(table):
        rig.machine.submit_jobs([request]) if many else rig.machine.submit_job(request)
    assert engine.query("select from app.jobs") == []


@pytest.mark.parametrize("on_the_spot", [False, True], ids=["by message", "on the spot"])
@pytest.mark.parametrize("table", ["stages", "job_events"])
def test_step_that_would_miss_rows_waits_until_the_trigger_is_dropped(engine, leave_out, table, on_the_spot):
    """A job that advanced to a stage without a row never moved again."""
    rig = Rig(engine, on_the_spot=on_the_spot)
    job_id = rig.submit(n=2)
    leave_out(table)
    with told(table):
        rig.queues.run(rig.machine)
    engine.execute(f"drop trigger theirs on app.{table}")
    assert rig.job(job_id).status not in {"completed", "failed"}


FAILED, FROM_STAGE = RerunRequest(), RerunRequest(RerunMode.FROM_STAGE, from_stage=3)


@pytest.mark.parametrize(
    ("wish", "table", "condition"),
    [
        *((wish, table, "true") for wish in (FAILED, FROM_STAGE) for table in ("job_runs", "stages", "tasks")),
        (FAILED, "tasks", "new.status = 'pending'"),
    ],
)
def test_rerun_that_would_miss_rows_is_refused(engine, leave_out, wish, table, condition):
    """The new run's stage had tasks without rows, and never ended."""
    rig = Rig(engine)
    job_id = rig.run(n=3, bad=[1])
    leave_out(table, condition)
    with told(table):
        rig.machine.rerun_job(job_id, wish)
    assert rig.job(job_id).run == 1
    engine.execute(f"drop trigger theirs on app.{table}")
    rig.machine.rerun_job(job_id, wish)
    assert rig.job(job_id).run == 2


def test_dead_letter_that_is_left_out_stays_in_its_queue(engine, leave_out):
    """It counted as recorded before, and left its queue: of a submission it was the only copy."""
    found = letter("jobs", JobQueueMessage(job_type="shapes", parameters={}))
    rig = Rig(engine)
    letters = DeadLetters(DeadLetterRepository(engine.pool), rig.state, rig.queues, ["jobs", "tasks"])
    leave_out("dead_letters")
    with told("dead_letters"):
        letters.record(found)
    engine.execute("drop trigger theirs on app.dead_letters")
    assert not letters.record(found).known
    leave_out("dead_letters")
    assert letters.record(found).known


def test_audited_action_without_its_row_is_refused(engine, leave_out):
    rig = Rig(engine)
    job_id = rig.submit(n=1)
    leave_out("audit_log")
    with told("audit_log"):
        rig.machine.cancel_job(job_id, "wrong folder")
    assert rig.job(job_id).status == "queued"


def fails_once():
    calls = itertools.count()

    def fail(_context):
        if next(calls) == 0:
            raise RetryableTaskError("the first time")

    return fail


@pytest.mark.parametrize("condition", ["true", "new.status = 'processing'"])
def test_plan_whose_stage_is_left_out_does_not_stand_still(engine, leave_out, condition):
    """The job ran, and its stage waited for a plan: no sweep ended that, also when the trigger was dropped."""
    rig = Rig(engine)
    job_id = rig.submit(n=3)
    leave_out("stages", condition, "update")
    with suppress(ChangeRefused):
        rig.queues.run(rig.machine)
    if condition != "true":
        job = rig.job(job_id)
        assert (job.status, job.error["type"]) == ("failed", "ChangeRefused")
        assert "a trigger or a rule of the table stages keeps rows out; drop it" in job.error["message"]
        return
    engine.execute("drop trigger theirs on app.stages")
    engine.execute(
        "update app.jobs set updated_at = updated_at - interval '1 hour', announced_at = null, due_at = null"
    )
    rig.janitor.sweep()
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"


@pytest.mark.parametrize("on_the_spot", [False, True], ids=["by message", "on the spot"])
@pytest.mark.parametrize(
    ("table", "condition"),
    [
        ("stages", "new.status = 'completed'"),
        ("stages", "new.failed_count > old.failed_count"),
        ("tasks", "new.status = 'completed'"),
        ("tasks", "new.status = 'pending_retry'"),
    ],
)
def test_change_that_is_left_out_loses_nothing(engine, leave_out, table, condition, on_the_spot):
    """A stage ended without the results of its tasks, or stood still for ever, also when the trigger was dropped."""
    rig = Rig(engine, on_the_spot=on_the_spot)
    rig.behave.before["s2-n0"] = fails_once()
    job_id = rig.submit(n=3, bad=[1])
    leave_out(table, condition, "update")
    for _ in range(3):
        with suppress(ChangeRefused):
            rig.queues.run(rig.machine)
    assert rig.job(job_id).status not in {"completed", "completed_with_errors", "failed"}
    engine.execute(f"drop trigger theirs on app.{table}")
    for _ in range(20):
        engine.execute("update app.tasks set lease_expires_at = clock_timestamp() where lease_id is not null")
        engine.execute("update app.tasks set created_at = created_at - interval '1 hour', due_at = null")
        engine.execute("update app.jobs set updated_at = updated_at - interval '1 hour', due_at = null")
        rig.janitor.sweep()
        rig.queues.run(rig.machine)
    job = rig.job(job_id)
    assert (job.status, job.result) == ("completed_with_errors", {"total": 4, "failed": 1})


def test_claim_without_its_places_is_refused(engine, leave_out):
    """More tasks ran at once than the limit allows."""
    job_id = engine.submit(stages=1, limits=[{"name": "api", "at_once": 1}])
    engine.plan(job_id, 1, 2, first_window=32, is_limited=True)
    leave_out("limit_places", "new.has_begun")
    with told("limit_places"):
        engine.claim(job_id, 1, "s1-00000")
    assert engine.task(job_id, "s1-00000")["status"] == "pending"
