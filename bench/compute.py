"""Tasks that compute: threads, processes (`isolation="process"`) and a ProcessPoolExecutor that a handler uses by hand.

Run: python -m bench.compute [--tasks 1000] [--milliseconds 50] [--workers 2]
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import httpx

from core.context import TaskContext
from core.models import TaskDefinition
from core.models.context import CompletedTask, JobExecutionContext
from coremachine.local.stack import LocalStack
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler, Registry

WAYS = ("thread", "process", "executor")


def compute(milliseconds: float) -> int:
    """Use one core for this time of it: counted in its own CPU time, so that waiting for a core is no work."""
    rounds, until = 0, time.thread_time() + milliseconds / 1000
    while time.thread_time() < until:
        rounds += sum(range(1000)) > 0
    return rounds


def compute_here(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    del params
    return {"rounds": compute(context.job_parameters["milliseconds"]), "pid": os.getpid()}


def compute_in_executor(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    del params
    return {"rounds": _executor().submit(compute, context.job_parameters["milliseconds"]).result(), "pid": os.getpid()}


@cache
def _executor() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))


class _ComputeJob(JobBaseMixin, JobBase):
    job_type = "bench_compute"
    stages: ClassVar = [
        {"number": 1, "name": "compute", "task_type": "thread", "parallelism": "single", "tasks_per_message": 20}
    ]
    parameters_schema: ClassVar = {
        "way": {"type": "str", "allowed": list(WAYS)},
        "n": {"type": "int", "required": True},
        "milliseconds": {"type": "float", "required": True},
        "nonce": {"type": "str", "required": True},
    }

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: Mapping[str, Any], job_id: str, previous_results: Iterable[CompletedTask]
    ) -> Iterator[TaskDefinition]:
        del stage, job_id, previous_results
        for _ in range(job_params["n"]):
            yield TaskDefinition(task_type=job_params["way"], parameters={})

    @staticmethod
    def finalize_job(context: JobExecutionContext) -> dict[str, Any]:
        return {"processes": len({task.result["pid"] for task in context.results(1)})}


def build_registry(queues: Iterable[str]) -> Registry:
    handlers = [
        Handler("thread", compute_here, queue="tasks"),
        Handler("process", compute_here, queue="tasks", isolation="process"),
        Handler("executor", compute_in_executor, queue="tasks"),
    ]
    return Registry([_ComputeJob], handlers, queues)


def seconds_of(http: httpx.Client, way: str, tasks: int, milliseconds: float) -> float:
    parameters = {"way": way, "n": tasks, "milliseconds": milliseconds, "nonce": uuid4().hex}
    start = time.perf_counter()
    job_id = http.post("/api/jobs/submit/bench_compute", json=parameters).raise_for_status().json()["job_id"]
    while True:
        job = http.get(f"/api/jobs/{job_id}?wait=30").raise_for_status().json()
        if job["finished_at"] is not None:
            break
    if job["status"] != "completed":
        raise SystemExit(f"expected a completed job, found {job['status']}: {job['error']}")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--milliseconds", type=float, default=50.0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    environment = {"COREMACHINE_JOBS": "bench.compute:build_registry", "COREMACHINE_HTTP_AUTH": "anonymous"}
    ports = {"http_port": 0, "amqp_port": 0, "admin_port": 0}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalStack(Path(folder), workers=options.workers, environment=environment, **ports) as stack,
        httpx.Client(base_url=stack.url, timeout=120) as http,
    ):
        least = options.tasks * options.milliseconds / 1000 / (os.cpu_count() or 1)
        print(
            f"{options.tasks} tasks of {options.milliseconds:g} ms, {options.workers} workers; at least {least:.1f} s"
        )
        for way in WAYS:
            seconds_of(http, way, 20, options.milliseconds)
            print(f"{way:>10}: {seconds_of(http, way, options.tasks, options.milliseconds):6.1f} s", flush=True)


if __name__ == "__main__":
    main()
