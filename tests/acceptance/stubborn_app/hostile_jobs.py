"""Handlers that hold the interpreter, or fork it."""

import ctypes
import json
import math
import os
import re
import time
from pathlib import Path
from typing import ClassVar

from core.models import TaskDefinition
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler

# Unlike CDLL, it keeps the GIL while it calls: nothing of Python runs in this process until the call is over.
HOLDING_THE_GIL = ctypes.PyDLL(None)
REGEX = re.compile(r"(a+)+$")


def note_beginning(context) -> Path:
    folder = Path(context.job_parameters["folder"])
    line = {"pid": os.getpid(), "task": context.task_id, "attempt": context.attempt, "at": time.time()}
    with (folder / "begun.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return folder


class BlockedJob(JobBaseMixin, JobBase):
    """Its first task blocks its interpreter until somebody opens the pipe `gate`; the others wait for the file `open`.

    All are in one message, so they run in one process. A lease that ran out fails the job: it allows no interruption.
    """

    job_type = "blocked"
    parameters_schema: ClassVar = {
        "folder": {"type": "str"},
        "neighbours": {"type": "int", "default": 3},
        "seconds": {"type": "float", "default": 0.0},
    }
    stages: ClassVar = [
        {
            "number": 1,
            "name": "blocked",
            "task_type": "blocked",
            "parallelism": "single",
            "lease_seconds": 5,
            "max_interruptions": 0,
            "tasks_per_message": 10,
        }
    ]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        names = ["neighbour"] * job_params["neighbours"]
        return [
            TaskDefinition(name=f"{name}-{number}", parameters={"blocks": name == "blocks"})
            for number, name in enumerate([*names, "blocks"])
        ]

    @staticmethod
    def finalize_job(context):
        return {"pids": sorted({task.result["pid"] for task in context.results(1)})}


class TimedBlockedJob(BlockedJob):
    """The same, and its attempts have a time, of which each task gets one."""

    job_type = "timed_blocked"
    stages: ClassVar = [BlockedJob.stages[0] | {"task_timeout_seconds": 6, "retry": {"max_attempts": 1}}]


def run_blocked(params, context):
    folder = note_beginning(context)
    if params["blocks"]:
        while len((folder / "begun.jsonl").read_text().splitlines()) <= context.job_parameters["neighbours"]:
            time.sleep(0.01)
        block(folder, context.job_parameters["seconds"])
    else:
        while not (folder / "open").exists():
            time.sleep(0.02)
    return {"pid": os.getpid()}


def search_in_vain(seconds: float) -> None:
    """A regular expression that takes twice as long for each letter more; about so long in one call."""
    letters, started = 18, time.monotonic()
    REGEX.match("a" * letters + "b")
    one = time.monotonic() - started
    REGEX.match("a" * (letters + round(math.log2(seconds / one))) + "b")


def block(folder: Path, seconds: float) -> None:
    if seconds:
        search_in_vain(seconds)
        return
    gate = HOLDING_THE_GIL.open(str(folder / "gate").encode(), os.O_RDONLY)
    os.close(gate)


HOSTILE_JOBS = (BlockedJob, TimedBlockedJob)
HOSTILE_HANDLERS = (Handler("blocked", run_blocked, queue="tasks"),)
