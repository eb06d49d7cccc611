"""Operators and workers at the same moment: one of them is first, and nothing is lost or done twice."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from core.models import JobRef, Lease, StageRef
from core.models.control import RerunMode, RerunRequest
from core.models.submission import SubmitRequest
from tests.databases import connect

from .machine_suite import Rig

WORKERS = 16
ERROR = {"type": "OSError", "message": "disk full", "retryable": False}
WHO = {"reason": None, "actor": None}


@pytest.fixture
def crowd():
    with ThreadPoolExecutor(WORKERS) as executor:

        def run_together(*calls):
            """All calls start at one moment; their results come back in order."""
            start = threading.Barrier(len(calls))

            def one(call):
                start.wait(timeout=60)
                return call()

            return [future.result(timeout=60) for future in [executor.submit(one, call) for call in calls]]

        yield run_together


def rerun(engine, job_id, run=1, mode="failed"):
    return engine.jobs.rerun_job(JobRef(job_id, run), RerunRequest(mode=RerunMode(mode), **WHO), None)


def statuses(engine, job_id, run):
    rows = engine.query("select status from app.tasks where job_id = %s and run = %s", job_id, run)
    return Counter(row["status"] for row in rows)


def test_completion_that_waited_while_the_job_was_started_again_stays_out(engine, database_url):
    """It had seen its stage open, waited for its row, and meanwhile the stage failed and the next run began."""
    job_id = engine.submit()
    engine.plan(job_id, 1, 2)
    lease = engine.claim(job_id, 1, "s1-00000")
    with connect(database_url) as holder, ThreadPoolExecutor(1) as executor:
        holder.execute("select 1 from app.tasks where task_id = 's1-00000' for update")
        late = executor.submit(
            engine.stages.complete_task_and_check_stage,
            StageRef(job_id, 1, 1),
            lease_id=lease,
            results={"s1-00000": {"x": 1}},
        )
        engine.wait_for_lock()
        engine.jobs.fail_job(JobRef(job_id, 1), ERROR)
        answer = rerun(engine, job_id)
        holder.rollback()
        check = late.result(timeout=60)

    assert (answer.kept_count, answer.fresh_count) == (0, 2)
    assert not check.is_last_task_in_stage
    assert statuses(engine, job_id, 1) == {"cancelled": 2}
    assert statuses(engine, job_id, 2) == {"pending": 2}
    assert (engine.job_status(job_id), engine.jobs.find_job(job_id).run) == ("processing", 2)


def test_rerun_among_late_completions_keeps_exactly_what_the_old_run_completed(engine, crowd):
    for _ in range(15):
        job_id = engine.submit(stages=1)
        engine.plan(job_id, 1, 12)
        ids = [f"s1-{index:05d}" for index in range(12)]
        leases = {task_id: engine.claim(job_id, 1, task_id) for task_id in ids}

        def end(task_id, job_id=job_id, leases=leases):
            results = {"results": {task_id: {"by": 1}}}
            return engine.stages.complete_task_and_check_stage(
                StageRef(job_id, 1, 1), lease_id=leases[task_id], **results
            )

        def fail_and_rerun(job_id=job_id, leases=leases):
            errors = {"errors": {"s1-00005": ERROR}}
            engine.stages.fail_task_and_check_stage(StageRef(job_id, 1, 1), lease_id=leases["s1-00005"], **errors)
            return rerun(engine, job_id)

        *_, answer = crowd(*(lambda task_id=task_id: end(task_id) for task_id in ids if task_id != "s1-00005"),
                           fail_and_rerun)  # fmt: skip
        assert answer.outcome == "rerun"
        assert answer.kept_count == statuses(engine, job_id, 1)["completed"]
        assert answer.kept_count + answer.fresh_count == 12
        again = [task.task_id for task in engine.jobs.find_parked_tasks(job_id, 100, 60)]
        lease = uuid4()
        engine.tasks.claim_tasks(StageRef(job_id, 2, 1), again, lease=Lease(lease, "w"))
        check = engine.stages.complete_task_and_check_stage(
            StageRef(job_id, 2, 1), lease_id=lease, results={task_id: {"by": 2} for task_id in again}
        )
        assert (check.is_last_task_in_stage, check.job_status) == (True, "finalizing")


def test_simultaneous_reruns_begin_one_run(engine, crowd):
    for _ in range(10):
        job_id = engine.submit(stages=1)
        engine.plan(job_id, 1, 1)
        engine.jobs.fail_job(JobRef(job_id, 1), ERROR)

        answers = crowd(*[lambda job_id=job_id: rerun(engine, job_id)] * 8)
        assert Counter(answer.outcome for answer in answers) == {"rerun": 1, "other_run": 7}
        assert statuses(engine, job_id, 2) == {"pending": 1}


def test_claims_around_a_pause_either_run_or_are_found_when_it_ends(engine, crowd):
    for _ in range(20):
        job_id = engine.submit()
        engine.plan(job_id, 1, 14)
        ids = [f"s1-{index:05d}" for index in range(14)]
        engine.tasks.mark_tasks_announced(JobRef(job_id, 1), ids)

        def claim(task_id, job_id=job_id):
            (row,) = engine.tasks.claim_tasks(StageRef(job_id, 1, 1), [task_id], lease=Lease(uuid4(), "w"))
            return row.outcome

        *outcomes, _ = crowd(
            *(lambda task_id=task_id: claim(task_id) for task_id in ids),
            lambda job_id=job_id: engine.jobs.pause_job(job_id, **WHO),
        )
        assert set(outcomes) <= {"claimed", "paused"}
        assert {claim(task_id) for task_id in ids} <= {"duplicate", "paused"}
        engine.jobs.resume_job(job_id, **WHO)
        in_vain = [task_id for task_id, outcome in zip(ids, outcomes, strict=True) if outcome == "paused"]
        assert [task.task_id for task in engine.jobs.find_parked_tasks(job_id, 100, 60)] == in_vain


def test_claims_around_a_resume_are_found_by_the_next_sweep(engine, crowd):
    """A claim that still saw the pause may park its task after the resume looked: the janitor looks again."""
    for _ in range(20):
        job_id = engine.submit()
        engine.plan(job_id, 1, 12)
        ids = [f"s1-{index:05d}" for index in range(12)]
        engine.jobs.pause_job(job_id, **WHO)

        def claim(task_id, job_id=job_id):
            (row,) = engine.tasks.claim_tasks(StageRef(job_id, 1, 1), [task_id], lease=Lease(uuid4(), "w"))
            return row.outcome

        def resume(job_id=job_id):
            engine.jobs.resume_job(job_id, **WHO)
            return [task.task_id for task in engine.jobs.find_parked_tasks(job_id, 100, 60)]

        *outcomes, found = crowd(*(lambda task_id=task_id: claim(task_id) for task_id in ids), resume)
        found += [task.task_id for task in engine.jobs.find_parked_tasks(None, 100, 60)]
        in_vain = [task_id for task_id, outcome in zip(ids, outcomes, strict=True) if outcome == "paused"]
        assert sorted(found) == in_vain


def test_last_task_and_resume_at_once_need_no_janitor(engine, crowd):
    """Whoever is second finds the stage ended and the job not paused, and moves it on."""
    for _ in range(10):
        rig = Rig(engine)
        paused, gate = threading.Event(), threading.Event()

        def hold(context, rig=rig, paused=paused, gate=gate):
            rig.machine.pause_job(context.job_id)
            paused.set()
            assert gate.wait(60)

        rig.behave.before["s1-000000"] = hold
        job_id = rig.machine.submit_job(SubmitRequest("shapes", {"n": 2, "label": uuid4().hex})).job_id

        def work(rig=rig):
            rig.queues.run(rig.machine)

        def resume(rig=rig, paused=paused, gate=gate, job_id=job_id):
            assert paused.wait(60)
            gate.set()
            rig.machine.resume_job(job_id)

        crowd(work, resume)
        rig.queues.run(rig.machine)
        assert rig.job(job_id).status == "completed"


def test_operators_and_workers_all_at_once_leave_nothing_open(engine, crowd):
    """Pause, resume, cancel and force it among claims and completions: no deadlock, and everything ends."""
    for _ in range(20):
        job_id = engine.submit(stages=1)
        engine.plan(job_id, 1, 10)

        def work(index, job_id=job_id):
            lease, task_id = uuid4(), f"s1-{index:05d}"
            for _ in range(2):
                engine.tasks.claim_tasks(StageRef(job_id, 1, 1), [task_id], lease=Lease(lease, "w"))
                engine.stages.complete_task_and_check_stage(
                    StageRef(job_id, 1, 1), lease_id=lease, results={task_id: {}}
                )

        crowd(
            *(lambda index=index: work(index) for index in range(10)),
            lambda job_id=job_id: engine.jobs.pause_job(job_id, **WHO),
            lambda job_id=job_id: engine.jobs.resume_job(job_id, **WHO),
            lambda job_id=job_id: engine.jobs.find_parked_tasks(job_id, 100, 60),
            lambda job_id=job_id: engine.jobs.cancel_job(job_id, None, grace_seconds=0),
            lambda job_id=job_id: engine.jobs.force_cancel(StageRef(job_id, 1, 1)),
        )
        engine.jobs.cancel_job(job_id, None, grace_seconds=0)
        engine.execute("update app.jobs set cancel_deadline_at = now() where job_id = %s", job_id)
        engine.jobs.force_cancel(StageRef(job_id, 1, 1))
        assert engine.job_status(job_id) in {"cancelled", "completed", "finalizing"}
        assert set(statuses(engine, job_id, 1)) <= {"completed", "cancelled"}


def test_resume_of_a_job_with_deadlines_and_its_last_completion_neither_deadlock_nor_lose_the_step(engine, crowd):
    """Both write the stage's row and the job's: the one moves deadlines, the other closes the stage."""
    for _ in range(40):
        job_id = engine.submit(timeout_seconds=100)
        engine.plan(job_id, 1, 2)
        ids = ["s1-00000", "s1-00001"]
        leases = {task_id: engine.claim(job_id, 1, task_id) for task_id in ids}
        engine.jobs.pause_job(job_id, **WHO)

        def end(task_id, job_id=job_id, leases=leases):
            return engine.stages.complete_task_and_check_stage(
                StageRef(job_id, 1, 1), lease_id=leases[task_id], results={task_id: {}}
            )

        *checks, answer = crowd(
            *(lambda task_id=task_id: end(task_id) for task_id in ids),
            lambda job_id=job_id: engine.jobs.resume_job(job_id, **WHO),
        )
        assert answer.outcome == "resumed"
        last = next(check for check in checks if check.is_last_task_in_stage)
        # Whoever is second tells that the next stage is to be planned.
        assert (last.job_status == "queued") != (answer.status == "queued")
        assert (engine.job_status(job_id), engine.jobs.find_job(job_id).paused_at) == ("queued", None)


def test_resume_waits_for_the_stage_before_it_holds_the_job(engine, database_url):
    """Holding the job's row while it waited for the stage's deadlocked with the completion that closes it."""
    job_id = engine.submit(timeout_seconds=100)
    engine.plan(job_id, 1, 1)
    lease = engine.claim(job_id, 1, "s1-00000")
    engine.jobs.pause_job(job_id, **WHO)
    with connect(database_url) as holder, ThreadPoolExecutor(2) as executor:
        holder.execute("select 1 from app.stages for update")
        last = executor.submit(
            engine.stages.complete_task_and_check_stage,
            StageRef(job_id, 1, 1),
            lease_id=lease,
            results={"s1-00000": {}},
        )
        engine.wait_for_lock()
        resume = executor.submit(engine.jobs.resume_job, job_id, **WHO)
        engine.wait_for_lock(waiting=2)
        free = engine.query("select 1 as free from app.jobs where job_id = %s for update skip locked", job_id)
        holder.rollback()
        assert free == [{"free": 1}]
        assert last.result(timeout=60).is_last_task_in_stage
        assert resume.result(timeout=60).status == "queued"


def test_task_that_was_held_while_its_job_was_cancelled_ends_with_its_message(engine, database_url):
    """A claim in a cancelled job reads no stage unless it finds such a task; this one was the last that was open."""
    job_id = engine.submit()
    engine.plan(job_id, 1, 3)
    with connect(database_url) as announcer:
        announcer.execute("select 1 from app.tasks where task_id = 's1-00001' for update")
        assert engine.jobs.cancel_job(job_id, None) == "cancelling"
        announcer.rollback()
    assert statuses(engine, job_id, 1) == {"cancelled": 2, "pending": 1}

    ids = ["s1-00000", "s1-00001"]
    rows = engine.tasks.claim_tasks(StageRef(job_id, 1, 1), ids, lease=Lease(uuid4(), "late"))
    assert {row.outcome for row in rows} == {"closed"}
    assert statuses(engine, job_id, 1) == {"cancelled": 3}
    assert engine.job_status(job_id) == "cancelled"
