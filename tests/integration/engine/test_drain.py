"""A process is told to end: it refuses messages and hands its tasks back; what its handlers return late is void."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from core.errors import DeliveryError, Draining
from core.models import JobQueueMessage, StageRef
from core.running.outcome_writer import OutcomeWriter
from coremachine.local.memory_queue import MemoryQueues
from infrastructure.base import RepositoryError
from infrastructure.verify import verify

from .machine_suite import Rig

WAIT = 30


class Gate:
    """A handler that says when it runs and goes on when it is told to."""

    def __init__(self, *, heeds_stop: bool) -> None:
        self.begun = threading.Semaphore(0)
        self.opened = threading.Event()
        self.outcomes: list[str] = []
        self._heeds_stop = heeds_stop

    def __call__(self, context) -> None:
        self.begun.release()
        assert self.opened.wait(WAIT)
        self.outcomes.append("released")
        if self._heeds_stop:
            context.check_cancelled()
            self.outcomes.append("not told")

    def wait_begun(self, count: int) -> None:
        for _ in range(count):
            assert self.begun.acquire(timeout=WAIT)


@contextmanager
def delivering(rig: Rig):
    """One message goes to the machine in another thread; its end is seen to."""
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(rig.queues.deliver, rig.machine)
        yield future
        assert future.result(WAIT) is True


def planned(rig: Rig, **parameters) -> str:
    """A job whose stage 2 waits with its messages."""
    job_id = rig.submit(**parameters)
    while rig.job(job_id).stage == 1 or rig.job(job_id).status == "queued":
        assert rig.queues.deliver(rig.machine)
    return job_id


def next_process(rig: Rig) -> Rig:
    return Rig(rig.engine, rig.queues)


@pytest.mark.parametrize("n", [1, 3])
def test_handler_that_stops_at_once_has_not_failed(engine, monkeypatch, n):
    """It ended, and its message with it, before the process could hand the task back."""
    rig = Rig(engine)
    job_id = planned(rig, n=n)
    begun = threading.Semaphore(0)

    def stops_at_once(context):
        begun.release()
        while True:
            context.check_cancelled()

    rig.behave.before = {f"s2-n{number}": stops_at_once for number in range(n)}
    release = OutcomeWriter.release
    with delivering(rig) as delivery:

        def late_release(settlement, *arguments, **options):
            assert delivery.result(WAIT) is True
            return release(settlement, *arguments, **options)

        monkeypatch.setattr(OutcomeWriter, "release", late_release)
        for _ in range(n):
            assert begun.acquire(timeout=WAIT)
        assert rig.machine.drain() == n
    rows = rig.tasks(job_id, 2)
    assert [(row["status"], row["interruptions"], row["error"]) for row in rows] == [("queued", 1, None)] * n


@pytest.mark.parametrize("heeds_stop", [True, False], ids=["handlers_stop", "handlers_return_late"])
def test_tasks_in_hand_go_to_another_process_as_interruptions(engine, heeds_stop):
    rig = Rig(engine)
    job_id = planned(rig, n=3)
    gate = Gate(heeds_stop=heeds_stop)
    rig.behave.before = {f"s2-n{number}": gate for number in range(3)}
    with delivering(rig) as delivery:
        gate.wait_begun(3)
        assert rig.machine.drain() == 3
        # The message is done with: the tasks have others. Its handlers may go on as long as they like.
        assert delivery.result(WAIT) is True
    rows = rig.tasks(job_id, 2)
    assert [(row["status"], row["attempt"], row["interruptions"]) for row in rows] == [("queued", 1, 1)] * 3
    assert rig.keeper.held() == []

    other = next_process(rig)
    other.queues.run(other.machine)
    gate.opened.set()
    job = rig.job(job_id)
    assert (job.status, job.result) == ("completed", {"total": 5, "failed": 0})
    assert [(row["attempt"], row["interruptions"]) for row in rig.tasks(job_id, 2)] == [(2, 1)] * 3
    events = engine.query("select event, detail from app.job_events where event = 'tasks_released' order by event_id")
    assert [event["detail"] for event in events] == [{"count": 3}]


def test_late_result_of_a_task_alone_in_its_message_is_refused(engine):
    """Such a task runs in the thread that has the message."""
    rig = Rig(engine)
    job_id = planned(rig, n=1)
    gate = Gate(heeds_stop=False)
    rig.behave.before = {"s2-n0": gate}
    with delivering(rig):
        gate.wait_begun(1)
        assert rig.machine.drain() == 1
        gate.opened.set()
    (row,) = rig.tasks(job_id, 2)
    assert (row["status"], row["result"], row["interruptions"]) == ("queued", None, 1)
    other = next_process(rig)
    other.queues.run(other.machine)
    assert rig.job(job_id).status == "completed"


def test_handler_learns_of_it_when_it_asks(engine):
    rig = Rig(engine)
    planned(rig, n=1)
    gate = Gate(heeds_stop=True)
    rig.behave.before = {"s2-n0": gate}
    with delivering(rig):
        gate.wait_begun(1)
        rig.machine.drain()
        gate.opened.set()
    assert gate.outcomes == ["released"]


def test_tasks_that_have_not_begun_are_no_interruptions(engine):
    """Seven tasks in a message, four threads."""
    rig = Rig(engine)
    job_id = planned(rig, n=7)
    gate = Gate(heeds_stop=True)
    rig.behave.before = {f"s2-n{number}": gate for number in range(7)}
    with delivering(rig):
        gate.wait_begun(4)
        assert rig.machine.drain() == 7
    gate.opened.set()
    rows = rig.tasks(job_id, 2)
    assert sorted((row["attempt"], row["interruptions"]) for row in rows) == [(0, 0)] * 3 + [(1, 1)] * 4
    assert {row["status"] for row in rows} == {"queued"}
    other = next_process(rig)
    other.queues.run(other.machine)
    assert rig.job(job_id).result == {"total": 91, "failed": 0}


def test_interruptions_spend_no_retry(engine):
    """Drained more often than it has attempts; then it fails once, and that is tried again."""
    rig = Rig(engine)
    job_id = planned(rig, n=1)
    for _ in range(3):
        gate = Gate(heeds_stop=True)
        rig.behave.before = {"s2-n0": gate}
        with delivering(rig):
            gate.wait_begun(1)
            assert rig.machine.drain() == 1
            gate.opened.set()
        rig = next_process(rig)
    failed = []

    def fail_once(context):
        if not failed:
            failed.append(context.attempt)
            raise OSError("away")

    rig.behave.before = {"s2-n0": fail_once}
    rig.queues.run(rig.machine)
    (row,) = rig.tasks(job_id, 2)
    assert (failed, row["status"], row["attempt"], row["interruptions"]) == ([4], "completed", 5, 3)


def test_messages_stay_with_the_broker(engine):
    rig = Rig(engine)
    job_id = planned(rig, n=3)
    assert rig.machine.drain() == 0
    with pytest.raises(Draining):
        rig.queues.deliver(rig.machine)
    with pytest.raises(Draining):
        rig.machine.process_job_message(JobQueueMessage(job_id=job_id, job_type="shapes", stage=2))
    assert {row["status"] for row in rig.tasks(job_id, 2)} == {"queued"}
    other = next_process(rig)
    other.queues.run(other.machine)
    assert rig.job(job_id).status == "completed"


def test_a_second_drain_finds_nothing(engine):
    rig = Rig(engine)
    planned(rig, n=3)
    gate = Gate(heeds_stop=True)
    rig.behave.before = {f"s2-n{number}": gate for number in range(3)}
    with delivering(rig):
        gate.wait_begun(3)
        assert [rig.machine.drain(), rig.machine.drain()] == [3, 0]
    gate.opened.set()


def test_task_claimed_at_the_moment_of_the_drain_is_released_unbegun(engine, monkeypatch):
    rig = Rig(engine)
    job_id = planned(rig, n=3)
    claim = rig.state.claim_tasks

    def claim_then_drain(*args, **options):
        rows = claim(*args, **options)
        assert rig.machine.drain() == 0
        return rows

    monkeypatch.setattr(rig.state, "claim_tasks", claim_then_drain)
    assert rig.queues.deliver(rig.machine)
    assert [(row["status"], row["attempt"]) for row in rig.tasks(job_id, 2)] == [("queued", 0)] * 3
    assert [rig.behave.calls[f"s2-n{number}"] for number in range(3)] == [0, 0, 0]


def test_what_cannot_be_announced_is_pending_for_the_janitor(engine):
    class Refusing(MemoryQueues):
        refuses = False

        def send_messages(self, queue, messages):
            if self.refuses:
                raise DeliveryError(queue, "refused")
            super().send_messages(queue, messages)

    rig = Rig(engine, Refusing())
    job_id = planned(rig, n=1)
    gate = Gate(heeds_stop=True)
    rig.behave.before = {"s2-n0": gate}
    with delivering(rig):
        gate.wait_begun(1)
        rig.queues.refuses = True
        assert rig.machine.drain() == 1
        gate.opened.set()
    rig.queues.refuses = False
    assert [row["status"] for row in rig.tasks(job_id, 2)] == ["pending"]
    other = next_process(rig)
    assert other.janitor.sweep().announced_tasks == 1
    other.queues.run(other.machine)
    assert rig.job(job_id).status == "completed"


def test_database_that_is_away_keeps_no_process_from_ending(engine, monkeypatch, caplog):
    rig = Rig(engine)
    planned(rig, n=1)
    gate = Gate(heeds_stop=True)
    rig.behave.before = {"s2-n0": gate}

    def refuse(*args, **options):
        raise RepositoryError("away")

    with delivering(rig):
        gate.wait_begun(1)
        monkeypatch.setattr(rig.state, "release_tasks_into_line", refuse)
        assert rig.machine.drain() == 0
        gate.opened.set()
    assert "tasks_not_released" in caplog.text


def hand_back(rig, job_id, *, seconds=1):
    """Another process claims the job's task and is asked to end, some time after the handler began."""
    (task,) = rig.tasks(job_id, 1)
    ref = StageRef(job_id, 1, 1)
    claim = rig.state.claim_tasks(ref, [task["task_id"]], owner="ended-process")
    rig.engine.execute("update app.tasks set started_at = started_at - %s * interval '1 s'", seconds)
    return rig.state.release_tasks_into_line(ref, lease_id=claim.lease_id, task_ids=[task["task_id"]], started=True)


def test_task_that_asks_its_process_to_end_each_time_fails(engine):
    """It ended one worker after the other for ever, and its neighbours with them: no drain was counted."""
    rig = Rig(engine)
    job_id = rig.submit(n=1)
    rig.queues.deliver(rig.machine)
    for _ in range(9):
        assert hand_back(rig, job_id).task_ids == ["s1-000000"]
    assert hand_back(rig, job_id).task_ids == []
    job, (task,) = rig.job(job_id), rig.tasks(job_id, 1)
    assert (task["status"], task["interruptions"], task["error"]["type"]) == ("failed", 10, "InterruptedTooOften")
    assert "SIGTERM" in task["error"]["message"]
    assert (job.status, job.error["type"]) == ("failed", "StageFailed")
    assert verify(engine.pool) == []


def test_task_that_runs_for_long_outlives_any_number_of_deployments(engine):
    rig = Rig(engine)
    job_id = rig.submit(n=1)
    rig.queues.deliver(rig.machine)
    for _ in range(20):
        assert hand_back(rig, job_id, seconds=90).task_ids == ["s1-000000"]
    assert rig.tasks(job_id, 1)[0]["status"] == "pending"
