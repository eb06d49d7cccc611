"""What is measured of CoreMachine alone, and of the limits below it: a function for each, a dict of numbers back."""

import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

from bench import fairness, limits
from bench.contender import ContenderProcess, running
from bench.servers import ROOT, database
from core.models.upkeep import Pruned
from infrastructure.postgresql import create_pool
from infrastructure.retention import RetentionRepository

LOAD_SECONDS = 5
LOAD_CONNECTIONS = 8
READS = 100
MANY = 200
LARGE_JOBS, LARGE_TASKS = 10, 100_000

_WRK_SCRIPT = """
local thread_count = 0
function setup(thread)
  thread:set("id", thread_count)
  thread_count = thread_count + 1
end
local number = 0
local base = tostring(os.time())
request = function()
  number = number + 1
  local body = '{"nonce": "' .. base .. "-" .. id .. "-" .. number .. '"}'
  return wrk.format("POST", "/api/jobs/submit/bench_chain", {["Content-Type"] = "application/json"}, body)
end
done = function(summary, latency, requests)
  local errors = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration, errors,
    latency:percentile(50), latency:percentile(95)))
end
"""
_FILL = """
insert into app.jobs (job_id, job_type, status, stage, total_stages, parameters, definition, correlation_id,
  created_at, updated_at, finished_at, result)
select lpad(to_hex(j), 64, '0'), 'bench_fan', 'completed', 2, 3, '{}',
  (select definition from app.jobs where job_type = 'bench_fan' limit 1), 'filled',
  now() - j * interval '1 minute', now(), now(), '{}'
from generate_series(1, %(jobs)s) j;
insert into app.stages (job_id, run, stage, status, expected_count, settings, created_at, planned_at, finished_at)
select lpad(to_hex(j), 64, '0'), 1, 2, 'completed', %(tasks)s,
  (select definition -> 'stages' -> 1 from app.jobs where job_type = 'bench_fan' limit 1), now(), now(), now()
from generate_series(1, %(jobs)s) j;
insert into app.tasks (job_id, run, task_id, stage, task_index, task_type, queue, parameters, status, attempt,
  result, started_at, finished_at)
select lpad(to_hex(j), 64, '0'), 1, 's2-' || lpad(i::text, 6, '0'), 2, i, 'bench_work', 'tasks', '{}', 'completed', 1,
  jsonb_build_object('text', repeat('x', 88)), now(), now()
from generate_series(1, %(jobs)s) j, generate_series(0, %(tasks)s - 1) i;
"""


