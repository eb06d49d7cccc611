"""StateManager over the real repositories: what it decides itself, and what it says in the log."""

from uuid import uuid4

import pytest

from core.errors import AttemptsExhausted, Failure
from core.models import RetryPolicy
from core.state_manager import StateManager


@pytest.fixture
def state(engine):
    return StateManager(engine.jobs, engine.tasks, engine.stages)


def test_other_sides_wish_lengthens_the_delay(engine, state):
    """Throttling has a delay of its own (lesson D20)."""
    job_id = engine.submit()
    engine.plan(job_id, 1, 1)
    lease = engine.claim(job_id, 1, "s1-00000")
    answer = state.schedule_retry(
        job_id,
        1,
        1,
        "s1-00000",
        lease_id=lease,
        failure=Failure("Busy", "busy", retryable=True, retry_after_seconds=900),
        attempt=1,
        policy=RetryPolicy(max_delay_seconds=10),
    )

    assert answer["outcome"] == "scheduled"
    (row,) = engine.query("select extract(epoch from due_at - now()) as wait from app.tasks")
    assert 800 < row["wait"] <= 900
    (event,) = engine.query("select detail from app.job_events where event = 'retry_scheduled'")
    assert event["detail"]["message"] == "busy"


def test_retry_beyond_the_policy_is_refused_before_the_database_is_asked(state):
    with pytest.raises(AttemptsExhausted):
        state.schedule_retry(
            "0" * 64,
            1,
            1,
            "t",
            lease_id=uuid4(),
            failure=Failure("Busy", "busy", retryable=True),
            attempt=4,
            policy=RetryPolicy(max_attempts=4),
        )


def test_write_under_a_stale_lease_is_said_in_the_log(engine, state, caplog):
    job_id = engine.submit()
    engine.plan(job_id, 1, 1)
    engine.claim(job_id, 1, "s1-00000")

    state.complete_tasks(job_id, 1, 1, lease_id=uuid4(), results={"s1-00000": {}})
    stale = [record for record in caplog.records if record.message == "stale_lease_refused"]
    assert [record.task_ids for record in stale] == [["s1-00000"]]


def test_failing_all_tasks_of_a_job_ends_it_and_keeps_the_reason(engine, state):
    """The error text of failed jobs was lost (lesson D11)."""
    job_id = engine.submit()
    engine.plan(job_id, 1, 3)

    assert state.fail_all_job_tasks(job_id, {"type": "KeyError", "message": "planner: tile"})
    assert not state.fail_all_job_tasks(job_id, {"type": "KeyError", "message": "again"})
    job = engine.jobs.find_job(job_id)
    assert (job.status, job.error["message"]) == ("failed", "planner: tile")
    assert {row["status"] for row in engine.query("select status from app.tasks")} == {"cancelled"}


def test_unknown_job_cannot_be_failed_or_cancelled(state):
    assert state.fail_all_job_tasks("0" * 64, {"type": "X", "message": "x"}) is False
    assert state.cancel_job("0" * 64, None) is None
