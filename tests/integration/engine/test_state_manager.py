"""StateManager over the real repositories: what it decides itself, and what it says in the log."""

from uuid import uuid4

import pytest

from core.errors import AttemptsExhausted, Failure
from core.models import RetryPolicy, StageRef
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
        StageRef(job_id, 1, 1),
        "s1-00000",
        lease_id=lease,
        failure=Failure("Busy", "busy", retryable=True, retry_after_seconds=900),
        attempt=1,
        policy=RetryPolicy(max_delay_seconds=10),
    )

    assert answer.outcome == "scheduled"
    (row,) = engine.query("select extract(epoch from due_at - now()) as wait from app.tasks")
    assert 800 < row["wait"] <= 900
    (event,) = engine.query("select detail from app.job_events where event = 'retry_scheduled'")
    assert event["detail"]["message"] == "busy"


def test_retry_beyond_the_policy_is_refused_before_the_database_is_asked(state):
    with pytest.raises(AttemptsExhausted):
        state.schedule_retry(
            StageRef("0" * 64, 1, 1),
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

    state.complete_tasks(StageRef(job_id, 1, 1), lease_id=uuid4(), results={"s1-00000": {}})
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


def ends(caplog):
    """What was told of ends of jobs."""
    told = [record for record in caplog.records if record.message in {"job_failed", "job_cancelled", "job_finalized"}]
    return [(record.message, record.levelname, record.run, record.stage, record.status) for record in told]


FAILED, CANCELLED = ("job_failed", "ERROR", 1, 1, "failed"), ("job_cancelled", "INFO", 1, 1, "cancelled")
ERROR = {"type": "ValueError", "message": "bad tile", "retryable": False, "attempt": 1}


class TestEndsOfJobs:
    """Only a job that a finalizer or a planner ended had a record of its end."""

    @pytest.fixture(autouse=True)
    def _heard(self, caplog):
        caplog.set_level("INFO")

    def running(self, engine, count=2, **settings):
        job_id = engine.submit(**settings)
        engine.plan(job_id, 1, count)
        return job_id, engine.claim(job_id, 1, "s1-00000")

    def test_by_its_stages_policy(self, engine, state, caplog):
        job_id, lease = self.running(engine)
        state.fail_tasks(StageRef(job_id, 1, 1), lease_id=lease, errors={"s1-00000": ERROR})
        assert ends(caplog) == [FAILED]

    def test_by_interruptions(self, engine, state, caplog):
        job_id, _ = self.running(engine, max_interruptions=0)
        engine.execute("update app.tasks set lease_expires_at = now() where lease_id is not null")
        answer = state.take_back_tasks(StageRef(job_id, 1, 1))
        assert (answer.taken_back, answer.given_up) == (0, 1)
        assert ends(caplog) == [FAILED]
        assert [record.correlation_id for record in caplog.records if record.message == "job_failed"] == ["corr"]

    def test_by_its_deadline(self, engine, state, caplog):
        job_id, _ = self.running(engine, job_timeout_seconds=60)
        engine.execute("update app.jobs set deadline_at = now()")
        assert state.enforce_deadlines(StageRef(job_id, 1, 1)).outcome == "job_timed_out"
        assert ends(caplog) == [FAILED]

    def test_by_the_last_task_after_a_cancel(self, engine, state, caplog):
        job_id, lease = self.running(engine)
        assert state.cancel_job(job_id, "enough") == "cancelling"
        assert ends(caplog) == []
        state.complete_tasks(StageRef(job_id, 1, 1), lease_id=lease, results={"s1-00000": {}})
        assert ends(caplog) == [CANCELLED]

    def test_by_force(self, engine, state, caplog):
        job_id, _ = self.running(engine)
        state.cancel_job(job_id, "enough")
        engine.execute("update app.jobs set cancel_deadline_at = now()")
        assert state.force_cancel(StageRef(job_id, 1, 1)) == 1
        assert ends(caplog) == [CANCELLED]

    def test_one_that_goes_on_is_not_told(self, engine, state, caplog):
        job_id, lease = self.running(engine, count=1)
        state.complete_tasks(StageRef(job_id, 1, 1), lease_id=lease, results={"s1-00000": {}})
        assert ends(caplog) == []

    def test_by_work_that_no_app_knows(self, engine, state, caplog):
        job_id, lease = self.running(engine)
        unknown = {"task_type": "t"}
        (postponed,) = state.postpone_tasks(
            StageRef(job_id, 1, 1),
            lease_id=lease,
            task_ids=["s1-00000"],
            unknown=unknown,
            patience_seconds=0,
            delays=[1.0],
        )
        assert postponed.outcome == "failed"
        assert ends(caplog) == [FAILED]
