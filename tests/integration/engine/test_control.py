"""Pause, resume, cancel with a deadline, rerun: each function on a real PostgreSQL, what it does and refuses."""

from uuid import UUID, uuid4

import pytest

from core.models import JobRef, Lease, StageRef
from core.models.control import ControlAnswer, RerunMode, RerunRequest, allowed_actions
from core.models.lease import HeldTask
from core.models.status import JobStatus

ERROR = {"type": "OSError", "message": "disk full", "retryable": False}
WHO = {"reason": "maintenance", "actor": "ada@example.com"}


def pause(engine, job_id) -> ControlAnswer:
    answer = engine.jobs.pause_job(job_id, **WHO)
    assert answer is not None
    return answer


def resume(engine, job_id) -> ControlAnswer:
    answer = engine.jobs.resume_job(job_id, **WHO)
    assert answer is not None
    return answer


def rerun(engine, job_id, mode="failed", *, run=1, from_stage=None, parameters=None) -> ControlAnswer:
    answer = engine.jobs.rerun_job(
        JobRef(job_id, run),
        RerunRequest(mode=RerunMode(mode), from_stage=from_stage, parameters=parameters, **WHO),
        None,
    )
    assert answer is not None
    return answer


def claim(engine, job_id, stage, *task_ids, run=1) -> tuple[UUID, list[str]]:
    lease_id = uuid4()
    rows = engine.tasks.claim_tasks(StageRef(job_id, run, stage), task_ids, lease=Lease(lease_id, "w"))
    return lease_id, [row.outcome for row in rows]


def run_stage(engine, job_id, stage, count, *, fail=(), run=1):
    """All tasks of a stage, some of them failing."""
    if run == 1:
        engine.plan(job_id, stage, count)
    ids = [f"s{stage}-{index:05d}" for index in range(count)]
    lease, _ = claim(engine, job_id, stage, *ids, run=run)
    failing = {ids[index]: ERROR for index in fail}
    good = {task_id: {"by": run, "id": task_id} for task_id in ids if task_id not in failing}
    if good:
        engine.stages.complete_task_and_check_stage(StageRef(job_id, run, stage), lease_id=lease, results=good)
    if failing:
        engine.stages.fail_task_and_check_stage(StageRef(job_id, run, stage), lease_id=lease, errors=failing)


def tasks_of(engine, job_id, run):
    return engine.query("select * from app.tasks where job_id = %s and run = %s order by task_id", job_id, run)


def events_of(engine, job_id, name):
    return engine.query("select * from app.job_events where job_id = %s and event = %s order by event_id", job_id, name)


