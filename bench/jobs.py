"""The workload as CoreMachine's job classes; COREMACHINE_JOBS=bench.jobs:build_registry gives an app these alone."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from bench.workload import RESULT, summarize
from core.context import TaskContext
from core.errors import PermanentTaskError
from core.fan_in import load_fan_in_results
from core.models import TaskDefinition
from core.models.context import CompletedTask, JobExecutionContext
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler, Registry

# A job's id is made of its parameters, so each run needs one of its own.
_NONCE = {"type": "str", "required": True, "description": "makes each run a job of its own"}


def _stage(number: int, name: str, parallelism: str, **more: Any) -> dict[str, Any]:
    return {"number": number, "name": name, "task_type": f"bench_{name}", "parallelism": parallelism, **more}


class FanJob(JobBaseMixin, JobBase):
    """One task, n tasks in messages of a hundred, one task that reads all results."""

    job_type = "bench_fan"
    stages: ClassVar = [
        _stage(1, "seed", "single", tasks_per_message=1),
        _stage(2, "work", "fan_out", tasks_per_message=100),
        _stage(3, "collect", "fan_in", tasks_per_message=1),
    ]
    parameters_schema: ClassVar = {
        "nonce": _NONCE,
        "n": {"type": "int", "required": True, "min": 1, "description": "tasks of the second stage"},
        "fail_every": {"type": "int", "default": 0, "min": 0, "description": "each so many tasks one fails; 0: none"},
        "seconds": {
            "type": "float",
            "default": 0,
            "min": 0,
            "description": "what a task of the second stage lasts",
        },
        "padding": {"type": "int", "default": 0, "min": 0, "description": "characters in the parameters of each"},
    }

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: Mapping[str, Any], job_id: str, previous_results: Iterable[CompletedTask]
    ) -> Iterator[TaskDefinition]:
        del job_id
        if stage == 1:
            yield TaskDefinition(parameters={"n": job_params["n"]})
        else:
            (seed,) = previous_results
            more = {"text": "x" * job_params["padding"]} if job_params["padding"] else {}
            for index in range(seed.result["n"]):
                yield TaskDefinition(parameters={"index": index, **more})

    @staticmethod
    def finalize_job(context: JobExecutionContext) -> dict[str, Any]:
        (collected,) = context.results(3)
        return dict(collected.result)


class SingleFanJob(FanJob):
    """The same with a message for each task."""

    job_type = "bench_fan_single"
    stages: ClassVar = [FanJob.stages[0], FanJob.stages[1] | {"tasks_per_message": 1}, FanJob.stages[2]]


class FailingFanJob(FanJob):
    """The same, going on past failed tasks."""

    job_type = "bench_fan_failing"
    stages: ClassVar = [FanJob.stages[0], FanJob.stages[1] | {"failure": {"on_failure": "continue"}}, FanJob.stages[2]]


class ChainJob(JobBaseMixin, JobBase):
    """Three stages of one task."""

    job_type = "bench_chain"
    stages: ClassVar = [
        {"number": n, "name": f"step {n}", "task_type": "bench_work", "parallelism": kind, "tasks_per_message": 1}
        for n, kind in ((1, "single"), (2, "fan_out"), (3, "fan_out"))
    ]
    parameters_schema: ClassVar = {"nonce": _NONCE}

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: Mapping[str, Any], job_id: str, previous_results: Iterable[CompletedTask]
    ) -> Iterator[TaskDefinition]:
        del stage, job_params, job_id, previous_results
        yield TaskDefinition(parameters={"index": 0})

    @staticmethod
    def finalize_job(context: JobExecutionContext) -> dict[str, Any]:
        return {"completed": sum(stage.completed for stage in context.stages)}


class OneJob(ChainJob):
    """One stage of one task."""

    job_type = "bench_one"
    stages: ClassVar = ChainJob.stages[:1]


def seed(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    del context
    return {"n": params["n"]}


def work(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    every = context.job_parameters.get("fail_every", 0)
    if every and params["index"] % every == 0:
        raise PermanentTaskError("failed, as fail_every asked for")
    if seconds := context.job_parameters.get("seconds", 0):
        time.sleep(seconds)
    return RESULT


def collect(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    del context
    return summarize(task.result for task in load_fan_in_results(params).results())


HANDLERS = (
    Handler("bench_seed", seed, queue="tasks"),
    Handler("bench_work", work, queue="tasks"),
    Handler("bench_collect", collect, queue="tasks"),
)


def build_registry(queues: Iterable[str]) -> Registry:
    """The bench's own jobs and nothing else."""
    return Registry([FanJob, SingleFanJob, FailingFanJob, ChainJob, OneJob], HANDLERS, queues)
