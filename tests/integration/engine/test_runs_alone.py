"""A suspect runs alone in its process: what else comes there goes to another process, and soon."""

import threading
from contextlib import contextmanager
from typing import ClassVar

import pytest

from core.errors import DeliveryError
from core.models import TaskQueueMessage
from core.models.lease import LeaseOutcome
from core.models.message import read_job_message, read_task_message
from core.operating.unknown_work import PASS_ON_SECONDS
from core.running import step_leases, task_slots

from .machine_suite import Behaviours, Rig, ShapesJob, build_registry
from .test_janitor import lose_process, run_to_tasks


class TimedJob(ShapesJob):
    stages: ClassVar = [{**stage, "task_timeout_seconds": 600} for stage in ShapesJob.stages]


class Room:
    """A handler stays in it until it is let out."""

    def __init__(self):
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, context):
        self.entered.set()
        assert self.opened.wait(60)


@pytest.fixture(autouse=True)
def short_wait(monkeypatch):
    monkeypatch.setitem(task_slots.ProcessGate.__init__.__kwdefaults__, "most_wait_seconds", 0.1)


@contextmanager
def running_a_suspect(rig):
    """The rig's process runs a suspect in a thread, and holds it. Yields its job and its room."""
    job_id = run_to_tasks(rig, n=1)
    rig.queues.clear()
    (task,) = rig.tasks(job_id, 2)
    lose_process(rig, job_id, 3, task["task_id"])
    rig.queues.clear()
    message = TaskQueueMessage(job_id=job_id, job_type="shapes", stage=2, task_ids=(task["task_id"],))
    room = rig.behave.before[task["task_id"]] = Room()
    thread = threading.Thread(target=rig.machine.process_task_message, args=[message])
    thread.start()
    try:
        assert room.entered.wait(30)
        del rig.behave.before[task["task_id"]]
        yield message, room
    finally:
        room.opened.set()
        thread.join(60)


def test_messages_that_meet_a_suspect_are_done_by_another_process(engine):
    """They were held until its end, while other processes had nothing to do."""
    rig = Rig(engine)
    other = Rig(engine, rig.queues)
    with running_a_suspect(rig) as (suspect, _):
        job_id = rig.submit(n=2)
        while rig.job(job_id).status != "completed":
            # Whatever comes, job or tasks, meets the suspect first.
            assert rig.queues.deliver(rig.machine, skip_delays=True)
            assert 0 < rig.queues.seconds_to_next() <= PASS_ON_SECONDS
            assert rig.queues.deliver(other.machine, skip_delays=True)
        assert other.behave.calls.keys() == {"s1-000000", "s2-n0", "s2-n1", "s3-fan_in"}
        assert {task["attempt"] for stage in (1, 2, 3) for task in rig.tasks(job_id, stage)} == {1}
        assert rig.job(suspect.job_id).status == "processing"
    rig.queues.run(rig.machine)
    assert rig.job(suspect.job_id).status == "completed"


def test_message_that_goes_back_is_as_it_came(engine):
    """It goes back as often as it must; how often, and since when, is known."""
    rig = Rig(engine)
    with running_a_suspect(rig):
        job_id = rig.submit(n=1)
        (first, *others) = [receive(rig, read_job_message)]
        for _ in range(3):
            rig.machine.process_job_message((first, *others)[-1])
            others.append(receive(rig, read_job_message))
        assert [message.kept.times for message in others] == [1, 2, 3]
        assert len({message.kept.since for message in others}) == 1
        assert all(message.model_dump() == first.model_dump() for message in others)
        assert rig.job(job_id).status == "queued"


def test_message_goes_back_to_the_queue_that_it_came_from(engine):
    rig = Rig(engine)
    with running_a_suspect(rig) as (suspect, _):
        for queue in ("raster", None):
            rig.machine.process_task_message(suspect, queue=queue)
            sent = []
            rig.queues.deliver_to(lambda *letter, sent=sent: sent.append(letter), skip_delays=True)
            ((came_to, body),) = sent
            assert came_to == (queue or "tasks")
            assert read_task_message(came_to, body).model_dump() == suspect.model_dump()


