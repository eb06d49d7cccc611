"""The dashboard over 100,000 jobs and a job of 100,000 tasks: what a page costs, and 200 clients that watch.

`python -m bench.dashboard` measures both, on a database of its own. `python -m bench.dashboard --watch URL` is the
clients alone, against the dashboard at this address, such as that of a stack that is up.
"""

import argparse
import http.client
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from bench.servers import database
from coremachine.local.postgres import LocalPostgres
from infrastructure.migrations import Migrator
from infrastructure.postgresql import create_pool
from tests.integration.ui.dashboard_app import Gate, SceneJob, make_services, serving
from triggers.ui.recent import RecentReads

JOBS, TASKS = 100_000, 100_000
RUNNING, FAILED = "0" * 63 + "1", "0" * 63 + "2"
CLIENTS, SECONDS = 200, 30.0
# As the script of the pages does it.
LEAST_SECONDS, MOST_SECONDS, TIMES_ITS_ANSWER = 3.0, 60.0, 10.0

_JOBS = """
insert into app.jobs (job_id, job_type, status, stage, total_stages, definition, correlation_id, tags, result,
  parameters, error, created_at, finished_at)
select lpad(to_hex(g + 16), 64, '0'), (array['scene_catalog', 'hello_world'])[g %% 2 + 1], status, 3, 3, %(definition)s,
  'c' || g / 10, jsonb_build_object('team', 't' || g %% 20), '{"items": 7}',
  jsonb_build_object('folder', 'abfs://scenes/2026/' || md5(g::text), 'scenes', g %% 900, 'resampling', 'bilinear'),
  case when status = 'failed' then
    jsonb_build_object('type', 'StageFailed', 'message', 'block ' || g || ' is damaged') end,
  at,
  case when status <> 'queued' then at + interval '1 minute' end
from generate_series(1, %(jobs)s) g,
  lateral (select case when g %% 100 = 0 then 'failed' when g %% 97 = 0 then 'completed_with_errors'
    when g %% 500 = 1 then 'queued' else 'completed' end as status,
    now() - (%(jobs)s - g) * interval '10 seconds' as at) s
"""
_STAGES = """
insert into app.stages (job_id, run, stage, settings, status, expected_count, created_at, planned_at, finished_at)
select job_id, 1, n, jsonb_build_object('name', 'stage ' || n, 'task_type', 't', 'parallelism', 'fan_out'),
  'completed', 10, created_at, created_at, finished_at
from app.jobs, generate_series(1, 3) n where status in ('completed', 'failed')
"""
_BIG_JOB = """
insert into app.jobs (job_id, job_type, status, stage, total_stages, definition, correlation_id, created_at,
  finished_at)
values (%(job_id)s, 'scene_catalog', %(status)s, 2, 3, %(definition)s, 'big', now() - interval '1 hour',
  case when %(status)s = 'failed' then now() end)
"""
_BIG_STAGE = """
insert into app.stages (job_id, run, stage, settings, status, expected_count, failed_count, created_at, planned_at,
  finished_at)
values (%(job_id)s, 1, 2, '{"name": "convert", "task_type": "scene_convert", "parallelism": "fan_out"}', %(status)s,
  %(tasks)s, case when %(status)s = 'failed' then %(tasks)s / 5 else 0 end, now() - interval '1 hour',
  now() - interval '59 minutes',
  case when %(status)s = 'failed' then now() end)
"""
_BIG_TASKS = """
insert into app.tasks (job_id, run, task_id, stage, task_index, task_type, queue, name, status, attempt, error,
  created_at, started_at, finished_at, announced_at, lease_id, lease_owner, lease_expires_at)
select %(job_id)s, 1, 's2-scene-' || lpad(g::text, 6, '0'), 2, g, 'scene_convert', 'raster', 'scene-' || g, state, 1,
  case when state = 'failed' then jsonb_build_object('type', 'ReadError', 'message',
    'block ' || g || ' of file ' || g %% 7 || ' cannot be read', 'retryable', false) end,
  now() - interval '59 minutes', now() - interval '59 minutes' + g * interval '30 milliseconds',
  case when state in ('completed', 'failed') then now() - interval '58 minutes' + g * interval '30 milliseconds' end,
  now() - interval '59 minutes',
  case when state = 'processing' then gen_random_uuid() end,
  case when state = 'processing' then 'raster:vm-' || g %% 4 end,
  case when state = 'processing' then now() + interval '1 hour' end
from generate_series(1, %(tasks)s) g,
  lateral (select case when %(status)s = 'failed' then case when g %% 5 = 0 then 'failed' else 'completed' end
    when g <= %(tasks)s / 2 then 'completed' when g <= %(tasks)s / 2 + 32 then 'processing' else 'queued' end
    as state) s
"""
_BIG_EVENTS = """
insert into app.job_events (job_id, run, stage, task_id, event, detail, at)
select job_id, 1, 2, task_id, 'task_failed', error || '{"attempt": 1}', finished_at
from app.tasks where job_id = %(job_id)s and status = 'failed'
"""


