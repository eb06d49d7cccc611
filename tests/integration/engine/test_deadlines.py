"""Declared deadlines, by a clock that the test sets: what each ends, what it leaves alone, who wins a race."""

from collections import Counter
from uuid import uuid4

import pytest

from core.models import JobRef, Lease, StageRef
from core.models.lease import HeldTask
from core.models.transition import SmallStage

from .machine_suite import Rig

TASKS = ["s1-00000", "s1-00001", "s1-00002"]
ERROR = {"type": "TaskTimedOut", "message": "told", "retryable": True}


def deadlines(engine, job_id):
    (row,) = engine.query(
        "select extract(epoch from j.deadline_at - j.created_at)::float as job, "
        "extract(epoch from s.deadline_at - s.created_at)::float as stage, "
        "extract(epoch from s.queue_deadline_at - s.created_at)::float as queue "
        "from app.jobs j join app.stages s on s.job_id = j.job_id and s.run = j.run and s.stage = j.stage "
        "where j.job_id = %s",
        job_id,
    )
    return row


def sweep(engine):
    return Rig(engine).janitor.sweep()


def complete(engine, job_id, lease, *task_ids, stage=1):
    return engine.stages.complete_task_and_check_stage(
        StageRef(job_id, 1, stage), lease_id=lease, results={task_id: {} for task_id in task_ids}
    )


def events(engine, job_id):
    rows = engine.query("select event from app.job_events where job_id = %s order by event_id", job_id)
    return [row["event"] for row in rows]


class TestWhereTheyComeFrom:
    def test_rows_get_what_was_declared(self, at):
        job_id = at(0).submit(job_timeout_seconds=300, timeout_seconds=100, queue_timeout_seconds=20)
        assert deadlines(at(50), job_id) == {"job": 300, "stage": 100, "queue": 20}

    def test_nothing_declared_is_no_deadline_however_old_the_work(self, at):
        """A janitor failed a backlog of minutes because it was old (lesson D23)."""
        job_id = at(0).submit()
        assert deadlines(at(0), job_id) == {"job": None, "stage": None, "queue": None}
        a_year_later = at(365 * 86400)
        assert a_year_later.plan(job_id, 1, 2) == ("planned", 2)
        assert at(2 * 365 * 86400).stages.enforce_deadlines(StageRef(job_id, 1, 1), 10).outcome == "nothing"
        assert sweep(at(2 * 365 * 86400)).timed_out_jobs == 0

    def test_second_stage_counts_from_the_end_of_the_first(self, at):
        job_id = at(0).submit(timeout_seconds=100)
        at(0).plan(job_id, 1, 0)
        engine = at(90)
        second = engine.submit(timeout_seconds=100)
        engine.plan(second, 1, 1)
        complete(at(99), second, at(99).claim(second, 1, "s1-00000"), "s1-00000")
        (row,) = engine.query(
            "select extract(epoch from deadline_at - '2026-01-01 00:00+00')::float as at from app.stages "
            "where job_id = %s and stage = 2",
            second,
        )
        assert row["at"] == 199

    def test_next_run_has_its_own_time(self, at):
        job_id = at(0).submit(job_timeout_seconds=100)
        at(500).execute("update app.jobs set run = 2 where job_id = %s", job_id)
        assert deadlines_at(at(0), job_id) == 600


def deadlines_at(engine, job_id):
    (row,) = engine.query(
        "select extract(epoch from deadline_at - '2026-01-01 00:00+00')::float as at from app.jobs where job_id = %s",
        job_id,
    )
    return row["at"]


