"""A process dies between any two effects; another one finishes, everything once, with messages left or all lost."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.advancing import stage_planner
from core.advancing.steps import StepTimes
from core.announcing.windows import StageWindows
from core.basics.faults import FAULT_POINTS
from core.errors import RetryableTaskError
from core.models.control import RerunMode, RerunRequest
from infrastructure.verify import verify
from tests.integration.engine.machine_suite import ShapesJob

from .world import UnsteadyQueues, World

N = 8
RESULT = {"total": sum(number**2 for number in range(N)), "failed": 0}

CONTROL_POINTS = ("control.written", "control.sent")
# A task is released by a process that lives on.
RELEASE_POINTS = ("task.released",)
# It needs tasks that last.
RETURN_POINTS = ("tasks.returned",)
WORKER_POINTS = ("job.before_signal",)
STEP_RETRY_POINTS = ("job.step_retry_written", "job.step_retry_sent")
ENDING_POINTS = ("job.before_finalize", "job.finalizing", "job.finalized")
# A stage of many tasks comes to these.
WINDOW_POINTS = ("window.due", "window.taken")
# `tests/integration/engine/test_schedules.py` has these: no job comes to them.
SCHEDULE_POINTS = ("schedule.decided", "schedule.submitted")
# And `test_webhooks.py` this one.
WEBHOOK_POINTS = ("webhook.sent",)
SPECIAL_POINTS = {*CONTROL_POINTS, *RELEASE_POINTS, *RETURN_POINTS, *WINDOW_POINTS, *SCHEDULE_POINTS, *WEBHOOK_POINTS}
ORDINARY_POINTS = [point for point in FAULT_POINTS if point not in SPECIAL_POINTS]

broker = pytest.mark.parametrize("loses_messages", [False, True], ids=["messages_kept", "messages_lost"])
nth_hit = pytest.mark.parametrize("nth", [1, 2])


@pytest.fixture
def unsteady_finalizer(monkeypatch):
    """`finalize_job` fails once a job, and is tried again."""
    original, failed = ShapesJob.finalize_job, set()

    def finalize_job(context):
        if context.job_id not in failed:
            failed.add(context.job_id)
            raise OSError("no summary yet")
        return original(context)

    monkeypatch.setattr(ShapesJob, "finalize_job", staticmethod(finalize_job))


def fail_at_first(world):
    def act(context):
        if world.is_first(context):
            raise RetryableTaskError("not yet")

    return act


@broker
@nth_hit
@pytest.mark.parametrize("how", ["by_messages", "on_the_spot", "in_one_transaction"])
@pytest.mark.parametrize("point", ORDINARY_POINTS)
def test_process_dies_at(engine, request, monkeypatch, point, nth, how, loses_messages):
    if how == "in_one_transaction" and point in ENDING_POINTS:
        pytest.skip("what follows a stage in one process's hands is written with its results")
    monkeypatch.setattr(StepTimes, "is_quick", lambda _self, _job_type, _stage: how == "in_one_transaction")
    world = World(
        engine,
        UnsteadyQueues() if point.startswith("janitor") else None,
        on_the_spot=how != "by_messages",
        loses_messages=loses_messages,
        two_apps=point in WORKER_POINTS,
    )
    world.acts["s2-n3"] = fail_at_first(world)
    if point in STEP_RETRY_POINTS:
        request.getfixturevalue("unsteady_finalizer")
    # Something to take back: who held it died as well.
    deaths = [("task.claimed", 1), ("task.claimed", 4)] if point == "janitor.taken_back" else []
    with world.dying_at(*deaths, (point, nth)):
        results = {world.submit(n=N): RESULT for _ in range(2)}
        world.run_to_the_end()
    assert world.crashes.count(point) == 1
    world.assert_all_completed(results)
    assert verify(engine.pool) == []


@broker
@pytest.mark.parametrize("hit", [2, 60, 102, 103, 130, 151])
def test_process_dies_in_the_middle_of_planning_many(engine, hit, loses_messages, monkeypatch):
    """Row 1 is stage 1's. A hundred of stage 2 are asked for before its transaction begins, the others in it."""
    monkeypatch.setattr(stage_planner, "COLLECTED_BYTES", 0)
    world = World(engine, loses_messages=loses_messages)
    with world.dying_at(("job.planning", hit)):
        job_id = world.submit(n=150)
        world.run_to_the_end()
    assert world.crashes == ["job.planning"]
    world.assert_all_completed({job_id: {"total": sum(number**2 for number in range(150)), "failed": 0}})
    assert verify(engine.pool) == []


