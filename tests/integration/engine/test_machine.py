"""The engine on real PostgreSQL and three kinds of queues: each shape of stage, each way a task can end."""

import math
import threading
from collections import Counter
from uuid import uuid4

import pytest

from core.errors import ContractViolationError, DeliveryError, PermanentTaskError, RetryableTaskError, StoreUnavailable
from core.models import JobQueueMessage, StageCompleteMessage, TaskQueueMessage, TaskResult
from core.models.message import JOBS_QUEUE_MESSAGE
from core.models.submission import SubmitRequest
from jobs.parameters import ParameterErrors
from jobs.registry import UnknownJobType

from .machine_suite import Rig


@pytest.fixture
def make_rig(platform):
    return lambda **options: Rig(platform.engine, platform.queues, **options)


@pytest.fixture
def rig(make_rig):
    return make_rig()


@pytest.mark.parametrize("on_the_spot", [False, True])
def test_job_of_all_three_shapes_runs_to_its_end(make_rig, on_the_spot):
    rig = make_rig(on_the_spot=on_the_spot)
    job_id = rig.run(n=20)

    job = rig.job(job_id)
    assert (job.status, job.error) == ("completed", None)
    assert job.result == {"total": sum(n * n for n in range(20)), "failed": 0}
    assert [task["result"]["square"] for task in rig.tasks(job_id, 2)] == [n * n for n in range(20)]
    assert set(rig.behave.calls.values()) == {1}


def test_stage_without_tasks_is_complete(rig):
    job_id = rig.run(n=0)

    assert rig.job(job_id).result == {"total": 0, "failed": 0}


def test_same_submission_finds_the_same_job(rig):
    first = rig.machine.submit_job(SubmitRequest("shapes", {"n": 1}))
    second = rig.machine.submit_job(SubmitRequest("shapes", {"n": 1}))

    assert (first.created, second.created) == (True, False)
    assert first.job_id == second.job_id


def test_wrong_parameters_and_unknown_types_are_refused_before_anything_is_written(rig):
    with pytest.raises(ParameterErrors, match="n: expected int"):
        rig.machine.submit_job(SubmitRequest("shapes", {"n": "three"}))
    with pytest.raises(UnknownJobType, match="did you mean 'shapes'"):
        rig.machine.submit_job(SubmitRequest("shape", {}))
    assert rig.engine.query("select 1 from app.jobs") == []


def test_producer_submits_over_the_jobs_queue(rig):
    parameters, correlation_id = {"n": 2, "label": uuid4().hex}, uuid4().hex
    message = JobQueueMessage(job_type="shapes", parameters=parameters, correlation_id=correlation_id)
    rig.queues.send_messages("jobs", [message])
    rig.queues.run(rig.machine)

    (job,) = rig.engine.query("select status, correlation_id from app.jobs")
    assert job == {"status": "completed", "correlation_id": correlation_id}


@pytest.mark.parametrize("message", [{"job_id": "x"}, None, "text"])
def test_wrong_type_of_message_is_a_contract_violation(rig, message):
    with pytest.raises(ContractViolationError):
        rig.machine.process_job_message(message)
    with pytest.raises(ContractViolationError):
        rig.machine.process_task_message(message)


def test_permanent_failure_fails_at_once_and_the_rest_go_on(rig):
    """The path of a permanent failure called a method that was not there, and the error was swallowed (lesson D10).
    What fans in goes on with those that are left (lesson D36)."""
    job_id = rig.run(n=5, bad=[2])

    assert rig.job(job_id).status == "completed_with_errors"
    assert rig.job(job_id).result == {"total": 0 + 1 + 9 + 16, "failed": 1}
    failed = rig.tasks(job_id, 2)[2]
    assert (failed["status"], failed["attempt"]) == ("failed", 1)
    assert failed["error"]["type"] == "ValueError"
    assert failed["error"]["message"] == "bad number 2"
    assert "bad number 2" in failed["error"]["traceback"]
    (total,) = rig.tasks(job_id, 3)
    assert total["result"]["failures"] == ["bad number 2"]


