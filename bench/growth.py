"""Costs that must not grow: with the tasks of a job, with the jobs of a queue, with what the database has.

Each function runs a stack, or the engine, on a database of its own, and returns numbers by name.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import psycopg

from bench.against import processor_seconds, server_pid
from bench.contender import ContenderProcess, running
from bench.measures import fill, percentile, prune_beside, timed
from bench.servers import database
from infrastructure.postgresql import create_pool
from infrastructure.verify import verify

IDLE_SECONDS = 30
FEW_JOBS, MANY_JOBS, JOBS_PER_CALL = 1_000, 10_000, 1_000
OLD_JOBS = 100_000
LOOKS = 50
SMALL_STAGE, LARGE_STAGE = 1_000, 100_000
# Parameters of each task, and how many tasks have them.
HEAVY_BYTES, HEAVY_TASKS = 100_000, 1_000
_OPEN = "select count(*) from app.jobs where status in ('queued', 'processing', 'finalizing')"
# Ended jobs of one task each, a day old.
_OLD = """
insert into app.jobs (job_id, job_type, status, stage, total_stages, parameters, definition, correlation_id,
  created_at, updated_at, finished_at, result)
select lpad(to_hex(j), 64, '0'), 'bench_one', 'completed', 1, 1, '{}',
  (select definition from app.jobs where job_type = 'bench_one' limit 1), 'old',
  now() - interval '2 days', now(), now() - interval '1 day', '{}'
from generate_series(1, %(jobs)s) j;
insert into app.stages (job_id, run, stage, status, expected_count, settings, created_at, planned_at, finished_at)
select lpad(to_hex(j), 64, '0'), 1, 1, 'completed', 1,
  (select definition -> 'stages' -> 0 from app.jobs where job_type = 'bench_one' limit 1), now(), now(), now()
from generate_series(1, %(jobs)s) j;
insert into app.tasks (job_id, run, task_id, stage, task_index, task_type, queue, parameters, status, attempt,
  result, started_at, finished_at)
select lpad(to_hex(j), 64, '0'), 1, 's1-000000', 1, 0, 'bench_work', 'tasks', '{}', 'completed', 1,
  jsonb_build_object('text', repeat('x', 88)), now(), now()
