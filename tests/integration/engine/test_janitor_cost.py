"""A sweep over hundreds of thousands of rows that need nothing touches next to none of them."""

import psycopg
import pytest

ROWS = 200_000
TOUCHED_AT_MOST = 3_000
# Of each job that runs, so many of its open tasks are looked at.
LOOKED_AT = 10 * 1000

# One job whose stage runs, with tasks of each kind that a sweep must leave alone; and many jobs that have ended.
FILL = """
insert into app.jobs (job_id, job_type, status, stage, total_stages, definition, correlation_id, announced_at,
  created_at, updated_at)
select lpad(to_hex(i), 64, '0'), 't', case when i = 0 then 'processing' else 'completed' end, 1, 1, '{{}}', 'c',
  now() - interval '1 hour', now() - interval '1 hour', now() - interval '1 hour'
from generate_series(0, {rows} / 20) i;

insert into app.stages (job_id, run, stage, status, settings, expected_count, created_at)
select job_id, 1, 1, case status when 'processing' then 'processing' else 'completed' end,
  '{{"max_interruptions": 5, "tasks_per_message": 20}}', 1, now() from app.jobs;

insert into app.tasks (job_id, run, task_id, stage, task_index, task_type, queue, status, attempt, created_at,
  lease_id, lease_owner, lease_expires_at, due_at, announced_at)
select lpad('0', 64, '0'), 1, 's1-' || lpad(i::text, 7, '0'), 1, i, 't', 'tasks', kind, 1,
  now() - interval '1 hour',
  case kind when 'processing' then gen_random_uuid() end,
  case kind when 'processing' then 'w' end,
  case kind when 'processing' then now() + interval '1 hour' end,
  case kind when 'pending_retry' then now() + interval '1 hour' end,
  now() - interval '1 hour'
from (
  select i, (array['completed', 'completed', 'completed', 'completed', 'completed', 'queued', 'queued', 'queued',
    'processing', 'pending_retry'])[1 + i % 10] as kind
  from generate_series(1, {rows}) i
) made;
"""

FINDS = {
    "find_expired_stages": "1000",
    "find_stalled_jobs": "1000, 10",
    "find_unannounced_tasks": "1000, 30, 60",
    "find_unannounced_jobs": "1000, 10, 60",
    # A queue whose oldest message came as soon as they were planned: all of them may be there.
    "find_lost_tasks": "'tasks', 1000, now() - interval '2 hours'",
    "find_lost_jobs": "1000, now() - interval '2 hours'",
    "bring_times_back": "100",
}


def fill(connection: psycopg.Connection, rows: int) -> None:
    """Many rows, as fast as can be."""
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")
        connection.execute(FILL.format(rows=rows))


@pytest.fixture(scope="module")
def filled(template_url):
    from tests.databases import clone_template

    with clone_template(template_url) as url, psycopg.connect(url, autocommit=True) as connection:
        # The test says itself when the planner learns of the rows.
        connection.execute("alter table app.tasks set (autovacuum_enabled = off)")
        connection.execute("alter table app.jobs set (autovacuum_enabled = off)")
        fill(connection, ROWS)
        yield connection


def touched(connection: psycopg.Connection, call: str, *, before: str = "select 1") -> tuple[list, int]:
    """What a call returns, and how many rows of jobs and tasks it read, by this transaction's own count."""
    count = (
        "select sum(seq_tup_read + idx_tup_fetch) from pg_stat_xact_user_tables "
        "where schemaname = 'app' and relname in ('tasks', 'jobs')"
    )
    with connection.transaction(force_rollback=True):
        connection.execute("set local session_replication_role = replica")
        connection.execute(before)
        (start,) = connection.execute(count).fetchone() or (0,)
        rows = connection.execute(call).fetchall()
        (end,) = connection.execute(count).fetchone() or (0,)
    return rows, end - start


@pytest.fixture(scope="module", params=["no_statistics", "analyzed"])
def idle_rows(filled, request):
    if request.param == "analyzed":
        filled.execute("analyze app.jobs, app.tasks, app.stages")
    return filled


@pytest.mark.parametrize("find", FINDS)
def test_find_touches_few_of_many_idle_rows(idle_rows, find):
    rows, count = touched(idle_rows, f"select * from app.{find}({FINDS[find]})")  # noqa: S608 - names of this test
    assert rows == ([(0,)] if find == "bring_times_back" else [])
    assert count <= TOUCHED_AT_MOST + LOOKED_AT * (find == "find_lost_tasks")


CHANGES = {
    "find_expired_stages": "update app.tasks set lease_expires_at = now() - interval '1 s'",
    "find_unannounced_tasks": "update app.tasks set status = 'pending', announced_at = null",
    "find_lost_tasks": "update app.tasks set announced_at = now() - interval '3 hours', status = 'queued'",
}


@pytest.mark.parametrize("find", CHANGES)
def test_find_of_a_few_tasks_touches_few(idle_rows, find):
    """They are the last of those that a job has, but for the lost ones, which are looked for from the first on."""
    first = "00000" if find == "find_lost_tasks" else "01999"
    kind = "processing" if find == "find_expired_stages" else "queued"
    change = f"{CHANGES[find]} where status = '{kind}' and task_id like 's1-{first}%'"
    rows, count = touched(idle_rows, f"select * from app.{find}({FINDS[find]})", before=change)  # noqa: S608 - as above
    assert len(rows) == {"find_expired_stages": 1, "find_unannounced_tasks": 30, "find_lost_tasks": 30}[find]
    assert count <= TOUCHED_AT_MOST + LOOKED_AT * (find == "find_lost_tasks")
