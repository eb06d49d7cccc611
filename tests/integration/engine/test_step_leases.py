"""A planner or a finalizer that takes long: a sign of life keeps others from its step, and its death brings it back."""

import ctypes
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.announcing.announcer import step_message
from core.models.lease import STEP_LEASE_SECONDS, LostProcesses
from core.models.refs import StepRef
from core.operating.explain import explain
from core.running import step_leases
from infrastructure.insight import InsightQueries
from infrastructure.job_briefs import JobBriefs

from .machine_suite import Behaviours, Rig, ShapesJob, build_registry
from .test_lease_stand_in import OPENS_WHEN_RENEWED, OTHER, OWNER, stand_ins  # noqa: F401 - a fixture

AT_ONCE = 0.0


class Held:
    """An author's code that is called, and goes on when the test lets it."""

    def __init__(self):
        self.calls, self.called, self.go_on = 0, threading.Event(), threading.Event()

    def __call__(self):
        self.calls += 1
        self.called.set()
        self.go_on.wait(10)


@pytest.fixture
def held():
    held = Held()
    yield held
    held.go_on.set()


@pytest.fixture(params=["planner", "finalizer"])
def rigs(request, engine, held, monkeypatch):
    """Two processes, of whose job class one step waits for the test."""

    class Slow(ShapesJob):
        @staticmethod
        def create_tasks_for_stage(stage, job_params, job_id, previous_results):
            if request.param == "planner" and stage == 1:
                held()
            return ShapesJob.create_tasks_for_stage(stage, job_params, job_id, previous_results)

        @staticmethod
        def finalize_job(context):
            if request.param == "finalizer":
                held()
            return ShapesJob.finalize_job(context)

    monkeypatch.setattr(step_leases, "QUICK_SECONDS", AT_ONCE)
    first = Rig(engine, registry=build_registry(Behaviours(), Slow))
    second = Rig(engine, queues=first.queues, registry=first.registry)
    second.machine._steps._owner = OTHER
    return first, second


def lease(engine, job_id):
    (row,) = engine.query("select step_lease from app.jobs where job_id = %s", job_id)
    return row["step_lease"]


def test_a_step_that_is_taken_is_left_to_its_process(rigs, held, engine):
    """Its message comes again while the first planner works, or is blocked: a second worker would be blocked too."""
    first, second = rigs
    job_id = first.submit()
    with ThreadPoolExecutor(1) as thread:
        ran = thread.submit(first.queues.run, first.machine)
        assert held.called.wait(60)
        first.machine._steps.renew_now()
        assert lease(engine, job_id)["owner"] == "test-process"
        message = step_message(first.job(job_id), "again")
        for rig in (first, second):
            rig.machine.process_job_message(message)
        assert held.calls == 1
        held.go_on.set()
        ran.result(60)
    assert first.job(job_id).status == "completed"
    assert lease(engine, job_id) is None


def test_a_step_that_is_taken_is_explained_by_its_process(at):
    """It said that nobody had taken its message yet."""
    engine, later = at(0), at(5)
    job_id = engine.submit()
    engine.jobs.mark_job_announced(engine.jobs.find_job(job_id).stage_ref)
    for renewed in (engine, later):
        assert renewed.tasks.renew_step_lease(step_of(engine, job_id), OWNER)
    (finding,) = explain(InsightQueries(later.pool).get_job_facts(job_id))
    assert finding.code == "step_running"
    assert f"by {OWNER} since 00:00:00Z (5 s ago)" in finding.message
    assert JobBriefs(later.pool).read_briefs([engine.jobs.find_job(job_id)])[job_id].step_owner == OWNER


def test_a_step_whose_process_died_is_announced_again(rigs, held, engine, at):
    first, second = rigs
    job_id = first.submit()
    with ThreadPoolExecutor(1) as thread:
        ran = thread.submit(first.queues.run, first.machine)
        assert held.called.wait(60)
        step = first.job(job_id).step_ref
        # It was written a while ago, by a process that is there no more.
        first.machine._steps._closed.set()
        at(0).tasks.renew_step_lease(step, OWNER)
        assert not at(STEP_LEASE_SECONDS + 1).tasks.is_step_leased(step)
        assert second.janitor.sweep().announced_jobs == 1
        assert lease(engine, job_id)["has_ended"]
        held.go_on.set()
        ran.result(60)
    second.queues.run(second.machine)
    assert first.job(job_id).status == "completed"


def step_of(engine, job_id):
    return engine.jobs.find_job(job_id).step_ref


def found(engine):
    return engine.query("select job_id from app.find_unannounced_jobs(10, 20, 60)")


