"""Celery: a task that becomes a chord. Redis is broker and result backend, and writes nothing to disk."""

import os
import subprocess
import sys
import time
from importlib.metadata import version

from bench.servers import DATA, ROOT
from bench.workload import CHAIN_STAGES, check_fan

WORKERS = 2


class CeleryPeer:
    """Two solo workers, the fastest of what was tried: prefork, threads, one solo.

    Args:
        seed: The name of the task that fans out.
    """

    def __init__(self, seed: str = "seed") -> None:
        self._seed = seed

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("celery", "redis")}

    def prepare(self, database_url: str) -> None:
        del database_url
        self._workers = [_start_worker(f"worker{number}@bench") for number in range(WORKERS)]
        from bench.peers import celery_app  # noqa: PLC0415 - reads the Redis address

        self._tasks = celery_app

    def run_fan(self, n: int) -> float:
        start = time.perf_counter()
        outcome = getattr(self._tasks, self._seed).delay(n).get(timeout=3600)
        seconds = time.perf_counter() - start
        check_fan(outcome, n)
        return seconds

    def run_chain(self) -> float:
        return self.run_many(1)

    def run_many(self, count: int) -> float:
        from celery import chain  # noqa: PLC0415 - as above

        start = time.perf_counter()
        work = self._tasks.work
        results = [chain(work.si(index) for index in range(CHAIN_STAGES)).delay() for _ in range(count)]
        for result in results:
            result.get(timeout=600)
        return time.perf_counter() - start

    def close(self) -> None:
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.wait()


def chunks() -> CeleryPeer:
    return CeleryPeer("seed_chunks")


def _start_worker(name: str) -> subprocess.Popen[bytes]:
    options = ["--pool", "solo", "--hostname", name, "--loglevel", "error"]
    options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with (DATA / "celery_worker.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "bench.peers.celery_app", "worker", *options],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={**os.environ, "C_FORCE_ROOT": "1"},
        )
