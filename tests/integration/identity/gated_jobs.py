"""A job whose first tasks run until a test lets them end, and whose others are quick."""

import time
from pathlib import Path
from typing import ClassVar

from core.models import TaskDefinition
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler, Registry

QUICK_TASKS = 60


class GatedJob(JobBaseMixin, JobBase):
    job_type = "gated"
    parameters_schema: ClassVar = {"folder": {"type": "str"}, "gates": {"type": "int"}}
    stages: ClassVar = [
        {"number": 1, "name": "wait", "task_type": "gated", "parallelism": "single", "tasks_per_message": 1},
        {"number": 2, "name": "end", "task_type": "quick", "parallelism": "single", "tasks_per_message": 20},
    ]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        count = job_params["gates"] if stage == 1 else QUICK_TASKS
        return [TaskDefinition(name=f"t{number}", parameters={"number": number}) for number in range(count)]

    @staticmethod
    def finalize_job(context):
        return {"gates": context.stages[0].completed}


def wait_at_gate(params, context):
    folder = Path(context.job_parameters["folder"])
    (folder / f"begun-{params['number']}").touch()
    while not (folder / f"open-{params['number']}").exists():
        time.sleep(0.02)
    return {}


def end_at_once(params, context):
    return {}


def build_registry(queues):
    handlers = [Handler("gated", wait_at_gate, queue="tasks"), Handler("quick", end_at_once, queue="tasks")]
    return Registry([GatedJob], handlers, queues)