def percentile(values: list[float], share: float) -> float:
    """The value below which so large a share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def measure_limits(server_url: str) -> dict[str, float]:
    """Bare PostgreSQL and the completion path, side by side."""
    with database(server_url, "bench_limits") as url:
        found: dict[str, float] = {}
        for clients in (1, 2, 8):
            found[f"bare_updates_{clients}"] = limits.bare_updates(url, clients)
            found[f"bare_batches_{clients}"] = limits.bare_batches(url, clients)
            found[f"completions_{clients}"] = limits.completions(url, clients)
        found["single_completions_8"] = limits.single_completions(url, 8)
        return found


def measure_single_messages(server_url: str, n: int) -> dict[str, float]:
    """A message for each task of one stage, eight in hand."""
    with database(server_url, "bench_single") as url, running("engine8", url, {}) as engine:
        return {"single_messages_8": n / engine.call("run_job", "bench_fan_single", n)}


def measure_waits(server_url: str, *, is_cloud: bool) -> dict[str, float]:
    """A stack with jobs that wait behind others, and tasks that last: milliseconds, and shares of the ideal."""
    with database(server_url, "bench_waits") as url:
        found = fairness.measure_here(url, is_cloud=is_cloud)
    shares = {
        f"share_{name}": math.ceil(n / fairness.SLOTS) * milliseconds / 1000 / found[fairness.lasting(n, milliseconds)]
        for name, (n, milliseconds) in fairness.LASTING.items()
    }
    return shares | {
        "small_alone_ms": found["3 tasks alone"] * 1e3,
        "small_behind_ms": found["3 tasks behind 1,200 of 100 ms"] * 1e3,
        "middle_alone_ms": found["200 tasks of 10 ms alone"] * 1e3,
        "middle_behind_ms": found["200 tasks of 10 ms behind 20,000"] * 1e3,
        "small_after_cancel_ms": found["3 tasks after 20,000 were cancelled"] * 1e3,
        "small_behind_batched_ms": found[fairness.BEHIND_BATCHED] * 1e3,
        "small_behind_mixed_ms": found[fairness.BEHIND_MIXED] * 1e3,
    }


def measure_planning(server_url: str, n: int) -> dict[str, float]:
    """Plan and announce n tasks."""
    with database(server_url, "bench_plan") as url, running("engine1", url, {}) as engine:
        found = engine.call("plan_stage", n)
        return {"plan_seconds": found["seconds"], "plan_megabytes": found["megabytes"]}


def measure_engine_variants(server_url: str, n: int) -> dict[str, float]:
    """One task in twenty failing, and eight jobs at once, against the same number of tasks without."""
    with database(server_url, "bench_variants") as url, running("engine2", url, {}) as engine:
        return {
            "plain_seconds": engine.call("run_job", "bench_fan", n),
            "failing_seconds": engine.call("run_job", "bench_fan_failing", n, 1, 20),
            "eight_jobs_seconds": engine.call("run_job", "bench_fan", n // 8, 8),
        }


def measure_stack(server_url: str, n: int) -> dict[str, float]:
    """Connections at the peak, submissions a second, reads of large tables."""
    with database(server_url, "bench_api") as url, running("stack", url, {}) as stack:
        address = str(stack.call("address"))
        found: dict[str, float] = _connections(url, stack, n)
        found |= _latencies(stack)
        found |= measure_submissions(address)
        wait_until_idle(url)
        found |= _speed(stack, n, "empty")
        fill(url)
        found |= _reads(address)
        found |= _speed(stack, n, "million")
        return found | _pruning(url, stack)


def _latencies(stack: ContenderProcess) -> dict[str, float]:
    """Many jobs from a producer without HTTP, and how soon a waiting client sees an end."""
    stack.call("run_many_from_producer", 20)
    seconds = [float(stack.call("run_many_from_producer", MANY)) for _ in range(3)]
    chains = [float(stack.call("run_many_from_producer", 1)) for _ in range(60)]
    lags = [float(lag) for lag in stack.call("end_lags", READS)]
    return {
        "chain_from_producer_p50_ms": percentile(chains, 0.5) * 1e3,
        "chain_from_producer_p95_ms": percentile(chains, 0.95) * 1e3,
        "many_from_producer": MANY / sorted(seconds)[1],
        "end_lag_p50_ms": percentile(lags, 0.5) * 1e3,
        "end_lag_p95_ms": percentile(lags, 0.95) * 1e3,
    }


def _speed(stack: ContenderProcess, n: int, tables: str) -> dict[str, float]:
    """A chain and a large stage; to be compared with the same beside a million other rows."""
    chains = [float(stack.call("run_chain")) for _ in range(60)]
    fans = [float(stack.call("run_fan", n)) for _ in range(3)]
    return {f"chain_{tables}_ms": percentile(chains, 0.5) * 1e3, f"fan_{tables}_seconds": percentile(fans, 0.5)}


def _connections(url: str, stack: ContenderProcess, n: int) -> dict[str, float]:
    with _sampling(url) as counts:
        stack.call("run_fan", n)
    # Two workers; the stack's own process holds none.
    return {"connections_per_worker": max(counts) / 2}


@contextmanager
def _sampling(url: str) -> Iterator[list[int]]:
    """How many others are connected to the database, every few milliseconds."""
    counts: list[int] = []
    ended = threading.Event()

    def sample() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not ended.wait(0.01):
                row = connection.execute(
                    "select count(*) from pg_stat_activity where datname = current_database() "
                    "and backend_type = 'client backend' and pid <> pg_backend_pid()"
                ).fetchone()
                counts.append(int(row[0]) if row else 0)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield counts
    finally:
        ended.set()
        thread.join()


def measure_submissions(address: str) -> dict[str, float]:
    """New jobs over HTTP from eight connections for some seconds, while the workers run them; nothing without wrk."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "submit.lua"
        script.write_text(_WRK_SCRIPT)
        options = ["-t1", f"-c{LOAD_CONNECTIONS}", f"-d{LOAD_SECONDS}s", "--timeout", "30s", "-s", str(script)]
        ran = subprocess.run([wrk, *options, address], check=True, capture_output=True, text=True)
    line = next(line for line in ran.stdout.splitlines() if line.startswith("RESULT"))
    requests, microseconds, errors, p50, p95 = map(float, line.split()[1:])
    if errors:
        raise RuntimeError(f"expected every submission to be taken, found {errors:.0f} errors: {ran.stdout}")
    return {
        "submitted": requests,
        "submissions": requests / (microseconds / 1e6),
        "submit_p50_ms": p50 / 1e3,
        "submit_p95_ms": p95 / 1e3,
    }


