"""Each invariant is broken by hand and seen to be broken; what the engine does on its own breaks none."""

import threading

import pytest
from psycopg import IsolationLevel

from infrastructure.base import RepositoryError
from infrastructure.verify import load_invariants, verify

from .machine_suite import Rig

pytestmark = pytest.mark.breaks_invariants

# What breaks each invariant, beside an open job, in one that ran to its end with one failed task of stage 2.
BREAKS = {
    "dead_letters_are_resolved_once": "insert into app.dead_letters (job_id, queue, message_id, sequence_number,"
    " enqueued_at, kind, task_id, task_ids, fingerprint, delivery_count, body, body_size, resolved_at)"
    " values ('', 'tasks', 'm', 1, now(), 'unreadable', '', '{}', 'f', 1, '', 0, now())",
    "i11_times_are_in_order": "update app.job_events set at = '2001-01-01' where event = 'stage_planned'",
    "i1_an_open_task_is_watched": "with opened as (update app.stages set status = 'processing',"
    " is_unwatched = false where stage = 3) update app.tasks set status = 'queued', is_watched = false where stage = 3",
    "i1_job_stands_where_its_stage_does": "update app.jobs set status = 'processing' where status = 'queued'",
    "i1_one_end_of_each_job": "insert into app.job_events (job_id, run, event, detail, at)"
    " select job_id, run, event, detail, at from app.job_events where event = 'job_completed_with_errors'",
    "i1_one_end_of_each_stage": "insert into app.job_events (job_id, run, stage, event, detail, at)"
    " select job_id, run, stage, event, detail, at from app.job_events where event = 'stage_completed'",
    "i1_stages_follow_one_another": "update app.stages set status = 'failed' where stage = 1 and status = 'completed'",
    "i2_lease_is_of_one_stage": "update app.tasks set status = 'processing', lease_owner = 'p', attempt = 1,"
    " lease_expires_at = now(), lease_id = 'f64ab5b5-7500-4000-8000-000000000000' where task_index = 0",
    "i2_leases_go_with_processing": "update app.tasks set lease_id = gen_random_uuid() where status = 'completed'",
    "i2_places_go_with_processing": "with placed as (insert into app.limit_places"
    " (job_id, run, task_id, limit_name, stage, has_begun) select job_id, run, task_id, 'l', stage, true from app.tasks"
    " where status = 'completed') update app.tasks set is_limited = true",
    "i3_ended_job_has_no_open_work": "update app.tasks set status = 'queued' where status = 'failed'",
    "i3_ended_job_is_over": "update app.jobs set finished_at = null where status = 'completed_with_errors'",
    "i3_ended_task_is_over": "update app.tasks set result = null where status = 'completed'",
    "i3_older_runs_are_closed": "update app.jobs set run = 2 where status = 'queued'",
    "i3_runs_do_not_run_ahead": "update app.job_events set run = 7",
    "i4_tasks_in_line_have_a_window": "update app.tasks set is_windowed = true, status = 'pending'"
    " where status = 'failed'",
    "i4_waiting_rows_can_be_found": "update app.tasks set status = 'pending_retry' where status = 'failed'",
    "i5_budgets_hold": "update app.tasks set attempt = 99 where status = 'failed'",
    "i6_failed_work_stays_failed": "update app.jobs set status = 'completed' where status = 'completed_with_errors'",
    "i6_failures_are_counted": "update app.stages set failed_count = 5 where failed_count = 1",
    "i7_ended_stage_has_no_open_tasks": "update app.tasks set status = 'pending' where status = 'failed'",
    "i7_fan_in_is_one_task": "update app.stages set expected_count = 2 where stage = 3",
    "i7_sealed_count_is_what_is_there": "delete from app.tasks where status = 'failed'",
    "i9_keys_begin_with_the_job": "create unique index by_name on app.tasks (name, job_id)",
    "snapshot_of_the_definition": "update app.jobs set total_stages = 4",
}


@pytest.fixture
def rig(engine):
    rig = Rig(engine)
    rig.run(n=4, bad=[2])
    rig.submit(n=1)
    return rig


def test_every_invariant_is_broken_by_a_test():
    assert list(BREAKS) == [invariant.name for invariant in load_invariants()]
    assert all(invariant.proves for invariant in load_invariants())


@pytest.mark.parametrize("name", BREAKS)
def test_what_breaks_an_invariant_is_found(rig, name, lent_database, pooler):
    assert verify(rig.engine.pool) == []

    with rig.engine.pool.connection() as connection, connection.transaction():
        # No guard of transitions looks at it, and no table changes for that.
        connection.execute("set local session_replication_role = replica")
        connection.execute(BREAKS[name])

    found = {violation.invariant: violation for violation in verify(rig.engine.pool)}
    # As after each test, in few statements.
    assert pooler or {violation.invariant for violation in lent_database.verify()} == set(found)
    assert name in found
    assert found[name].rows
    assert not found[name].is_cut


def test_many_violations_are_told_by_the_first_of_them(rig):
    rig.run(n=50)
    rig.engine.execute("update app.tasks set result = null")

    (found,) = [violation for violation in verify(rig.engine.pool) if violation.invariant == "i3_ended_task_is_over"]
    assert (len(found.rows), found.is_cut) == (20, True)
    assert found.proves.startswith("I3: ")


def test_a_job_that_runs_meanwhile_is_seen_in_one_snapshot(rig):
    """Looked at again and again while tasks are claimed, retried and completed, and stages end: never a half step."""
    rig.submit(n=60, bad=list(range(0, 60, 7)))
    done = threading.Event()

    def run():
        try:
            rig.queues.run(rig.machine, threads=3)
        finally:
            done.set()

    runner = threading.Thread(target=run)
    runner.start()
    looks = 0
    while not done.is_set() or looks == 0:
        assert verify(rig.engine.pool) == []
        looks += 1
    runner.join()
    assert verify(rig.engine.pool) == []


def test_nothing_is_locked_or_left_set_on_the_connection(rig):
    verify(rig.engine.pool)
    with rig.engine.pool.connection() as connection:
        assert (connection.isolation_level, connection.read_only) == (IsolationLevel.READ_COMMITTED, None)
    rig.engine.execute("update app.jobs set updated_at = updated_at")


def test_schema_that_lacks_tables_is_an_error(rig):
    with pytest.raises(RepositoryError, match="verify"):
        verify(rig.engine.pool, "elsewhere")
