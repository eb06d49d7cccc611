"""The project's app with jobs that outlast their process, or end it."""

import importlib.util
import json
import os
import time
from pathlib import Path
from typing import ClassVar

from hostile_jobs import HOSTILE_HANDLERS, HOSTILE_JOBS
from isolated_jobs import ISOLATED_HANDLER, IsolatedJob

from core.models import TaskDefinition
from jobs import all_jobs
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler

PROJECT_APP = Path(__file__).parents[3] / "function_app.py"
LOOK_SECONDS = 0.02


class _OneTask(JobBaseMixin):
    parameters_schema: ClassVar = {"folder": {"type": "str"}, "heeds_stop": {"type": "bool", "default": True}}

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        return [TaskDefinition(name="only")]

    @staticmethod
    def finalize_job(context):
        return next(task.result for task in context.results(1))


class LongJob(_OneTask, JobBase):
    """Runs until the file `open` is in the folder. Nothing but a drain takes it from a process within minutes."""

    job_type = "long"
    stages: ClassVar = [
        {"number": 1, "name": "long", "task_type": "long", "parallelism": "single", "lease_seconds": 600}
    ]


class DeadlyJob(_OneTask, JobBase):
    """Ends its process, every time."""

    job_type = "deadly"
    stages: ClassVar = [
        {
            "number": 1,
            "name": "deadly",
            "task_type": "deadly",
            "parallelism": "single",
            "lease_seconds": 5,
            "max_interruptions": 1,
        }
    ]


class KillerJob(JobBaseMixin, JobBase):
    """Its first task kills its process some time after it began, every time; its neighbours only take their time.

    All are in one message, so each time that it dies, it takes all of them with it.
    """

    job_type = "killer"
    parameters_schema: ClassVar = {"neighbours": {"type": "int", "default": 50}}
    stages: ClassVar = [
        {
            "number": 1,
            "name": "killer",
            "task_type": "killer",
            "parallelism": "single",
            "lease_seconds": 5,
            "max_interruptions": 3,
            "tasks_per_message": 100,
            "failure": {"on_failure": "continue"},
        }
    ]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        neighbours = [TaskDefinition(name=f"neighbour-{n}") for n in range(job_params["neighbours"])]
        return [TaskDefinition(name="killer", parameters={"kills": True}), *neighbours]

    @staticmethod
    def finalize_job(context):
        return {"completed": sum(1 for _ in context.results(1))}


def run_killer(params, context):
    time.sleep(0.2 if params.get("kills") else 0.4)
    if params.get("kills"):
        os.abort()
    return {}


def _note_beginning(context) -> Path:
    folder = Path(context.job_parameters["folder"])
    with (folder / "begun.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"pid": os.getpid(), "attempt": context.attempt, "at": time.time()}) + "\n")
    return folder


def run_long(params, context):
    folder = _note_beginning(context)
    while not (folder / "open").exists():
        if context.job_parameters["heeds_stop"]:
            context.check_cancelled()
        time.sleep(LOOK_SECONDS)
    return {"pid": os.getpid(), "attempt": context.attempt}


def run_deadly(params, context):
    _note_beginning(context)
    os._exit(9)


all_jobs.ALL_JOBS += (LongJob, DeadlyJob, KillerJob, IsolatedJob, *HOSTILE_JOBS)
all_jobs.ALL_HANDLERS += (
    Handler("long", run_long, queue="tasks"),
    Handler("deadly", run_deadly, queue="tasks"),
    Handler("killer", run_killer, queue="tasks"),
    ISOLATED_HANDLER,
    *HOSTILE_HANDLERS,
)

_spec = importlib.util.spec_from_file_location("project_function_app", PROJECT_APP)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
app = _module.app