def wait_until_idle(url: str, timeout_seconds: float = 300) -> None:
    deadline = time.monotonic() + timeout_seconds
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            row = connection.execute(
                "select count(*) from app.jobs where status in ('queued', 'processing', 'finalizing')"
            ).fetchone()
            if row and row[0] == 0:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected all submitted jobs to end, found {row} that have not")
            time.sleep(0.1)


def fill(url: str, statements: str = _FILL, *, jobs: int = LARGE_JOBS, tasks: int = LARGE_TASKS) -> None:
    """Ended jobs beside what is there; by default a million tasks in ten of them."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements.split(";\n"):
            if statement.strip():
                connection.execute(statement.encode(), {"jobs": jobs, "tasks": tasks})
        connection.execute("vacuum analyze app.tasks")


def prune_beside(url: str, stack: ContenderProcess, *, jobs: int, tasks: int) -> tuple[float, list[float]]:
    """Seconds of the deletion of old jobs, as many as there are, and of each chain that runs meanwhile."""
    chains: list[float] = []
    with create_pool(url, max_size=1) as pool, ThreadPoolExecutor(1) as executor:
        start = time.perf_counter()
        pruning = executor.submit(RetentionRepository(pool).prune_jobs, 3600.0)
        while not pruning.done():
            chains.append(float(stack.call("run_chain")))
        seconds = time.perf_counter() - start
        if (pruned := pruning.result()) != Pruned(jobs=jobs, tasks=tasks):
            raise AssertionError(f"expected {jobs} jobs with {tasks} tasks to go, found {pruned}")
    return seconds, chains


def _pruning(url: str, stack: ContenderProcess) -> dict[str, float]:
    """Chains while retention deletes the million rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("update app.jobs set finished_at = now() - interval '1 day' where correlation_id = 'filled'")
    seconds, chains = prune_beside(url, stack, jobs=LARGE_JOBS, tasks=LARGE_JOBS * LARGE_TASKS)
    return {
        "prune_seconds": seconds,
        "chain_pruning_ms": percentile(chains, 0.5) * 1e3,
        "chain_pruning_p95_ms": percentile(chains, 0.95) * 1e3,
    }


def _reads(address: str) -> dict[str, float]:
    job_id = f"{LARGE_JOBS:064x}"
    paths = {
        "read_list": "/api/jobs?limit=50",
        "read_small_detail": "",
        "read_large_detail": f"/api/jobs/{job_id}",
        "read_tasks": f"/api/jobs/{job_id}/tasks?limit=100",
    }
    found: dict[str, float] = {}
    with httpx.Client(base_url=address, timeout=60) as http:
        chain = http.get("/api/jobs", params={"limit": 1, "job_type": "bench_chain"}).raise_for_status()
        paths["read_small_detail"] = f"/api/jobs/{chain.json()['value'][0]['job_id']}"
        for name, path in paths.items():
            times = [timed(lambda path=path: http.get(path).raise_for_status()) for _ in range(READS)]
            found |= {f"{name}_p50_ms": percentile(times, 0.5) * 1e3, f"{name}_p95_ms": percentile(times, 0.95) * 1e3}
    return found


_LATE = "import function_app\nfrom core.basics.first_imports import IMPORTS\nwith IMPORTS: import"


def measure_cold_start() -> dict[str, float]:
    """Seconds to import what the Functions worker imports before it can serve, in a new interpreter each."""
    cases = {
        "import_nothing": ("pass", {}),
        "import_azure_functions": ("import azure.functions", {}),
        "import_worker": ("import function_app", {"COREMACHINE_APP_MODE": "worker"}),
        "import_platform": ("import function_app", {"COREMACHINE_APP_MODE": "platform"}),
        "import_first_message": (f"{_LATE} core.machine, infrastructure.factory, jobs.all_jobs", {}),
        "import_first_request": (f"{_LATE} triggers.api, core.machine, infrastructure.factory, jobs.all_jobs", {}),
    }
    return {name: timed(lambda case=case: _python(*case)) for name, case in cases.items()}


def _python(code: str, environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={**os.environ, **environment})


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
