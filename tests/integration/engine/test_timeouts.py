"""Timeouts through the whole engine: handlers that listen and handlers that do not, the janitor, the next attempt."""

import threading
from datetime import timedelta

import pytest

from core.errors import TaskCancelled, TaskTimedOut
from core.models import StageRef, TaskQueueMessage

from .machine_suite import Rig

TASK = "s1-000000"


@pytest.fixture
def rig_of(engine, monkeypatch):
    """A rig whose job, or one of its stages, has these settings beside its own."""

    def make(*, stage=1, job_timeout=None, **settings):
        rig = Rig(engine)
        job = rig.registry.get_job("shapes")
        stages = [{**each, **(settings if each["number"] == stage else {})} for each in job.stages]
        monkeypatch.setattr(job, "stages", stages)
        monkeypatch.setattr(job, "timeout_seconds", job_timeout)
        return rig

    return make


def make_older(engine, seconds):
    """Move the running attempt, its stage and its job into the past."""
    by = timedelta(seconds=seconds)
    engine.execute("update app.tasks set started_at = started_at - %s where status = 'processing'", by)
    engine.execute("update app.stages set deadline_at = deadline_at - %s", by)
    engine.execute("update app.stages set queue_deadline_at = queue_deadline_at - %s", by)
    engine.execute("update app.jobs set deadline_at = deadline_at - %s", by)


def test_handler_that_listens_stops_and_is_tried_again(rig_of):
    rig = rig_of(task_timeout_seconds=60)
    heard = []

    def first_time_too_long(context):
        if context.attempt > 1:
            return
        context.check_cancelled()
        make_older(rig.engine, 61)
        rig.keeper.renew_now()
        try:
            context.check_cancelled()
        except TaskCancelled as error:
            heard.append(error)
            raise

    rig.behave.before[TASK] = first_time_too_long
    job_id = rig.run(n=2)

    assert [type(error) for error in heard] == [TaskTimedOut]
    assert rig.job(job_id).status == "completed"
    (task,) = rig.tasks(job_id, 1)
    assert (task["status"], task["attempt"], task["interruptions"]) == ("completed", 2, 0)
    (retry,) = rig.engine.query("select detail from app.job_events where event = 'retry_scheduled'")
    assert (retry["detail"]["type"], retry["detail"]["retryable"]) == ("TaskTimedOut", True)


def test_attempts_that_are_all_too_long_fail_the_task_by_that_name(rig_of):
    rig = rig_of(task_timeout_seconds=60)

    def always_too_long(context):
        make_older(rig.engine, 61)
        rig.keeper.renew_now()
        context.check_cancelled()

    rig.behave.before[TASK] = always_too_long
    job_id = rig.run()

    assert rig.job(job_id).status == "failed"
    (task,) = rig.tasks(job_id, 1)
    assert (task["attempt"], task["error"]["type"]) == (3, "TaskTimedOut")
    assert rig.behave.calls[TASK] == 3


def test_keeper_asks_at_the_end_of_an_attempts_time_not_at_the_next_third_of_its_lease(rig_of):
    """With a lease of an hour the heartbeat alone would tell the handler after twenty minutes."""
    rig = rig_of(task_timeout_seconds=0.5, lease_seconds=3600, retry={"max_attempts": 1})

    def until_told(context):
        while True:
            context.check_cancelled()
            threading.Event().wait(0.02)

    rig.behave.before[TASK] = until_told
    job_id = rig.run()

    (task,) = rig.tasks(job_id, 1)
    assert (task["status"], task["error"]["type"]) == ("failed", "TaskTimedOut")


def test_handler_that_does_not_listen_is_taken_back_and_its_late_result_refused(rig_of, caplog):
    """Message locks ended before the work did: two executions, both accepted (lesson D16)."""
    rig = rig_of(task_timeout_seconds=60, lease_seconds=30)
    go_on, in_hand = threading.Event(), threading.Event()

    def deaf_once(context):
        if context.attempt == 1:
            in_hand.set()
            assert go_on.wait(60)

    rig.behave.before[TASK] = deaf_once
    job_id = rig.submit(n=2)
    assert rig.queues.deliver(rig.machine)
    worker = threading.Thread(target=rig.queues.deliver, args=(rig.machine,))
    worker.start()
    assert in_hand.wait(60)
    make_older(rig.engine, 61)
    rig.keeper.renew_now()
    rig.engine.execute("update app.tasks set lease_expires_at = now() - interval '1 second'")
    answer = rig.state.take_back_tasks(StageRef(job_id, 1, 1))
    assert (answer.taken_back, answer.given_up) == (1, 0)
    (task,) = rig.tasks(job_id, 1)
    assert (task["status"], task["error"]["type"], task["interruptions"]) == ("pending_retry", "TaskTimedOut", 0)
    go_on.set()
    worker.join(60)
    (task,) = rig.tasks(job_id, 1)
    assert (task["status"], task["result"]) == ("pending_retry", None)
    assert "stale_lease_refused" in caplog.text

    rig.engine.execute("update app.tasks set due_at = now() - interval '1 second' where status = 'pending_retry'")
    assert rig.janitor.sweep().announced_tasks == 1
    rig.queues.run(rig.machine)
    assert rig.job(job_id).result == {"total": 1, "failed": 0}


