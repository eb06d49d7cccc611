"""The smallest whole job: n greetings, then n replies that see their greeting."""

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from core.context import TaskContext
from core.errors import RetryableTaskError
from core.models import TaskDefinition
from core.models.context import CompletedTask, JobExecutionContext
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler


class HelloWorldJob(JobBaseMixin, JobBase):
    """n greetings and n replies; some fail at random if asked, to see retries at work."""

    job_type = "hello_world"
    description = "n greetings, and n replies that see their greeting"
    stages: ClassVar = [
        {
            "number": 1,
            "name": "greet",
            "task_type": "hello_world_greeting",
            "parallelism": "single",
            "tasks_per_message": 20,
            "lease_seconds": 10,
        },
        {
            "number": 2,
            "name": "reply",
            "task_type": "hello_world_reply",
            "parallelism": "fan_out",
            "tasks_per_message": 20,
            "lease_seconds": 10,
        },
    ]
    parameters_schema: ClassVar = {
        "n": {"type": "int", "default": 3, "min": 1, "max": 100_000, "description": "how many greetings"},
        "message": {"type": "str", "default": "Hello World", "max": 1000, "description": "the text of each greeting"},
        "failure_rate": {
            "type": "float",
            "default": 0.0,
            "min": 0,
            "max": 1,
            "description": "chance that an attempt fails and is retried",
        },
    }
    parameters_outside_job_id = frozenset({"failure_rate"})

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: Mapping[str, Any], job_id: str, previous_results: Iterable[CompletedTask]
    ) -> Iterator[TaskDefinition]:
        del job_id
        if stage == 1:
            for index in range(job_params["n"]):
                yield TaskDefinition(name=f"greeting-{index}", parameters={"number": index})
        else:
            for greeting in previous_results:
                yield TaskDefinition(
                    name=f"reply-{greeting.task_index}", parameters={"greeting": greeting.result["greeting"]}
                )

    @staticmethod
    def finalize_job(context: JobExecutionContext) -> dict[str, Any]:
        return {stage_name(stage.stage): stage.completed for stage in context.stages}


def stage_name(number: int) -> str:
    return {1: "greetings", 2: "replies"}[number]


def greet(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    _fail_sometimes(context)
    return {"greeting": f"{context.job_parameters['message']} #{params['number']}"}


def reply(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    _fail_sometimes(context)
    return {"reply": f"You said: {params['greeting']}"}


def _fail_sometimes(context: TaskContext) -> None:
    if random.random() < context.job_parameters["failure_rate"]:
        raise RetryableTaskError("failed at random, as failure_rate asked for")


HANDLERS = (
    Handler("hello_world_greeting", greet, queue="tasks"),
    Handler("hello_world_reply", reply, queue="tasks"),
)
