"""PgQueuer: entrypoints that keep their result, count down and enqueue what follows."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from bench.peers.counter import RESULTS, CounterJobs
from bench.processes import Workers
from bench.workload import CHAIN_STAGES, RESULT, summarize

# Jobs that a worker takes in one statement, and ends in one. It begins the next ones before those have ended: killed at
# 1,500 of 5,000 jobs, it left 379 and 477 to be run again with a hundred (190 of them had ended), and 2 with one.
BATCH = 100
_RESULT = json.dumps(RESULT)


def _payload(**values: Any) -> bytes:
    return json.dumps(values).encode()


def _read(job: Job) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(job.payload or b"{}")
    return values


async def enqueue(queries: Queries, entrypoint: str, payloads: list[bytes | None]) -> None:
    await queries.enqueue([entrypoint] * len(payloads), payloads, [0] * len(payloads))


def register(queuer: PgQueuer, pool: asyncpg.Pool, queries: Queries) -> None:
    @queuer.entrypoint("seed")
    async def seed(job: Job) -> None:
        values = _read(job)
        await pool.execute("select bench_expect($1, $2)", values["job"], values["n"])
        await enqueue(queries, "work", [_payload(job=values["job"], index=index) for index in range(values["n"])])

    @queuer.entrypoint("work")
    async def work(job: Job) -> None:
        values = _read(job)
        if await pool.fetchval("select bench_done($1, $2, $3::jsonb)", values["job"], values["index"], _RESULT):
            await enqueue(queries, "collect", [_payload(job=values["job"])])

    @queuer.entrypoint("collect")
    async def collect(job: Job) -> None:
        key = _read(job)["job"]
        rows = await pool.fetch(RESULTS, key)
        outcome = json.dumps(summarize(json.loads(row["result"]) for row in rows))
        await pool.execute("update bench_jobs set outcome = $1::jsonb where job = $2", outcome, key)

    @queuer.entrypoint("step")
    async def step(job: Job) -> None:
        values = _read(job)
        key, index = values["job"], values["index"]
        await pool.execute("insert into bench_results values ($1, $2, $3::jsonb)", key, index, _RESULT)
        if index + 1 < CHAIN_STAGES:
            await enqueue(queries, "step", [_payload(job=key, index=index + 1)])
        else:
            await pool.execute("update bench_jobs set outcome = '{}' where job = $1", key)


def make_worker(database_url: str, batch: int) -> Callable[[Any], Any]:
    async def run() -> None:
        async with asyncpg.create_pool(database_url, min_size=2, max_size=10) as pool:
            driver = AsyncpgPoolDriver(pool)
            queuer = PgQueuer(driver)
            register(queuer, pool, Queries(driver))
            await queuer.qm.run(batch_size=batch, dequeue_timeout=timedelta(seconds=5))

    threading.Thread(target=lambda: uvloop.run(run()), daemon=True).start()
    return lambda message: message


class PgQueuerPeer:
    """Worker processes that take jobs in batches; by default one, that takes a hundred.

    Args:
        batch: Jobs in one statement.
    """

    def __init__(self, batch: int = BATCH, workers: int = 1) -> None:
        self._batch = batch
        self._count = workers

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("pgqueuer", "asyncpg")}

    def prepare(self, database_url: str) -> None:
        self._jobs = CounterJobs(database_url)
        self._jobs.create_schema()
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._open(database_url))
        self._workers = Workers(self._count, make_worker, database_url, self._batch)

    async def _open(self, database_url: str) -> None:
        self._pool = await asyncpg.create_pool(database_url, min_size=1, max_size=2)
        self._queries = Queries(AsyncpgPoolDriver(self._pool))
        await self._queries.install()

    def run_fan(self, n: int) -> float:
        start = time.perf_counter()
        (job,) = self._jobs.start(1)
        self._enqueue("seed", [_payload(job=job, n=n)])
        self._jobs.wait([job], n)
        return time.perf_counter() - start

    def run_chain(self) -> float:
        return self.run_many(1)

    def run_many(self, count: int) -> float:
        start = time.perf_counter()
        jobs = self._jobs.start(count)
        self._enqueue("step", [_payload(job=job, index=0) for job in jobs])
        self._jobs.wait(jobs)
        return time.perf_counter() - start

    def close(self) -> None:
        self._workers.close()
        self._loop.run_until_complete(self._pool.close())
        self._jobs.close()

    def _enqueue(self, entrypoint: str, payloads: list[bytes]) -> None:
        self._loop.run_until_complete(enqueue(self._queries, entrypoint, list(payloads)))


def one_by_one() -> PgQueuerPeer:
    """Two workers, as others have: of one, two, four and eight none was the fastest in both of two runs."""
    return PgQueuerPeer(batch=1, workers=2)
