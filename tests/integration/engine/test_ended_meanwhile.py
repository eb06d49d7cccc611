"""A job ends at the moment in which tasks of it go from hand to hand: none of them waits for ever."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from core.models import JobRef, StageRef
from infrastructure.verify import verify
from tests.databases import connect

from .machine_suite import Rig
from .test_janitor import pass_time

ERROR = {"type": "OSError", "message": "disk full", "retryable": False}
WINDOW = 10
# What lets tasks wait again: of this job, under this lease, these.
RELEASE = "select app.release_tasks(%s, 1, 1, %s, %s, {started})"
INTO_LINE = "select * from app.release_tasks_into_line(%s, 1, 1, %s, %s, {started}, null)"
RETRY = "select * from app.increment_task_retry_count(%s, 1, 1, %s, (%s::text[])[1], '{{}}', 0, true)"
POSTPONE = "select * from app.postpone_tasks(%s, 1, 1, %s, %s, '{{}}', 3600, array[1.0])"
LOCK = "select 1 from app.tasks where job_id = %s and task_id = %s for update"
STATEMENTS = {
    "release": RELEASE.format(started="false"),
    "drain": RELEASE.format(started="true"),
    "release into line": INTO_LINE.format(started="false"),
    "drain into line": INTO_LINE.format(started="true"),
    "retry": RETRY.format(),
    "postpone": POSTPONE.format(),
}


@pytest.fixture
def held(engine):
    """A job of forty tasks in a window of ten, of which five were claimed."""
    job_id = engine.submit(stages=1, tasks_per_message=5)
    engine.plan(job_id, 1, 40, first_window=WINDOW)
    ref = StageRef(job_id, 1, 1)
    ids = [task.task_id for task in engine.tasks.take_next_tasks(ref)][:5]
    return ref, ids, engine.claim(job_id, 1, *ids)


@contextmanager
def holding(engine, statement, *values):
    """A transaction that has made the call and not yet committed."""
    with connect(engine.pool.conninfo) as connection, connection.transaction():
        connection.execute(statement, values)
        yield


def open_tasks(engine, ref):
    rows = engine.query("select task_id, status from app.tasks where job_id = %s", ref.job_id)
    return {row["task_id"]: row["status"] for row in rows if row["status"] != "cancelled"}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_what_is_given_back_while_the_job_ends_is_cancelled(engine, held, statement):
    """The end of the job waits until the tasks wait again, and then cancels them."""
    ref, ids, lease = held
    with ThreadPoolExecutor(1) as threads:
        with holding(engine, statement, ref.job_id, lease, ids):
            end = threads.submit(engine.jobs.fail_job, JobRef(ref.job_id, 1), ERROR)
            engine.wait_for_lock("advisory")
        assert end.result(30)
    assert open_tasks(engine, ref) == {}
    assert verify(engine.pool) == []


@pytest.mark.parametrize("name", ["release", "release into line", "retry"])
def test_what_is_given_back_after_the_job_ended_does_not_wait(engine, held, name):
    """The call waits for its rows, and the job ends meanwhile: what it saw before is not true any more."""
    ref, ids, lease = held
    tasks, stages = engine.tasks, engine.stages
    calls = {
        "release": lambda: tasks.release_tasks(ref, lease_id=lease, task_ids=ids, started=False),
        "release into line": lambda: tasks.release_tasks_into_line(ref, lease_id=lease, task_ids=ids, started=False),
        "retry": lambda: stages.increment_task_retry_count(ref, ids[0], lease_id=lease, error={}, delay_seconds=0),
    }
    with ThreadPoolExecutor(1) as threads:
        with holding(engine, LOCK, ref.job_id, ids[0]):
            call = threads.submit(calls[name])
            engine.wait_for_lock("transactionid")
            engine.jobs.fail_job(JobRef(ref.job_id, 1), ERROR)
        answer = call.result(30)
    if name == "retry":
        assert answer.outcome == "closed"
        engine.stages.fail_task_and_check_stage(ref, lease_id=lease, errors={ids[0]: ERROR})
    assert open_tasks(engine, ref) == {}
    assert verify(engine.pool) == []


def test_a_row_that_somebody_held_when_the_job_ended_is_cancelled_by_a_sweep(engine, held):
    """Such as one that was just taken into the window by a process that died before it sent a message."""
    ref, _, _ = held
    rig = Rig(engine)
    last = "s1-00039"
    with holding(engine, LOCK, ref.job_id, last):
        engine.jobs.fail_job(JobRef(ref.job_id, 1), ERROR)
    assert open_tasks(engine, ref) == {last: "pending"}
    pass_time(rig, 60)
    for table in ("jobs", "stages"):
        engine.execute(f"update app.{table} set finished_at = finished_at - interval '1 minute'")  # noqa: S608 - of these
    engine.execute("update app.stages set created_at = created_at - interval '1 minute'")
    rig.janitor.sweep()
    assert open_tasks(engine, ref) == {}
    assert verify(engine.pool) == []