def test_message_that_cannot_go_back_stays_with_its_broker(engine):
    class Away:
        def send_message_with_delay(self, queue, message, delay_seconds):
            raise DeliveryError(queue, "away")

    rig = Rig(engine)
    with running_a_suspect(rig):
        rig.submit(n=1)
        sender, rig.orchestration._sender = rig.orchestration._sender, Away()
        with pytest.raises(DeliveryError):
            rig.queues.deliver(rig.machine)
        rig.orchestration._sender = sender
        assert rig.queues.seconds_to_next() == 0


def receive(rig, read):
    got = []
    assert rig.queues.deliver_to(lambda queue, body: got.append(read(queue, body)), skip_delays=True)
    return got[0]


@pytest.mark.parametrize(
    ("ends", "outcome"),
    [
        ("lease_id = gen_random_uuid()", LeaseOutcome.LOST),
        ("started_at = started_at - interval '1 hour'", LeaseOutcome.TIMED_OUT),
    ],
)
def test_process_takes_messages_again_when_the_attempt_that_runs_alone_has_ended(engine, ends, outcome):
    """Its handler hangs. The process stood still until that returned, minutes after the job had failed."""
    behave = Behaviours()
    rig = Rig(engine, behave=behave, registry=build_registry(behave, TimedJob))
    with running_a_suspect(rig) as (_, room):
        rig.engine.execute(f"update app.tasks set {ends} where status = 'processing'")  # noqa: S608 - of this test
        rig.keeper.renew_now()
        (held,) = rig.keeper.held()
        assert (held.outcome, room.opened.is_set()) == (outcome, False)
        job_id = rig.run(n=1)
        assert rig.job(job_id).status == "completed"
        assert not room.opened.is_set()


def test_a_cancelled_suspect_holds_its_process_until_its_lease_is_gone(engine):
    """It may end in order; till then nothing runs beside it."""
    rig = Rig(engine)
    with running_a_suspect(rig) as (suspect, _):
        rig.machine.cancel_job(suspect.job_id, None)
        rig.keeper.renew_now()
        assert [(held.outcome, held.is_over) for held in rig.keeper.held()] == [(LeaseOutcome.STOP, False)]
        rig.engine.execute("update app.tasks set lease_expires_at = now() where status = 'processing'")
        rig.janitor.sweep()
        rig.keeper.renew_now()
        assert [(held.outcome, held.is_over) for held in rig.keeper.held()] == [(LeaseOutcome.STOP, True)]


def test_process_takes_messages_again_when_the_job_whose_step_runs_alone_has_ended(engine, monkeypatch):
    """Its planner hangs, and the job was cancelled."""
    monkeypatch.setattr(step_leases, "QUICK_SECONDS", 0.0)
    room = Room()

    class Slow(ShapesJob):
        @staticmethod
        def create_tasks_for_stage(stage, job_params, job_id, previous_results):
            if job_params["label"] == "slow":
                room(None)
            return ShapesJob.create_tasks_for_stage(stage, job_params, job_id, previous_results)

    behave = Behaviours()
    rig = Rig(engine, behave=behave, registry=build_registry(behave, Slow))
    slow = rig.submit(label="slow")
    for owner in ("one", "two", "three"):
        assert rig.engine.tasks.take_step_again(rig.job(slow).step_ref, owner, is_alone=False) is not None
        rig.engine.execute(
            "update app.jobs set step_lease = step_lease || jsonb_build_object('expires_at', now() - interval '1 s')"
        )
    thread = threading.Thread(target=rig.queues.deliver, args=[rig.machine])
    thread.start()
    try:
        assert room.entered.wait(30)
        assert rig.engine.query("select from app.job_events where event = 'job_step_runs_alone'")
        job_id = rig.submit(n=1)
        assert rig.queues.deliver(rig.machine)
        assert rig.queues.seconds_to_next() > 0
        rig.machine.cancel_job(slow, None)
        rig.machine._steps.renew_now()
        rig.queues.deliver(rig.machine, skip_delays=True)
        while rig.queues.deliver(rig.machine):
            pass
        assert (rig.job(job_id).status, room.opened.is_set()) == ("completed", False)
    finally:
        room.opened.set()
        thread.join(60)
