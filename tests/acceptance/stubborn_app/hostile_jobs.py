"""Handlers that hold the interpreter, or fork it."""

import builtins
import ctypes
import json
import math
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

from core.models import TaskDefinition
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler

# Unlike CDLL, it keeps the GIL while it calls: nothing of Python runs in this process until the call is over.
HOLDING_THE_GIL = ctypes.PyDLL(None)
SLOW_REGEX = re.compile(r"(a+)+$")
FORKING = multiprocessing.get_context("fork")
FOREVER_SECONDS = 600


def note_beginning(context) -> Path:
    folder = Path(context.job_parameters["folder"])
    line = {"pid": os.getpid(), "task": context.task_id, "attempt": context.attempt, "at": time.time()}
    with (folder / "begun.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return folder


class BlockedJob(JobBaseMixin, JobBase):
    """Its last task blocks its interpreter until the pipe `gate` is opened; its neighbours wait for the file `open`.

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
            "lease_seconds": 12,
            "max_interruptions": 0,
            "tasks_per_message": 10,
        }
    ]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        neighbours = [TaskDefinition(name=f"neighbour-{number}") for number in range(job_params["neighbours"])]
        return [*neighbours, TaskDefinition(name="blocks", parameters={"blocks": True})]

    @staticmethod
    def finalize_job(context):
        return {"pids": sorted({task.result["pid"] for task in context.results(1)})}


class TimedBlockedJob(BlockedJob):
    """The same, and its tasks have a time and a single attempt."""

    job_type = "timed_blocked"
    stages: ClassVar = [BlockedJob.stages[0] | {"task_timeout_seconds": 8, "retry": {"max_attempts": 1}}]


def run_blocked(params, context):
    folder = note_beginning(context)
    if not params.get("blocks"):
        while not (folder / "open").exists():
            time.sleep(0.02)
    else:
        while len((folder / "begun.jsonl").read_text().splitlines()) <= context.job_parameters["neighbours"]:
            time.sleep(0.01)
        block(folder, context.job_parameters["seconds"])
    return {"pid": os.getpid()}


def block(folder: Path, seconds: float) -> None:
    if seconds:
        search_in_vain(seconds)
    else:
        os.close(HOLDING_THE_GIL.open(str(folder / "gate").encode(), os.O_RDONLY))


def search_in_vain(seconds: float) -> None:
    """A regular expression that takes twice as long for each letter more; about so long in one call."""
    letters, started = 18, time.monotonic()
    SLOW_REGEX.match("a" * letters + "b")
    one = time.monotonic() - started
    SLOW_REGEX.match("a" * (letters + round(math.log2(seconds / one))) + "b")


class ForkingJob(JobBaseMixin, JobBase):
    """A task for each way to fork, one after another, so that the next shows whether its worker is still well."""

    job_type = "forking"
    parameters_schema: ClassVar = {"folder": {"type": "str"}, "ways": {"type": "list"}}
    stages: ClassVar = [
        {"number": 1, "name": "forks", "task_type": "fork", "parallelism": "single", "max_interruptions": 0}
    ]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        return [TaskDefinition(name=way) for way in job_params["ways"]]

    @staticmethod
    def finalize_job(context):
        return {task.name: task.result["ended"] for task in context.results(1)}


class ForkingAuthorJob(JobBaseMixin, JobBase):
    """Its validator, planner and finalizer fork, and their children come out of them as well."""

    job_type = "forking_author"
    parameters_schema: ClassVar = {"folder": {"type": "str"}}
    stages: ClassVar = [{"number": 1, "name": "only", "task_type": "fork", "parallelism": "single"}]

    @classmethod
    def validate_job_parameters(cls, params):
        fork_and_wait(lambda: None)
        return super().validate_job_parameters(params)

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        fork_and_wait(lambda: None)
        yield TaskDefinition(name="subprocess")

    @staticmethod
    def finalize_job(context):
        return {"ended": fork_and_wait(lambda: None)}


def run_fork(params, context):
    """`ended`: how the child ended, as multiprocessing says it; a forked child that gets here returns as well."""
    note_beginning(context)
    return {"ended": WAYS[context.task_id.partition("-")[2]](context)}


def fork_and_wait(in_child) -> int:
    pid = os.fork()
    if pid == 0:
        in_child()
        return -1  # it comes out where only its parent should
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def raise_value_error() -> None:
    raise ValueError("of a child")


def terminate_process(context) -> int:
    child = FORKING.Process(target=time.sleep, args=(FOREVER_SECONDS,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode


def use_pool(context) -> int:
    with FORKING.Pool(2) as pool:
        return sum(pool.map(abs, [-1, -2]))


def run_program(context) -> int:
    return subprocess.run([sys.executable, "-c", "raise SystemExit(5)"], check=False).returncode


def kill_child(context) -> int:
    pid = os.fork()
    if pid == 0:
        time.sleep(FOREVER_SECONDS)
    os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def leave_orphan(context) -> int:
    """A child that outlives its worker."""
    pid = os.fork()
    if pid == 0:
        time.sleep(FOREVER_SECONDS)
    (Path(context.job_parameters["folder"]) / "orphan").write_text(str(pid))
    return 0


WAYS = {
    "terminate": terminate_process,
    "pool": use_pool,
    "sys_exit": lambda _: fork_and_wait(lambda: sys.exit(3)),
    "os_exit": lambda _: fork_and_wait(lambda: os._exit(7)),
    "error": lambda _: fork_and_wait(raise_value_error),
    "returns": lambda _: fork_and_wait(lambda: None),
    "kill": kill_child,
    "subprocess": run_program,
    "orphan": leave_orphan,
}


class BreakingJob(JobBaseMixin, JobBase):
    """Its task leaves its process without `threading.Lock`, or what else it is told, every time."""

    job_type = "breaking"
    parameters_schema: ClassVar = {"way": {"type": "str", "default": "lock"}}
    stages: ClassVar = [
        {
            "number": 1,
            "name": "breaks",
            "task_type": "break",
            "parallelism": "single",
            "lease_seconds": 5,
            "max_interruptions": 1,
        }
    ]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        return [TaskDefinition(name="breaks", parameters={"way": job_params["way"]})]

    @staticmethod
    def finalize_job(context):
        return {}


def run_break(params, context):
    match params["way"]:
        case "lock":
            threading.Lock = None
        case "len":
            builtins.len = lambda _value: 0
        case "descriptors":
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    return {}


HOSTILE_JOBS = (BlockedJob, TimedBlockedJob, ForkingJob, ForkingAuthorJob, BreakingJob)
HOSTILE_HANDLERS = (
    Handler("blocked", run_blocked, queue="tasks"),
    Handler("fork", run_fork, queue="tasks"),
    Handler("break", run_break, queue="tasks"),
)