class TestJobAndStage:
    @pytest.mark.parametrize(
        ("declared", "error_type"),
        [({"job_timeout_seconds": 60}, "JobTimedOut"), ({"timeout_seconds": 60}, "StageTimedOut")],
    )
    def test_open_work_ends_with_it_and_late_results_are_kept_out(self, at, declared, error_type):
        engine = at(0)
        job_id = engine.submit(**declared)
        engine.plan(job_id, 1, 3)
        lease = engine.claim(job_id, 1, TASKS[0])
        complete(engine, job_id, lease, TASKS[0])
        running = engine.claim(job_id, 1, TASKS[1])

        assert sweep(at(59.9)).timed_out_jobs == 0
        late = at(60)
        assert sweep(late).timed_out_jobs == 1

        job = engine.jobs.find_job(job_id)
        assert (job.status, job.error["type"], job.error["stage"]) == ("failed", error_type, 1)
        assert "within 60 s" in job.error["message"]
        assert complete(late, job_id, running, TASKS[1]).updated_ids == ()
        assert [engine.task(job_id, task_id)["status"] for task_id in TASKS] == ["completed", "cancelled", "cancelled"]
        (stage,) = engine.query("select status from app.stages where job_id = %s", job_id)
        assert stage["status"] == "failed"
        assert events(engine, job_id)[-1] == "job_failed"
        assert sweep(late).timed_out_jobs == 0

    def test_widest_deadline_gives_the_name(self, at):
        job_id = at(0).submit(job_timeout_seconds=60, timeout_seconds=30, queue_timeout_seconds=10)
        assert at(61).stages.enforce_deadlines(StageRef(job_id, 1, 1), 10).outcome == "job_timed_out"

    def test_job_that_waits_for_its_summary_is_out_of_time_too(self, at):
        job_id = at(0).submit(stages=1, job_timeout_seconds=60)
        at(0).plan(job_id, 1, 0)
        assert at(0).job_status(job_id) == "finalizing"
        assert sweep(at(60)).timed_out_jobs == 1
        assert at(60).jobs.finalize_job(JobRef(job_id, 1), {}) is None
        assert at(60).jobs.find_job(job_id).error["type"] == "JobTimedOut"

    def test_stage_that_ended_before_its_deadline_is_left_alone(self, at):
        job_id = at(0).submit(timeout_seconds=60)
        at(0).plan(job_id, 1, 0)
        assert at(0).jobs.find_job(job_id).stage == 2
        assert at(60).stages.enforce_deadlines(StageRef(job_id, 1, 1), 10).outcome == "nothing"

    def test_cancelling_job_is_left_to_that(self, at):
        job_id = at(0).submit(job_timeout_seconds=60)
        at(0).plan(job_id, 1, 1)
        lease = at(0).claim(job_id, 1, TASKS[0])
        assert at(0).jobs.cancel_job(job_id, "no") == "cancelling"
        assert sweep(at(60)).timed_out_jobs == 0
        complete(at(60), job_id, lease, TASKS[0])
        assert at(60).job_status(job_id) == "cancelled"

    def test_result_that_comes_before_the_sweep_counts(self, at):
        job_id = at(0).submit(stages=1, timeout_seconds=60, job_timeout_seconds=60)
        at(0).plan(job_id, 1, 1)
        lease = at(0).claim(job_id, 1, TASKS[0])
        assert complete(at(61), job_id, lease, TASKS[0]).is_last_task_in_stage
        assert at(61).jobs.finalize_job(JobRef(job_id, 1), {}) == "completed"
        assert sweep(at(62)).timed_out_jobs == 0

    @pytest.mark.parametrize("declared", ["job_timeout_seconds", "timeout_seconds", "queue_timeout_seconds"])
    def test_nothing_is_planned_after_it(self, at, declared):
        job_id = at(0).submit(**{declared: 60})
        assert at(60).plan(job_id, 1, 2) == ("expired", 0)
        assert at(60).tasks.plan_small_stage(StageRef(job_id, 1, 1), SmallStage([])) == "expired"
        assert at(59).plan(job_id, 1, 2) == ("planned", 2)

    @pytest.mark.parametrize("declared", ["job_timeout_seconds", "timeout_seconds"])
    def test_nothing_is_claimed_after_it(self, at, declared):
        job_id = at(0).submit(**{declared: 60})
        at(0).plan(job_id, 1, 3)
        lease = at(0).claim(job_id, 1, TASKS[0])
        complete(at(0), job_id, lease, TASKS[0])
        at(0).claim(job_id, 1, TASKS[1])
        rows = at(60).tasks.claim_tasks(StageRef(job_id, 1, 1), TASKS, lease=Lease(uuid4(), "late"))
        assert [row.outcome for row in rows] == ["duplicate", "duplicate", "expired"]


