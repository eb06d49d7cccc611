"""How long small jobs wait behind large ones, and what that costs the large ones: the whole stack over HTTP.

Run: python -m bench.fairness [--repeat 3] [--before FOLDER]   # another checkout, in turns with this one
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import httpx

from bench.latency import far_stack
from core.context import TaskContext
from core.models import TaskDefinition
from core.models.context import CompletedTask, JobExecutionContext
from coremachine.local.stack import LocalStack
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler, Registry

ROOT = Path(__file__).parents[1]
WORKERS = 2
# Tasks that run at once: COREMACHINE_TASK_THREADS of each worker.
SLOTS = WORKERS * 8
# Tasks and milliseconds of those that last.
LASTING = {"100_ms": (1_000, 100), "1_s": (200, 1_000)}
# A job that comes then is behind what was announced while the large one's first messages ran.
LATER_SECONDS = 3
BEHIND_BATCHED = "3 tasks 3 s after 8,000 of 100 ms, 100 per message"
BEHIND_MIXED = "3 tasks 3 s after 1,500 of 1 ms and 1,500 of 1 s, undeclared"


def rest(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    time.sleep(params.get("milliseconds", context.job_parameters["milliseconds"]) / 1000)
    return {}


class RestJob(JobBaseMixin, JobBase):
    """One stage of n tasks that sleep, one task per message."""

    job_type = "bench_rest"
    stages: ClassVar = [
        {"number": 1, "name": "rest", "task_type": "rest", "parallelism": "single", "tasks_per_message": 1}
    ]
    parameters_schema: ClassVar = {
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
            yield TaskDefinition()

    @staticmethod
    def finalize_job(context: JobExecutionContext) -> dict[str, Any]:
        return {"tasks": context.stages[0].completed}


class BatchedRestJob(RestJob):
    """The same with a hundred tasks per message."""

    job_type = "bench_rest_batched"
    stages: ClassVar = [RestJob.stages[0] | {"tasks_per_message": 100}]


class MixedRestJob(RestJob):
    """The same with nothing declared; the first half of the tasks lasts 1 ms, so that messages grow."""

    job_type = "bench_rest_mixed"
    stages: ClassVar = [{key: value for key, value in RestJob.stages[0].items() if key != "tasks_per_message"}]

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: Mapping[str, Any], job_id: str, previous_results: Iterable[CompletedTask]
    ) -> Iterator[TaskDefinition]:
        del stage, job_id, previous_results
        for index in range(job_params["n"]):
            yield TaskDefinition(parameters={"milliseconds": 1} if index < job_params["n"] // 2 else {})


class SmallRestJob(RestJob):
    """A job of its own type, so that nothing is known of the large one's tasks but by its own runs."""

    job_type = "bench_rest_small"


def build_registry(queues: Iterable[str]) -> Registry:
    jobs = [RestJob, BatchedRestJob, MixedRestJob, SmallRestJob]
    return Registry(jobs, [Handler("rest", rest, queue="tasks")], queues)


def lasting(n: int, milliseconds: float) -> str:
    """What that measure is called."""
    return f"{n:,} tasks of {milliseconds} ms, one per message"


