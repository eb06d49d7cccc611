"""The queries of docs/howto/monitor.md: nothing is found where all is well, and each finds its trouble."""

import re

import pytest
from psycopg.sql import SQL

from core.operating.explain import SWEEP_OVERDUE_SECONDS
from tests.documents import ROOT, blocks
from tests.integration.engine.machine_suite import Rig

PAGE = ROOT / "docs" / "howto" / "monitor.md"
QUERIES = {
    re.findall(r"\A-- (\w+): ", block.text)[0]: block.text
    for block in blocks()
    if block.path == PAGE and block.language == "sql"
}
# They show what there is, whether it is trouble or not.
OVERVIEWS = {"open_jobs", "open_tasks", "failed", "size", "connections"}
# What makes each trouble in the open job, whose one task is queued, and what the query then shows.
LEASE = """
update app.tasks set status = 'processing', attempt = 1, lease_id = gen_random_uuid(), lease_owner = 'p',
  lease_expires_at = now() - interval '6 minutes' where status = 'queued'
"""
TASK_NOT_ANNOUNCED = """
update app.tasks set status = 'pending', announced_at = null, created_at = now() - interval '6 minutes'
where status = 'queued'
"""
RETRY_NOT_ANNOUNCED = """
update app.tasks set status = 'pending_retry', announced_at = null, due_at = now() - interval '6 minutes',
  lease_id = null, lease_expires_at = null where status = 'processing'
"""
STEP_NOT_ANNOUNCED = """
update app.jobs set status = 'finalizing', updated_at = now() - interval '6 minutes', announced_at = null
where status = 'processing'
"""
LONG_IN_QUEUE = "update app.tasks set announced_at = now() - interval '6 minutes' where status = 'queued'"
INTERRUPTED = """
insert into app.job_events (job_id, run, event, detail, at)
select job_id, 1, 'task_interrupted', '{"owner": "worker-7"}', now() from app.jobs where status = 'processing'
"""
DEAD_LETTER = """
insert into app.dead_letters (job_id, queue, message_id, sequence_number, enqueued_at, kind, task_id, task_ids,
  fingerprint, delivery_count, body, body_size, received_at)
values ('', 'jobs', 'm', 1, now(), 'unreadable', '', '{}', 'f', 1, '', 0, now())
"""
PAUSED = "update app.jobs set paused_at = now() - interval '25 hours' where status = 'processing'"
STEP_UNKNOWN = """
update app.jobs set status = 'queued', waiting_for = jsonb_build_object('name', 'new_type', 'seen_at', now())
where status = 'processing'
"""
TASK_UNKNOWN = """
update app.tasks set waiting_for = jsonb_build_object('name', 'new_type', 'seen_at', now()) where status = 'queued'
"""
TICK_NOT_DECIDED = """
insert into app.schedules (name, job_type, cron, time_zone, next_tick_at)
values ('nightly', 't', '* * * * *', 'UTC', now() - interval '6 minutes')
"""
FAILED_TICK = """
insert into app.schedule_ticks (schedule, tick_at, status, reason, job_type, submission_key, decided_at)
values ('nightly', now(), 'failed', 'invalid_parameters', 't', 'k', now())
"""
TROUBLES = [
    ("late", [TICK_NOT_DECIDED], "tick not decided"),
    ("failed_ticks", [TICK_NOT_DECIDED, FAILED_TICK], "nightly"),
    ("late", [LEASE], "lease expired"),
    ("late", [TASK_NOT_ANNOUNCED], "task not announced"),
    ("late", [LEASE, RETRY_NOT_ANNOUNCED], "retry not announced"),
    ("late", [STEP_NOT_ANNOUNCED], "step not announced"),
    ("no_worker", [LONG_IN_QUEUE], "q"),
    ("interrupted", [INTERRUPTED], "worker-7"),
    ("dead_letters", [DEAD_LETTER], "unreadable"),
    ("paused", [PAUSED], "test"),
    ("unknown_work", [STEP_UNKNOWN], "new_type"),
    ("unknown_work", [TASK_UNKNOWN], "new_type"),
]
LOOKED_FOR = {name for name, *_ in TROUBLES}


@pytest.fixture
def rig(engine):
    """Beside a job that ran to its end, one whose task's message is in its queue."""
    rig = Rig(engine)
    rig.run(n=2)
    job_id = engine.submit(stages=1)
    engine.plan(job_id, 1, 1)
    engine.execute("update app.tasks set status = 'queued', announced_at = now() where job_id = %s", job_id)
    return rig


def test_each_query_is_watched_and_has_a_trouble_that_it_finds():
    named = set(re.findall(r"quer(?:y|ies) `(\w+)`", PAGE.read_text(encoding="utf-8")))
    assert named <= set(QUERIES)
    assert set(QUERIES) == {"grants", "old_transactions"} | OVERVIEWS | LOOKED_FOR


@pytest.mark.parametrize("name", sorted(LOOKED_FOR))
def test_nothing_is_found_where_all_is_well(rig, name):
    assert rig.engine.query(QUERIES[name]) == []


@pytest.mark.parametrize(("name", "statements", "found"), TROUBLES)
@pytest.mark.breaks_invariants
def test_the_trouble_is_found(rig, name, statements, found):
    for statement in statements:
        rig.engine.execute(statement)
    assert any(found in row.values() for row in rig.engine.query(QUERIES[name]))


@pytest.mark.parametrize("name", sorted(OVERVIEWS))
def test_overviews_show_something(rig, name):
    assert rig.engine.query(QUERIES[name])


def test_an_old_transaction_is_found(rig):
    with rig.engine.pool.connection() as connection, connection.transaction():
        connection.execute("select 1")
        query = QUERIES["old_transactions"].replace("interval '5 minutes'", "interval '0'")
        assert "idle in transaction" in {row["state"] for row in rig.engine.query(query)}
    assert rig.engine.query(QUERIES["old_transactions"]) == []


def test_the_role_of_the_dashboard_reads_and_does_not_write(rig):
    with rig.engine.pool.connection() as connection, connection.transaction(force_rollback=True):
        connection.execute("create role dashboard")
        for statement in filter(str.strip, QUERIES["grants"].split(";")):
            connection.execute(SQL(statement))
        connection.execute("set local role dashboard")
        for name in sorted(set(QUERIES) - {"grants"}):
            connection.execute(SQL(QUERIES[name]))
        rights = (
            "select has_table_privilege('app.jobs', 'select') reads, has_table_privilege('app.jobs', 'update') writes"
        )
        assert connection.execute(rights).fetchone() == {"reads": True, "writes": False}


def test_late_is_what_explain_calls_late():
    """One threshold, in the queries and in `coremachine explain`."""
    assert SWEEP_OVERDUE_SECONDS == 300
    assert QUERIES["late"].count("interval '5 minutes'") == 6
