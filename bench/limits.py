"""The limits below: what PostgreSQL itself can do here, and what the completion path makes of it."""

import json
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Jsonb

from bench.jobs import FanJob
from bench.peers.floor import Client
from bench.workload import RESULT
from core.models import Lease, StageRef
from coremachine.local.postgres import find_binaries
from infrastructure.jobs_tasks import StageCompletionRepository, TaskRepository
from infrastructure.migrations import Migrator
from infrastructure.postgresql import create_pool

ROWS = 100_000
BATCH = 100
SECONDS = 3

_TABLE = """
drop table if exists bare;
create table bare (id integer primary key, status text, result jsonb);
insert into bare select i, 'processing', null from generate_series(1, {rows}) i;
vacuum analyze bare;
"""
_SINGLE = """\\set id random(1, {rows})
update bare set status = 'completed', result = '{result}' where id = :id;
"""


def bare_updates(url: str, clients: int, seconds: int = SECONDS) -> float:
    """Bare single-row updates by key, each committed: a second, by pgbench."""
    _make_table(url)
    return run_pgbench(url, _SINGLE.format(rows=ROWS, result=json.dumps(RESULT)), clients, seconds)


def single_completions(url: str, clients: int, seconds: int = SECONDS) -> float:
    """Calls of `complete_task_and_check_stage` with a task each, all of one stage: a second, by pgbench."""
    with psycopg.connect(url) as connection:
        Migrator(connection).migrate()
    client = Client(url)
    job_id = client.submit(FanJob)
    client.run_stage_of_one(job_id, 1, {"n": 1})
    ids = client.plan_many(job_id, 2, ROWS)
    lease = uuid4()
    for at in range(0, ROWS, BATCH):
        client.claim(job_id, 2, ids[at : at + BATCH], lease)
    client.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum analyze app.tasks")
        connection.execute("drop sequence if exists next_task")
        connection.execute("create sequence next_task cache 1000")
    call = (
        "select app.complete_task_and_check_stage('{job_id}', 1, 2, '{lease}', "
        "array['s2-' || lpad(nextval('next_task')::text, 6, '0')], array['{result}'::jsonb]);\n"
    )
    return run_pgbench(url, call.format(job_id=job_id, lease=lease, result=json.dumps(RESULT)), clients, seconds)


def bare_batches(url: str, clients: int, batches: int = 100) -> float:
    """Rows a second of bare updates of a hundred rows by arrays, each batch committed."""
    _make_table(url)
    query = (
        "update bare set status = 'completed', result = given.result "
        "from unnest(%s::integer[], %s::jsonb[]) as given(id, result) where bare.id = given.id"
    )

    def work(number: int) -> Callable[[], None]:
        connection = psycopg.connect(url, autocommit=True)
        first = 1 + number * batches * BATCH // clients

        def run() -> None:
            with connection:
                for at in range(batches // clients):
                    ids = list(range(first + at * BATCH, first + (at + 1) * BATCH))
                    connection.execute(query, (ids, [Jsonb(RESULT)] * BATCH), prepare=True)

        return run

    return batches * BATCH / _side_by_side([work(number) for number in range(clients)])


def completions(url: str, clients: int, batches: int = 100) -> float:
    """Rows a second through `complete_task_and_check_stage`, a hundred a call, all of one stage; claims not counted."""
    with psycopg.connect(url) as connection:
        Migrator(connection).migrate()
    client = Client(url)
    job_id = client.submit(FanJob)
    client.run_stage_of_one(job_id, 1, {"n": 1})
    # One more than is completed, so that the stage stays open.
    ids = client.plan_many(job_id, 2, batches * BATCH + 1)
    client.close()
    with create_pool(url, max_size=clients) as pool:
        tasks, stages = TaskRepository(pool), StageCompletionRepository(pool)
        chunks = [ids[at * BATCH : (at + 1) * BATCH] for at in range(batches)]
        leases = [uuid4() for _ in chunks]
        for lease, chunk in zip(leases, chunks, strict=True):
            tasks.claim_tasks(StageRef(job_id, 1, 2), chunk, lease=Lease(lease, "bench"))

        def work(number: int) -> Callable[[], None]:
            def run() -> None:
                for lease, chunk in list(zip(leases, chunks, strict=True))[number::clients]:
                    results = dict.fromkeys(chunk, RESULT)
                    stages.complete_task_and_check_stage(StageRef(job_id, 1, 2), lease_id=lease, results=results)

            return run

        return batches * BATCH / _side_by_side([work(number) for number in range(clients)])


def run_pgbench(url: str, text: str, clients: int, seconds: int) -> float:
    """Transactions a second of a script."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "single.sql"
        script.write_text(text)
        parts = conninfo_to_dict(url)
        ran = subprocess.run(
            [
                str(find_binaries() / "pgbench"), "--no-vacuum", "--protocol", "prepared", "--file", str(script),
                "--client", str(clients), "--jobs", "2" if clients > 1 else "1", "--time", str(seconds),
                "--host", str(parts["host"]), "--username", str(parts["user"]), str(parts["dbname"]),
            ],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    found = re.search(r"tps = ([0-9.]+)", ran.stdout)
    if found is None:
        raise RuntimeError(f"expected pgbench to tell its tps, found: {ran.stdout}")
    return float(found[1])


def _make_table(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _TABLE.format(rows=ROWS).split(";\n"):
            if statement.strip():
                connection.execute(statement.encode())


def _side_by_side(calls: list[Callable[[], None]]) -> float:
    """Seconds until all have ended."""
    errors: list[BaseException] = []

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.perf_counter() - start