class Jobs:
    """Jobs of a stack, over HTTP."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def submit(self, job_type: str, n: int, milliseconds: float) -> str:
        parameters = {"n": n, "milliseconds": milliseconds, "nonce": uuid4().hex}
        answer = self._http.post(f"/api/jobs/submit/{job_type}", json=parameters).raise_for_status()
        return str(answer.json()["job_id"])

    def wait(self, job_id: str) -> None:
        while (job := self._get(job_id, wait=30))["finished_at"] is None:
            pass
        if job["status"] not in {"completed", "cancelled"}:
            raise SystemExit(f"expected a completed job, found {job['status']}: {job['error']}")

    def seconds(self, job_type: str, n: int, milliseconds: float) -> float:
        start = time.perf_counter()
        self.wait(self.submit(job_type, n, milliseconds))
        return time.perf_counter() - start

    def begin(self, job_type: str, n: int, milliseconds: float) -> str:
        """Submit a large job and return when some of its tasks have ended."""
        job_id = self.submit(job_type, n, milliseconds)
        while not any(stage["counts"].get("completed") for stage in self._get(job_id)["stages"]):
            time.sleep(0.02)
        return job_id

    def cancel(self, job_id: str) -> None:
        self._http.post(f"/api/jobs/{job_id}/cancel", json={}).raise_for_status()
        self.wait(job_id)

    def _get(self, job_id: str, wait: int = 0) -> dict[str, Any]:
        answer = self._http.get(f"/api/jobs/{job_id}" + (f"?wait={wait}" if wait else "")).raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def measure(jobs: Jobs) -> dict[str, float]:
    """Seconds, by what was measured; the large jobs that others wait behind are cancelled when that is known."""
    found: dict[str, float] = {}
    jobs.seconds("bench_rest_small", 3, 1)
    found["3 tasks alone"] = jobs.seconds("bench_rest_small", 3, 1)
    found["200 tasks of 10 ms alone"] = jobs.seconds("bench_rest_small", 200, 10)
    large = jobs.begin("bench_rest", 1_200, 100)
    found["3 tasks behind 1,200 of 100 ms"] = jobs.seconds("bench_rest_small", 3, 1)
    jobs.cancel(large)
    large = jobs.begin("bench_rest", 20_000, 10)
    found["200 tasks of 10 ms behind 20,000"] = jobs.seconds("bench_rest_small", 200, 10)
    jobs.cancel(large)
    found["3 tasks after 20,000 were cancelled"] = jobs.seconds("bench_rest_small", 3, 1)
    jobs.seconds("bench_rest_batched", 1_000, 0)
    found["20,000 tasks of 0 ms, 100 per message"] = jobs.seconds("bench_rest_batched", 20_000, 0)
    found["3,000 tasks of 0 ms, one per message"] = jobs.seconds("bench_rest", 3_000, 0)
    found["1,000 tasks of 20 ms, one per message"] = jobs.seconds("bench_rest", 1_000, 20)
    for n, milliseconds in LASTING.values():
        found[lasting(n, milliseconds)] = jobs.seconds("bench_rest", n, milliseconds)
    found[BEHIND_BATCHED] = later_than(jobs, "bench_rest_batched", 8_000, 100)
    found[BEHIND_MIXED] = later_than(jobs, "bench_rest_mixed", 3_000, 1_000)
    return found


def later_than(jobs: Jobs, job_type: str, n: int, milliseconds: float) -> float:
    """Seconds of a job of 3 tasks that comes while the large one is at work."""
    large = jobs.begin(job_type, n, milliseconds)
    time.sleep(LATER_SECONDS)
    seconds = jobs.seconds("bench_rest_small", 3, 1)
    jobs.cancel(large)
    return seconds


def measure_here(database_url: str | None = None, *, is_cloud: bool = False) -> dict[str, float]:
    """Args:
    database_url: A database for the stack; without it, the stack has a server of its own.
    is_cloud: The broker is as far away as in a cloud.
    """
    environment = {"COREMACHINE_JOBS": "bench.fairness:build_registry", "COREMACHINE_HTTP_AUTH": "anonymous"}
    environment["COREMACHINE_TASK_THREADS"] = str(SLOTS // WORKERS)
    with (
        tempfile.TemporaryDirectory() as folder,
        far_stack(is_cloud=is_cloud) as (amqp_port, far),
        LocalStack(
            Path(folder),
            http_port=0,
            amqp_port=amqp_port,
            admin_port=0,
            workers=WORKERS,
            environment=environment | far,
            database_url=database_url,
        ) as stack,
        httpx.Client(base_url=stack.url, timeout=120) as http,
    ):
        return measure(Jobs(http))


def measure_in(root: Path, module: str, *here: str) -> dict[str, float]:
    """What a module of the bench prints as JSON, with the code of that folder."""
    command = [str(root / ".venv/bin/python"), "-m", module, *here]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=900, check=False)
    if run.returncode != 0:
        raise SystemExit(f"{root}: {run.stderr[-2000:]}")
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--before", type=Path, help="a checkout to compare with; this file is to be in it, too")
    parser.add_argument("--here", action="store_true", help="measure once, and print JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here()))
        return
    roots = [ROOT] if options.before is None else [options.before, ROOT]
    runs: dict[Path, list[dict[str, float]]] = {root: [] for root in roots}
    for _ in range(options.repeat):
        for root in roots:
            runs[root].append(measure_in(root, "bench.fairness", "--here"))
    for name in runs[ROOT][0]:
        medians = [statistics.median(run[name] for run in runs[root]) for root in roots]
        ratio = f"  {medians[-1] / medians[0]:6.2f} x" if len(medians) > 1 else ""
        print(f"{name:60}" + "".join(f"{median:9.3f} s" for median in medians) + ratio)


if __name__ == "__main__":
    main()
