"""Bounds that hold over a whole job: sizes of messages and rows, the correlation id, tasks at once."""

import json
import logging
import threading

import pytest

from core.models import TaskQueueMessage
from local.memory_queue import MemoryQueues

from .machine_suite import Rig


class Recorded(MemoryQueues):
    """Queues that remember what was sent."""

    def __init__(self):
        super().__init__()
        self.sent = []

    def send_messages(self, queue, messages):
        self.sent.extend(messages)
        super().send_messages(queue, messages)

    def send_message_with_delay(self, queue, message, delay_seconds):
        self.sent.append(message)
        super().send_message_with_delay(queue, message, delay_seconds)


@pytest.fixture
def rig(engine):
    return Rig(engine, Recorded())


def test_large_parameters_stand_in_the_job_row_alone(rig):
    """Every task and message repeated the job's parameters (lesson D5)."""
    label = "p" * 50_000
    job_id = rig.submit(n=20, label=label)
    rig.queues.run(rig.machine)

    assert rig.job(job_id).parameters["label"] == label
    assert any(isinstance(message, TaskQueueMessage) for message in rig.queues.sent)
    assert max(len(message.model_dump_json()) for message in rig.queues.sent) < 2_000
    rows = [row for stage in (1, 2, 3) for row in rig.tasks(job_id, stage)]
    assert len(rows) == 22
    assert max(len(json.dumps(row, default=str)) for row in rows) < 4_000


def test_correlation_id_goes_from_the_submission_to_every_message_and_handler(rig, caplog):
    """The correlation id was dropped on the way (lesson D29); a retry keeps it too."""
    found = {}

    def watched(context):
        found.setdefault(context.task_id, []).append(context.correlation_id)
        if context.task_id == "s2-n1" and context.attempt == 1:
            raise OSError("once")

    for task_id in ("s1-00000", "s2-n0", "s2-n1", "s2-n2"):
        rig.behave.before[task_id] = watched
    with caplog.at_level(logging.DEBUG):
        submitted = rig.machine.submit_job("shapes", {"n": 3}, correlation_id="order-4711")
        rig.queues.run(rig.machine)

    assert rig.job(submitted.job_id).status == "completed"
    assert {message.correlation_id for message in rig.queues.sent} == {"order-4711"}
    assert len(found["s2-n1"]) == 2
    assert {each for ids in found.values() for each in ids} == {"order-4711"}
    assert set(found) >= {"s2-n0", "s2-n1", "s2-n2"}


def test_fan_in_goes_on_over_a_failed_member_and_is_retried_by_itself(rig):
    """Fan-in failed as a whole (lesson D36)."""
    attempts = []

    def fails_once(context):
        attempts.append(context.attempt)
        if context.attempt == 1:
            raise OSError("once")

    job_id = rig.submit(n=4, bad=[1])
    while not rig.tasks(job_id, 3):
        rig.queues.deliver(rig.machine, skip_delays=True)
        for row in rig.tasks(job_id, 3):
            rig.behave.before[row["task_id"]] = fails_once
    rig.queues.run(rig.machine)

    assert attempts == [1, 2]
    assert rig.job(job_id).status == "completed_with_errors"
    assert rig.job(job_id).result == {"total": 0 + 4 + 9, "failed": 1}
    assert {row["attempt"] for row in rig.tasks(job_id, 2)} == {1}


def test_tasks_of_one_message_at_once_are_no_more_than_the_setting(rig):
    """Too many tasks at once ran out of memory (lesson D41): seven come in a message, and four run side by side."""
    lock, four, fifth, at_once, peak, started = threading.Lock(), threading.Barrier(4), threading.Event(), [0], [0], [0]

    def counted(context):
        with lock:
            started[0] += 1
            is_early = started[0] <= 4
            at_once[0] += 1
            peak[0] = max(peak[0], at_once[0])
        if is_early:
            four.wait(30)  # they do run side by side
            fifth.wait(1)  # a fifth beside them would come now
        else:
            fifth.set()
        with lock:
            at_once[0] -= 1

    for number in range(7):
        rig.behave.before[f"s2-n{number}"] = counted
    job_id = rig.run(n=7)
    assert rig.job(job_id).status == "completed"
    assert (started[0], peak[0]) == (7, 4)