def test_a_lease_is_of_its_process_and_of_its_step(at):
    engine = at(0)
    job_id = engine.submit(stages=2)
    step = step_of(engine, job_id)
    assert engine.tasks.renew_step_lease(step, OWNER)
    assert not engine.tasks.renew_step_lease(step, OTHER)
    assert engine.tasks.is_step_leased(step)
    for other in (step._replace(attempt=1), step._replace(stage=2), step._replace(run=2), step._replace(status="x")):
        assert not engine.tasks.renew_step_lease(other, OWNER)
        assert not engine.tasks.is_step_leased(other)
    later = at(STEP_LEASE_SECONDS)
    assert later.tasks.renew_step_lease(step, OTHER)
    assert not later.tasks.release_step_lease(step, OWNER)
    assert later.tasks.release_step_lease(step, OTHER)
    assert not later.tasks.is_step_leased(step)


def test_a_lease_that_a_job_has_left_behind_hides_no_later_step(at):
    engine = at(0)
    job_id = engine.submit(stages=2)
    step = step_of(engine, job_id)
    engine.tasks.renew_step_lease(step, OWNER)
    engine.plan(job_id, 1, 0)
    assert step_of(engine, job_id) == StepRef(job_id, 1, 2, "queued", 0)
    assert not engine.tasks.is_step_leased(step_of(engine, job_id))
    assert [row["job_id"] for row in found(at(21))] == [job_id]


def test_the_janitor_leaves_a_step_to_a_process_that_lives(at):
    """Without a message, as one that was taken inline: it was announced after 20 s, and planned beside itself."""
    job_id = at(0).submit()
    step = step_of(at(0), job_id)
    at(30).tasks.renew_step_lease(step, OWNER)
    assert found(at(30 + STEP_LEASE_SECONDS - 1)) == []
    assert [row["job_id"] for row in found(at(30 + STEP_LEASE_SECONDS))] == [job_id]
    assert found(at(30 + STEP_LEASE_SECONDS)) == []


def test_a_lost_message_of_a_step_that_is_taken_is_not_missed(at):
    engine = at(0)
    job_id = engine.submit()
    engine.jobs.mark_job_announced(engine.jobs.find_job(job_id).stage_ref)
    engine.tasks.renew_step_lease(step_of(engine, job_id), OWNER)
    assert at(1).query("select from app.find_lost_jobs(10, app.clock())") == []


def test_a_process_that_ends_gives_its_steps_back(engine, monkeypatch):
    monkeypatch.setattr(step_leases, "QUICK_SECONDS", AT_ONCE)
    rig = Rig(engine)
    job_id = rig.submit()
    with rig.machine._steps.hold(rig.job(job_id)):
        rig.machine._steps.renew_now()
        assert lease(engine, job_id) is not None
        rig.machine.drain()
        rig.machine._steps.renew_now()
        assert lease(engine, job_id) is None


def test_a_quick_step_leaves_no_sign(engine):
    rig = Rig(engine)
    writes = []
    rig.machine._steps._store = writes
    rig.run(n=1)
    assert writes == []


def test_a_step_is_held_while_the_interpreter_is_blocked(engine, database_url, stand_ins, tmp_path):  # noqa: F811
    """Really blocked, as by a regular expression without an end, until another process has seen the lease."""
    job_id = engine.submit()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    leases = step_leases.StepLeases(engine.tasks, OWNER, stand_ins())
    of_tasks = "lease_expires_at::text from app.tasks where lease_id is not null"
    script = OPENS_WHEN_RENEWED.replace(of_tasks, "coalesce(step_lease ->> 'owner', '') from app.jobs")
    assert script != OPENS_WHEN_RENEWED
    with leases.hold(engine.jobs.find_job(job_id)):
        opener = subprocess.Popen([sys.executable, "-c", script, database_url, str(pipe), ""])
        os.close(ctypes.PyDLL(None).open(str(pipe).encode(), os.O_RDONLY))
    assert opener.wait(60) == 0
    leases.close()


def lose(at, job_id, *seconds, is_alone=False):
    """Processes take the job's step at these times, and end without a word."""
    for second in seconds:
        engine = at(second)
        assert engine.tasks.take_step_again(step_of(engine, job_id), f"dead:{second}", is_alone=is_alone)
    return at(seconds[-1] + STEP_LEASE_SECONDS + 1)


