"""The last two tasks of a stage end at one moment: in every order of their locks exactly one ends the stage.

docs/explanation/locking.md has these stories. `s1-00000` is the task of worker A; `s1-00001` is watched, and of B.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from core.models import StageRef
from tests.databases import connect

A, B = "s1-00000", "s1-00001"
COMPLETE = "select * from app.complete_task_and_check_stage(%s, 1, 1, %s, array[%s], array['{}'::jsonb])"


@pytest.fixture
def stage(engine):
    job_id = engine.submit(stages=1)
    engine.plan(job_id, 1, 2)
    return job_id, {task_id: engine.claim(job_id, 1, task_id) for task_id in (A, B)}


@pytest.fixture
def worker():
    """A thread for each worker, since a completion may wait."""
    with ThreadPoolExecutor(2) as threads:
        yield threads


def complete(engine, stage, task_id):
    """As the engine does it: a call that is refused with CM001 is repeated."""
    job_id, leases = stage
    ref = StageRef(job_id, 1, 1)
    return engine.stages.complete_task_and_check_stage(ref, lease_id=leases[task_id], results={task_id: {}})


@contextmanager
def holding(engine, statement, *values):
    """A transaction that holds what a statement locks, until the block ends."""
    with connect(engine.pool.conninfo) as connection, connection.transaction():
        yield connection.execute(statement, values)


def ended_by(engine, stage, last):
    """The stage ended once, with both results, by this call."""
    assert last.is_last_task_in_stage
    assert engine.job_status(stage[0]) == "finalizing"
    assert [row["status"] for row in engine.query("select status from app.tasks")] == ["completed"] * 2
    assert engine.query("select count(*) from app.job_events where event = 'stage_completed'") == [{"count": 1}]


def test_the_watched_task_waits_for_the_other_one_s_commit(engine, stage, worker):
    """A has updated its row and shares the stage; B finds no free task to watch, and waits for the stage's lock."""
    job_id, leases = stage
    with holding(engine, COMPLETE, job_id, leases[A], A) as answer:
        assert answer.fetchone()[1] is False
        of_b = worker.submit(complete, engine, stage, B)
        engine.wait_for_lock("advisory")
    ended_by(engine, stage, of_b.result(30))


def test_the_other_task_finds_that_it_is_watched_now(engine, stage, worker):
    """B is first and passes the watch to A's task. A waits for that row, and must see that it is watched now."""
    job_id, leases = stage
    with holding(engine, COMPLETE, job_id, leases[B], B) as answer:
        assert answer.fetchone()[1] is False
        of_a = worker.submit(complete, engine, stage, A)
        engine.wait_for_lock("transactionid")
    ended_by(engine, stage, of_a.result(30))


def test_the_other_task_comes_back_when_the_stage_lost_its_watch(engine, stage, worker):
    """B gets the stage's lock while A has its row and not yet the lock: nobody can be watched, and A decides later.

    Another transaction holds A's row until B waits for the stage, so that B cannot pass the watch on; a third one holds
    the stage's lock until both wait for it, B before A.
    """
    job_id, _ = stage
    with holding(engine, "select app.lock_stage(%s, 1, 1)", job_id):
        with holding(engine, "select 1 from app.tasks where task_id = %s for update", A):
            of_b = worker.submit(complete, engine, stage, B)
            engine.wait_for_lock("advisory")
        of_a = worker.submit(complete, engine, stage, A)
        engine.wait_for_lock("advisory", waiting=2)
    assert not of_b.result(30).is_last_task_in_stage
    ended_by(engine, stage, of_a.result(30))