def fill(url: str) -> None:
    """Rows as jobs leave them."""
    definition = json.dumps(SceneJob.definition().model_dump(mode="json"))
    with psycopg.connect(url) as connection:
        Migrator(connection).migrate()
        connection.commit()
        connection.execute(_JOBS, {"jobs": JOBS, "definition": definition})
        connection.execute(_STAGES)
        for job_id, status in ((RUNNING, "processing"), (FAILED, "failed")):
            values = {"job_id": job_id, "status": status, "tasks": TASKS, "definition": definition}
            for text in (_BIG_JOB, _BIG_STAGE, _BIG_TASKS, _BIG_EVENTS):
                connection.execute(text, values)
        connection.commit()
        connection.autocommit = True
        connection.execute("vacuum analyze")


def pages() -> list[str]:
    """Every page and tab, with much in it."""
    tabs = ("overview", "tasks", "figure", "events", "data", "runs")
    lists = ["", "?status=failed", "?failed_first=true", "?job_type=hello_world", "?tag=team=t7", "?q=c5000", "?q=none"]
    lists += ["?q=is+damaged", "?q=scenes%3D877", "?status=failed&q=none"]
    jobs = [f"/{job_id}?tab={tab}" for job_id in (RUNNING, FAILED) for tab in tabs]
    tasks = [f"/{FAILED}?tab=tasks&status=completed", f"/{FAILED}/tasks/s2-scene-000005"]
    return [f"/jobs{path}" for path in (*lists, *jobs, *tasks)] + [
        "/schedules",
        "/dead-letters",
        "/queues",
        "/limits",
        "/webhooks",
        "/submit",
    ]


@dataclass
class Client:
    """One browser's connection."""

    address: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        self._root = parts.path
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port
        self._connect()

    def _connect(self) -> None:
        self._connection = http.client.HTTPConnection(self._host, self._port, timeout=120)

    def get(self, path: str) -> tuple[int, int]:
        """Status and bytes."""
        try:
            return self._ask(path)
        except http.client.RemoteDisconnected:
            # The server closes what was idle for five seconds; a browser connects again, too.
            self._connect()
            return self._ask(path)

    def _ask(self, path: str) -> tuple[int, int]:
        self._connection.request("GET", self._root + path)
        answer = self._connection.getresponse()
        return answer.status, len(answer.read())


@contextmanager
def shared_by_nobody() -> Iterator[None]:
    """Each request reads for itself."""
    kept = RecentReads.get
    RecentReads.get = lambda _self, _key, make, **_: make()  # type: ignore[method-assign,assignment]
    yield
    RecentReads.get = kept  # type: ignore[method-assign]