class TestPause:
    def test_it_is_told_with_who_and_why(self, engine):
        job_id = engine.submit()

        assert pause(engine, job_id) == ControlAnswer("paused", JobStatus.QUEUED, 1, 1, is_paused=True)
        assert engine.jobs.find_job(job_id).paused_at is not None
        (event,) = events_of(engine, job_id, "job_paused")
        assert event["detail"] == WHO

    def test_again_changes_nothing(self, engine):
        job_id = engine.submit()
        pause(engine, job_id)
        before = engine.jobs.find_job(job_id)

        assert pause(engine, job_id).outcome == "already_paused"
        assert engine.jobs.find_job(job_id) == before
        assert len(events_of(engine, job_id, "job_paused")) == 1

    def test_nothing_is_claimed_and_what_came_in_vain_is_parked(self, engine):
        job_id = engine.submit()
        engine.plan(job_id, 1, 4)
        engine.tasks.mark_tasks_announced(JobRef(job_id, 1), ["s1-00000", "s1-00001"])
        claim(engine, job_id, 1, "s1-00002")
        pause(engine, job_id)

        _, outcomes = claim(engine, job_id, 1, "s1-00000", "s1-00002", "s1-00003", "s1-gone")
        assert outcomes == ["paused", "duplicate", "paused", "missing"]
        parked = [row["task_id"] for row in tasks_of(engine, job_id, 1) if row["parked_at"]]
        assert parked == ["s1-00000", "s1-00003"]
        assert {row["attempt"] for row in tasks_of(engine, job_id, 1)} == {0, 1}

    def test_a_task_to_be_tried_again_is_parked_too(self, engine):
        job_id = engine.submit()
        engine.plan(job_id, 1, 1)
        lease = engine.claim(job_id, 1, "s1-00000")
        pause(engine, job_id)
        engine.stages.increment_task_retry_count(
            StageRef(job_id, 1, 1), "s1-00000", lease_id=lease, error=ERROR, delay_seconds=3600
        )

        assert claim(engine, job_id, 1, "s1-00000")[1] == ["paused"]
        resume(engine, job_id)
        (task,) = engine.jobs.find_parked_tasks(job_id, 10, 60)
        assert task.task_id == "s1-00000"
        assert claim(engine, job_id, 1, "s1-00000")[1] == ["not_due"]

    def test_what_runs_ends_as_it_would_and_the_next_stage_waits(self, engine):
        job_id = engine.submit(stages=2)
        engine.plan(job_id, 1, 1)
        lease = engine.claim(job_id, 1, "s1-00000")
        pause(engine, job_id)

        held = [HeldTask(job_id, 1, "s1-00000", lease, 60.0)]
        assert engine.tasks.renew_leases(held) == {(lease, "s1-00000"): "renewed"}
        check = engine.stages.complete_task_and_check_stage(
            StageRef(job_id, 1, 1), lease_id=lease, results={"s1-00000": {}}
        )
        assert (check.is_last_task_in_stage, check.stage_status, check.job_status) == (True, "completed", None)
        assert engine.plan(job_id, 2, 3) == ("paused", 0)
        job = engine.jobs.find_job(job_id)
        assert (job.status, job.stage) == ("queued", 2)

        resume(engine, job_id)
        assert engine.plan(job_id, 2, 3) == ("planned", 3)

    def test_job_that_ends_is_not_paused_any_more(self, engine):
        for end in ("cancel", "fail"):
            job_id = engine.submit()
            engine.plan(job_id, 1, 1)
            pause(engine, job_id)
            if end == "cancel":
                engine.jobs.cancel_job(job_id, None)
            else:
                engine.jobs.fail_job(JobRef(job_id, 1), ERROR)
            assert engine.jobs.find_job(job_id).paused_at is None
            assert pause(engine, job_id).outcome == "refused"
            assert resume(engine, job_id).outcome == "refused"

    def test_cancelling_is_not_paused(self, engine):
        job_id = engine.submit()
        engine.plan(job_id, 1, 1)
        engine.claim(job_id, 1, "s1-00000")
        pause(engine, job_id)
        engine.jobs.cancel_job(job_id, None)

        assert engine.jobs.find_job(job_id).paused_at is None
        answer = pause(engine, job_id)
        assert (answer.outcome, answer.allowed_actions) == ("refused", ("cancel",))

    def test_unknown_job(self, engine):
        assert engine.jobs.pause_job("0" * 64, **WHO) is None
        assert engine.jobs.resume_job("0" * 64, **WHO) is None


