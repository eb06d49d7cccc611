"""Many connections at once: exactly one last task, no deadlock, one winner."""

import random
from collections import Counter
from uuid import uuid4

import pytest

from core.models import Lease, StageRef

WORKERS = 16
ERROR = {"type": "OSError", "message": "disk full", "retryable": False}


@pytest.mark.parametrize("rounds", [30, pytest.param(100, marks=pytest.mark.long)])
def test_exactly_one_task_turns_out_the_lights(engine, crowd, rounds):
    """Sixteen tasks end at once, each told twice and once under a stale lease: one of them is the last, once
    (lesson D34)."""
    job_id = engine.submit(stages=rounds)
    for stage in range(1, rounds + 1):
        engine.plan(job_id, stage, WORKERS)
        ids = [f"s{stage}-{index:05d}" for index in range(WORKERS)]
        leases = {task_id: engine.claim(job_id, stage, task_id) for task_id in ids}

        def end(task_id, stage=stage, leases=leases):
            answers = [
                engine.stages.complete_task_and_check_stage(
                    StageRef(job_id, 1, stage), lease_id=lease, results={task_id: {}}
                )
                for lease in random.sample([leases[task_id], leases[task_id], uuid4()], 3)
            ]
            assert sum(len(answer.updated_ids) for answer in answers) == 1
            return sum(answer.is_last_task_in_stage for answer in answers)

        lasts = crowd(*(lambda task_id=task_id: end(task_id) for task_id in ids))
        assert sum(lasts) == 1, f"stage {stage}"
    assert engine.job_status(job_id) == "finalizing"
    ends = engine.query(
        "select stage, count(*) as n from app.job_events where event = 'stage_completed' group by stage"
    )
    assert Counter(row["n"] for row in ends) == {1: rounds}


def test_failing_and_completing_at_once_neither_deadlocks_nor_revives_the_job(engine, crowd):
    """The failing task cancels rows that completing ones hold: the lock order must hold on that path too."""
    for _ in range(20):
        job_id = engine.submit()
        engine.plan(job_id, 1, WORKERS)
        ids = [f"s1-{index:05d}" for index in range(WORKERS)]
        leases = {task_id: engine.claim(job_id, 1, task_id) for task_id in ids}

        def end(task_id, job_id=job_id, leases=leases):
            if task_id == "s1-00007":
                verb, answers = engine.stages.fail_task_and_check_stage, {"errors": {task_id: ERROR}}
            else:
                verb, answers = engine.stages.complete_task_and_check_stage, {"results": {task_id: {}}}
            return verb(StageRef(job_id, 1, 1), lease_id=leases[task_id], **answers)

        crowd(*(lambda task_id=task_id: end(task_id) for task_id in ids))
        assert engine.job_status(job_id) == "failed"
        statuses = Counter(
            row["status"] for row in engine.query("select status from app.tasks where job_id = %s", job_id)
        )
        assert statuses["failed"] == 1
        assert set(statuses) <= {"failed", "completed", "cancelled"}


def test_cancelling_while_tasks_are_claimed_and_end_leaves_nothing_open(engine, crowd):
    for _ in range(20):
        job_id = engine.submit()
        engine.plan(job_id, 1, 8)

        def work(index, job_id=job_id):
            lease, task_id = uuid4(), f"s1-{index:05d}"
            engine.tasks.claim_tasks(StageRef(job_id, 1, 1), [task_id], lease=Lease(lease, "w"))
            engine.stages.complete_task_and_check_stage(StageRef(job_id, 1, 1), lease_id=lease, results={task_id: {}})

        crowd(
            *(lambda index=index: work(index) for index in range(8)),
            lambda job_id=job_id: engine.jobs.cancel_job(job_id, None),
        )
        open_tasks = engine.query(
            "select status from app.tasks where job_id = %s and status not in ('completed', 'cancelled')", job_id
        )
        assert open_tasks == []
        # Either the cancel came first, or all eight were done and the job stands at its next stage, cancelled there.
        assert engine.job_status(job_id) == "cancelled"


def test_hundred_simultaneous_submissions_make_one_job(engine, crowd):
    job = engine.jobs.find_job(engine.submit())
    job = job.model_copy(update={"job_id": uuid4().hex * 2})

    created = [answer.created for _ in range(7) for answer in crowd(*[lambda: engine.jobs.submit_job(job)] * WORKERS)]
    assert sum(created) == 1
    assert len(engine.query("select 1 from app.stages where job_id = %s", job.job_id)) == 1


def test_two_planners_of_one_stage_insert_its_tasks_once(engine, crowd):
    for _ in range(10):
        job_id = engine.submit()
        answers = crowd(*[lambda job_id=job_id: engine.plan(job_id, 1, 50)] * 4)

        assert sum(count for _, count in answers) == 50
        assert {outcome for outcome, _ in answers} <= {"planned", "busy", "closed"}
