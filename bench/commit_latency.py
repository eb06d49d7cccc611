"""What the watch is worth when a commit takes as long as in a cloud database: one stage, completed in two ways.

watched: `complete_task_and_check_stage` as it is: completions of tasks that are not watched share the stage's lock.
locked: `always_locked.sql`: each completion takes that lock exclusively and looks for an open task.

A commit is made slow by PostgreSQL's own `commit_delay`, with `commit_siblings` 0: the process that flushes the log
waits for that time before it flushes, and all commits that wait for a flush share it. This models a slow disk: locks
are held while it lasts. A proxy on the network would delay answers, which are sent after the locks are released.

Run: python -m bench.commit_latency [--repeats 5] [--clients 8]
"""

import argparse
import itertools
import json
import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg

from bench.completions import planned_stage
from bench.limits import bare_updates, run_pgbench
from bench.servers import database, postgres
from bench.workload import RESULT
from core.models import Lease, StageRef
from core.schema.statuses import compose_text
from infrastructure.jobs_tasks import TaskRepository
from infrastructure.migrations import Migrator
from infrastructure.postgresql import create_pool

LATENCIES_MS = (0, 2, 5)
TASKS_PER_CALL = (1, 10)
WAYS = ("watched", "locked")
SECONDS = 3
CLAIMED_AT_ONCE = 1000
# Tasks are prepared for that many calls; a stage that runs out of them stops the measurement.
MOST_CALLS_PER_SECOND = {1: 12_000, 10: 3_000}

_CALL = """select app.complete_task_and_check_stage('{job_id}', 1, 1, '{lease}', ids.found,
  array_fill('{result}'::jsonb, array[{size}]))
from (select array_agg('s1-' || lpad((call.number * {size} + i)::text, 6, '0')) as found
  from (select nextval('next_call') as number offset 0) call, generate_series(0, {size} - 1) i) ids;
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=int, default=8, help="connections that complete tasks of the one stage")
    asked = parser.parse_args()
    rates: dict[tuple[int, int, str], list[float]] = {}
    commits: dict[int, list[float]] = {}
    with ExitStack() as stack:
        server_url = stack.enter_context(postgres())
        urls = {way: stack.enter_context(database(server_url, f"bench_{way}")) for way in WAYS}
        make_ways(urls)
        for repeat, latency in itertools.product(range(asked.repeats), LATENCIES_MS):
            with slow_commits(latency):
                commits.setdefault(latency, []).append(1000 / bare_updates(urls["watched"], 1, 1))
            # In turns: whatever else this machine does meets both ways alike.
            ways = WAYS if repeat % 2 else WAYS[::-1]
            for size, way in itertools.product(TASKS_PER_CALL, ways):
                rate = calls_per_second(urls[way], asked.clients, size, latency)
                rates.setdefault((latency, size, way), []).append(rate)
                print(f"{repeat=} {latency=} ms {size=} {way}: {rate:,.0f} calls/s", flush=True)
    for line in report(rates, commits):
        print(line)


def make_ways(urls: dict[str, str]) -> None:
    """The schema in both databases, with the other completion in one."""
    for way, url in urls.items():
        with psycopg.connect(url) as connection:
            Migrator(connection).migrate()
            if way == "locked":
                text = Path(__file__).with_name("always_locked.sql").read_text(encoding="utf-8")
                connection.execute(compose_text(text, "app"))


def calls_per_second(url: str, clients: int, size: int, latency_ms: int) -> float:
    """Completing calls of these connections, `size` tasks each; planning and claims are not in the measured time."""
    most = MOST_CALLS_PER_SECOND[size]
    if latency_ms:
        most = min(most, round(1.5 * clients * 1000 / latency_ms))
    calls, lease = most * SECONDS, uuid4()
    with create_pool(url, max_size=1) as pool:
        # One task more than is completed, so that the stage stays open.
        job_id, ids, _ = planned_stage(pool, calls * size + 1)
        tasks = TaskRepository(pool)
        for at in range(0, calls * size, CLAIMED_AT_ONCE):
            claimed = ids[at : min(at + CLAIMED_AT_ONCE, calls * size)]
            tasks.claim_tasks(StageRef(job_id, 1, 1), claimed, lease=Lease(lease, "bench"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum analyze app.tasks")
        connection.execute("drop sequence if exists next_call")
        connection.execute("create sequence next_call minvalue 0 cache 20")
        with slow_commits(latency_ms):
            call = _CALL.format(job_id=job_id, lease=lease, result=json.dumps(RESULT), size=size)
            rate = run_pgbench(url, call, clients, SECONDS)
        last = connection.execute("select last_value from next_call").fetchone()
        if last is None or last[0] >= calls:
            raise RuntimeError(f"expected a stage of more than {calls} calls, found that it ran out; prepare more")
        connection.execute("truncate app.jobs cascade")
    return rate


@contextmanager
def slow_commits(milliseconds: int) -> Iterator[None]:
    """For connections that libpq makes meanwhile."""
    os.environ["PGOPTIONS"] = f"-c commit_delay={milliseconds * 1000} -c commit_siblings=0"
    try:
        yield
    finally:
        del os.environ["PGOPTIONS"]


def report(rates: dict[tuple[int, int, str], list[float]], commits: dict[int, list[float]]) -> Iterator[str]:
    """A table of medians, and the range of the ratios of runs made one after the other."""
    yield "| added latency | one commit | tasks per call | watched | always locked | watched / locked |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for latency, size in itertools.product(LATENCIES_MS, TASKS_PER_CALL):
        watched, locked = (rates[latency, size, way] for way in WAYS)
        ratios = sorted(one / other for one, other in zip(watched, locked, strict=True))
        yield (
            f"| {latency} ms | {statistics.median(commits[latency]):.1f} ms | {size} "
            f"| {statistics.median(watched) * size:,.0f} tasks/s | {statistics.median(locked) * size:,.0f} tasks/s "
            f"| {statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}) |"
        )


if __name__ == "__main__":
    main()
