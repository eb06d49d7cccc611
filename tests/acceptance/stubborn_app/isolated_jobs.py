"""A handler in a process of its own that looks at nothing but a file. Its function is found by import."""

import os
import time
from typing import ClassVar

from hostile_jobs import note_beginning

from core.models import TaskDefinition
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler

LOOK_SECONDS = 0.02


class IsolatedJob(JobBaseMixin, JobBase):
    """Runs until the file `open` is in the folder. Nothing but a drain takes it from a process within minutes."""

    job_type = "isolated"
    parameters_schema: ClassVar = {"folder": {"type": "str"}}
    stages: ClassVar = [
        {"number": 1, "name": "wait", "task_type": "isolated", "parallelism": "single", "lease_seconds": 600}
    ]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        return [TaskDefinition(name="only")]

    @staticmethod
    def finalize_job(context):
        return next(task.result for task in context.results(1))


def run_isolated(params, context):
    folder = note_beginning(context)
    while not (folder / "open").exists():
        time.sleep(LOOK_SECONDS)
    (folder / f"ended-{context.attempt}").touch()
    return {"pid": os.getpid(), "attempt": context.attempt}


ISOLATED_HANDLER = Handler("isolated", run_isolated, queue="tasks", isolation="process")
