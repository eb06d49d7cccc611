"""The jobs of two releases: the newer one has a stage more, and another job."""

import time
from pathlib import Path
from typing import ClassVar

from core.models import TaskDefinition
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler, Registry

LOOK_SECONDS = 0.02


def _stage(number, task_type):
    # Nothing may be spent: one attempt is all there is.
    return {
        "number": number,
        "name": task_type,
        "task_type": task_type,
        "parallelism": "single",
        "retry": {"max_attempts": 1},
        "lease_seconds": 600,
    }


class _Job(JobBaseMixin):
    parameters_schema: ClassVar = {"folder": {"type": "str"}, "label": {"type": "str"}}

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        return [TaskDefinition(name=f"n{number}") for number in range(2)]

    @staticmethod
    def finalize_job(context):
        return {"stages": len(context.stages)}


class OldMosaicJob(_Job, JobBase):
    job_type = "mosaic"
    stages: ClassVar = [_stage(1, "cut")]


class NewMosaicJob(_Job, JobBase):
    job_type = "mosaic"
    # The old release plans the second stage too, since it names its queue; the third it cannot even plan.
    stages: ClassVar = [_stage(1, "cut"), {**_stage(2, "polish"), "queue": "tasks"}, _stage(3, "publish")]


class SurveyJob(_Job, JobBase):
    job_type = "survey"
    stages: ClassVar = [_stage(1, "cut")]


def cut(params, context):
    """Waits for the gate, and leaves with its process."""
    while not (Path(context.job_parameters["folder"]) / "open").exists():
        context.check_cancelled()
        time.sleep(LOOK_SECONDS)
    return {}


def do_nothing(params, context):
    return {}


def build_old(queues):
    return Registry([OldMosaicJob], [Handler("cut", cut, queue="tasks")], queues)


def build_new(queues):
    handlers = [Handler("cut", cut, queue="tasks")]
    handlers += [Handler(name, do_nothing, queue="raster") for name in ("polish", "publish")]
    return Registry([NewMosaicJob, SurveyJob], handlers, queues)
