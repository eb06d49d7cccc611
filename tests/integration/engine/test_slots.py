"""A process runs as many tasks at once as it has slots: whatever its messages name, and however many come at once."""

import json
import threading
from collections import Counter

import pytest

from core.models import StageRef
from core.running import message_runner
from core.running.task_slots import TaskSlots
from tests.integration.engine.machine_suite import Behaviours, Rig, ShapesJob, build_registry
from tests.integration.engine.test_janitor import run_to_tasks

TASKS, SLOTS, MESSAGES = 40, 3, 6


class Meter:
    """Counts handlers that run at once. The first ones end when `is_full` says that no more can have begun."""

    def __init__(self, is_full) -> None:
        self._is_full = is_full
        self._changed = threading.Condition()
        self._running = self.most = 0
        self._may_end = False

    def __call__(self, context) -> None:
        with self._changed:
            self._running += 1
            self.most = max(self.most, self._running)
            self._changed.notify_all()
            while not self._may_end:
                self._may_end = self._is_full(self._running)
                self._changed.notify_all()
                self._changed.wait(0.001)
        with self._changed:
            self._running -= 1


def shapes_in_messages_of(per_message, behave):
    list_stage, square_stage, sum_stage = ShapesJob.stages

    class Shapes(ShapesJob):
        stages = [list_stage, square_stage | {"tasks_per_message": per_message}, sum_stage]

    return build_registry(behave, Shapes)


@pytest.mark.parametrize(("per_message", "in_line"), [(1, MESSAGES - SLOTS), (10, 4 - SLOTS), (100, 0)])
def test_slots_are_reached_and_never_exceeded(engine, per_message, in_line):
    """Messages of one task, of ten and of all: those that find no slot wait in line."""
    slots = TaskSlots(SLOTS)
    meter = Meter(lambda running: running == SLOTS and len(slots._line) + len(slots._ahead) >= in_line)
    behave = Behaviours()
    behave.before = dict.fromkeys((f"s2-n{number}" for number in range(TASKS)), meter)
    rig = Rig(engine, behave=behave, slots=slots, registry=shapes_in_messages_of(per_message, behave))
    job_id = rig.submit(n=TASKS)
    rig.queues.run(rig.machine, threads=MESSAGES)
    assert rig.job(job_id).status == "completed"
    assert meter.most == SLOTS
    assert slots.taken == 0
    assert max(behave.calls.values()) == 1


def test_a_message_that_finds_no_slot_is_left_to_another_process(engine, monkeypatch):
    """All slots have tasks that last: the message goes back, no attempt of its task is spent, and no interruption."""
    monkeypatch.setattr(message_runner, "SLOT_SECONDS", 0.01)
    slots = TaskSlots(1)
    rig = Rig(engine, slots=slots)
    job_id = rig.submit(n=1)
    assert rig.queues.deliver(rig.machine)
    held = slots.take(0.0)
    assert rig.queues.deliver(rig.machine)
    (task,) = rig.tasks(job_id, 1)
    assert (task["status"], task["attempt"], task["interruptions"]) == ("queued", 0, 0)
    slots.release(held)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert {task["attempt"] for stage in (1, 2, 3) for task in rig.tasks(job_id, stage)} == {1}


def test_a_message_that_finds_no_slot_goes_back_as_one(engine, monkeypatch):
    """Its size was chosen for the stage; a hundred messages instead of it would only keep everybody busy."""
    monkeypatch.setattr(message_runner, "SLOT_SECONDS", 0.0)
    slots, behave = TaskSlots(1), Behaviours()
    rig = Rig(engine, behave=behave, slots=slots, registry=shapes_in_messages_of(None, behave))
    job_id = rig.submit(n=101)
    for _ in range(2):
        assert rig.queues.deliver(rig.machine)
    before = sizes_of_messages(rig)
    assert max(before) == 10
    held = slots.take(0.0)
    assert rig.queues.deliver(rig.machine)
    assert sizes_of_messages(rig) == before
    assert {task["attempt"] for task in rig.tasks(job_id, 2)} == {0}
    slots.release(held)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert max(behave.calls.values()) == 1


def sizes_of_messages(rig):
    return sorted(len(json.loads(entry.body)["task_ids"]) for entry in rig.queues._entries)


def test_what_a_message_does_not_begin_in_time_goes_to_others_in_smaller_ones(engine, monkeypatch):
    """One process had all messages of a stage of lasting tasks, and another one nothing to do."""
    slots = TaskSlots(2)
    behave = Behaviours()
    sizes = []
    rig = Rig(engine, behave=behave, slots=slots, registry=shapes_in_messages_of(10, behave))
    monkeypatch.setattr("core.running.task_batch.SPLIT_SECONDS", 0.0)
    may_end = threading.Event()
    behave.before = dict.fromkeys(("s2-n0", "s2-n1"), lambda _: None if may_end.wait(60) else {})
    genuine = rig.queues.send_messages

    def note(queue, messages):
        sizes.extend(len(message.task_ids) for message in messages if hasattr(message, "task_ids"))
        genuine(queue, messages)
        if 2 in sizes:
            may_end.set()

    monkeypatch.setattr(rig.queues, "send_messages", note)
    job_id = rig.submit(n=10)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert 2 in sizes
    assert {task["attempt"] for task in rig.tasks(job_id, 2)} == {1}


def waiting_for_a_slot(engine, messages):
    """Messages of ten tasks that last 20 ms, in a process whose only slot is taken: the rig, the job and the slot."""
    slots, behave = TaskSlots(1), Behaviours()
    rig = Rig(engine, behave=behave, slots=slots, registry=shapes_in_messages_of(10, behave))
    job_id = run_to_tasks(rig, n=20)
    ref = StageRef(job_id, 1, 2)
    rig.machine._windows.note_times(ref, 10, 0.02)
    rig.machine._runner._young.note_much(ref)
    held = slots.take(0.0)
    threads = [threading.Thread(target=rig.queues.deliver, args=(rig.machine,)) for _ in range(messages)]
    for thread in threads:
        thread.start()
    while not slots._line:
        pass
    return rig, job_id, held, threads


def statuses(rig, job_id):
    return Counter((task["status"], task["attempt"]) for task in rig.tasks(job_id, 2))


def test_a_short_message_is_claimed_before_its_slot_is_free(engine):
    """The slot was idle for the time of the claim, a twentieth of a message that lasts for a tenth of a second."""
    rig, job_id, held, threads = waiting_for_a_slot(engine, 2)
    assert statuses(rig, job_id) == {("processing", 1): 10, ("queued", 0): 10}
    rig.machine._runner._parts.slots.release(held)
    for thread in threads:
        thread.join()
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert max(rig.behave.calls.values()) == 1
    assert rig.machine._runner._ahead.taken == 0


def test_what_was_claimed_before_its_slot_is_free_is_released_when_its_process_ends(engine):
    rig, job_id, _, (thread,) = waiting_for_a_slot(engine, 1)
    assert rig.machine.drain() == 10
    thread.join()
    assert statuses(rig, job_id) == {("queued", 0): 20}
    assert rig.machine._runner._ahead.taken == 0
