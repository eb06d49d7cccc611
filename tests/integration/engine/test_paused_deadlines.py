"""Deadlines and operators: the time of a pause does not count, and a rerun has its own."""

from core.models import JobRef, StageRef
from core.models.control import RerunRequest

from .test_deadlines import TASKS, deadlines, sweep

WHO = {"reason": None, "actor": None}
DECLARED = {"job_timeout_seconds": 300, "timeout_seconds": 100, "queue_timeout_seconds": 20}


def test_nothing_of_a_paused_job_times_out_and_resumed_it_has_the_time_that_was_left(at):
    job_id = at(0).submit(**DECLARED)
    at(0).plan(job_id, 1, 3)
    at(10).jobs.pause_job(job_id, **WHO)

    engine = at(5000)
    assert engine.stages.enforce_deadlines(StageRef(job_id, 1, 1), 10).outcome == "nothing"
    assert sweep(engine).timed_out_jobs == 0
    engine.jobs.resume_job(job_id, **WHO)
    assert deadlines(engine, job_id) == {"job": 5290, "stage": 5090, "queue": 5010}
    assert at(5009).stages.enforce_deadlines(StageRef(job_id, 1, 1), 10).outcome == "nothing"
    assert at(5011).stages.enforce_deadlines(StageRef(job_id, 1, 1), 10).outcome == "tasks_expired"


def test_stage_that_is_reached_in_a_pause_gets_only_the_rest_of_it_back(at):
    job_id = at(0).submit(stages=2, **DECLARED)
    at(0).plan(job_id, 1, 1)
    lease = at(0).claim(job_id, 1, TASKS[0])
    at(10).jobs.pause_job(job_id, **WHO)
    at(60).stages.complete_task_and_check_stage(StageRef(job_id, 1, 1), lease_id=lease, results={TASKS[0]: {}})

    engine = at(100)
    engine.jobs.resume_job(job_id, **WHO)
    assert deadlines(engine, job_id) == {"job": 390, "stage": 140, "queue": 60}


def test_parked_task_whose_time_in_the_queue_is_over_is_parked_no_more(at):
    job_id = at(0).submit(**DECLARED)
    engine = at(0)
    engine.plan(job_id, 1, 2)
    engine.jobs.fail_job(JobRef(job_id, 1), {"type": "X", "message": "x"})
    engine.jobs.rerun_job(JobRef(job_id, 1), RerunRequest(), None)
    at(30).stages.enforce_deadlines(StageRef(job_id, 2, 1), 10)

    rows = engine.query("select status, parked_at from app.tasks where run = 2")
    assert {row["status"] for row in rows} <= {"failed", "cancelled"}
    assert {row["parked_at"] for row in rows} == {None}


def test_rerun_has_its_own_time(at):
    job_id = at(0).submit(**DECLARED)
    at(0).plan(job_id, 1, 2)
    at(400).stages.enforce_deadlines(StageRef(job_id, 1, 1), 10)
    assert at(400).job_status(job_id) == "failed"

    engine = at(1000)
    engine.jobs.rerun_job(JobRef(job_id, 1), RerunRequest(), None)
    assert deadlines(engine, job_id) == {"job": 1300, "stage": 100, "queue": 20}
    assert engine.stages.enforce_deadlines(StageRef(job_id, 2, 1), 10).outcome == "nothing"
