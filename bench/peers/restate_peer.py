"""Restate: a handler that calls another service for each piece of work, and durable steps for a chain.

Its server is one program with a store of its own (RocksDB, written to disk); it calls the handlers over HTTP/2.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import hypercorn.asyncio
import restate
from hypercorn.config import Config

from bench.latency import far_service
from bench.servers import DATA, ROOT, free_port
from bench.workload import CHAIN_STAGES, RESULT, check_fan, summarize

SERVER = "restate-server"
CLIENTS = 8
_START_SECONDS = 60
_STOP_SECONDS = 5

worker = restate.Service("worker")
job = restate.Service("job")


@worker.handler()
async def work(context: restate.Context, index: int) -> dict[str, str]:
    del context, index
    return RESULT


@job.handler()
async def fan(context: restate.Context, n: int) -> dict[str, int]:
    count = await context.run_typed("seed", lambda: n)
    calls = [context.service_call(work, arg=index) for index in range(count)]
    results = [await call for call in await restate.gather(*calls)]
    return await context.run_typed("collect", lambda: summarize(results))


@job.handler()
async def chain(context: restate.Context, _: str) -> dict[str, str]:
    for index in range(CHAIN_STAGES):
        await context.run_typed(f"step-{index}", lambda: RESULT)
    return {}


class RestatePeer:
    """The server and one worker process."""

    def versions(self) -> dict[str, str]:
        return {"restate-sdk": version("restate-sdk")}

    def prepare(self, database_url: str) -> None:
        del database_url
        self._folder = tempfile.TemporaryDirectory(dir=DATA)
        admin, ingress = free_port(), free_port()
        self._processes = [start_server(Path(self._folder.name), admin, ingress)]
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{ingress}", timeout=600)
        wait_for(f"http://127.0.0.1:{admin}/health")
        port = free_port()
        self._processes.append(start_worker(port))
        wait_for(f"http://127.0.0.1:{port}/health")
        self._opened = contextlib.ExitStack()
        near = self._opened.enter_context(far_service(port))
        registered = httpx.post(
            f"http://127.0.0.1:{admin}/deployments", json={"uri": f"http://127.0.0.1:{near}"}, timeout=60
        )
        registered.raise_for_status()

    def run_fan(self, n: int) -> float:
        start = time.perf_counter()
        outcome = self._call("fan", n)
        seconds = time.perf_counter() - start
        check_fan(outcome, n)
        return seconds

    def run_chain(self) -> float:
        return self.run_many(1)

    def run_many(self, count: int) -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(lambda _: self._call("chain", uuid4().hex), range(count)))
        return time.perf_counter() - start

    def close(self) -> None:
        self._http.close()
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                # The worker waits for streams that its server holds.
                process.kill()
                process.wait()
        self._opened.close()
        self._folder.cleanup()

    def _call(self, handler: str, argument: Any) -> Any:
        answer = self._http.post(f"/job/{handler}", json=argument)
        answer.raise_for_status()
        return answer.json()


def start_server(folder: Path, admin: int, ingress: int) -> subprocess.Popen[bytes]:
    """On loopback alone, and silent towards its makers."""
    program = shutil.which(SERVER)
    assert program is not None  # noqa: S101 - the contender needs it
    command = [program, "--no-logo", "--base-dir", str(folder), "--listen-mode", "tcp", "--bind-ip", "127.0.0.1"]
    command += ["--bind-port", str(free_port())]
    settings = {
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
    }
    with (DATA / "restate_server.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **settings})


def start_worker(port: int) -> subprocess.Popen[bytes]:
    with (DATA / "restate_worker.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "bench.peers.restate_peer", str(port)], cwd=ROOT, stdout=log, stderr=log
        )


def wait_for(url: str) -> None:
    """Until the address answers.

    Raises:
        TimeoutError: It does not.
    """
    deadline = time.monotonic() + _START_SECONDS
    while not is_answered(url):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url} does not answer; see {DATA}/restate_server.log")
        time.sleep(0.1)


def is_answered(url: str) -> bool:
    try:
        httpx.get(url, timeout=5)
    except httpx.TransportError:
        return False
    return True


def serve(port: int) -> None:
    """A worker's side."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.h2_max_concurrent_streams = 10_000
    asyncio.run(hypercorn.asyncio.serve(restate.app([worker, job]), config))  # type: ignore[arg-type]


if __name__ == "__main__":
    serve(int(sys.argv[1]))