def test_processes_that_end_over_a_step_are_counted(at):
    """A planner that used up the memory was called again without limit."""
    job_id = at(0).submit()
    step = step_of(at(0), job_id)
    assert at(0).tasks.take_step_again(step, "one", is_alone=False) == LostProcesses(0, 0, None)
    assert at(5).tasks.take_step_again(step, "two", is_alone=False) is None
    # By the next process, before any sweep.
    assert at(11).tasks.take_step_again(step, "two", is_alone=True) == LostProcesses(1, 0, "one")
    assert at(15).tasks.renew_step_lease(step, "two")
    # By the sweep; the process that lives counts nobody twice.
    assert [row["job_id"] for row in found(at(26))] == [job_id]
    assert not at(26).tasks.is_step_leased(step)
    assert at(27).tasks.take_step_again(step, "three", is_alone=False) == LostProcesses(2, 1, "two")
    # It was asked to end.
    assert at(28).tasks.release_step_lease(step, "three")
    assert at(29).tasks.take_step_again(step, "four", is_alone=False) == LostProcesses(2, 1, "two")
    events = at(29).query("select detail from app.job_events where event = 'job_step_interrupted' order by event_id")
    assert [row["detail"] for row in events] == [
        {"interruptions": 1, "owner": "one"},
        {"interruptions": 2, "owner": "two"},
    ]
    assert at(29).tasks.take_step_again(step._replace(attempt=1), "five", is_alone=False) is None


class OfFew(ShapesJob):
    """A job whose steps may be interrupted twice."""

    stages = [stage | {"max_interruptions": 2} for stage in ShapesJob.stages]


@pytest.fixture(params=["plan_stage", "finalize_job"])
def doomed(request, at):
    """A job that waits for a step, and rigs of its class at any time."""
    calls = []

    class Noting(OfFew):
        @staticmethod
        def create_tasks_for_stage(stage, job_params, job_id, previous_results):
            calls.append("plan_stage")
            return OfFew.create_tasks_for_stage(stage, job_params, job_id, previous_results)

        @staticmethod
        def finalize_job(context):
            calls.append("finalize_job")
            return OfFew.finalize_job(context)

    registry = build_registry(Behaviours(), Noting)

    def rig_at(seconds):
        return Rig(at(seconds), registry=registry)

    rig = rig_at(0)
    job_id = rig.submit()
    if request.param == "finalize_job":
        rig.machine._advancer._finalize = lambda _: None
        rig.queues.run(rig.machine)
    assert rig.job(job_id).status == {"plan_stage": "queued", "finalize_job": "finalizing"}[request.param]
    calls.clear()
    return rig_at, job_id, request.param, calls


def test_a_step_that_ended_too_many_processes_fails_its_job(doomed, at):
    rig_at, job_id, step, calls = doomed
    lose(at, job_id, 20, 40)
    engine = lose(at, job_id, 60, is_alone=True)
    rig = rig_at(71)
    assert rig.janitor.sweep().announced_jobs == 1
    rig.queues.run(rig.machine)
    job = rig.job(job_id)
    assert (job.status, job.error["type"], job.error["step"]) == ("failed", "InterruptedTooOften", step)
    expected = "its process died, or lost the database, 3 times without an outcome, and once it ran alone there"
    assert expected in job.error["message"]
    assert "(last: dead:60). Usually the memory was used up" in job.error["message"]
    assert "more memory" in job.error["message"]
    assert calls == []
    assert lease(engine, job_id) is None


def test_a_suspect_step_runs_alone(doomed, at):
    rig_at, job_id, step, calls = doomed
    engine = lose(at, job_id, 20)
    rig = rig_at(31)
    assert [finding.code for finding in explain(InsightQueries(engine.pool).get_job_facts(job_id))] == ["step_lost"]
    rig.janitor.sweep()
    (finding, *_) = explain(InsightQueries(engine.pool).get_job_facts(job_id))
    assert (finding.code, "1 of 2 times" in finding.message) == ("step_interrupted", True)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert calls[0] == step
    assert len(engine.query("select from app.job_events where event = 'job_step_runs_alone'")) == 1


@pytest.mark.parametrize(
    ("cause", "is_again", "is_leased"), [(None, False, False), (None, True, True), ("sweep-1", False, True)]
)
def test_a_step_that_may_have_been_begun_before_has_a_lease_from_its_begin(engine, cause, is_again, is_leased):
    """One that ended its process within a moment left no sign of it."""
    seen = []

    class Noting(ShapesJob):
        @staticmethod
        def create_tasks_for_stage(stage, job_params, job_id, previous_results):
            if stage == 1:
                seen.append(lease(engine, job_id))
            return ShapesJob.create_tasks_for_stage(stage, job_params, job_id, previous_results)

    rig = Rig(engine, registry=build_registry(Behaviours(), Noting))
    job_id = rig.submit()
    rig.queues.clear()
    rig.machine.process_job_message(step_message(rig.job(job_id), cause), is_again=is_again)
    assert [note is not None for note in seen] == [is_leased]
    assert lease(engine, job_id) is None
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