class TestResume:
    def test_step_of_the_job_is_to_be_announced_again(self, engine):
        job_id = engine.submit()
        engine.jobs.mark_job_announced(StageRef(job_id, 1, 1))
        pause(engine, job_id)

        assert resume(engine, job_id) == ControlAnswer("resumed", JobStatus.QUEUED, 1, 1, is_paused=False)
        job = engine.jobs.find_job(job_id)
        assert (job.paused_at, job.announced_at) == (None, None)
        (event,) = events_of(engine, job_id, "job_resumed")
        assert event["detail"]["actor"] == WHO["actor"]
        assert event["detail"]["paused_seconds"] >= 0

    def test_of_a_job_that_runs_changes_nothing(self, engine):
        job_id = engine.submit()
        before = engine.jobs.find_job(job_id)

        assert resume(engine, job_id).outcome == "not_paused"
        assert engine.jobs.find_job(job_id) == before

    def test_parked_tasks_are_found_once_and_only_after_it(self, engine):
        job_id = engine.submit()
        engine.plan(job_id, 1, 3)
        pause(engine, job_id)
        claim(engine, job_id, 1, "s1-00000", "s1-00001")

        assert engine.jobs.find_parked_tasks(job_id, 10, 60) == []
        assert engine.jobs.find_parked_tasks(None, 10, 60) == []
        resume(engine, job_id)
        found = engine.jobs.find_parked_tasks(job_id, 10, 60)
        assert [task.task_id for task in found] == ["s1-00000", "s1-00001"]
        assert engine.jobs.find_parked_tasks(None, 10, 60) == []
        assert engine.jobs.unpark_tasks(JobRef(job_id, 1), ["s1-00000", "s1-00001"], found[0].held_until) == 2
        assert [row["status"] for row in tasks_of(engine, job_id, 1)] == ["queued", "queued", "pending"]
        assert {row["parked_at"] for row in tasks_of(engine, job_id, 1)} == {None}

    def test_confirmation_that_is_late_does_not_hide_a_message_lost_to_the_next_pause(self, engine):
        """Resume sends, the job is paused once more, the message comes in vain, and only then the sender marks it."""
        job_id = engine.submit()
        engine.plan(job_id, 1, 1)
        pause(engine, job_id)
        claim(engine, job_id, 1, "s1-00000")
        resume(engine, job_id)
        (sent,) = engine.jobs.find_parked_tasks(job_id, 10, 60)
        pause(engine, job_id)
        claim(engine, job_id, 1, "s1-00000")

        assert engine.jobs.unpark_tasks(JobRef(job_id, 1), ["s1-00000"], sent.held_until) == 0
        engine.tasks.mark_tasks_announced(JobRef(job_id, 1), ["s1-00000"])
        resume(engine, job_id)
        assert [task.task_id for task in engine.jobs.find_parked_tasks(job_id, 10, 60)] == ["s1-00000"]

    def test_planner_that_marks_late_does_not_hide_a_parked_task(self, engine):
        """The planner's message was sent and came to a paused job before the planner wrote that it was sent."""
        job_id = engine.submit()
        engine.plan(job_id, 1, 1)
        pause(engine, job_id)
        claim(engine, job_id, 1, "s1-00000")
        engine.tasks.mark_tasks_announced(JobRef(job_id, 1), ["s1-00000"])

        resume(engine, job_id)
        assert [task.task_id for task in engine.jobs.find_parked_tasks(job_id, 10, 60)] == ["s1-00000"]


class TestCancelDeadline:
    def cancelling(self, engine, **options):
        job_id = engine.submit()
        engine.plan(job_id, 1, 3)
        lease = engine.claim(job_id, 1, "s1-00000", "s1-00001")
        assert engine.jobs.cancel_job(job_id, "wrong tile", **options) == "cancelling"
        return job_id, lease

    def test_tasks_that_do_not_stop_in_time_are_ended_without_them(self, engine):
        job_id, lease = self.cancelling(engine, grace_seconds=60)
        assert engine.jobs.force_cancel(StageRef(job_id, 1, 1)) is None
        engine.execute("update app.jobs set cancel_deadline_at = now()")

        (found,) = engine.query("select * from app.find_overdue_cancels(10)")
        assert found == {"job_id": job_id, "run": 1, "stage": 1}
        assert engine.jobs.force_cancel(StageRef(job_id, 1, 1)) == 2
        assert engine.jobs.force_cancel(StageRef(job_id, 1, 1)) is None
        job = engine.jobs.find_job(job_id)
        assert (job.status, job.error["type"], job.error["message"]) == ("cancelled", "Cancelled", "wrong tile")
        assert [row["status"] for row in tasks_of(engine, job_id, 1)] == ["cancelled"] * 3
        assert engine.task(job_id, "s1-00000")["error"]["type"] == "CancelForced"
        (event,) = events_of(engine, job_id, "cancel_forced")
        assert event["detail"] == {"count": 2}

        held = [HeldTask(job_id, 1, "s1-00000", lease, 60.0)]
        assert engine.tasks.renew_leases(held) == {}
        late = engine.stages.complete_task_and_check_stage(
            StageRef(job_id, 1, 1), lease_id=lease, results={"s1-00000": {"x": 1}}
        )
        assert late.updated_ids == ()
        assert engine.task(job_id, "s1-00000")["result"] is None

    def test_no_grace_ends_it_at_once(self, engine):
        job_id = engine.submit()
        engine.plan(job_id, 1, 1)
        engine.claim(job_id, 1, "s1-00000")

        assert engine.jobs.cancel_job(job_id, None, grace_seconds=0) == "cancelled"
        assert engine.task(job_id, "s1-00000")["status"] == "cancelled"

    def test_second_cancel_brings_the_deadline_nearer_and_never_puts_it_off(self, engine):
        job_id, _ = self.cancelling(engine, grace_seconds=100)
        first = engine.jobs.find_job(job_id).cancel_deadline_at

        assert engine.jobs.cancel_job(job_id, None, grace_seconds=1000) == "cancelling"
        assert engine.jobs.find_job(job_id).cancel_deadline_at == first
        assert engine.jobs.cancel_job(job_id, None, grace_seconds=10) == "cancelling"
        assert engine.jobs.find_job(job_id).cancel_deadline_at < first
        assert engine.jobs.cancel_job(job_id, None, grace_seconds=0) == "cancelled"
        assert len(events_of(engine, job_id, "cancel_requested")) == 3

    def test_release_before_still_cancels(self, engine):
        job_id = engine.submit()
        engine.plan(job_id, 1, 1)
        engine.claim(job_id, 1, "s1-00000")

        assert engine.query("select app.cancel_job(%s, 'old way')", job_id) == [{"cancel_job": "cancelling"}]
        (row,) = engine.query("select cancel_deadline_at > now() + interval '290 seconds' as ok from app.jobs")
        assert row["ok"]


