"""Operators' verbs through the machine: what runs, what waits, what is sent, and what later stages see."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from core.errors import DeliveryError, RetryableTaskError
from core.models import JobQueueMessage, JobRef, TaskQueueMessage
from core.models.control import RerunMode, RerunRequest
from jobs.parameters import ParameterErrors
from tests.databases import connect

from .machine_suite import FAST_RETRY, Rig


@pytest.fixture(params=[False, True], ids=["by-message", "on-the-spot"])
def rig(engine, request):
    return Rig(engine, on_the_spot=request.param)


class AwayBroker:
    """Takes nothing until told to."""

    def __init__(self, queues):
        self.queues, self.is_away = queues, False

    def send_messages(self, queue, messages):
        if self.is_away:
            raise DeliveryError(queue, "away")
        self.queues.send_messages(queue, messages)

    def send_message_with_delay(self, queue, message, delay_seconds):
        if self.is_away:
            raise DeliveryError(queue, "away")
        self.queues.send_message_with_delay(queue, message, delay_seconds)


def test_paused_job_stands_still_and_resumed_it_ends(rig):
    """Paused by a task of its own while the others of the stage have their messages: those come in vain."""
    rig.behave.before["s1-000000"] = lambda context: rig.machine.pause_job(context.job_id, reason="look", actor="ada")
    job_id = rig.submit(n=20)
    rig.queues.run(rig.machine)

    job = rig.job(job_id)
    assert (job.status, job.stage) == ("queued", 2)
    assert rig.tasks(job_id, 2) == []
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    for announced_at in (None, long_ago):
        rig.engine.execute("update app.jobs set updated_at = %s, announced_at = %s", long_ago, announced_at)
        assert rig.janitor.sweep().repairs == 0
    rig.machine.resume_job(job_id, reason="go on", actor="ada")
    rig.queues.run(rig.machine)

    assert rig.job(job_id).status == "completed"
    assert rig.job(job_id).result == {"total": sum(number**2 for number in range(20)), "failed": 0}
    assert set(rig.behave.calls.values()) == {1}


def test_messages_of_a_paused_stage_are_sent_again_when_it_is_resumed(engine):
    rig = Rig(engine)
    job_id = rig.submit(n=30)
    while not rig.tasks(job_id, 2):
        assert rig.queues.deliver(rig.machine)
    assert rig.queues.deliver(rig.machine)
    done = [task for task in rig.tasks(job_id, 2) if task["status"] == "completed"]
    assert 0 < len(done) < 30

    rig.machine.pause_job(job_id)
    rig.queues.run(rig.machine)
    assert [task for task in rig.tasks(job_id, 2) if task["status"] == "completed"] == done
    engine.execute("update app.tasks set created_at = created_at - interval '1 hour'")
    assert rig.janitor.sweep().repairs == 0

    assert rig.machine.resume_job(job_id).outcome == "resumed"
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert set(rig.behave.calls.values()) == {1}


@pytest.mark.parametrize("paused_in_stage", [1, 2])
def test_resume_that_can_send_nothing_leaves_it_to_the_janitor(engine, paused_in_stage):
    rig = Rig(engine)
    broker = AwayBroker(rig.queues)
    rig = Rig(engine, queues=rig.queues, sender=broker)
    job_id = rig.submit(n=3)
    if paused_in_stage == 2:
        while not rig.tasks(job_id, 2):
            assert rig.queues.deliver(rig.machine)
    rig.machine.pause_job(job_id)
    rig.queues.run(rig.machine)
    broker.is_away = True
    assert rig.machine.resume_job(job_id).has_changed
    broker.is_away = False
    assert not rig.queues.deliver(rig.machine)

    # The holds of the one who could not send have run out.
    engine.execute("update app.tasks set parked_at = now() where parked_at is not null")
    engine.execute("update app.jobs set updated_at = now() - interval '1 minute'")
    assert rig.janitor.sweep().repairs > 0
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"


def test_job_that_is_paused_before_its_first_step_is_planned_after_it(rig):
    job_id = rig.submit(n=2)
    rig.machine.pause_job(job_id)
    rig.queues.run(rig.machine)
    assert rig.tasks(job_id, 1) == []

    rig.machine.resume_job(job_id)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"


def test_summary_waits_too(rig):
    rig.behave.before["s3-fan_in"] = lambda context: rig.machine.pause_job(context.job_id)
    job_id = rig.run(n=2)
    assert (rig.job(job_id).status, rig.job(job_id).result) == ("finalizing", None)

    rig.machine.resume_job(job_id)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"


def test_retry_that_comes_due_while_paused_is_made_after_it(rig):
    def once(context):
        if context.attempt == 1:
            rig.machine.pause_job(context.job_id)
            raise RetryableTaskError("try again")

    rig.behave.before["s1-000000"] = once
    job_id = rig.run(n=2)
    assert rig.tasks(job_id, 1)[0]["status"] == "pending_retry"

    rig.machine.resume_job(job_id)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert rig.behave.calls["s1-000000"] == 2


def test_rerun_of_failed_tasks_runs_them_alone_and_fan_in_sees_old_and_new_results(rig):
    job_id = rig.run(n=5, bad=[2])
    assert rig.job(job_id).status == "completed_with_errors"
    rig.behave.calls.clear()

    answer = rig.machine.rerun_job(job_id, RerunRequest(parameters={"bad": []}, reason="mended", actor="ada"))
    assert (answer.run, answer.kept_count, answer.fresh_count) == (2, 5, 1)
    rig.queues.run(rig.machine)

    job = rig.job(job_id)
    assert (job.status, job.run, job.result) == ("completed", 2, {"total": 0 + 1 + 4 + 9 + 16, "failed": 0})
    assert rig.behave.calls == {"s2-n2": 1, "s3-fan_in": 1}
    assert job.parameters["bad"] == []
    assert job.job_id == job_id
    (old,) = rig.engine.query("select parameters, status, result from app.job_runs")
    assert (old["parameters"]["bad"], old["status"], old["result"]["failed"]) == ([2], "completed_with_errors", 1)


def test_two_who_saw_the_same_run_begin_one(rig):
    job_id = rig.run(n=2)
    barrier = threading.Barrier(2)

    def rerun():
        barrier.wait(30)
        return rig.machine.rerun_job(job_id, RerunRequest(mode=RerunMode.ALL, expected_run=1)).outcome

    with ThreadPoolExecutor(2) as operators:
        outcomes = [future.result() for future in [operators.submit(rerun) for _ in range(2)]]
    assert sorted(outcomes) == ["other_run", "rerun"]
    rig.queues.run(rig.machine)
    assert (rig.job(job_id).status, rig.job(job_id).run) == ("completed", 2)
    # Ended again: who still looks at the first run is told so.
    assert rig.machine.rerun_job(job_id, RerunRequest(mode=RerunMode.ALL, expected_run=1)).outcome == "other_run"


def test_rerun_asked_for_in_the_moment_when_the_job_ends_does_not_lose_its_parameters(rig, monkeypatch):
    """The job was seen running, so the new parameters were not looked at; then it ended, and a run of the old began."""
    job_id = rig.submit(n=2)
    seen = rig.job(job_id)
    rig.queues.run(rig.machine)
    monkeypatch.setattr(rig.state, "find_job", lambda _: seen)

    answer = rig.machine.rerun_job(job_id, RerunRequest(mode=RerunMode.ALL, parameters={"n": 4}))

    assert (answer.outcome, answer.status, answer.run) == ("refused", "queued", 1)
    assert rig.engine.query("select run from app.jobs where status = 'completed'") == [{"run": 1}]


def test_run_that_is_still_to_come_is_not_waited_for(rig):
    job_id = rig.run(n=2)
    answer = rig.machine.rerun_job(job_id, RerunRequest(mode=RerunMode.ALL, expected_run=2, parameters={"n": 4}))
    assert (answer.outcome, answer.run) == ("other_run", 1)


def test_rerun_that_fails_again_can_be_rerun_again(rig):
    job_id = rig.run(n=4, bad=[1, 2])
    rig.machine.rerun_job(job_id, RerunRequest(parameters={"bad": [2]}))
    rig.queues.run(rig.machine)
    assert rig.job(job_id).result == {"total": 0 + 1 + 9, "failed": 1}

    rig.machine.rerun_job(job_id, RerunRequest(parameters={"bad": []}))
    rig.queues.run(rig.machine)
    assert (rig.job(job_id).run, rig.job(job_id).result) == (3, {"total": 0 + 1 + 4 + 9, "failed": 0})


def test_fan_in_task_that_failed_reads_the_new_run(rig):
    def broken(context):
        raise ValueError("no total")

    rig.behave.before["s3-fan_in"] = broken
    job_id = rig.run(n=3)
    assert rig.job(job_id).status == "failed"
    rig.behave.before.clear()
    rig.behave.calls.clear()

    rig.machine.rerun_job(job_id, RerunRequest())
    rig.queues.run(rig.machine)
    assert rig.job(job_id).result == {"total": 0 + 1 + 4, "failed": 0}
    assert rig.behave.calls == {"s3-fan_in": 1}
    (task,) = rig.engine.query("select parameters from app.tasks where run = 2 and stage = 3")
    assert task["parameters"]["fan_in_source"]["run"] == 2


def test_rerun_from_a_stage_does_it_and_what_follows(rig):
    job_id = rig.run(n=3)
    rig.behave.calls.clear()

    rig.machine.rerun_job(job_id, RerunRequest(mode=RerunMode.FROM_STAGE, from_stage=2))
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert rig.behave.calls == {"s2-n0": 1, "s2-n1": 1, "s2-n2": 1, "s3-fan_in": 1}


def test_rerun_of_all_takes_other_parameters_and_the_definition_of_today(rig, monkeypatch):
    job_id = rig.run(n=3)
    shapes = rig.registry.get_job("shapes")
    stages = [stage | {"retry": FAST_RETRY | {"max_attempts": 7}} for stage in shapes.stages]
    monkeypatch.setattr(shapes, "stages", stages)

    rig.machine.rerun_job(job_id, RerunRequest(mode=RerunMode.ALL, parameters={"n": 4}))
    rig.queues.run(rig.machine)
    job = rig.job(job_id)
    assert (job.status, job.result) == ("completed", {"total": 0 + 1 + 4 + 9, "failed": 0})
    assert job.definition["stages"][0]["retry"]["max_attempts"] == 7


def test_wrong_parameters_begin_no_run(rig):
    job_id = rig.run(n=3, bad=[1])
    before = rig.job(job_id)

    with pytest.raises(ParameterErrors, match="did you mean 'bad'"):
        rig.machine.rerun_job(job_id, RerunRequest(parameters={"baad": []}))
    assert rig.job(job_id) == before


def test_job_that_has_not_ended_is_refused_before_its_parameters_are_looked_at(rig):
    job_id = rig.submit(n=3)
    assert rig.machine.rerun_job(job_id, RerunRequest(parameters={"baad": []})).outcome == "refused"
    assert rig.machine.rerun_job("0" * 64, RerunRequest()) is None


def test_rerun_that_can_send_nothing_leaves_it_to_the_janitor(engine):
    first = Rig(engine)
    job_id = first.run(n=3, bad=[1])
    broker = AwayBroker(first.queues)
    broker.is_away = True
    Rig(engine, queues=first.queues, sender=broker).machine.rerun_job(job_id, RerunRequest(parameters={"bad": []}))
    assert not first.queues.deliver(first.machine)

    engine.execute("update app.tasks set parked_at = now() where parked_at is not null")
    assert first.janitor.sweep().announced_tasks == 1
    first.queues.run(first.machine)
    assert first.job(job_id).status == "completed"


def test_messages_of_the_run_before_change_nothing(rig):
    job_id = rig.run(n=3, bad=[1])
    rig.machine.rerun_job(job_id, RerunRequest(parameters={"bad": []}))
    before = rig.engine.query("select * from app.tasks order by run, task_id"), rig.job(job_id)

    calls = rig.behave.calls.copy()
    for stage, task_id in ((1, "s1-000000"), (2, "s2-n1"), (3, "s3-fan_in")):
        rig.machine.process_task_message(
            TaskQueueMessage(job_id=job_id, job_type="shapes", run=1, stage=stage, task_ids=(task_id,))
        )
        rig.machine.process_job_message(JobQueueMessage(job_id=job_id, job_type="shapes", run=1, stage=stage))
    assert (rig.engine.query("select * from app.tasks order by run, task_id"), rig.job(job_id)) == before
    assert rig.behave.calls == calls


def test_late_result_of_the_run_before_stays_out_of_the_new_one(engine):
    """The slow sibling of a failed task comes back after the job was started again (lessons D9, D21)."""
    rig = Rig(engine)
    entered, gate = threading.Event(), threading.Event()

    def slow(_):
        entered.set()
        assert gate.wait(60)
        return {"square": 10**6}

    rig.behave.before["s2-n0"] = slow
    job_id = rig.submit(n=2)
    while not rig.tasks(job_id, 2):
        assert rig.queues.deliver(rig.machine)
    worker = threading.Thread(target=rig.queues.deliver, args=(rig.machine,))
    worker.start()
    assert entered.wait(60)
    engine.jobs.fail_job(JobRef(job_id, 1), {"type": "X", "message": "operator"})
    rig.behave.before.clear()

    rig.machine.rerun_job(job_id, RerunRequest())
    gate.set()
    worker.join(60)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).result == {"total": 0 + 1, "failed": 0}


def test_janitor_ends_a_cancel_whose_tasks_do_not_stop(engine):
    rig = Rig(engine)
    entered, gate = threading.Event(), threading.Event()
    heard = []

    def deaf(context):
        entered.set()
        assert gate.wait(60)
        rig.keeper.renew_now()
        try:
            context.check_cancelled()
        except Exception as error:
            heard.append(type(error).__name__)
            raise

    rig.behave.before["s1-000000"] = deaf
    job_id = rig.submit()
    worker = threading.Thread(target=rig.queues.run, args=(rig.machine,))
    worker.start()
    assert entered.wait(60)
    assert rig.machine.cancel_job(job_id, "wrong", grace_seconds=60, actor="ada") == "cancelling"
    assert rig.janitor.sweep().forced_cancels == 0
    engine.execute("update app.jobs set cancel_deadline_at = now()")
    assert rig.janitor.sweep().forced_cancels == 1
    assert rig.job(job_id).status == "cancelled"
    gate.set()
    worker.join(60)

    assert heard == ["TaskCancelled"]
    assert rig.keeper.lost_leases == 1
    assert rig.job(job_id).status == "cancelled"
    assert rig.tasks(job_id, 1)[0]["error"]["type"] == "CancelForced"


def test_message_of_a_job_that_is_being_cancelled_ends_its_task(engine):
    """A waiting task that another transaction held keeps the job `cancelling`: its message is no use yet."""
    rig = Rig(engine)
    job_id = rig.submit(n=1)
    rig.queues.deliver(rig.machine)
    with connect(engine.pool.conninfo) as holder:
        holder.execute("select 1 from app.tasks where job_id = %s and stage = 1 for update", (job_id,))
        assert rig.machine.cancel_job(job_id, None) == "cancelling"
        holder.rollback()
    other = Rig(engine, rig.queues, behave=rig.behave)
    other.queues.run(other.machine)
    assert rig.behave.calls.total() == 0
    assert (rig.job(job_id).status, rig.tasks(job_id, 1)[0]["status"]) == ("cancelled", "cancelled")
