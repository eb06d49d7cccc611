"""A task claimed or completed alone takes a path of its own while its stage goes on; with the same outcome."""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

from core.models import Lease, StageRef
from tests.databases import connect

from .test_costs import blocks

FIRST, SECOND, WATCHED = "s1-00000", "s1-00001", "s1-00002"
CALL = "app.complete_task_and_check_stage(%s, 1, 1, %s, %s, %s)"
CLAIM = "app.claim_tasks(%s, 1, 1, %s, %s, 'w')"


@pytest.fixture
def stage(engine):
    """The last of two stages, of three leased tasks; the last task is watched."""
    job_id = engine.submit(stages=1)
    engine.plan(job_id, 1, 3)
    return job_id, engine.claim(job_id, 1, FIRST, SECOND, WATCHED)


def complete(engine, stage, *task_ids, lease=None, stage_number=1):
    job_id, own_lease = stage
    results = {task_id: {"of": task_id} for task_id in task_ids}
    return engine.stages.complete_task_and_check_stage(
        StageRef(job_id, 1, stage_number), lease_id=lease or own_lease, results=results
    )


def fail_job(connection, job_id):
    connection.execute("select app.fail_job(%s, 1, %s)", (job_id, Jsonb({"type": "X", "message": "no"})))


def cancel_job(connection, job_id):
    connection.execute("select app.cancel_job(%s, null)", (job_id,))


def mark_unwatched(connection, job_id):
    """What the end of the watched task does when everything else is in other hands; see ensure_watch."""
    (lease,) = connection.execute("select lease_id from app.tasks where task_id = %s", (WATCHED,)).fetchone()
    connection.execute(f"select {CALL}", (job_id, lease, [WATCHED], [Jsonb({})]))


def test_the_row_and_the_answer_are_those_of_a_task_completed_with_another(engine):
    rows, answers = [], []
    for ids in ([FIRST], [FIRST, SECOND]):
        job_id = engine.submit()
        engine.plan(job_id, 1, 4)
        lease = engine.claim(job_id, 1, *ids)
        answers.append(complete(engine, (job_id, lease), *ids))
        rows.append(engine.task(job_id, FIRST))
    own = {"job_id", "created_at", "announced_at", "started_at", "finished_at"}
    assert {k: v for k, v in rows[0].items() if k not in own} == {k: v for k, v in rows[1].items() if k not in own}
    assert rows[0]["status"] == "completed"
    assert rows[0]["finished_at"] >= rows[0]["started_at"]
    assert answers[0] == replace(answers[1], updated_ids=(FIRST,))


def test_what_the_lease_does_not_hold_is_left_alone(engine, stage):
    job_id, _ = stage
    assert not complete(engine, stage, FIRST, lease=uuid4()).updated_ids
    assert not complete(engine, stage, FIRST, stage_number=2).updated_ids
    assert not complete(engine, stage, "s1-99999").updated_ids
    assert (engine.task(job_id, FIRST)["status"], engine.task(job_id, FIRST)["result"]) == ("processing", None)


def test_told_twice_it_ends_once(engine, stage):
    job_id, _ = stage
    assert complete(engine, stage, FIRST).updated_ids == (FIRST,)
    ended = engine.task(job_id, FIRST)
    again = complete(engine, stage, FIRST)
    assert (again.updated_ids, again.is_last_task_in_stage) == ((), False)
    assert engine.task(job_id, FIRST) == ended


def test_the_watched_task_hands_its_watch_on_and_the_last_one_ends_the_stage(engine, stage):
    job_id, _ = stage
    assert complete(engine, stage, FIRST).updated_ids == (FIRST,)
    assert not complete(engine, stage, WATCHED).is_last_task_in_stage
    assert engine.task(job_id, SECOND)["is_watched"]
    assert complete(engine, stage, SECOND).is_last_task_in_stage
    assert engine.job_status(job_id) == "finalizing"


@pytest.mark.parametrize(
    ("change", "status", "job_status"),
    [
        (fail_job, "cancelled", "failed"),
        (cancel_job, "cancelled", "cancelling"),
        (mark_unwatched, "completed", "processing"),
    ],
)
def test_a_change_between_look_and_lock_is_seen_and_the_call_decides(
    engine, stage, database_url, caplog, change, status, job_status
):
    """Its row was written, and it waits for the stage's lock, whose holder ends the stage or takes its watch away."""
    job_id, _ = stage
    with connect(database_url) as holder, ThreadPoolExecutor(1) as executor, caplog.at_level(logging.INFO):
        holder.execute("select app.lock_stage(%s, 1, 1)", (job_id,))
        late = executor.submit(complete, engine, stage, FIRST)
        engine.wait_for_lock("advisory")
        # With every other row in other hands, nobody can be given the watch.
        with connect(database_url) as other:
            other.execute("select 1 from app.tasks where task_id = %s for update", (SECOND,))
            change(holder, job_id)
            holder.commit()
        check = late.result(timeout=60)

    assert [record.message for record in caplog.records].count("called_again") == 1
    assert not check.is_last_task_in_stage
    assert (engine.task(job_id, FIRST)["status"], engine.job_status(job_id)) == (status, job_status)