def test_transient_failure_is_tried_again_until_it_succeeds(rig):
    def twice(context):
        if context.attempt < 3:
            raise OSError("disk away")

    rig.behave.before["s2-n1"] = twice
    job_id = rig.run(n=3)

    assert rig.job(job_id).status == "completed"
    assert Counter(task["attempt"] for task in rig.tasks(job_id, 2)) == {1: 2, 3: 1}


def test_spent_attempts_fail_the_task_with_its_last_reason(rig):
    def always(context):
        raise RetryableTaskError(f"attempt {context.attempt} failed")

    rig.behave.before["s1-000000"] = always
    job_id = rig.run()

    job = rig.job(job_id)
    assert job.status == "failed"
    assert "attempt 3 failed" in job.error["message"]
    assert rig.behave.calls["s1-000000"] == 3


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (["a", "list"], "expected it to return a mapping or None, found list"),
        ({"x": math.nan}, "a finite number"),
        ({"x": {1, 2}}, "expected a JSON value"),
        ({"x": "nul \x00"}, "text without NUL"),
        ({"success": False, "error": "sensor off", "retryable": False}, "sensor off"),
        (TaskResult(task_id="t", success=False, error="told by model", retryable=False), "told by model"),
    ],
)
def test_result_that_cannot_be_kept_fails_its_task_alone(rig, returned, reason):
    rig.behave.before["s2-n1"] = lambda _: returned
    job_id = rig.run(n=4)

    statuses = [task["status"] for task in rig.tasks(job_id, 2)]
    assert statuses == ["completed", "failed", "completed", "completed"]
    assert reason in rig.tasks(job_id, 2)[1]["error"]["message"]


def test_message_twice_late_and_for_nothing_changes_nothing(rig):
    """A redelivered message ran a completed task again, a second job message moved the job twice (lessons D8, D13)."""
    job_id = rig.run(n=3)
    before = rig.engine.query("select * from app.tasks order by task_id")

    for message in (
        JobQueueMessage(job_id=job_id, job_type="shapes", stage=1),
        JobQueueMessage(job_id=job_id, job_type="shapes", stage=3),
        JobQueueMessage(job_id=job_id, job_type="shapes", run=7),
        JobQueueMessage(job_id="0" * 64, job_type="shapes"),
        StageCompleteMessage(job_id=job_id, job_type="shapes", completed_stage=2),
    ):
        rig.machine.process_job_message(message)
    for ids, changes in (
        (("s2-n0", "s2-n1"), {}),
        (("s2-nope",), {}),
        (("s2-n0",), {"run": 4}),
        (("x",), {"stage": 9}),
    ):
        rig.machine.process_task_message(
            TaskQueueMessage(**{"job_id": job_id, "job_type": "shapes", "stage": 2, "task_ids": ids} | changes)
        )
    rig.machine.process_task_message(TaskQueueMessage(job_id="0" * 64, job_type="x", stage=1, task_ids=("t",)))

    assert rig.engine.query("select * from app.tasks order by task_id") == before
    assert set(rig.behave.calls.values()) == {1}


def test_job_message_that_comes_again_while_its_stage_runs_changes_nothing(rig):
    """A second job message raised, or queued the job twice (lesson D13)."""
    job_id = rig.submit(n=3)
    while not rig.tasks(job_id, 2):
        assert rig.queues.deliver(rig.machine)
    rows = [
        "select * from app.jobs",
        "select * from app.stages order by stage",
        "select * from app.tasks order by task_id",
    ]
    before = [rig.engine.query(query) for query in rows]
    assert rig.job(job_id).status == "processing"

    for stage in (1, 2, 2):
        rig.machine.process_job_message(JobQueueMessage(job_id=job_id, job_type="shapes", stage=stage))
    assert [rig.engine.query(query) for query in rows] == before
    # Nor was anything sent: what waits is what waited before.
    assert rig.queues.clear() == 1


