"""The database's clock was hours ahead, and is right again: nothing waits for the time that it showed."""

from datetime import timedelta

import pytest

from core.models.insight import Severity
from core.operating.explain import explain
from infrastructure.insight import InsightQueries
from infrastructure.limits import LimitRepository

from .machine_suite import Rig

FIVE_HOURS = timedelta(hours=5)


@pytest.fixture
def rig(engine):
    return Rig(engine)


def sweep(rig):
    return rig.janitor.sweep().times_brought_back


def test_lease_of_a_process_that_died_ends_as_usual(engine, rig):
    """`explain` had its heartbeat as fresh, and its tasks waited for five hours."""
    job_id = engine.submit(stages=1)
    engine.plan(job_id, 1, 2)
    engine.claim(job_id, 1, "s1-00000")
    engine.execute(
        "update app.tasks set lease_expires_at = lease_expires_at + %s where lease_id is not null", FIVE_HOURS
    )
    finding = next(
        each for each in explain(InsightQueries(engine.pool).get_job_facts(job_id)) if "running" in each.code
    )
    assert (finding.severity, "clock was ahead" in finding.message) == (Severity.WARNING, True)

    assert [sweep(rig), sweep(rig)] == [1, 0]
    engine.execute(
        "update app.tasks set lease_expires_at = lease_expires_at - interval '61 s' where lease_id is not null"
    )
    assert rig.janitor.sweep().taken_back == 1


def test_lease_of_a_process_that_lives_is_kept(engine, rig):
    job_id = engine.submit(stages=1)
    engine.plan(job_id, 1, 1)
    lease_id = engine.claim(job_id, 1, "s1-00000")
    engine.execute("update app.tasks set lease_expires_at = lease_expires_at + %s", FIVE_HOURS)
    assert sweep(rig) == 1
    assert engine.task(job_id, "s1-00000")["lease_id"] == lease_id


def test_usual_times_stay(engine, rig):
    job_id = engine.submit(stages=1, lease_seconds=3600, retry={"base_delay_seconds": 3600, "max_delay_seconds": 7200})
    engine.plan(job_id, 1, 2)
    engine.claim(job_id, 1, "s1-00000", "s1-00001")
    engine.execute(
        "update app.tasks set status = 'pending_retry', due_at = clock_timestamp() + interval '2 hours', "
        "lease_id = null, lease_expires_at = null where task_id = 's1-00001'"
    )
    before = engine.query("select * from app.tasks order by task_id")
    assert sweep(rig) == 0
    assert engine.query("select * from app.tasks order by task_id") == before


def test_retry_is_due_after_its_delay(engine, rig):
    """It was due five hours later, and so was its message."""
    job_id = engine.submit(stages=1)
    engine.plan(job_id, 1, 1)
    engine.claim(job_id, 1, "s1-00000")
    engine.execute(
        "update app.tasks set status = 'pending_retry', started_at = started_at + %s, lease_id = null, "
        "lease_expires_at = null, announced_at = null, due_at = started_at + %s + interval '3 s'",
        FIVE_HOURS,
        FIVE_HOURS,
    )
    assert sweep(rig) == 1
    [row] = engine.query("select due_at - clock_timestamp() as wait from app.tasks")
    assert row["wait"] <= timedelta(seconds=3)


def test_step_of_a_process_that_died_is_announced(engine, rig):
    """Each message for the step was left alone, since a living process seemed to have it."""
    job_id = rig.submit(n=1)
    job = rig.job(job_id)
    assert engine.tasks.renew_step_lease(job.step_ref, "another")
    engine.execute(
        "update app.jobs set updated_at = updated_at + %s, step_lease = step_lease || jsonb_build_object("
        "'expires_at', (step_lease ->> 'expires_at')::timestamptz + %s)",
        FIVE_HOURS,
        FIVE_HOURS,
    )
    assert [sweep(rig), sweep(rig)] == [1, 0]
    [row] = engine.query(
        "select (step_lease ->> 'expires_at')::timestamptz - clock_timestamp() as wait, "
        "updated_at <= clock_timestamp() as is_past from app.jobs"
    )
    assert row["wait"] <= timedelta(seconds=10)
    assert row["is_past"]