class TestQueueTime:
    def test_submission_that_nobody_planned_in_time_expires(self, at):
        job_id = at(0).submit(queue_timeout_seconds=60)
        assert sweep(at(59)).timed_out_jobs == 0
        assert sweep(at(60)).timed_out_jobs == 1
        job = at(60).jobs.find_job(job_id)
        assert (job.status, job.error["type"]) == ("failed", "QueueTimeExpired")

    def test_tasks_not_begun_fail_and_the_begun_go_on(self, at):
        engine = at(0)
        job_id = engine.submit(
            stages=1, queue_timeout_seconds=60, lease_seconds=600, failure={"on_failure": "continue"}
        )
        engine.plan(job_id, 1, 4)
        running = engine.claim(job_id, 1, "s1-00000", "s1-00001")
        engine.stages.increment_task_retry_count(
            StageRef(job_id, 1, 1), "s1-00001", lease_id=running, error=ERROR, delay_seconds=100
        )
        engine.tasks.mark_tasks_announced(JobRef(job_id, 1), ["s1-00002"])

        assert sweep(at(59)).expired_tasks == 0
        assert sweep(at(60)).expired_tasks == 2
        assert sweep(at(60)).expired_tasks == 0

        assert [engine.task(job_id, f"s1-0000{n}")["status"] for n in range(4)] == [
            "processing",
            "pending_retry",
            "failed",
            "failed",
        ]
        error = engine.task(job_id, "s1-00002")["error"]
        assert (error["type"], error["attempt"], error["retryable"]) == ("QueueTimeExpired", 0, False)
        assert engine.job_status(job_id) == "processing"
        late = at(120)
        retried = late.claim(job_id, 1, "s1-00001")
        complete(late, job_id, retried, "s1-00001")
        assert complete(late, job_id, running, "s1-00000").is_last_task_in_stage
        assert late.jobs.finalize_job(JobRef(job_id, 1), {}) == "completed_with_errors"

    def test_policy_decides_what_expired_tasks_mean(self, at):
        job_id = at(0).submit(queue_timeout_seconds=60)
        at(0).plan(job_id, 1, 3)
        assert sweep(at(60)).expired_tasks == 3
        job = at(60).jobs.find_job(job_id)
        assert (job.status, job.error["type"], job.error["failed_count"]) == ("failed", "StageFailed", 3)
        assert "was to begin within 60 s" in job.error["message"]

    def test_many_expire_in_steps(self, at):
        job_id = at(0).submit(stages=1, queue_timeout_seconds=60, failure={"on_failure": "continue"})
        at(0).plan(job_id, 1, 25)
        counts = [at(60).stages.enforce_deadlines(StageRef(job_id, 1, 1), 10) for _ in range(4)]
        assert [each.expired_count for each in counts] == [10, 10, 5, 0]
        assert [each.is_last_task_in_stage for each in counts] == [False, False, True, False]
        assert at(60).job_status(job_id) == "finalizing"

    def test_claim_of_a_task_too_late_begins_nothing_but_a_retry_goes_on(self, at):
        job_id = at(0).submit(queue_timeout_seconds=60)
        at(0).plan(job_id, 1, 2)
        lease = at(0).claim(job_id, 1, TASKS[0])
        at(0).stages.increment_task_retry_count(
            StageRef(job_id, 1, 1), TASKS[0], lease_id=lease, error=ERROR, delay_seconds=1
        )
        rows = at(60).tasks.claim_tasks(StageRef(job_id, 1, 1), TASKS[:2], lease=Lease(uuid4(), "late"))
        assert [row.outcome for row in rows] == ["claimed", "expired"]