@broker
@pytest.mark.parametrize(
    ("point", "nth"),
    [("window.due", 1), ("window.due", 3), ("window.taken", 1), ("window.taken", 2), ("tasks.sent", 3)],
)
def test_process_dies_while_it_takes_tasks_into_a_window(engine, monkeypatch, point, nth, loses_messages):
    """Before the take, between it and its messages, and when they are sent and not marked."""
    monkeypatch.setattr("core.advancing.stage_planner.first_window", lambda *_known: 70)
    world = World(engine, loses_messages=loses_messages)
    with world.dying_at((point, nth)):
        job_id = world.submit(n=300)
        world.run_to_the_end()
    assert world.crashes == [point]
    world.assert_all_completed({job_id: {"total": sum(number**2 for number in range(300)), "failed": 0}})
    assert verify(engine.pool) == []


@broker
def test_process_dies_when_it_has_returned_what_lasts_to_the_line(engine, monkeypatch, loses_messages):
    monkeypatch.setattr("core.advancing.stage_planner.first_window", lambda *_known: 70)
    monkeypatch.setattr(StageWindows, "seconds_of", lambda _self, _ref, tasks: 1.0 * tasks)
    world = World(engine, loses_messages=loses_messages)
    with world.dying_at(("tasks.returned", 2)):
        job_id = world.submit(n=150)
        world.run_to_the_end()
    assert world.crashes == ["tasks.returned"]
    world.assert_all_completed({job_id: {"total": sum(number**2 for number in range(150)), "failed": 0}})
    assert verify(engine.pool) == []


@broker
@pytest.mark.parametrize("point", CONTROL_POINTS)
def test_process_dies_when_it_has_begun_another_run(engine, point, loses_messages):
    world = World(engine, loses_messages=loses_messages)
    job_id = world.submit(n=N)
    world.run_to_the_end()
    with world.dying_at((point, 1)):
        world.survive(lambda: world.rig.machine.rerun_job(job_id, RerunRequest(mode=RerunMode.ALL)))
        world.run_to_the_end()
    assert world.crashes == [point]
    world.assert_all_completed({job_id: RESULT}, run=2)
    assert verify(engine.pool) == []


@broker
def test_process_dies_when_it_has_resumed_a_job_whose_tasks_are_parked(engine, loses_messages):
    world = World(engine, loses_messages=loses_messages)

    def pause(context):
        if world.is_first(context):
            world.rig.machine.pause_job(context.job_id)

    world.acts["s2-n3"] = pause
    job_id = world.submit(n=N)
    while world._deliver():
        pass
    assert "s2-n7" in {row["task_id"] for row in world.rig.tasks(job_id, 2) if row["parked_at"] is not None}
    with world.dying_at(("control.written", 1)):
        world.survive(lambda: world.rig.machine.resume_job(job_id))
        world.run_to_the_end()
    assert world.crashes == ["control.written"]
    world.assert_all_completed({job_id: RESULT})
    assert verify(engine.pool) == []


@broker
def test_process_dies_while_it_hands_its_tasks_back(engine, loses_messages):
    world = World(engine, loses_messages=loses_messages)
    begun, gone = threading.Event(), threading.Event()

    def outlive_the_process(context):
        if world.is_first(context):
            begun.set()
            assert gone.wait(30)

    world.acts["s2-n3"] = outlive_the_process
    job_id = world.submit(n=N)
    machine = world.rig.machine

    def deliver_until_drained():
        while not begun.is_set() and world.queues.deliver(machine):
            pass

    with ThreadPoolExecutor(1) as executor, world.dying_at(("task.released", 1)):
        delivery = executor.submit(deliver_until_drained)
        assert begun.wait(30)
        world.survive(machine.drain)
        gone.set()
        delivery.result(30)
        world.run_to_the_end()
    assert world.crashes == ["task.released"]
    world.assert_all_completed({job_id: RESULT})
    assert verify(engine.pool) == []