def test_fan_in_is_tried_again_by_itself(rig):
    """It failed as a whole, with all that came before it (lesson D36)."""

    def once(context):
        if context.attempt == 1:
            raise OSError("disk away")

    rig.behave.before["s3-fan_in"] = once
    job_id = rig.run(n=5, bad=[2])

    assert rig.job(job_id).status == "completed_with_errors"
    assert rig.job(job_id).result == {"total": 0 + 1 + 9 + 16, "failed": 1}
    assert rig.behave.calls.pop("s3-fan_in") == 2
    assert set(rig.behave.calls.values()) == {1}


def test_planner_that_raises_fails_the_job_with_its_reason(rig, monkeypatch):
    def broken(*_):
        raise KeyError("tile")

    monkeypatch.setattr(rig.registry.get_job("shapes"), "create_tasks_for_stage", staticmethod(broken))
    job_id = rig.run()

    job = rig.job(job_id)
    assert job.status == "failed"
    assert (job.error["type"], job.error["step"]) == ("KeyError", "plan_stage")


def test_planner_meets_a_passing_trouble_and_is_tried_again(rig, monkeypatch):
    shapes = rig.registry.get_job("shapes")
    plan, calls = shapes.create_tasks_for_stage, []

    def fails_once(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise ConnectionError("listing away")
        return plan(*arguments)

    monkeypatch.setattr(shapes, "create_tasks_for_stage", staticmethod(fails_once))
    job_id = rig.run(n=2)

    assert rig.job(job_id).status == "completed"
    events = rig.engine.query(
        "select event from app.job_events where event = 'job_step_retry_scheduled' order by event_id"
    )
    assert len(events) == 1


def test_two_tasks_of_one_name_fail_the_job_and_say_which(rig, monkeypatch):
    shapes = rig.registry.get_job("shapes")
    plan = shapes.create_tasks_for_stage
    monkeypatch.setattr(shapes, "create_tasks_for_stage", staticmethod(lambda *given: [*plan(*given)] * 2))
    rig.behave.before["s1-000000"] = None
    job_id = rig.run(n=2)

    job = rig.job(job_id)
    assert job.status == "failed"
    assert "found 'n0' twice" in job.error["message"] or "s1-" in job.error["message"]


def test_finalizer_that_raises_fails_the_job_and_keeps_the_tasks(rig, monkeypatch):
    def broken(_):
        raise ValueError("no total")

    monkeypatch.setattr(rig.registry.get_job("shapes"), "finalize_job", staticmethod(broken))
    job_id = rig.run(n=2)

    assert rig.job(job_id).status == "failed"
    assert rig.job(job_id).error["message"] == "no total"
    assert {task["status"] for task in rig.tasks(job_id, 2)} == {"completed"}


def test_slow_member_of_a_message_does_not_hold_up_the_rest(rig):
    """A batch was as slow as its slowest member, and a result waited for its neighbours."""
    gate = threading.Event()
    rig.behave.before["s2-n0"] = lambda _: gate.wait(30) and None
    job_id = rig.submit(n=7)
    while not rig.tasks(job_id, 2):
        assert rig.queues.deliver(rig.machine)
    worker = threading.Thread(target=rig.queues.deliver, args=(rig.machine,))
    worker.start()
    for _ in range(1000):
        done = [task for task in rig.tasks(job_id, 2) if task["status"] == "completed"]
        if len(done) == 6:
            break
    assert len(done) == 6
    gate.set()
    worker.join()
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"


class BrokenSender:
    """A broker that is away."""

    def send_messages(self, queue, messages):
        raise DeliveryError(queue, "away")

    def send_message_with_delay(self, queue, message, delay_seconds):
        raise DeliveryError(queue, "away")


def test_submission_is_kept_when_no_message_can_be_sent(make_rig):
    """A job whose message could not be sent was queued for ever, and its repetition hid it (lesson D14)."""
    rig = make_rig(sender=BrokenSender())
    job_id = rig.submit(n=2)
    assert rig.job(job_id).announced_at is None

    healthy = make_rig()
    rig.engine.execute("update app.jobs set updated_at = now() - interval '1 minute'")
    assert healthy.janitor.sweep().announced_jobs == 1
    healthy.queues.run(healthy.machine)
    assert rig.job(job_id).status == "completed"


def test_database_that_is_away_raises_so_that_the_message_stays(rig, monkeypatch):
    """One delivery and swallowed errors: any trouble of the infrastructure lost work in silence (lesson D15)."""

    def away(*_, **__):
        raise StoreUnavailable("no connection")

    job_id = rig.submit(n=1)
    monkeypatch.setattr(rig.state, "find_job", away)
    with pytest.raises(StoreUnavailable):
        rig.queues.deliver(rig.machine)
    monkeypatch.undo()
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"


def test_handler_that_stops_on_cancel_ends_the_job_cancelled(rig):
    started = threading.Event()

    def until_cancelled(context):
        started.set()
        while True:
            rig.keeper.renew_now()
            context.check_cancelled()

    rig.behave.before["s1-000000"] = until_cancelled
    job_id = rig.submit()
    worker = threading.Thread(target=rig.queues.run, args=(rig.machine,))
    worker.start()
    assert started.wait(30)
    assert rig.machine.cancel_job(job_id, "not wanted") == "cancelling"
    worker.join(30)

    assert rig.job(job_id).status == "cancelled"
    assert rig.tasks(job_id, 1)[0]["status"] == "cancelled"


def test_permanent_error_says_so(rig):
    def no(context):
        raise PermanentTaskError("wrong tile")

    rig.behave.before["s1-000000"] = no
    job_id = rig.run()
    assert rig.job(job_id).status == "failed"
    assert rig.tasks(job_id, 1)[0]["error"]["retryable"] is False


def test_worker_app_runs_tasks_and_signals_the_platform_app_which_moves_the_job(make_rig):
    """Two apps: one plans and finalizes, the other only serves its task queue."""
    platform, worker = make_rig(), make_rig(advances_jobs=False)
    job_id = platform.submit(n=20)
    signals = []

    def look(body):
        message = JOBS_QUEUE_MESSAGE.validate_json(body)
        if isinstance(message, StageCompleteMessage):
            signals.append((message.completed_stage, message.completed_by_app))
        platform.machine.process_job_message(message)

    def deliver(queue, body):
        if queue == "jobs":
            look(body)
        else:
            worker.machine.process_task_message(TaskQueueMessage.model_validate_json(body))

    while platform.queues.deliver_to(deliver):
        pass
    assert platform.job(job_id).status == "completed"
    assert signals == [(1, "test"), (2, "test"), (3, "test")]
    assert not platform.behave.calls
    assert set(worker.behave.calls.values()) == {1}


def test_size_of_messages_follows_from_how_long_the_tasks_of_the_last_job_lasted(engine):
    rig = Rig(engine)

    def messages_of_second_stage(label):
        rig.submit(n=150, label=label)
        assert rig.queues.deliver(rig.machine)
        assert rig.queues.deliver(rig.machine)
        count = 0
        while rig.queues.deliver(rig.machine):
            count += 1
        return count

    shapes = rig.registry.get_job("shapes")
    stages = shapes.stages
    try:
        shapes.stages = [stage | {"tasks_per_message": None} for stage in stages]
        first = messages_of_second_stage("first")
        # A message of ten tasks took 60 ms.
        engine.execute(
            "update app.tasks set started_at = to_timestamp(task_index / 10),"
            " finished_at = to_timestamp(task_index / 10) + interval '60 milliseconds'"
        )
        rig = Rig(engine)
        second = messages_of_second_stage("second")
    finally:
        shapes.stages = stages
    # 10 a message while nothing is known, 16 when tasks last 6 ms; and one message for stage 3.
    assert (first, second) == (150 // 10 + 1, 150 // 16 + 1 + 1)
