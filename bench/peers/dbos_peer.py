"""DBOS: a workflow whose steps run in its own process, or one that enqueues child workflows."""

import asyncio
import os
import time
from importlib.metadata import version
from typing import Any

from dbos import DBOS, DBOSConfig

from bench.servers import sqlalchemy_url
from bench.workload import CHAIN_STAGES, POLL_SECONDS, RESULT, check_fan, summarize

QUEUE = "bench"
# Tried: 0.02 to 1 s and 16 to 100 at once. Polling more often than this costs more than it saves.
QUEUE_POLL_SECONDS = 0.05
WORKER_CONCURRENCY = 32
# Steps of one workflow that run side by side.
STEPS_AT_ONCE = 100


@DBOS.step()
async def seed_step(n: int) -> int:
    return n


@DBOS.step()
async def work_step(index: int) -> dict[str, str]:
    del index
    return RESULT


@DBOS.step()
async def collect_step(results: list[dict[str, str]]) -> dict[str, int]:
    return summarize(results)


@DBOS.workflow()
async def fan_of_steps(n: int) -> dict[str, int]:
    count = await seed_step(n)
    results: list[dict[str, str]] = []
    # Started in the same order in each run, which is what recovery asks for.
    for first in range(0, count, STEPS_AT_ONCE):
        results += await asyncio.gather(*map(work_step, range(first, min(first + STEPS_AT_ONCE, count))))
    return await collect_step(results)


@DBOS.step()
def chain_step(index: int) -> dict[str, str]:
    del index
    return RESULT


# Synchronous steps, which are faster one after the other; those of the fan run side by side.
@DBOS.workflow()
def chain_of_steps() -> None:
    for index in range(CHAIN_STAGES):
        chain_step(index)


@DBOS.workflow()
def seed_child(n: int) -> int:
    return n


@DBOS.workflow()
def work_child(index: int) -> dict[str, str]:
    del index
    return RESULT


@DBOS.workflow()
def fan_of_children(n: int) -> dict[str, int]:
    count = DBOS.enqueue_workflow(QUEUE, seed_child, n).get_result(polling_interval_sec=POLL_SECONDS)
    handles = [DBOS.enqueue_workflow(QUEUE, work_child, index) for index in range(count)]
    return summarize(handle.get_result(polling_interval_sec=POLL_SECONDS) for handle in handles)


@DBOS.workflow()
def chain_of_children() -> None:
    for index in range(CHAIN_STAGES):
        DBOS.enqueue_workflow(QUEUE, work_child, index).get_result(polling_interval_sec=POLL_SECONDS)


class DbosPeer:
    """One process, its system database in PostgreSQL."""

    def __init__(self, fan: Any, chain: Any) -> None:
        self._fan, self._chain = fan, chain

    def versions(self) -> dict[str, str]:
        return {"dbos": version("dbos")}

    def prepare(self, database_url: str) -> None:
        os.environ.setdefault("DBOS__VMID", "bench")
        config: DBOSConfig = {
            "name": "bench",
            "system_database_url": sqlalchemy_url(database_url, "psycopg"),
            "sys_db_pool_size": 20,
            "log_level": "ERROR",
            "run_admin_server": False,
            "notification_listener_polling_interval_sec": 0.01,
        }
        DBOS(config=config)
        DBOS.launch()
        DBOS.register_queue(QUEUE, worker_concurrency=WORKER_CONCURRENCY, polling_interval_sec=QUEUE_POLL_SECONDS)
        self._loop = asyncio.new_event_loop()

    def run_fan(self, n: int) -> float:
        start = time.perf_counter()
        (outcome,) = self._run(self._fan, [(n,)])
        seconds = time.perf_counter() - start
        check_fan(outcome, n)
        return seconds

    def run_chain(self) -> float:
        return self.run_many(1)

    def run_many(self, count: int) -> float:
        start = time.perf_counter()
        self._run(self._chain, [()] * count)
        return time.perf_counter() - start

    def close(self) -> None:
        DBOS.destroy()

    def _run(self, workflow: Any, calls: list[tuple[Any, ...]]) -> list[Any]:
        if not asyncio.iscoroutinefunction(workflow):
            handles = [DBOS.start_workflow(workflow, *arguments) for arguments in calls]
            return [handle.get_result(polling_interval_sec=POLL_SECONDS) for handle in handles]

        async def run() -> list[Any]:
            handles = [await DBOS.start_workflow_async(workflow, *arguments) for arguments in calls]
            return [await handle.get_result(polling_interval_sec=POLL_SECONDS) for handle in handles]

        return self._loop.run_until_complete(run())


def steps() -> DbosPeer:
    return DbosPeer(fan_of_steps, chain_of_steps)


def queued() -> DbosPeer:
    return DbosPeer(fan_of_children, chain_of_children)