def processor_seconds(postmaster: int) -> float:
    """Of this process and of PostgreSQL, so far; its processes live as long as their connections."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(folder.name) == postmaster or int(fields[1]) == postmaster:
            ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / 100


def measure(url: str, postmaster: int, repeats: int) -> None:
    """Each page, with nothing shared between requests."""
    client = Client(url)
    print(f"{'page':<76} {'KB':>5} {'wall ms':>8} {'processor ms':>12}")
    for path in pages():
        walls = []
        client.get(path)
        used = processor_seconds(postmaster)
        for _ in range(repeats):
            began = time.perf_counter()
            status, size = client.get(path)
            walls.append(time.perf_counter() - began)
        used = (processor_seconds(postmaster) - used) / repeats
        if status != http.HTTPStatus.OK:
            raise RuntimeError(f"{path}: expected 200, found {status}")
        shown = path.replace(RUNNING, "<running>").replace(FAILED, "<failed>")
        print(
            f"{shown:<76} {size / 1000:>5.0f} {1000 * statistics.median(walls):>8.0f} {1000 * used:>12.0f}", flush=True
        )


@dataclass
class Watch:
    """What clients saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


def watch(url: str, paths: Sequence[str], *, clients: int, seconds: float) -> Watch:
    """Clients that look at a page each, and ask again as its script does."""
    found, until = Watch(), time.monotonic() + seconds
    stopped = threading.Event()

    def look(number: int) -> None:
        client, path = Client(url), paths[number % len(paths)]
        stopped.wait(random.uniform(0, LEAST_SECONDS))
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                status, _ = client.get(path)
                found.statuses[str(status)] += 1
            except OSError as error:
                found.statuses[type(error).__name__] += 1
                client = Client(url)
            took = time.monotonic() - began
            found.seconds.append(took)
            stopped.wait(min(MOST_SECONDS, max(LEAST_SECONDS, TIMES_ITS_ANSWER * took)))

    threads = [threading.Thread(target=look, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def show(found: Watch) -> None:
    ordered = sorted(found.seconds)
    shares = {
        name: ordered[int(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p95", 0.95), ("most", 1))
    }
    times = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in shares.items())
    print(f"{len(ordered):,} answers {dict(found.statuses)}; {times}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watch", metavar="URL", help="only watch, at this address of a dashboard")
    parser.add_argument("--pages", nargs="*", default=[], help="of the dashboard at --watch; all clients share them")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if given.watch:
        found = watch(given.watch, given.pages or ["/jobs", "/queues"], clients=given.clients, seconds=given.seconds)
        print(json.dumps({"statuses": found.statuses, "seconds": found.seconds}))
        return
    with tempfile.TemporaryDirectory() as folder, LocalPostgres(Path(folder) / "data", keep=False) as server:
        postmaster = int((Path(folder) / "data" / "postmaster.pid").read_text().split()[0])
        with database(server, "dashboard") as url, create_pool(url, max_size=20) as pool:
            fill(url)
            services = make_services(pool, Gate())
            with serving(lambda: services) as address:
                with shared_by_nobody():
                    measure(address, postmaster, given.repeats)
                watched = ["/jobs", "/jobs?status=failed", f"/jobs/{RUNNING}", f"/jobs/{RUNNING}?tab=tasks", "/queues"]
                used, began = processor_seconds(postmaster), time.monotonic()
                # In a process of their own: their cost is not the app's.
                options = ["--clients", str(given.clients), "--seconds", str(given.seconds)]
                command = [sys.executable, "-m", "bench.dashboard", "--watch", address, *options, "--pages", *watched]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                cores = (processor_seconds(postmaster) - used) / (time.monotonic() - began)
                answer = json.loads(done.stdout)
                print(f"{given.clients} clients for {given.seconds:g} s: {cores:.2f} cores of the app and PostgreSQL")
                show(Watch(Counter(answer["statuses"]), answer["seconds"]))


if __name__ == "__main__":
    main()
