"""A claim or a renewal that waits behind a lock on the whole table, as of an index that is made.

It read the clock before it waited. So the lease of a task that had just begun, or of one whose process lived, had run
out when it was written: the next sweep took it back, and the task ran twice.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from core.basics.canonical import encode_storable
from core.models import StageRef
from core.models.lease import HeldTask, Lease, LeaseOutcome
from core.models.transition import Completion, NextTasks, PlannedTask, SmallStage

LEASE_SECONDS = 0.5
SHORTEN = "update app.stages set settings = settings || jsonb_build_object('lease_seconds', %s::float8)"


@pytest.fixture
def job_id(engine):
    """A job whose leases last shorter than the lock of the test."""
    job_id = engine.submit()
    engine.execute(SHORTEN, LEASE_SECONDS)
    return job_id


def behind_lock(engine, action, mode="share"):
    """Run it while somebody has the table of tasks locked for longer than a lease and a second."""
    with ThreadPoolExecutor() as threads:
        with engine.pool.connection() as owner, owner.transaction():
            owner.execute(f"lock table app.tasks in {mode} mode")
            running = threads.submit(action)
            engine.wait_for_lock("relation")
            time.sleep(1.1)
        return running.result()


def leases(engine):
    return engine.query(
        "select lease_expires_at > clock_timestamp() as lasts, "
        "started_at > clock_timestamp() - interval '1 s' as is_new "
        "from app.tasks where status = 'processing'"
    )


@pytest.mark.parametrize("mode", ["share", "access exclusive"])
@pytest.mark.parametrize("count", [1, 3])
def test_claim_that_waited_has_its_whole_lease(engine, job_id, mode, count):
    engine.plan(job_id, 1, 3)
    ids = [f"s1-{n:05d}" for n in range(count)]
    behind_lock(engine, lambda: engine.claim(job_id, 1, *ids), mode)
    assert leases(engine) == [{"lasts": True, "is_new": True}] * count


@pytest.mark.parametrize("mode", ["share", "access exclusive"])
def test_renewal_that_waited_extends_the_lease(engine, job_id, mode):
    engine.plan(job_id, 1, 3)
    lease_id = engine.claim(job_id, 1, "s1-00000", "s1-00001")
    held = [HeldTask(job_id, 1, f"s1-0000{n}", lease_id, LEASE_SECONDS) for n in range(2)]
    assert set(behind_lock(engine, lambda: engine.tasks.renew_leases(held), mode).values()) == {LeaseOutcome.RENEWED}
    assert leases(engine) == [{"lasts": True, "is_new": False}] * 2


def test_tasks_that_are_born_claimed_have_their_whole_lease(engine, job_id):
    planned = [PlannedTask(job_id, 1, f"s1-{n:05d}", 1, n, "t", "q", None, encode_storable({}, "p")) for n in range(2)]
    stage = SmallStage(planned, Lease(uuid4(), "test"))
    behind_lock(engine, lambda: engine.tasks.plan_small_stage(StageRef(job_id, 1, 1), stage))
    assert leases(engine) == [{"lasts": True, "is_new": True}] * 2


def test_task_that_is_claimed_with_an_end_has_its_whole_lease(engine):
    ref = StageRef(engine.submit(stages=1, tasks_per_message=1), 1, 1)
    engine.plan(ref.job_id, 1, 12, first_window=4)
    assert len(engine.tasks.take_next_tasks(ref)) == 4
    lease_id = engine.claim(ref.job_id, 1, "s1-00000")
    engine.execute(SHORTEN, LEASE_SECONDS)
    wanted = NextTasks(("t",), 1, Lease(uuid4(), "test"))
    ended = [Completion(lease_id, {"s1-00000": encode_storable({}, "result")})]
    _, rows = behind_lock(engine, lambda: engine.stages.complete_tasks_and_claim_next(ref, ended, wanted))
    assert len(rows) == 1
    assert leases(engine) == [{"lasts": True, "is_new": True}]
