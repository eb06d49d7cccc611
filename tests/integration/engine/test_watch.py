"""One open task of a running stage is watched: its end, and no other, decides whether the stage is over."""

import threading
from uuid import uuid4

import pytest

from core.models import Lease, StageRef


@pytest.fixture
def stage(engine):
    """A stage of two tasks, both leased; the last one is watched."""
    job_id = engine.submit(stages=1)
    engine.plan(job_id, 1, 2)
    leases = {task_id: engine.claim(job_id, 1, task_id) for task_id in ("s1-00000", "s1-00001")}
    return job_id, leases


def watched(engine, job_id):
    rows = engine.query("select task_id from app.tasks where job_id = %s and is_watched", job_id)
    return [row["task_id"] for row in rows]


def complete(engine, job_id, leases, task_id):
    return engine.stages.complete_task_and_check_stage(
        StageRef(job_id, 1, 1), lease_id=leases[task_id], results={task_id: {}}
    )


def test_last_id_of_a_planned_stage_is_watched(engine, stage):
    assert watched(engine, stage[0]) == ["s1-00001"]


def test_watch_is_handed_on_when_its_task_ends_early(engine, stage):
    job_id, leases = stage
    assert not complete(engine, job_id, leases, "s1-00001").is_last_task_in_stage
    assert watched(engine, job_id) == ["s1-00000"]
    assert complete(engine, job_id, leases, "s1-00000").is_last_task_in_stage
    assert watched(engine, job_id) == []
    assert engine.job_status(job_id) == "finalizing"


def test_last_task_waits_for_one_that_is_just_being_completed(engine, stage):
    """Both end at the same moment: neither must think that the other is the last."""
    job_id, leases = stage
    answers = []
    with engine.pool.connection() as connection, connection.transaction():
        connection.execute(
            "select * from app.complete_task_and_check_stage(%s, 1, 1, %s, array['s1-00000'], array['{}'::jsonb])",
            (job_id, leases["s1-00000"]),
        )
        last = threading.Thread(target=lambda: answers.append(complete(engine, job_id, leases, "s1-00001")))
        last.start()
        engine.wait_for_lock("advisory")
    last.join(30)
    assert [answer.is_last_task_in_stage for answer in answers] == [True]
    assert engine.job_status(job_id) == "finalizing"


def test_stage_whose_open_tasks_are_all_in_other_hands_is_decided_by_whoever_ends_one(engine, stage):
    """Waiting for such a row under the stage's lock would be a deadlock with its holder."""
    job_id, leases = stage
    with engine.pool.connection() as connection, connection.transaction():
        connection.execute("select 1 from app.tasks where task_id = 's1-00000' for update")
        assert not complete(engine, job_id, leases, "s1-00001").is_last_task_in_stage
    assert watched(engine, job_id) == []
    assert engine.query("select is_unwatched from app.stages") == [{"is_unwatched": True}]

    assert complete(engine, job_id, leases, "s1-00000").is_last_task_in_stage
    assert engine.job_status(job_id) == "finalizing"


def test_completions_of_one_stage_commit_side_by_side(engine):
    """Under one exclusive lock a stage had one commit at a time, whatever the number of workers (lesson D2)."""
    job_id = engine.submit(stages=1)
    engine.plan(job_id, 1, 3)
    leases = {f"s1-0000{number}": engine.claim(job_id, 1, f"s1-0000{number}") for number in range(3)}
    with engine.pool.connection() as connection, connection.transaction():
        connection.execute(
            "select * from app.complete_task_and_check_stage(%s, 1, 1, %s, array['s1-00000'], array['{}'::jsonb])",
            (job_id, leases["s1-00000"]),
        )
        # The first has not committed, and the second neither waits for it nor is the last.
        assert complete(engine, job_id, leases, "s1-00001").updated_ids == ("s1-00001",)
    assert complete(engine, job_id, leases, "s1-00002").is_last_task_in_stage


def test_cancelling_reaches_a_row_that_was_in_other_hands(engine, stage):
    job_id, leases = stage
    task_id = "s1-00000"
    engine.tasks.release_tasks(StageRef(job_id, 1, 1), lease_id=leases[task_id], task_ids=[task_id], started=False)
    with engine.pool.connection() as connection, connection.transaction():
        connection.execute("select 1 from app.tasks where task_id = %s for update", (task_id,))
        assert engine.jobs.cancel_job(job_id, None) == "cancelling"
    (row,) = engine.tasks.claim_tasks(StageRef(job_id, 1, 1), [task_id], lease=Lease(uuid4(), "w"))

    assert (row.outcome, engine.task(job_id, task_id)["status"]) == ("closed", "cancelled")
    assert not complete(engine, job_id, leases, task_id).updated_ids
    complete(engine, job_id, leases, "s1-00001")
    assert engine.job_status(job_id) == "cancelled"
