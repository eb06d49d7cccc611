"""The jobs of the chaos run: they note every attempt in a table, so that what happened can be told afterwards."""

import functools
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from core.context import TaskContext
from core.errors import PermanentTaskError, RetryableTaskError
from core.fan_in import load_fan_in_results
from core.models import TaskDefinition
from core.models.context import CompletedTask, JobExecutionContext
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler, Registry

EFFECTS_TABLE = """
create schema if not exists chaos;
create table if not exists chaos.effects (
  effect_id bigint generated always as identity primary key,
  job_id text not null, task_id text not null, attempt integer not null, lease_id uuid not null,
  at timestamptz not null default clock_timestamp()
);
"""
LEASE_SECONDS = 5
# One task in so many lasts longer than its lease, and lives from its heartbeat.
LONG_EVERY = 400
LONG_SECONDS = 7.0


def _stage(number: int, name: str, parallelism: str, **more: Any) -> dict[str, Any]:
    return {
        "number": number,
        "name": name,
        "task_type": f"chaos_{name}",
        "parallelism": parallelism,
        "lease_seconds": LEASE_SECONDS,
        "max_interruptions": 100,
        "retry": {"max_attempts": 50, "base_delay_seconds": 0.2, "max_delay_seconds": 2},
        **more,
    }


class ChaosJob(JobBaseMixin, JobBase):
    """One task, n tasks, one task that reads all results. Attempts fail at random and are tried again."""

    job_type = "chaos"
    stages: ClassVar = [
        _stage(1, "seed", "single"),
        _stage(2, "work", "fan_out", tasks_per_message=25),
        _stage(3, "collect", "fan_in"),
    ]
    parameters_schema: ClassVar = {
        "name": {"type": "str", "required": True, "description": "makes each job one of its own"},
        "n": {"type": "int", "required": True, "min": 1, "description": "tasks of the second stage"},
        "failure_rate": {"type": "float", "default": 0.05, "min": 0, "max": 1, "description": "of attempts"},
        "work_seconds": {"type": "float", "default": 0.02, "min": 0, "description": "an attempt lasts on average"},
        "fail_every": {"type": "int", "default": 0, "min": 0, "description": "each so many tasks one fails for good"},
    }

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: Mapping[str, Any], job_id: str, previous_results: Iterable[CompletedTask]
    ) -> Iterator[TaskDefinition]:
        if stage == 1:
            yield TaskDefinition(parameters={"n": job_params["n"]})
        else:
            (seed,) = previous_results
            for index in range(seed.result["n"]):
                yield TaskDefinition(parameters={"index": index})

    @staticmethod
    def finalize_job(context: JobExecutionContext) -> dict[str, Any]:
        (collected,) = context.results(3)
        return {name: collected.result[name] for name in ("count", "total")}


class TolerantChaosJob(ChaosJob):
    """The same, which goes on past failed tasks."""

    job_type = "chaos_tolerant"
    stages: ClassVar = [
        ChaosJob.stages[0],
        ChaosJob.stages[1] | {"failure": {"on_failure": "continue"}},
        ChaosJob.stages[2],
    ]


class SingleChaosJob(ChaosJob):
    """The same with a message for each task."""

    job_type = "chaos_single"
    stages: ClassVar = [ChaosJob.stages[0], ChaosJob.stages[1] | {"tasks_per_message": 1}, ChaosJob.stages[2]]


def seed(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    return {"n": params["n"], **_attempt(context)}


def work(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    told = _attempt(context)
    given = context.job_parameters
    # By task and attempt, not by the hour: the same seed fails the same attempts.
    fate = random.Random(f"{context.task_id}:{context.attempt}")
    index = params["index"]
    time.sleep(fate.uniform(0, 2 * given["work_seconds"]))
    if index % LONG_EVERY == LONG_EVERY - 1:
        _work_long(context)
    if given["fail_every"] and index % given["fail_every"] == 0:
        raise PermanentTaskError("failed for good, as fail_every asked for")
    if fate.random() < given["failure_rate"]:
        raise RetryableTaskError("failed at random, as failure_rate asked for")
    return {"index": index, **told}


def collect(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    told = _attempt(context)
    indexes = [task.result["index"] for task in load_fan_in_results(params).results()]
    return {"count": len(indexes), "total": sum(indexes), **told}


def _work_long(context: TaskContext) -> None:
    end = time.monotonic() + LONG_SECONDS
    while time.monotonic() < end:
        context.check_cancelled()
        time.sleep(0.1)


def _attempt(context: TaskContext) -> dict[str, Any]:
    """Note this attempt: an effect outside of CoreMachine's tables, which may well come more than once a task."""
    row = (context.job_id, context.task_id, context.attempt, context.lease_id)
    try:
        with _effects_pool().connection() as connection:
            connection.execute(
                "insert into chaos.effects (job_id, task_id, attempt, lease_id) values (%s, %s, %s, %s)", row
            )
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise RetryableTaskError(f"the effects table cannot be reached: {error}") from error
    return {"attempt": context.attempt, "lease_id": str(context.lease_id)}


@functools.cache
def _effects_pool() -> ConnectionPool:
    url = os.environ["COREMACHINE_DATABASE_URL"]
    return ConnectionPool(url, min_size=1, max_size=4, open=True, timeout=5, kwargs={"autocommit": True})


HANDLERS = (
    Handler("chaos_seed", seed, queue="tasks"),
    Handler("chaos_work", work, queue="tasks"),
    Handler("chaos_collect", collect, queue="tasks"),
)


def build_registry(queues: Iterable[str]) -> Registry:
    """The chaos jobs and nothing else."""
    return Registry([ChaosJob, SingleChaosJob, TolerantChaosJob], HANDLERS, queues)
