"""Rows that ids name are locked in the order of the ids, and written where they are when the lock is there."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from infrastructure.connections import own_transaction
from tests.databases import connect

FIRST, HELD, LAST = IDS = "s1-00000", "s1-00001", "s1-00002"
COMPLETE = """
select cardinality(updated_ids) from app.complete_task_and_check_stage(%(job)s, 1, 1, %(lease)s, %(ids)s,
  array_fill('{}'::jsonb, array[3]))
"""
# The calls, and the status that they leave.
CALLS = {
    "claim_tasks": ("select count(*) from app.claim_tasks(%(job)s, 1, 1, %(ids)s, %(lease)s, 'w')", "processing"),
    "mark_tasks_announced": ("select app.mark_tasks_announced(%(job)s, 1, %(ids)s)", "queued"),
    "release_tasks": ("select cardinality(app.release_tasks(%(job)s, 1, 1, %(lease)s, %(ids)s, true))", "pending"),
    "complete": (COMPLETE, "completed"),
    "fail": (COMPLETE.replace("complete_", "fail_"), "failed"),
}
FREE = "select array(select task_id from app.tasks where task_id = any (%s) order by 1 for update skip locked) as ids"


def run(engine, call, **values):
    """Run one call in a transaction of its own, and return what it counts."""
    with engine.pool.connection() as connection, own_transaction(connection):
        (row,) = connection.execute(call, values).fetchall()
    (value,) = row.values()
    return value


@pytest.mark.parametrize(("call", "status"), CALLS.values(), ids=CALLS)
def test_rows_are_locked_by_id_and_found_where_another_transaction_moved_them(engine, call, status):
    """Another order would let two calls wait for each other; the old place of a moved row would leave it as it was."""
    job_id, lease = engine.submit(failure={"on_failure": "continue"}), uuid4()
    engine.plan(job_id, 1, 4)
    if "%(lease)s" in call and "claim_tasks" not in call:
        run(engine, CALLS["claim_tasks"][0], job=job_id, ids=list(IDS), lease=lease)
    with ThreadPoolExecutor(1) as thread:
        with connect(engine.pool.conninfo) as holder, holder.transaction():
            holder.execute("update app.tasks set parked_at = null where task_id = %s", [HELD])
            changed = thread.submit(run, engine, call, job=job_id, ids=[LAST, FIRST, HELD], lease=lease)
            engine.wait_for_lock("transactionid")
            assert engine.query(FREE, list(IDS)) == [{"ids": [LAST]}]
        assert changed.result(30) == 3
    found = engine.query("select distinct status from app.tasks where task_id = any (%s)", list(IDS))
    assert found == [{"status": status}]


def test_an_id_that_is_named_twice_names_one_row(engine):
    job_id, lease = engine.submit(failure={"on_failure": "continue"}), uuid4()
    engine.plan(job_id, 1, 3)
    run(engine, CALLS["claim_tasks"][0], job=job_id, ids=list(IDS), lease=lease)
    fail = CALLS["fail"][0]
    assert run(engine, fail, job=job_id, ids=[FIRST, FIRST, HELD], lease=lease) == 2
    assert engine.query("select failed_count from app.stages") == [{"failed_count": 2}]