def test_rate_counts_what_began_then_as_of_now(engine, rig):
    """No task began for five hours and the rate's period, and `limits list` had that as the time of the next start."""
    limits = [{"name": "api", "rate": {"count": 1, "seconds": 60}}]
    job_id = engine.submit(stages=1, limits=limits)
    engine.plan(job_id, 1, 2, first_window=32, is_limited=True)
    engine.claim(job_id, 1, "s1-00000")
    engine.execute("update app.limit_starts set ends_at = ends_at + %s", FIVE_HOURS)
    assert [sweep(rig), sweep(rig)] == [1, 0]
    assert LimitRepository(engine.pool).read_limits(["api"])[0].begun == 1
    [row] = engine.query("select ends_at - clock_timestamp() as wait from app.limit_starts")
    assert row["wait"] <= timedelta(seconds=3)


def test_starts_of_a_long_period_stay(engine, rig):
    """They are counted by the end of a twentieth of it, which may be an hour away."""
    job_id = engine.submit(stages=1, limits=[{"name": "api", "rate": {"count": 9, "seconds": 86_400}}])
    engine.plan(job_id, 1, 1, first_window=32, is_limited=True)
    engine.claim(job_id, 1, "s1-00000")
    assert sweep(rig) == 0


def test_place_of_a_task_that_was_cut_off_is_free_when_its_lease_would_have_ended(engine, rig):
    job_id = engine.submit(stages=1, limits=[{"name": "api", "at_once": 1}], lease_seconds=60)
    engine.plan(job_id, 1, 1, first_window=32, is_limited=True)
    engine.claim(job_id, 1, "s1-00000")
    assert engine.jobs.cancel_job(job_id, None, grace_seconds=0) == "cancelled"
    assert sweep(rig) == 0
    engine.execute("update app.limit_places set ends_at = ends_at + %s", FIVE_HOURS)
    assert [sweep(rig), sweep(rig)] == [1, 0]
    [row] = engine.query("select ends_at - clock_timestamp() as wait from app.limit_places")
    assert timedelta() < row["wait"] <= timedelta(seconds=60)


@pytest.mark.parametrize(
    ("lease_seconds", "kept_seconds", "count"), [(5, 89, 0), (5, 3000, 1), (3600, 3000, 1)], ids=str
)
def test_place_that_is_kept_for_a_start_has_its_own_time(engine, rig, lease_seconds, kept_seconds, count):
    """It is kept for up to 90 s, whatever the leases of the stage are."""
    job_id = engine.submit(stages=1, limits=[{"name": "api", "at_once": 1}], lease_seconds=lease_seconds)
    engine.plan(job_id, 1, 1, first_window=32, is_limited=True)
    engine.claim(job_id, 1, "s1-00000")
    engine.execute(
        "update app.limit_places set has_begun = false, ends_at = clock_timestamp() + %s",
        timedelta(seconds=kept_seconds),
    )
    assert sweep(rig) == count
    [row] = engine.query("select ends_at - clock_timestamp() as wait from app.limit_places")
    assert timedelta() < row["wait"] <= timedelta(seconds=90)
    engine.execute("update app.limit_places set has_begun = true, ends_at = null")


def test_task_whose_message_came_during_a_pause_goes_on_after_it(engine, rig):
    """Nobody sent its message again until the time at which it had come."""
    job_id = rig.submit(n=1)
    assert rig.queues.deliver(rig.machine)
    rig.machine.pause_job(job_id, reason=None, actor=None)
    rig.queues.run(rig.machine)
    engine.execute("update app.tasks set parked_at = parked_at + %s", FIVE_HOURS)
    rig.machine.resume_job(job_id, reason=None, actor=None)
    assert [sweep(rig), sweep(rig)] == [1, 0]
    rig.janitor.sweep()
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
