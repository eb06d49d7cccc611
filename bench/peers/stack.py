"""CoreMachine as users run it: HTTP, the Functions host with two workers, the broker through the real SDK."""

import contextlib
import functools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.jobs import build_registry
from bench.latency import far_stack
from bench.peers.engine import wait_for_ends
from bench.servers import DATA
from bench.workload import WrongOutcome, check_fan
from core.machine import CoreMachine
from core.models.submission import SubmitRequest
from coremachine.local.stack import LocalStack
from infrastructure.factory import RepositoryFactory
from infrastructure.settings import load_settings

WORKERS = 2
CLIENTS = 8
ENVIRONMENT = {"COREMACHINE_JOBS": "bench.jobs:build_registry", "COREMACHINE_HTTP_AUTH": "anonymous"}


class StackPeer:
    """Jobs are submitted over HTTP, and their end is seen by the API's long poll; a lone chain's by `Prefer: wait`.

    Args:
        fan: The job type of a fan-out.
    """

    def __init__(self, fan: str = "bench_fan") -> None:
        self._fan = fan

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("coremachine", "azure-functions", "azure-servicebus")}

    def prepare(self, database_url: str) -> None:
        self.database_url = database_url
        self._started = contextlib.ExitStack()
        amqp_port, far = self._started.enter_context(far_stack(is_cloud="BENCH_CLOUD" in os.environ))
        self.stack = LocalStack(
            DATA / str(conninfo_to_dict(database_url)["dbname"]),
            http_port=0,
            amqp_port=amqp_port,
            admin_port=0,
            workers=WORKERS,
            fresh=True,
            environment={**ENVIRONMENT, **far},
            database_url=database_url,
        )
        self.stack.start()
        self.http = httpx.Client(base_url=self.stack.url, timeout=120)

    def run_fan(self, n: int) -> float:
        return self.run_job(self._fan, n)

    def run_job(self, job_type: str, n: int, jobs: int = 1, fail_every: int = 0) -> float:
        """So many fan jobs at once."""
        start = time.perf_counter()
        ids = [self.submit(job_type, n=n, fail_every=fail_every) for _ in range(jobs)]
        details = [self.wait(job_id) for job_id in ids]
        seconds = time.perf_counter() - start
        for detail in details:
            check_fan(detail["result"], n - (-(-n // fail_every) if fail_every else 0))
        return seconds

    def run_chain(self) -> float:
        start = time.perf_counter()
        answer = self.http.post("/api/jobs/submit/bench_chain", json=_chain()[1], headers={"Prefer": "wait=30"})
        answer.raise_for_status()
        seconds = time.perf_counter() - start
        _check_chain(answer.json()["job"])
        return seconds

    def run_many(self, count: int) -> float:
        """All in one call, as some peers enqueue them in one statement."""
        start = time.perf_counter()
        ids = self._submit_batch([_chain() for _ in range(count)])
        with ThreadPoolExecutor(CLIENTS) as clients:
            details = list(clients.map(self.wait, ids))
        seconds = time.perf_counter() - start
        for detail in details:
            _check_chain(detail)
        return seconds

    def run_many_from_producer(self, count: int) -> float:
        """As `run_many`, without HTTP: a process of the app submits and looks at the rows, as the peers' clients do."""
        start = time.perf_counter()
        with ThreadPoolExecutor(min(CLIENTS, count)) as clients:
            ids = list(clients.map(lambda _: self._producer.submit_job(SubmitRequest(*_chain())).job_id, range(count)))
        wait_for_ends(self._look, ids)
        seconds = time.perf_counter() - start
        for (result,) in self._look.execute("select result from app.jobs where job_id = any (%s)", (ids,)):
            _check_chain({"result": result})
        return seconds

    def end_lags(self, count: int) -> list[float]:
        """Seconds from the end of a job, as its row has it, until a client that waits has the answer."""
        lags = []
        for _ in range(count):
            detail = self.wait(self.submit("bench_chain"))
            lags.append(time.time() - datetime.fromisoformat(detail["finished_at"]).timestamp())
        return lags

    @functools.cached_property
    def _producer(self) -> CoreMachine:
        os.environ.update(self.stack.info.environment)
        settings = load_settings()
        return RepositoryFactory(settings).create_machine(build_registry(settings.task_queues))

    @functools.cached_property
    def _look(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.database_url, autocommit=True)

    def address(self) -> str:
        """Where the API is."""
        return self.stack.url

    def close(self) -> None:
        self.http.close()
        self.stack.stop()
        self._started.close()

    def _submit_batch(self, chains: list[tuple[str, dict[str, Any]]]) -> list[str]:
        jobs = [{"job_type": job_type, "parameters": parameters} for job_type, parameters in chains]
        answer = self.http.post("/api/jobs/submit:batch", json={"jobs": jobs})
        answer.raise_for_status()
        return [each["job"]["job_id"] for each in answer.json()["value"]]

    def submit(self, job_type: str, **parameters: Any) -> str:
        answer = self.http.post(f"/api/jobs/submit/{job_type}", json={"nonce": uuid4().hex, **parameters})
        answer.raise_for_status()
        return str(answer.json()["job_id"])

    def wait(self, job_id: str) -> dict[str, Any]:
        while True:
            answer = self.http.get(f"/api/jobs/{job_id}", params={"wait": 30})
            answer.raise_for_status()
            detail: dict[str, Any] = answer.json()
            if detail["finished_at"] is not None:
                return detail


def single() -> StackPeer:
    """A message, a claim and a completion for each task, as the peers' queues have."""
    return StackPeer("bench_fan_single")


def _chain() -> tuple[str, dict[str, str]]:
    return "bench_chain", {"nonce": uuid4().hex}


def _check_chain(detail: dict[str, Any]) -> None:
    if detail["result"] != {"completed": 3}:
        raise WrongOutcome(f"expected three completed tasks, found {detail}")
