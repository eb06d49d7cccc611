"""An attempt at a job's step fails when others have taken the step: its failure is no news of where the job is now."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.announcing.announcer import step_message
from core.errors import PermanentTaskError
from core.models import JobRef
from core.models.control import RerunMode, RerunRequest
from core.state_manager import StateManager
from tests.databases import connect

from .machine_suite import Behaviours, Rig, ShapesJob, build_registry

ERROR = {"type": "ValueError", "message": "too late", "retryable": False}


def plan(engine, job_id):
    engine.plan(job_id, 1, 2)


def rerun(engine, job_id):
    engine.jobs.fail_job(JobRef(job_id, 1), {"type": "OSError", "message": "disk full"})
    engine.jobs.rerun_job(JobRef(job_id, 1), RerunRequest(mode=RerunMode.ALL, reason=None, actor=None), None)


def fail_once(engine, job_id):
    job = engine.jobs.find_job(job_id)
    assert engine.jobs.retry_job_step(job.step_ref, {"type": "OSError", "message": "disk full"}, 0) == 1


def end(engine, job_id):
    engine.jobs.fail_job(JobRef(job_id, 1), {"type": "OSError", "message": "disk full"})


@pytest.fixture
def state(engine):
    return StateManager(engine.jobs, engine.tasks, engine.stages)


@pytest.mark.parametrize("meanwhile", [plan, rerun, fail_once, end])
def test_a_failure_of_a_step_that_others_have_taken_counts_no_more(engine, state, meanwhile):
    job_id = engine.submit()
    began = engine.jobs.find_job(job_id)
    meanwhile(engine, job_id)
    rows = engine.rows_of(job_id)

    assert state.fail_job_step(began, ERROR) is False
    assert state.retry_job_step(began, ERROR, 1.0) is None
    assert engine.rows_of(job_id) == rows


def test_a_failure_of_the_step_that_the_job_waits_for_ends_it(engine, state):
    job_id = engine.submit()
    assert state.fail_job_step(engine.jobs.find_job(job_id), ERROR) is True
    job = engine.jobs.find_job(job_id)
    assert (job.status, job.error["message"]) == ("failed", "too late")


@pytest.mark.parametrize("error", [PermanentTaskError("too late"), OSError("too late")])
def test_a_planner_that_fails_late_does_not_fail_the_job_that_runs(engine, error):
    """Its message came again, since it took long: the second planner was quicker."""
    called, go_on, calls = threading.Event(), threading.Event(), []

    class Slow(ShapesJob):
        @staticmethod
        def create_tasks_for_stage(stage, job_params, job_id, previous_results):
            if stage == 1:
                calls.append(stage)
                if len(calls) == 1:
                    called.set()
                    go_on.wait(60)
                    raise error
            return ShapesJob.create_tasks_for_stage(stage, job_params, job_id, previous_results)

    first = Rig(engine, registry=build_registry(Behaviours(), Slow))
    second = Rig(engine, queues=first.queues, registry=first.registry)
    job_id = first.submit()
    with ThreadPoolExecutor(1) as threads:
        late = threads.submit(first.queues.deliver, first.machine)
        assert called.wait(60)
        second.machine.process_job_message(step_message(second.job(job_id), None))
        before = second.job(job_id)
        go_on.set()
        late.result(60)
    after = second.job(job_id)
    assert (after.status, after.attempt, after.error) == (before.status, before.attempt, None)
    second.run()
    assert second.job(job_id).status == "completed"


def test_a_job_that_moves_on_while_it_is_failed_is_failed_where_it_is(engine, database_url):
    """The stage that was looked at ends while its lock is waited for."""
    job_id = engine.submit(stages=2)
    engine.plan(job_id, 1, 1)
    lease = engine.claim(job_id, 1, "s1-00000")
    complete = "select * from app.complete_task_and_check_stage(%s, 1, 1, %s, array['s1-00000'], array['{}'::jsonb])"
    with ThreadPoolExecutor(1) as threads:
        with connect(database_url) as connection, connection.transaction():
            connection.execute(complete, (job_id, lease))
            failed = threads.submit(engine.jobs.fail_job, JobRef(job_id, 1), ERROR)
            engine.wait_for_lock("advisory")
        assert failed.result(60)
    job = engine.jobs.find_job(job_id)
    assert (job.status, job.stage) == ("failed", 2)