class TestAttempt:
    def running(self, at, **settings):
        job_id = at(0).submit(
            stages=1, lease_seconds=30, **{"task_timeout_seconds": 60, "failure": {"on_failure": "continue"}} | settings
        )
        at(0).plan(job_id, 1, 1)
        lease = at(0).claim(job_id, 1, TASKS[0])
        return job_id, HeldTask(job_id, 1, TASKS[0], lease, 30.0)

    def heartbeat(self, engine, held):
        (outcome,) = engine.tasks.renew_leases([held]).values() or ["lost"]
        return outcome

    def test_heartbeat_is_refused_more_time_once_it_has_had_it(self, at):
        job_id, held = self.running(at)
        assert [self.heartbeat(at(second), held) for second in (20, 40, 59)] == ["renewed"] * 3
        before = at(0).task(job_id, TASKS[0])
        assert before["timed_out_at"] is None
        held.report({"percent": 99})
        assert [self.heartbeat(at(second), held) for second in (60, 70)] == ["timed_out"] * 2

        task = at(0).task(job_id, TASKS[0])
        assert task["lease_expires_at"] == before["lease_expires_at"]
        assert (task["timed_out_at"] - task["started_at"]).total_seconds() == 60
        assert task["progress"] == {"percent": 99}
        assert task["status"] == "processing"

    def test_handler_that_stops_in_time_has_failed_one_attempt(self, at):
        job_id, held = self.running(at)
        self.heartbeat(at(60), held)
        engine = at(61)
        row = engine.stages.increment_task_retry_count(
            StageRef(job_id, 1, 1), TASKS[0], lease_id=held.lease_id, error=ERROR, delay_seconds=5
        )
        assert row.outcome == "scheduled"
        again = at(70).claim(job_id, 1, TASKS[0])
        assert at(70).task(job_id, TASKS[0])["timed_out_at"] is None
        # The next attempt has its own time.
        assert self.heartbeat(at(129), HeldTask(job_id, 1, TASKS[0], again, 30.0)) == "renewed"
        assert self.heartbeat(at(130), HeldTask(job_id, 1, TASKS[0], again, 30.0)) == "timed_out"

    def test_handler_that_does_not_listen_loses_its_task_as_a_timeout(self, at):
        job_id, held = self.running(at, retry={"max_attempts": 2, "base_delay_seconds": 10}, max_interruptions=0)
        self.heartbeat(at(59), held)
        self.heartbeat(at(61), held)
        assert at(88).stages.take_back_tasks(StageRef(job_id, 1, 1)).taken_back == 0
        row = at(89).stages.take_back_tasks(StageRef(job_id, 1, 1))
        assert (row.taken_back, row.timed_out, row.given_up) == (1, 1, 0)

        task = at(89).task(job_id, TASKS[0])
        assert (task["status"], task["interruptions"], task["error"]["type"]) == ("pending_retry", 0, "TaskTimedOut")
        assert 0 <= (task["due_at"] - task["started_at"]).total_seconds() - 89 <= 10
        assert complete(at(90), job_id, held.lease_id, TASKS[0]).updated_ids == ()
        assert "retry_scheduled" in events(at(0), job_id)

        second = HeldTask(job_id, 1, TASKS[0], at(200).claim(job_id, 1, TASKS[0]), 30.0)
        assert self.heartbeat(at(260), second) == "timed_out"
        row = at(300).stages.take_back_tasks(StageRef(job_id, 1, 1))
        assert (row.taken_back, row.timed_out, row.given_up) == (0, 1, 1)
        assert row.is_last_task_in_stage
        task = at(300).task(job_id, TASKS[0])
        assert (task["status"], task["attempt"], task["error"]["type"]) == ("failed", 2, "TaskTimedOut")

    def test_worker_that_died_before_was_interrupted_however_late_the_sweep(self, at):
        job_id, held = self.running(at, retry={"max_attempts": 1})
        self.heartbeat(at(20), held)
        row = at(3600).stages.take_back_tasks(StageRef(job_id, 1, 1))
        assert (row.taken_back, row.timed_out) == (1, 0)
        task = at(0).task(job_id, TASKS[0])
        assert (task["status"], task["interruptions"], task["error"]) == ("pending", 1, None)

    def test_result_under_a_lease_that_still_holds_counts(self, at):
        job_id, held = self.running(at)
        self.heartbeat(at(60), held)
        assert complete(at(62), job_id, held.lease_id, TASKS[0]).updated_ids == (TASKS[0],)

    def test_cancelled_job_is_what_a_late_attempt_hears_of_and_its_lease_ends_too(self, at):
        job_id, held = self.running(at)
        self.heartbeat(at(59), held)
        at(59).jobs.cancel_job(job_id, None)
        assert self.heartbeat(at(70), held) == "stop"
        row = at(89).stages.take_back_tasks(StageRef(job_id, 1, 1))
        assert (row.timed_out, row.is_last_task_in_stage) == (0, True)
        assert at(89).job_status(job_id) == "cancelled"


