"""Prefect: a flow that maps a task, with a server of its own.

On SQLite, its default: on PostgreSQL it wants the extension pg_trgm, which the PostgreSQL of this bench does not have.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any

import httpx

from bench.latency import far_service
from bench.servers import DATA, ROOT, free_port
from bench.workload import CHAIN_STAGES, RESULT, check_fan, summarize

FLOWS_AT_ONCE = 8
_START_SECONDS = 120


class PrefectPeer:
    """The server is one process, the flows run in another; results are persisted as files."""

    def versions(self) -> dict[str, str]:
        return {"prefect": version("prefect")}

    def prepare(self, database_url: str) -> None:
        del database_url
        port = free_port()
        self._home = tempfile.TemporaryDirectory()
        self._opened = contextlib.ExitStack()
        near = self._opened.enter_context(far_service(port))
        os.environ.update(
            PREFECT_HOME=self._home.name,
            PREFECT_API_URL=f"http://127.0.0.1:{near}/api",
            PREFECT_LOGGING_LEVEL="ERROR",
            PREFECT_LOGGING_TO_API_ENABLED="false",
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            PREFECT_RESULTS_PERSIST_BY_DEFAULT="true",
            DO_NOT_TRACK="1",
        )
        with (DATA / "prefect_server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        self._wait_for_server()
        self._fan, self._chain = make_flows()

    def run_fan(self, n: int) -> float:
        start = time.perf_counter()
        outcome = self._fan(n)
        seconds = time.perf_counter() - start
        check_fan(outcome, n)
        return seconds

    def run_chain(self) -> float:
        start = time.perf_counter()
        asyncio.run(self._chain())
        return time.perf_counter() - start

    def run_many(self, count: int) -> float:
        start = time.perf_counter()
        asyncio.run(self._run_all(count))
        return time.perf_counter() - start

    def close(self) -> None:
        self._server.terminate()
        self._server.wait()
        self._opened.close()
        self._home.cleanup()

    async def _run_all(self, count: int) -> None:
        turns = asyncio.Semaphore(FLOWS_AT_ONCE)

        async def run() -> None:
            async with turns:
                await self._chain()

        await asyncio.gather(*(run() for _ in range(count)))

    def _wait_for_server(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                if httpx.get(f"{os.environ['PREFECT_API_URL']}/health", timeout=5).is_success:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline or self._server.poll() is not None:
                raise TimeoutError(f"Prefect's server did not start; see {DATA / 'prefect_server.log'}")
            time.sleep(0.2)


def make_flows() -> tuple[Any, Any]:
    """Imported when the settings are there."""
    from prefect import flow, task  # noqa: PLC0415
    from prefect.task_runners import ThreadPoolTaskRunner  # noqa: PLC0415

    @task
    def seed(n: int) -> int:
        return n

    @task
    def work(index: int) -> dict[str, str]:
        del index
        return RESULT

    @task
    def collect(results: list[dict[str, str]]) -> dict[str, int]:
        return summarize(results)

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=16))
    def fan(n: int) -> dict[str, int]:
        return dict(collect(work.map(range(seed(n)))))

    @task
    async def step(index: int) -> dict[str, str]:
        del index
        return RESULT

    # Asynchronous: a synchronous flow waits up to a second for its heartbeat thread when it ends. Fanning out is
    # three times as fast in a synchronous one.
    @flow
    async def chain() -> None:
        for index in range(CHAIN_STAGES):
            await step(index)

    return fan, chain
