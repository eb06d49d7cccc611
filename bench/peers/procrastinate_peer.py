"""Procrastinate: tasks that keep their result, count down and defer what follows."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from procrastinate import App, PsycopgConnector

from bench.peers.counter import CounterJobs
from bench.processes import Workers
from bench.workload import CHAIN_STAGES, RESULT, summarize

WORKERS = 2
CONCURRENCY = 16
_RESULT = json.dumps(RESULT)


def make_app(database_url: str) -> App:
    """The tasks; their own rows go through the connector's pool."""
    app = App(connector=PsycopgConnector(conninfo=database_url, min_size=1, max_size=8))

    async def one(text: str, **arguments: Any) -> dict[str, Any]:
        return await app.connector.execute_query_one_async(text, **arguments)

    @app.task(name="seed")
    async def seed(job: str, n: int) -> None:
        await app.connector.execute_query_async("select bench_expect(%(job)s, %(n)s)", job=job, n=n)
        await work.batch_defer_async(*({"job": job, "index": index} for index in range(n)))

    @app.task(name="work")
    async def work(job: str, index: int) -> None:
        row = await one(
            "select bench_done(%(job)s, %(index)s, %(result)s::jsonb) as is_last", job=job, index=index, result=_RESULT
        )
        if row["is_last"]:
            await collect.defer_async(job=job)

    @app.task(name="collect")
    async def collect(job: str) -> None:
        rows = await app.connector.execute_query_all_async(
            "select result from bench_results where job = %(job)s order by index", job=job
        )
        outcome = json.dumps(summarize(row["result"] for row in rows))
        await app.connector.execute_query_async(
            "update bench_jobs set outcome = %(outcome)s::jsonb where job = %(job)s", outcome=outcome, job=job
        )

    @app.task(name="step")
    async def step(job: str, index: int) -> None:
        await app.connector.execute_query_async(
            "insert into bench_results values (%(job)s, %(index)s, %(result)s::jsonb)",
            job=job,
            index=index,
            result=_RESULT,
        )
        if index + 1 < CHAIN_STAGES:
            await step.defer_async(job=job, index=index + 1)
        else:
            await app.connector.execute_query_async("update bench_jobs set outcome = '{}' where job = %(job)s", job=job)

    return app


def make_worker(database_url: str) -> Callable[[Any], Any]:
    app = make_app(database_url)

    async def run() -> None:
        async with app.open_async():
            await app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False)

    threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()
    return lambda message: message


class ProcrastinatePeer:
    """Two worker processes, sixteen jobs side by side in each."""

    def versions(self) -> dict[str, str]:
        return {"procrastinate": version("procrastinate")}

    def prepare(self, database_url: str) -> None:
        self._jobs = CounterJobs(database_url)
        self._jobs.create_schema()
        self._loop = asyncio.new_event_loop()
        self._app = make_app(database_url)
        self._loop.run_until_complete(self._app.open_async())
        self._loop.run_until_complete(self._app.schema_manager.apply_schema_async())
        self._workers = Workers(WORKERS, make_worker, database_url)

    def run_fan(self, n: int) -> float:
        start = time.perf_counter()
        (job,) = self._jobs.start(1)
        self._loop.run_until_complete(self._app.tasks["seed"].defer_async(job=job, n=n))
        self._jobs.wait([job], n)
        return time.perf_counter() - start

    def run_chain(self) -> float:
        return self.run_many(1)

    def run_many(self, count: int) -> float:
        start = time.perf_counter()
        jobs = self._jobs.start(count)
        first = ({"job": job, "index": 0} for job in jobs)
        self._loop.run_until_complete(self._app.tasks["step"].batch_defer_async(*first))
        self._jobs.wait(jobs)
        return time.perf_counter() - start

    def close(self) -> None:
        self._workers.close()
        self._loop.run_until_complete(self._app.close_async())
        self._jobs.close()