class TestRerun:
    def test_failed_tasks_get_fresh_attempts_and_the_others_are_kept(self, engine):
        """A failed stage of 600 tasks started from zero (lesson D32)."""
        job_id = engine.submit(stages=3)
        run_stage(engine, job_id, 1, 2)
        run_stage(engine, job_id, 2, 4, fail=[1])
        assert engine.job_status(job_id) == "failed"

        answer = rerun(engine, job_id)
        assert (answer.outcome, answer.status, answer.run, answer.stage) == ("rerun", "processing", 2, 2)
        assert (answer.kept_count, answer.fresh_count) == (5, 1)
        job = engine.jobs.find_job(job_id)
        assert (job.error, job.result, job.finished_at) == (None, None, None)
        kept = [row for row in tasks_of(engine, job_id, 2) if row["from_run"]]
        assert {row["result"]["by"] for row in kept} == {1}
        (fresh,) = [row for row in tasks_of(engine, job_id, 2) if not row["from_run"]]
        assert (fresh["task_id"], fresh["status"], fresh["attempt"], fresh["error"]) == ("s2-00001", "pending", 0, None)
        assert [task.task_id for task in engine.jobs.find_parked_tasks(job_id, 10, 60)] == ["s2-00001"]

        lease, outcomes = claim(engine, job_id, 2, "s2-00001", run=2)
        assert outcomes == ["claimed"]
        check = engine.stages.complete_task_and_check_stage(
            StageRef(job_id, 2, 2), lease_id=lease, results={"s2-00001": {}}
        )
        assert (check.is_last_task_in_stage, check.stage_status, check.job_status) == (True, "completed", "queued")
        stages = engine.query("select stage, run, status, from_run, expected_count from app.stages where run = 2")
        assert sorted(stages, key=lambda row: row["stage"]) == [
            {"stage": 1, "run": 2, "status": "completed", "from_run": 1, "expected_count": 2},
            {"stage": 2, "run": 2, "status": "completed", "from_run": 1, "expected_count": 4},
            {"stage": 3, "run": 2, "status": "queued", "from_run": None, "expected_count": None},
        ]

    def test_old_run_stays_as_it_was(self, engine):
        job_id = engine.submit(stages=2)
        run_stage(engine, job_id, 1, 3, fail=[0])
        before, stages = tasks_of(engine, job_id, 1), engine.query("select * from app.stages")
        old = engine.jobs.find_job(job_id)

        rerun(engine, job_id, parameters={"n": 2})
        assert tasks_of(engine, job_id, 1) == before
        assert engine.query("select * from app.stages where run = 1") == stages
        assert engine.jobs.find_job(job_id).parameters == {"n": 2}
        (kept,) = engine.query("select * from app.job_runs")
        assert (kept["run"], kept["status"], kept["parameters"]) == (1, "failed", {})
        assert (kept["error"], kept["finished_at"]) == (old.error, old.finished_at)

    def test_it_is_told_with_who_and_why_and_what(self, engine):
        job_id = engine.submit(stages=1)
        run_stage(engine, job_id, 1, 2, fail=[0])
        rerun(engine, job_id, parameters={"n": 2})

        (event,) = events_of(engine, job_id, "job_rerun")
        assert (event["run"], event["stage"]) == (2, 1)
        assert event["detail"] == WHO | {
            "mode": "failed",
            "from_run": 1,
            "kept_count": 1,
            "fresh_count": 1,
            "parameters": {"n": 2},
        }

    def test_messages_of_the_old_run_do_nothing(self, engine):
        """Old messages hit rows of a reset job, whose ids were the same (lesson D21)."""
        job_id = engine.submit(stages=1)
        run_stage(engine, job_id, 1, 2, fail=[0])
        rerun(engine, job_id)
        before = tasks_of(engine, job_id, 2)

        assert claim(engine, job_id, 1, "s1-00000", "s1-00001")[1] == ["closed", "closed"]
        assert engine.plan(job_id, 1, 2) == ("stale_run", 0)
        assert engine.stages.take_back_tasks(StageRef(job_id, 1, 1)).taken_back == 0
        assert engine.jobs.fail_job(JobRef(job_id, 1), ERROR) is False
        assert engine.jobs.finalize_job(JobRef(job_id, 1), {}) is None
        assert tasks_of(engine, job_id, 2) == before

    def test_tolerated_failures_are_tried_again_and_later_stages_planned_anew(self, engine):
        job_id = engine.submit(stages=2, failure={"on_failure": "continue"})
        run_stage(engine, job_id, 1, 3, fail=[2])
        run_stage(engine, job_id, 2, 1)
        engine.jobs.finalize_job(JobRef(job_id, 1), {"old": True})
        assert engine.job_status(job_id) == "completed_with_errors"

        answer = rerun(engine, job_id)
        assert (answer.status, answer.stage, answer.kept_count, answer.fresh_count) == ("processing", 1, 2, 1)
        assert {row["stage"] for row in tasks_of(engine, job_id, 2)} == {1}
        (stage,) = engine.query("select failed_count from app.stages where run = 2 and stage = 1")
        assert stage["failed_count"] == 0

    def test_stage_that_was_never_planned_is_planned(self, engine):
        job_id = engine.submit(stages=2)
        run_stage(engine, job_id, 1, 2)
        engine.jobs.fail_job(JobRef(job_id, 1), ERROR)

        answer = rerun(engine, job_id)
        assert (answer.status, answer.stage, answer.kept_count, answer.fresh_count) == ("queued", 2, 2, None)

    def test_job_whose_summary_failed_is_finalized_again(self, engine):
        job_id = engine.submit(stages=1)
        run_stage(engine, job_id, 1, 2)
        engine.jobs.fail_job(JobRef(job_id, 1), ERROR)

        answer = rerun(engine, job_id)
        assert (answer.status, answer.stage, answer.kept_count, answer.fresh_count) == ("finalizing", 1, 2, 0)
        assert engine.jobs.finalize_job(JobRef(job_id, 2), {"n": 1}) == "completed"

    def test_cancelled_job_goes_on_with_what_had_not_ended(self, engine):
        job_id = engine.submit(stages=1)
        engine.plan(job_id, 1, 3)
        lease = engine.claim(job_id, 1, "s1-00000")
        engine.stages.complete_task_and_check_stage(StageRef(job_id, 1, 1), lease_id=lease, results={"s1-00000": {}})
        engine.jobs.cancel_job(job_id, None)

        answer = rerun(engine, job_id)
        assert (answer.status, answer.kept_count, answer.fresh_count) == ("processing", 1, 2)

    def test_from_stage_keeps_earlier_stages_with_their_failures(self, engine):
        job_id = engine.submit(stages=3, failure={"on_failure": "continue"})
        for stage in (1, 2, 3):
            run_stage(engine, job_id, stage, 2, fail=[0])
        engine.jobs.finalize_job(JobRef(job_id, 1), None)

        answer = rerun(engine, job_id, "from_stage", from_stage=3)
        assert (answer.status, answer.stage, answer.kept_count) == ("queued", 3, 4)
        rows = tasks_of(engine, job_id, 2)
        assert [(row["task_id"], row["status"]) for row in rows] == [
            ("s1-00000", "failed"),
            ("s1-00001", "completed"),
            ("s2-00000", "failed"),
            ("s2-00001", "completed"),
        ]
        assert rows[0]["error"] == ERROR | {"attempt": 1}

    @pytest.mark.parametrize("stage", [0, 3, 4, 9])
    def test_stage_whose_forerunners_did_not_end_cannot_be_the_first(self, engine, stage):
        job_id = engine.submit(stages=3)
        run_stage(engine, job_id, 1, 1)
        run_stage(engine, job_id, 2, 1, fail=[0])

        assert rerun(engine, job_id, "from_stage", from_stage=stage).outcome == "stage_not_reached"
        assert engine.jobs.find_job(job_id).run == 1

    def test_all_keeps_nothing(self, engine):
        job_id = engine.submit(stages=1)
        run_stage(engine, job_id, 1, 2)
        engine.jobs.finalize_job(JobRef(job_id, 1), None)

        answer = rerun(engine, job_id, "all")
        assert (answer.status, answer.run, answer.stage, answer.kept_count) == ("queued", 2, 1, 0)
        assert tasks_of(engine, job_id, 2) == []

    def test_lineage_names_the_run_that_did_the_work(self, engine):
        job_id = engine.submit(stages=1)
        run_stage(engine, job_id, 1, 3, fail=[0])
        rerun(engine, job_id)
        lease, _ = claim(engine, job_id, 1, "s1-00000", run=2)
        engine.stages.fail_task_and_check_stage(StageRef(job_id, 2, 1), lease_id=lease, errors={"s1-00000": ERROR})

        answer = rerun(engine, job_id, run=2)
        assert (answer.run, answer.kept_count, answer.fresh_count) == (3, 2, 1)
        assert [row["from_run"] for row in tasks_of(engine, job_id, 3)] == [None, 1, 1]

    def test_job_that_has_not_ended_is_refused(self, engine):
        job_id = engine.submit()
        assert rerun(engine, job_id).outcome == "refused"
        pause(engine, job_id)
        answer = rerun(engine, job_id, "all")
        assert (answer.outcome, answer.run, answer.allowed_actions) == ("refused", 1, ("cancel", "resume"))

    def test_completed_job_has_no_failed_tasks(self, engine):
        job_id = engine.submit(stages=1)
        run_stage(engine, job_id, 1, 1)
        engine.jobs.finalize_job(JobRef(job_id, 1), None)

        assert rerun(engine, job_id).outcome == "nothing_failed"
        assert engine.query("select 1 from app.job_runs") == []

    def test_who_saw_another_run_begins_none(self, engine):
        job_id = engine.submit(stages=1)
        run_stage(engine, job_id, 1, 1, fail=[0])
        rerun(engine, job_id, "all")
        engine.jobs.fail_job(JobRef(job_id, 2), ERROR)

        assert rerun(engine, job_id, "all", run=1).outcome == "other_run"
        assert engine.jobs.find_job(job_id).run == 2

    def test_unknown_job(self, engine):
        assert engine.jobs.rerun_job(JobRef("0" * 64, 1), RerunRequest(mode=RerunMode.ALL), None) is None


@pytest.mark.parametrize("status", list(JobStatus))
def test_every_state_allows_something_and_an_ended_job_only_a_rerun(status):
    allowed = allowed_actions(status, is_paused=False)
    assert allowed
    assert ("rerun" in allowed) == status.is_terminal == (allowed == ("rerun",))
    assert "resume" not in allowed


def test_what_retention_has_begun_to_delete_is_not_kept_in_part(engine):
    """A rerun between two pieces of a pruning would have made a job of the rows that happened to be left."""
    job_id = engine.submit(stages=2)
    run_stage(engine, job_id, 1, 5)
    run_stage(engine, job_id, 2, 2, fail=[0])
    (pruned,) = engine.query("select * from app.prune_job(%s, 3)", job_id)
    assert pruned == {"pruned_tasks": 3, "is_job_pruned": False}

    assert rerun(engine, job_id).outcome == "pruned"
    assert rerun(engine, job_id, "from_stage", from_stage=2).outcome == "pruned"
    assert engine.query("select 1 from app.job_runs") == []
    assert rerun(engine, job_id, "all").outcome == "rerun"