from generate_series(1, %(jobs)s) j;
"""
# How many places a job ended after, or before, the one that it was submitted at.
_DISPLACED = """
select abs(row_number() over (order by finished_at) - row_number() over (order by parameters ->> 'nonce'))
from app.jobs where job_type = 'bench_one' and parameters ->> 'nonce' like %s
"""


def measure_growth(server_url: str) -> dict[str, float]:
    """A stack that is idle, then has ten thousand jobs at once, then looks at large jobs and deletes old ones."""
    with (
        database(server_url, "bench_growth") as url,
        running("stack", url, {}) as stack,
        httpx.Client(base_url=str(stack.call("address")), timeout=120) as http,
    ):
        found = _idle(stack, url) | _bulk(http, url) | _looks(http, url)
        return found | _bytes(stack, url) | _retention(stack, url)


def measure_heavy_plan(server_url: str) -> dict[str, float]:
    """The memory of a process that plans tasks with large parameters: the peak that it adds."""
    with database(server_url, "bench_heavy") as url, running("engine1", url, {}) as engine:
        return {"heavy_plan_megabytes": engine.call("plan_stage", HEAVY_TASKS, HEAVY_BYTES)["megabytes"]}


def _idle(stack: ContenderProcess, url: str) -> dict[str, float]:
    time.sleep(10)
    roots = [stack.pid, server_pid(url)]
    before = processor_seconds(roots)
    time.sleep(IDLE_SECONDS)
    return {"idle_share": (processor_seconds(roots) - before) / IDLE_SECONDS}


def _bulk(http: httpx.Client, url: str) -> dict[str, float]:
    """Jobs of one task, submitted a thousand per call: until all have ended, and in which order."""
    _submit_many(http, url, FEW_JOBS)
    few = _verify_seconds(url)
    seconds = _submit_many(http, url, MANY_JOBS)
    many = _verify_seconds(url)
    with psycopg.connect(url) as connection:
        displaced = [float(places) for (places,) in connection.execute(_DISPLACED, (f"{MANY_JOBS} %",))]
    if len(displaced) != MANY_JOBS:
        raise AssertionError(f"expected {MANY_JOBS} jobs that have ended, found {len(displaced)}")
    return {
        "bulk_jobs": MANY_JOBS / seconds,
        "bulk_displaced_p95": percentile(displaced, 0.95),
        "bulk_displaced_most": max(displaced),
        "verify_few_ms": few / FEW_JOBS * 1e3,
        "verify_many_ms": many / (FEW_JOBS + MANY_JOBS) * 1e3,
    }


def _submit_many(http: httpx.Client, url: str, count: int) -> float:
    start = time.perf_counter()
    for first in range(0, count, JOBS_PER_CALL):
        places = range(first, min(first + JOBS_PER_CALL, count))
        jobs = [{"job_type": "bench_one", "parameters": {"nonce": f"{count} {place:06d}"}} for place in places]
        http.post("/api/jobs/submit:batch", json={"jobs": jobs}).raise_for_status()
    with psycopg.connect(url, autocommit=True) as connection:
        while _value(connection, _OPEN):
            time.sleep(0.02)
    return time.perf_counter() - start


def _verify_seconds(url: str) -> float:
    with create_pool(url, max_size=1) as pool:
        return timed(lambda: _verified(verify(pool)))


def _verified(violations: list[Any]) -> None:
    if violations:
        raise AssertionError(f"expected data without a violation, found {violations}")


def _looks(http: httpx.Client, url: str) -> dict[str, float]:
    """The detail of a job while it runs, and after it was cancelled."""
    found: dict[str, float] = {}
    for name, n in (("small", SMALL_STAGE), ("large", LARGE_STAGE)):
        with _running_job(http, n) as job_id:
            _await_tasks(url, job_id, n)
            found[f"look_{name}_first_ms"] = timed(lambda job_id=job_id: _look(http, job_id)) * 1e3
            found[f"look_{name}_ms"] = _median_look(http, job_id)
        found[f"look_{name}_cancelled_ms"] = _median_look(http, job_id)
    return found


@contextmanager
def _running_job(http: httpx.Client, n: int) -> Iterator[str]:
    """A job whose tasks last a second, cancelled at the end."""
    parameters = {"nonce": uuid4().hex, "n": n, "seconds": 1.0}
    job_id = str(http.post("/api/jobs/submit/bench_fan_single", json=parameters).raise_for_status().json()["job_id"])
    yield job_id
    http.post(f"/api/jobs/{job_id}/cancel", json={}).raise_for_status()
    while _look(http, job_id, "?wait=30")["finished_at"] is None:
        pass


def _await_tasks(url: str, job_id: str, n: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        tasks = "select count(*) from app.tasks where job_id = %s and stage = 2"
        while _value(connection, tasks, job_id) < n:
            time.sleep(0.1)


def _look(http: httpx.Client, job_id: str, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/api/jobs/{job_id}{query}").raise_for_status().json()
    return found


def _median_look(http: httpx.Client, job_id: str) -> float:
    return percentile([timed(lambda: _look(http, job_id)) for _ in range(LOOKS)], 0.5) * 1e3


def _bytes(stack: ContenderProcess, url: str) -> dict[str, float]:
    """What a task of a large stage adds to the tables and to the log, whole pages after a checkpoint in it."""
    n = 10_000
    sizes = "select pg_table_size('app.tasks'), pg_indexes_size('app.tasks')"
    with psycopg.connect(url, autocommit=True) as connection:
        # What was deleted or updated before leaves room that would be filled first.
        connection.execute("vacuum full app.tasks")
        connection.execute("checkpoint")
        table, indexes = connection.execute(sizes).fetchone() or (0, 0)
        log = "select pg_current_wal_insert_lsn() - '0/0'"
        begin = _value(connection, log)
        stack.call("run_fan", n)
        end = _value(connection, log)
        table_now, indexes_now = connection.execute(sizes).fetchone() or (0, 0)
    return {
        "table_bytes": (table_now - table) / n,
        "index_bytes": (indexes_now - indexes) / n,
        "log_bytes": float(end - begin) / n,
    }


def _retention(stack: ContenderProcess, url: str) -> dict[str, float]:
    """Old jobs of one task each are deleted while others run."""
    fill(url, _OLD, jobs=OLD_JOBS)
    before = [float(stack.call("run_chain")) for _ in range(LOOKS)]
    seconds, beside = prune_beside(url, stack, jobs=OLD_JOBS, tasks=OLD_JOBS)
    return {
        "prune_jobs_seconds": seconds,
        "chain_before_pruning_jobs_ms": percentile(before, 0.5) * 1e3,
        "chain_pruning_jobs_ms": percentile(beside, 0.5) * 1e3,
    }


def _value(connection: psycopg.Connection[Any], statement: str, *arguments: object) -> Any:
    row = connection.execute(statement.encode(), arguments).fetchone()
    return row[0] if row else None