class TestRaces:
    """Timeout against completion: one of them wins, whole."""

    def test_stage_deadline_against_its_last_completions(self, at, crowd):
        engine, late = at(0), at(60)
        outcomes = Counter()
        for _ in range(25):
            job_id = engine.submit(timeout_seconds=60)
            engine.plan(job_id, 1, 3)
            leases = {task_id: engine.claim(job_id, 1, task_id) for task_id in TASKS}
            *checks, enforced = crowd(
                *(
                    lambda task_id=task_id, job_id=job_id, leases=leases: complete(
                        late, job_id, leases[task_id], task_id
                    )
                    for task_id in TASKS
                ),
                lambda job_id=job_id: late.stages.enforce_deadlines(StageRef(job_id, 1, 1), 10),
            )
            job = late.jobs.find_job(job_id)
            lasts = sum(check.is_last_task_in_stage for check in checks)
            statuses = {late.task(job_id, task_id)["status"] for task_id in TASKS}
            if enforced.outcome == "stage_timed_out":
                assert (job.status, job.error["type"], lasts) == ("failed", "StageTimedOut", 0)
                assert statuses <= {"completed", "cancelled"}
            else:
                assert (job.status, job.stage, job.error, lasts) == ("queued", 2, None, 1)
                assert statuses == {"completed"}
            outcomes[enforced.outcome] += 1
        assert set(outcomes) <= {"stage_timed_out", "nothing"}

    def test_queue_deadline_against_claims_leaves_every_task_with_one_owner(self, at, crowd):
        """Claims by a clock that stands just before the deadline, expiry by one just after it."""
        engine, before, late = at(0), at(59), at(60)
        for _ in range(15):
            job_id = engine.submit(stages=1, queue_timeout_seconds=60, failure={"on_failure": "continue"})
            engine.plan(job_id, 1, 6)
            ids = [f"s1-{index:05d}" for index in range(6)]

            def work(task_id, job_id=job_id):
                lease = uuid4()
                before.tasks.claim_tasks(StageRef(job_id, 1, 1), [task_id], lease=Lease(lease, "w"))
                return complete(before, job_id, lease, task_id).updated_ids

            *done, _ = crowd(
                *(lambda task_id=task_id: work(task_id) for task_id in ids),
                lambda job_id=job_id: late.stages.enforce_deadlines(StageRef(job_id, 1, 1), 10),
            )
            late.stages.enforce_deadlines(StageRef(job_id, 1, 1), 10)
            statuses = {task_id: late.task(job_id, task_id)["status"] for task_id in ids}
            completed = {task_id for ids_done in done for task_id in ids_done}
            assert {task_id for task_id, status in statuses.items() if status == "completed"} == completed
            assert set(statuses.values()) <= {"completed", "failed"}
            assert late.job_status(job_id) == "finalizing"

    def test_many_janitors_end_a_job_once(self, at, crowd):
        """Several apps ran a janitor each, against each other (lesson D26)."""
        engine, late = at(0), at(60)
        job_id = engine.submit(job_timeout_seconds=60)
        engine.plan(job_id, 1, 50)
        answers = crowd(*[lambda: late.stages.enforce_deadlines(StageRef(job_id, 1, 1), 10)] * 12)
        assert Counter(each.outcome for each in answers) == {"job_timed_out": 1, "nothing": 11}
        assert events(engine, job_id).count("job_failed") == 1
        assert {row["status"] for row in engine.query("select status from app.tasks")} == {"cancelled"}

    def test_taking_a_late_attempt_back_against_its_end(self, at, crowd):
        engine, late = at(0), at(100)
        for _ in range(25):
            job_id = engine.submit(stages=1, task_timeout_seconds=60, lease_seconds=30)
            engine.plan(job_id, 1, 1)
            lease = engine.claim(job_id, 1, TASKS[0])
            at_60 = HeldTask(job_id, 1, TASKS[0], lease, 30.0)
            late.tasks.renew_leases([at_60])
            check, row = crowd(
                lambda job_id=job_id, lease=lease: complete(late, job_id, lease, TASKS[0]),
                lambda job_id=job_id: late.stages.take_back_tasks(StageRef(job_id, 1, 1)),
            )
            status = late.task(job_id, TASKS[0])["status"]
            assert (len(check.updated_ids), row.timed_out, status) in {
                (1, 0, "completed"),
                (0, 1, "pending_retry"),
            }