@pytest.mark.parametrize(
    ("declared", "error_type"), [({"job_timeout": 60}, "JobTimedOut"), ({"timeout_seconds": 60}, "StageTimedOut")]
)
def test_running_handler_learns_that_its_job_or_stage_is_out_of_time(rig_of, declared, error_type):
    rig = rig_of(**declared)
    heard = []

    def until_stopped(context):
        make_older(rig.engine, 61)
        assert rig.janitor.sweep().timed_out_jobs == 1
        rig.keeper.renew_now()
        try:
            context.check_cancelled()
        except TaskCancelled as error:
            heard.append(type(error))
            raise

    rig.behave.before[TASK] = until_stopped
    job_id = rig.run()

    assert heard == [TaskCancelled]
    assert (rig.job(job_id).status, rig.job(job_id).error["type"]) == ("failed", error_type)
    assert rig.tasks(job_id, 1)[0]["status"] == "cancelled"


def test_message_that_comes_after_the_deadline_ends_the_job_without_a_sweep(rig_of):
    rig = rig_of(job_timeout=60)
    job_id = rig.submit()
    make_older(rig.engine, 61)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).error["type"] == "JobTimedOut"
    assert rig.behave.calls == {}


def test_tasks_whose_message_comes_too_late_expire_and_the_job_goes_on(rig_of):
    """Under `continue` the stage ends with the last that expires, and the process that saw it moves the job on."""
    rig = rig_of(stage=2, queue_timeout_seconds=60)
    job_id = rig.submit(n=10)
    while not rig.tasks(job_id, 2):
        assert rig.queues.deliver(rig.machine)
    assert rig.queues.deliver(rig.machine)
    make_older(rig.engine, 61)
    rig.queues.run(rig.machine)

    job = rig.job(job_id)
    assert (job.status, job.result) == ("completed_with_errors", {"total": sum(n * n for n in range(7)), "failed": 3})
    errors = [task["error"]["type"] for task in rig.tasks(job_id, 2) if task["status"] == "failed"]
    assert errors == ["QueueTimeExpired"] * 3


def test_members_of_a_batch_that_have_not_begun_are_released_in_time(rig_of):
    """Their time runs from the claim; waiting for a thread must not fail them as timed out."""
    rig = rig_of(stage=2, task_timeout_seconds=2, lease_seconds=600)
    gate, entered = threading.Event(), threading.Barrier(5)

    def blocked(context):
        if context.attempt == 1 and not gate.is_set():
            entered.wait(60)
            assert gate.wait(60)

    # Four of them begin, whichever the database names first.
    for number in range(7):
        rig.behave.before[f"s2-n{number}"] = blocked
    job_id = rig.submit(n=7)
    while not rig.tasks(job_id, 2):
        assert rig.queues.deliver(rig.machine)
    worker = threading.Thread(target=rig.queues.deliver, args=(rig.machine,))
    worker.start()
    entered.wait(60)
    for _ in range(2000):
        waiting = [task for task in rig.tasks(job_id, 2) if task["status"] == "queued"]
        if len(waiting) == 3:
            break
        threading.Event().wait(0.01)
    assert [(task["attempt"], task["interruptions"]) for task in waiting] == [(0, 0)] * 3
    gate.set()
    worker.join(60)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"


def test_message_of_tasks_with_mixed_fates_runs_what_it_may(rig_of):
    rig = rig_of(stage=2, queue_timeout_seconds=60)
    job_id = rig.submit(n=3)
    while not rig.tasks(job_id, 2):
        assert rig.queues.deliver(rig.machine)
    # One of the three was begun before and waits for its retry.
    rig.engine.execute(
        "update app.tasks set status = 'processing', attempt = 1 where task_id = 's2-n1'; "
        "update app.tasks set status = 'pending_retry', due_at = now() where task_id = 's2-n1'"
    )
    make_older(rig.engine, 61)
    message = TaskQueueMessage(job_id=job_id, job_type="shapes", stage=2, task_ids=("s2-n0", "s2-n1", "s2-n2"))
    rig.machine.process_task_message(message)
    assert [task["status"] for task in rig.tasks(job_id, 2)] == ["failed", "completed", "failed"]
    rig.queues.run(rig.machine)
    assert rig.job(job_id).result == {"total": 1, "failed": 2}
