"""Handlers in processes of their own, through the whole engine: crashes, cancels, and tasks that wait for a process."""

import os
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest

from core.isolation import function as isolated
from core.isolation.pool import ProcessPool
from core.models import TaskDefinition
from core.models.submission import SubmitRequest
from core.running import task_batch
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler, Registry
from tests.integration.isolation import handlers

from .machine_suite import Rig


class TilesJob(JobBaseMixin, JobBase):
    job_type = "tiles"
    stages: ClassVar = [
        {
            "number": 1,
            "name": "read",
            "task_type": "read_tile",
            "parallelism": "single",
            "tasks_per_message": 4,
            "retry": {"base_delay_seconds": 0.001},
        }
    ]
    parameters_schema: ClassVar = {
        "n": {"type": "int", "default": 4},
        "crash": {"type": "list", "default": []},
        "folder": {"type": "str", "default": ""},
    }

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        return [TaskDefinition(parameters={"number": number}) for number in range(job_params["n"])]

    @staticmethod
    def finalize_job(context):
        return {"numbers": sorted(task.result.get("number", -1) for task in context.results(1))}


@pytest.fixture
def processes(monkeypatch):
    pool = ProcessPool(2)
    monkeypatch.setattr(isolated, "process_pool", lambda: pool)
    monkeypatch.setattr(task_batch, "process_pool", lambda: pool)
    yield pool
    pool.end()


@pytest.fixture
def rig_for(engine, processes):
    def make(function):
        handler = Handler("read_tile", function, queue="tasks", isolation="process")
        return Rig(engine, registry=Registry([TilesJob], [handler], ["tasks"]))

    return make


def submit(rig, **parameters):
    return rig.machine.submit_job(SubmitRequest("tiles", parameters)).job_id


def wait_until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def test_crash_costs_one_attempt_of_one_task(rig_for, caplog):
    caplog.set_level("INFO")
    rig = rig_for(handlers.crash_once)
    job_id = submit(rig, crash=[2])
    rig.queues.run(rig.machine)

    job = rig.job(job_id)
    assert (job.status, job.result) == ("completed", {"numbers": [0, 1, 2, 3]})
    assert [(task["attempt"], task["interruptions"]) for task in rig.tasks(job_id, 1)] == [
        (1, 0),
        (1, 0),
        (2, 0),
        (1, 0),
    ]
    (retry,) = rig.engine.query("select detail from app.job_events where event = 'retry_scheduled'")
    assert retry["detail"]["type"] == "ProcessEnded"
    assert "ended by signal SIGSEGV" in retry["detail"]["message"]
    # What it printed, and what Python's fault handler wrote about where it crashed.
    assert "reading a damaged tile" in retry["detail"]["log"]
    assert "in crash_once" in retry["detail"]["log"]


def test_cancel_ends_what_never_looks(rig_for, processes, tmp_path, monkeypatch):
    monkeypatch.setattr("core.isolation.attempt.STOP_GRACE_SECONDS", 0.1)
    rig = rig_for(handlers.wait_for_file)
    job_id = submit(rig, n=1, folder=str(tmp_path))
    worker = threading.Thread(target=rig.queues.run, args=(rig.machine,))
    worker.start()
    pid_file = tmp_path / "s1-000000"
    wait_until(pid_file.exists, "the handler")

    rig.machine.cancel_job(job_id, "not wanted")
    rig.keeper.renew_now()
    worker.join(60)

    assert not worker.is_alive()
    assert rig.job(job_id).status == "cancelled"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_tasks_that_wait_for_a_process_have_not_begun(rig_for, processes, tmp_path, monkeypatch):
    """Their time and lease would run out in a queue; another worker may have room."""
    rig = rig_for(handlers.wait_for_file)
    processes.configure(1)
    monkeypatch.setattr(task_batch, "ROOM_SECONDS", 0.01)
    released = []
    give_up = task_batch.TaskBatch.give_up_waiting

    def note(batch):
        tasks = give_up(batch)
        released.extend(task.task_id for task in tasks)
        (tmp_path / "go").touch()
        return tasks

    def hurry(batch, *arguments, **options):
        make(batch, *arguments, **options)
        batch._patience_seconds = 0.2

    make = task_batch.TaskBatch.__init__
    monkeypatch.setattr(task_batch.TaskBatch, "__init__", hurry)
    monkeypatch.setattr(task_batch.TaskBatch, "give_up_waiting", note)
    job_id = submit(rig, n=3, folder=str(tmp_path))
    rig.queues.run(rig.machine)

    assert rig.job(job_id).status == "completed"
    began = {path.name for path in Path(tmp_path).glob("s1-*")}
    assert len(began) == 3
    assert len(released) >= 2
    assert {task["interruptions"] for task in rig.tasks(job_id, 1)} == {0}