def test_the_last_task_of_a_stage_that_lost_its_watch_is_the_last(engine, database_url):
    """Both end at one moment, and each sees the other's row in other hands."""
    job_id = engine.submit(stages=1)
    engine.plan(job_id, 1, 2)
    stage = job_id, engine.claim(job_id, 1, FIRST, SECOND)
    with connect(database_url) as holder, ThreadPoolExecutor(1) as executor:
        holder.execute("select app.lock_stage(%s, 1, 1)", (job_id,))
        late = executor.submit(complete, engine, stage, FIRST)
        engine.wait_for_lock("advisory")
        holder.execute(f"select {CALL}", (job_id, stage[1], [SECOND], [Jsonb({})]))
        holder.commit()
        assert late.result(timeout=60).is_last_task_in_stage
    assert engine.job_status(job_id) == "finalizing"


def test_plans_made_for_empty_tables_read_one_row_of_a_large_one(engine, database_url):
    """Each connection keeps its plans: made with statistics of a table of one page, they would read all of it."""
    with connect(database_url, autocommit=True) as connection:
        connection.execute("vacuum analyze app.tasks, app.stages, app.jobs")
        small = engine.submit()
        engine.plan(small, 1, 3)
        lease = engine.claim(small, 1, FIRST, SECOND)
        counts = Counter()
        for task_id in (FIRST, SECOND):
            counts["small"] = blocks(connection, CALL, small, lease, [task_id], [Jsonb({})])
        large = engine.submit()
        engine.plan(large, 1, 20_000)
        lease = engine.claim(large, 1, "s1-10000")
        counts["large"] = blocks(connection, CALL, large, lease, ["s1-10000"], [Jsonb({})])
    assert engine.task(large, "s1-10000")["status"] == "completed"
    assert counts["large"] < 2 * counts["small"]


def test_the_row_and_the_answer_are_those_of_a_task_claimed_with_another(engine):
    rows, answers = [], []
    for ids in ([FIRST], [FIRST, SECOND]):
        job_id, lease = engine.submit(lease_seconds=45), uuid4()
        engine.plan(job_id, 1, 3)
        claimed = engine.tasks.claim_tasks(StageRef(job_id, 1, 1), ids, lease=Lease(lease, "w"))
        answers.append(claimed[0])
        row = engine.task(job_id, FIRST)
        assert (row["lease_id"], row["lease_expires_at"] - row["started_at"]) == (lease, timedelta(seconds=45))
        rows.append(row)
    own = {"job_id", "created_at", "announced_at", "started_at", "lease_id", "lease_expires_at"}
    assert {k: v for k, v in rows[0].items() if k not in own} == {k: v for k, v in rows[1].items() if k not in own}
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ("select app.mark_tasks_announced(%s, 1, array['s1-00000'])", "claimed"),
        ("select app.claim_tasks(%s, 1, 1, array['s1-00000'], gen_random_uuid(), 'other')", "duplicate"),
    ],
)
def test_claim_waits_for_whoever_holds_the_row_and_takes_it_as_he_left_it(engine, database_url, change, outcome):
    job_id = engine.submit()
    engine.plan(job_id, 1, 2)
    with connect(database_url) as holder, ThreadPoolExecutor(1) as executor:
        holder.execute(change, (job_id,))
        late = executor.submit(engine.tasks.claim_tasks, StageRef(job_id, 1, 1), [FIRST], lease=Lease(uuid4(), "w"))
        engine.wait_for_lock("transactionid")
        holder.commit()
        (row,) = late.result(timeout=60)
    assert (row.outcome, engine.task(job_id, FIRST)["lease_owner"]) == (
        outcome,
        "w" if outcome == "claimed" else "other",
    )


@pytest.mark.parametrize(("paused", "waits"), [(False, "off"), (True, "on")])
def test_commit_of_a_claim_is_not_waited_for_and_that_of_parking_is(engine, database_url, paused, waits):
    """The message of a parked task is gone when the call returns."""
    job_id = engine.submit()
    engine.plan(job_id, 1, 2)
    if paused:
        engine.jobs.pause_job(job_id, reason=None, actor=None)
    with connect(database_url) as connection:
        ((outcome,),) = connection.execute(f"select outcome from {CLAIM}", (job_id, [FIRST], uuid4())).fetchall()  # noqa: S608 - of this file
        assert outcome == ("paused" if paused else "claimed")
        assert connection.execute("show synchronous_commit").fetchone() == (waits,)


def test_claims_planned_for_empty_tables_read_one_row_of_a_large_one(engine, database_url):
    with connect(database_url, autocommit=True) as connection:
        connection.execute("vacuum analyze app.tasks, app.stages, app.jobs")
        counts = {}
        for tasks, task_id in ((3, FIRST), (20_000, "s1-10000")):
            job_id = engine.submit()
            engine.plan(job_id, 1, tasks)
            counts[tasks] = blocks(connection, CLAIM, job_id, [task_id], uuid4())
            assert engine.task(job_id, task_id)["status"] == "processing"
    assert counts[20_000] < 2 * counts[3]
