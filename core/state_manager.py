"""Every state transition, and nothing else makes one. PostgreSQL decides; this calls it and logs the outcome."""

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from core.basics.canonical import LARGE_VALUE_BYTES
from core.basics.log_fields import log_fields, with_log_fields
from core.basics.outage import outage
from core.basics.strict_json import EncodedJson
from core.errors import Failure, StoreUnavailable
from core.joined_tasks import JoinedTasks, NextTask
from core.models import JobRecord, JobRef, JobStatus, RetryPolicy, StageRef
from core.models.announcement import LimitedTask, ParkedTask, TakenTask
from core.models.bulk import DeleteAnswer, DeleteOutcome, HoldAnswer
from core.models.control import (
    DEFAULT_CANCEL_GRACE_SECONDS,
    AdjustAnswer,
    AdjustRequest,
    ControlAnswer,
    IfEnded,
    RerunRequest,
)
from core.models.dead_letter import DeadLetter, RecordedLetter
from core.models.retry import retry_delay
from core.models.submission import ForcedJob, JobWish, KeyedPayload, Submitted
from core.models.transition import (
    Claim,
    ClaimOutcome,
    Completion,
    DeadlineOutcome,
    Enforcement,
    JsonObject,
    PlanOutcome,
    PostponedStep,
    PostponedTask,
    PostponeOutcome,
    RetryAnswer,
    SmallStage,
    StageCheck,
    TakenBack,
    TaskRow,
)
from core.ports import JobStore, StageStore, TaskStore
from core.safety.credentials import redacted_start
from core.safety.safe_log import safe_logger
from core.state_records import (
    report_cancel,
    report_claims,
    report_ended,
    report_finalized,
    report_interrupted,
    report_job_ended,
    report_job_failed,
    report_planned,
    report_released,
    report_retry,
    report_submitted,
)

log = safe_logger(__name__)

_LOGGED_DESCRIPTION = 500


class StateManager:
    """The only caller of the state-changing verbs."""

    def __init__(self, jobs: JobStore, tasks: TaskStore, stages: StageStore) -> None:
        self._jobs = jobs
        self._tasks = tasks
        self._stages = stages
        self._joined = JoinedTasks(tasks, stages)

    def submit_job(
        self,
        job: JobRecord,
        *,
        forced: ForcedJob | None = None,
        key: KeyedPayload | None = None,
        if_ended: IfEnded = IfEnded.RETURN,
        outside_id: Collection[str] = (),
    ) -> Submitted:
        """Write the job and its first stage, or find it there: by its id, or by its key. `forced`: beside the first."""
        submitted = self._jobs.submit_job(job, forced=forced, key=key, if_ended=if_ended, outside_id=outside_id)
        report_submitted(job.correlation_id, submitted)
        return submitted

    def submit_jobs(self, wishes: Sequence[JobWish]) -> list[Submitted]:
        """As `submit_job` for each, in their order: all are written, or none. With tags, start_at, priority, detail."""
        answers = self._jobs.submit_jobs(wishes)
        for wish, submitted in zip(wishes, answers, strict=True):
            report_submitted(wish.job.correlation_id, submitted)
        return answers

    def note_submission(self, ref: JobRef, detail: Mapping[str, Any]) -> None:
        """Add to the event of a submission that made a job. That is written already: an outage here is only logged."""
        try:
            self._jobs.note_submission(ref, detail)
        except StoreUnavailable as error:
            log.warning("submission_not_noted", exc_info=error, extra=ref.log_fields)

    def note_trace(self, ref: JobRef, traceparent: str) -> None:
        """Keep the trace of a submission that made a job. The job is written already: an outage is only logged."""
        try:
            self._jobs.note_trace(ref, traceparent)
        except StoreUnavailable as error:
            log.warning("submission_not_noted", exc_info=error, extra=ref.log_fields)

    def find_job(self, job_id: str) -> JobRecord | None:
        return self._jobs.find_job(job_id)

    def find_jobs(self, job_ids: Sequence[str]) -> list[JobRecord]:
        """Those of them that there are, in any order."""
        return self._jobs.find_jobs(job_ids)

    def mark_job_announced(self, ref: StageRef) -> bool:
        """The jobs queue has the message for this step. False when the job has moved on meanwhile."""
        return self._jobs.mark_job_announced(ref)

    def mark_jobs_announced(self, refs: Sequence[JobRef]) -> int:
        """The jobs queue has the messages that begin these jobs: how many still wait for them."""
        if len(refs) == 1:
            return int(self._jobs.mark_job_announced(refs[0].at_stage(1)))
        return self._jobs.mark_jobs_announced(refs)

    def retry_job_step(self, job: JobRecord, error: Mapping[str, Any], delay_seconds: float) -> int | None:
        """Planning or finalizing is to be retried: the failed attempts so far, None if the job does not wait for it."""
        return self._jobs.retry_job_step(job.stage_ref, error, delay_seconds)

    def postpone_job_step(
        self, job: JobRecord, unknown: Mapping[str, str], *, patience_seconds: float, delays: Sequence[float]
    ) -> PostponedStep:
        """Planning or finalizing is left to an app that knows how; no attempt is spent. Exhausted: fail the job."""
        answer = self._jobs.postpone_job_step(job.stage_ref, unknown, patience_seconds, delays)
        extra = {"checkpoint": "UNKNOWN_WORK", **job.stage_ref.log_fields, "outcome": answer.outcome}
        log.info("job_step_given_back", extra={**extra, "missing": dict(unknown), "wait_seconds": answer.delay_seconds})
        return answer

    def postpone_tasks(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        task_ids: Sequence[str],
        unknown: Mapping[str, str],
        patience_seconds: float,
        delays: Sequence[float],
    ) -> list[PostponedTask]:
        """Leave claimed tasks to an app that knows them; no attempt is spent. Beyond the patience they fail."""
        tasks = self._tasks.postpone_tasks(
            ref,
            lease_id=lease_id,
            task_ids=task_ids,
            unknown=unknown,
            patience_seconds=patience_seconds,
            delays=delays,
        )
        failed = [task.task_id for task in tasks if task.outcome is PostponeOutcome.FAILED]
        extra = {"checkpoint": "UNKNOWN_WORK", **ref.log_fields, "missing": dict(unknown)}
        log.log(
            logging.ERROR if failed else logging.INFO,
            "tasks_given_back",
            extra={**extra, "count": len(tasks) - len(failed), "failed": failed},
        )
        report_job_ended(ref, next((task.job_status for task in tasks if task.is_last_task_in_stage), None))
        return tasks

    def expected_count(self, ref: StageRef) -> int:
        """How many tasks a planned stage has."""
        return self._stages.expected_count(ref)

    def mark_tasks_announced(self, ref: JobRef, task_ids: Sequence[str]) -> int:
        """A queue has the messages for these tasks: pending becomes queued."""
        return self._tasks.mark_tasks_announced(ref, task_ids)

    def take_next_tasks(self, ref: StageRef) -> list[TakenTask]:
        """Take tasks that waited for their turn into their stage's window: the caller sends their messages."""
        return self._tasks.take_next_tasks(ref)

    def take_limited_tasks(self, ref: StageRef) -> list[LimitedTask]:
        """Take tasks that waited for their stage's limits: the caller sends their messages."""
        return self._tasks.take_limited_tasks(ref)

    def find_limit_waiters(self, names: Sequence[str] | None, limit: int) -> list[StageRef]:
        """Stages whose turn has come at these limits, or at all of them."""
        return self._tasks.find_limit_waiters(names, limit)

    def claim_tasks(self, ref: StageRef, task_ids: Sequence[str], *, owner: str) -> Claim:
        """Lease tasks: one row per id. Small messages of one stage that are claimed at the same time share a call."""
        claim = self._joined.claim(ref, task_ids, owner)
        refused = {row.task_id: row.outcome for row in claim.rows if row.outcome is not ClaimOutcome.CLAIMED}
        if refused:
            report_claims(ref, refused)
        return claim

    def release_tasks(self, ref: StageRef, *, lease_id: UUID, task_ids: Sequence[str], started: bool) -> list[str]:
        """Release tasks before their lease ends: the ids that are pending again."""
        released = self._tasks.release_tasks(ref, lease_id=lease_id, task_ids=task_ids, started=started)
        if started:
            report_released(len(released))
        return released

    def plan_stage(
        self,
        ref: StageRef,
        tasks: Iterable[TaskRow],
        *,
        tasks_per_message: int | None = None,
        first_window: int | None = None,
        is_limited: bool = False,
    ) -> tuple[PlanOutcome, int]:
        """Insert a stage's tasks and seal it, or nothing; with `first_window` they wait to be taken into a window.

        Args:
            is_limited: The stage has limits, in which each of its tasks needs a place.

        Returns:
            `planned` and the number of tasks, or why not and 0.
        """
        began = time.monotonic()
        outcome, count = self._tasks.plan_stage(
            ref, tasks, tasks_per_message=tasks_per_message, first_window=first_window, is_limited=is_limited
        )
        report_planned(ref, outcome, count, _since(began))
        return outcome, count

    def plan_small_stage(self, ref: StageRef, planned: SmallStage) -> PlanOutcome:
        """As `plan_stage`, in one call."""
        began = time.monotonic()
        outcome = self._tasks.plan_small_stage(ref, planned)
        report_planned(ref, outcome, len(planned.tasks), _since(began))
        if outcome is PlanOutcome.PLANNED:
            self._note_if_large(ref, "parameters", {task.task_id: task.parameters for task in planned.tasks})
        return outcome

    def complete_tasks(
        self, ref: StageRef, *, lease_id: UUID, results: Mapping[str, EncodedJson], wanted: NextTask | None = None
    ) -> tuple[StageCheck, Claim | None]:
        """End tasks as completed and see whether they were the stage's last. Small messages share a call, as claims.

        Returns:
            With it, the claim of the next task in line, if it is wanted and one waits.
        """
        check, claim = self._joined.complete(ref, Completion(lease_id, results), wanted)
        report_ended("TASK_COMPLETE", ref, results, check)
        self._note_if_large(ref, "result", results)
        return check, claim

    def complete_stage_and_plan_next(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        results: Mapping[str, JsonObject],
        following: SmallStage,
    ) -> bool:
        """End all tasks of a stage as completed, and plan the next, of at least one task: all of it, or nothing."""
        began = time.monotonic()
        done = self._stages.complete_stage_and_plan_next(ref, lease_id=lease_id, results=results, following=following)
        if done:
            after = StageRef(ref.job_id, ref.run, ref.stage + 1)
            report_ended("TASK_COMPLETE", ref, results, _all_of(results))
            report_planned(after, PlanOutcome.PLANNED, len(following.tasks), _since(began))
            self._note_if_large(ref, "result", results)
            self._note_if_large(after, "parameters", {task.task_id: task.parameters for task in following.tasks})
        return done

    def complete_stage_and_finalize(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        results: Mapping[str, JsonObject],
        summary: JsonObject,
    ) -> str | None:
        """End all tasks of the last stage as completed, and the job: all of it, or nothing. The job's status then."""
        status = self._stages.complete_stage_and_finalize(ref, lease_id=lease_id, results=results, summary=summary)
        if status is not None:
            report_ended("TASK_COMPLETE", ref, results, _all_of(results))
            report_finalized(ref.job_ref, status)
            self._note_if_large(ref, "result", results)
            self._note_if_large(ref, "summary", {None: summary})
        return status

    def fail_tasks(self, ref: StageRef, *, lease_id: UUID, errors: Mapping[str, Mapping[str, Any]]) -> StageCheck:
        """End tasks as failed; the stage's policy may end the job."""
        check = self._stages.fail_task_and_check_stage(ref, lease_id=lease_id, errors=errors)
        report_ended("TASK_FAILED", ref, errors, check)
        return check

    def schedule_retry(
        self,
        ref: StageRef,
        task_id: str,
        *,
        lease_id: UUID,
        failure: Failure,
        attempt: int,
        policy: RetryPolicy,
    ) -> RetryAnswer:
        """Write down that a failed attempt is to be tried again, and when.

        Args:
            attempt: The attempt that failed, interruptions not counted.

        Raises:
            AttemptsExhausted: attempt >= policy.max_attempts.
        """
        delay = retry_delay(attempt, policy)
        if failure.retry_after_seconds is not None:
            delay = max(delay, failure.retry_after_seconds)
        answer = self._stages.increment_task_retry_count(
            ref, task_id, lease_id=lease_id, error=failure.to_json(), delay_seconds=delay
        )
        report_retry(ref, task_id, answer)
        return answer

    def take_back_tasks(self, ref: StageRef) -> TakenBack:
        """Take back tasks whose lease ran out."""
        answer = self._stages.take_back_tasks(ref)
        if answer.taken_back or answer.given_up:
            report_interrupted(ref, answer)
        if answer.is_last_task_in_stage:
            self._report_end(ref)
        return answer

    def find_suspects(self, ref: JobRef, task_ids: Sequence[str], most: int) -> list[str]:
        """Those that spent half of the interruptions that they survive on processes that were lost under them."""
        lost = self._stages.count_lost_processes(ref, task_ids)
        return [task_id for task_id in task_ids if lost.get(task_id, 0) * 2 >= max(most, 1)]

    def note_alone(self, ref: StageRef, task_id: str) -> None:
        """In the job's timeline: nothing else runs in the process where this task is about to."""
        record = with_log_fields(checkpoint="TASK_RUNS_ALONE", **ref.log_fields, task_id=task_id)
        log.warning("task_runs_alone", extra=record)
        try:
            self._jobs.record_event(ref, task_id, "task_runs_alone", {})
        except StoreUnavailable as error:
            outage.note(str(error))

    def _report_end(self, ref: StageRef) -> None:
        """For an answer that does not say what became of the job. What was done is done: an outage is only noted."""
        try:
            job = self._jobs.find_job(ref.job_id)
        except StoreUnavailable as error:
            outage.note(str(error))
            return
        if job is not None and job.stage_ref == ref:
            with log_fields(correlation_id=job.correlation_id):
                report_job_ended(ref, job.status)

    def enforce_deadlines(self, ref: StageRef, *, limit: int = 1000) -> Enforcement:
        """End what is overdue at the job's current stage: the job, or at most `limit` tasks that have not begun."""
        enforced = self._stages.enforce_deadlines(ref, limit)
        if enforced.outcome is not DeadlineOutcome.NOTHING:
            log.error(
                "deadline_passed",
                extra={
                    "checkpoint": "DEADLINE_PASSED",
                    **ref.log_fields,
                    "outcome": enforced.outcome,
                    "count": enforced.expired_count,
                },
            )
            report_job_ended(ref, enforced.job_status)
        return enforced

    def resume_stalled_job(self, ref: StageRef) -> bool:
        """Decide again what a stage's last task decides: whether the job moved."""
        return self._stages.resume_stalled_job(ref)

    def finalize_job(self, ref: JobRef, result: JsonObject | None) -> str | None:
        """Store the job's summary and end it; None when it does not wait for that."""
        status = self._jobs.finalize_job(ref, result)
        report_finalized(ref, status)
        return status

    def _note_if_large(self, ref: StageRef, kind: str, values: Mapping[Any, JsonObject]) -> None:
        """As `note_large_values`, of the values themselves, by the tasks' ids."""
        if max(map(len, values.values()), default=0) > LARGE_VALUE_BYTES:
            self.note_large_values(ref, kind, ((task_id, len(value)) for task_id, value in values.items()))

    def note_large_values(self, ref: StageRef, kind: str, sizes: Iterable[tuple[str | None, int]]) -> None:
        """Warn in the job's timeline of values that are large, in one line. Nothing else depends on it.

        Args:
            kind: result, parameters or summary.
            sizes: Tasks' ids, None for the job itself, and bytes of JSON.
        """
        large = [(size, task_id) for task_id, size in sizes if size > LARGE_VALUE_BYTES]
        if not large:
            return
        size, task_id = max(large, key=lambda one: one[0])
        detail = {"kind": kind, "count": len(large), "largest_bytes": size, "warned_above_bytes": LARGE_VALUE_BYTES}
        record = with_log_fields(checkpoint="LARGE_VALUE", **ref.log_fields, task_id=task_id)
        log.warning("large_value", extra={**record, **detail})
        try:
            self._jobs.record_event(ref, task_id, "large_value", detail)
        except Exception as error:  # noqa: BLE001 - what it warns of is written down, and must not be done again
            log.warning("large_value_not_noted", extra={**record, "reason": str(error)})

    def fail_all_job_tasks(self, job_id: str, error: Mapping[str, Any]) -> bool:
        """Fail the job: its open stage ends with it, its unfinished tasks are cancelled. False if it had ended."""
        job = self._jobs.find_job(job_id)
        if job is None:
            return False
        failed = self._jobs.fail_job(job.ref, error)
        if failed:
            report_job_failed(job, error)
        return failed

    def cancel_job(
        self,
        job_id: str,
        reason: str | None,
        *,
        grace_seconds: float = DEFAULT_CANCEL_GRACE_SECONDS,
        actor: str | None = None,
    ) -> str | None:
        """Cancel what has not started; running tasks stop at a heartbeat. The job's status, None if unknown.

        Args:
            grace_seconds: When they have not stopped after it, the job ends without them.
        """
        status = self._jobs.cancel_job(job_id, reason, grace_seconds=grace_seconds, actor=actor)
        report_cancel(job_id, status)
        return status

    def force_cancel(self, ref: StageRef) -> int | None:
        """End a job whose cancel is overdue: how many tasks had not stopped; None if it is not, or has ended."""
        count = self._jobs.force_cancel(ref)
        if count is not None:
            record = {"checkpoint": "JOB_CANCEL", **ref.log_fields, "count": count}
            log.warning("job_cancel_forced", extra=record)
            report_job_ended(ref, JobStatus.CANCELLED)
        return count

    def pause_job(self, job_id: str, *, reason: str | None, actor: str | None) -> ControlAnswer | None:
        """Nothing new of the job begins from now on; None for an unknown job."""
        return _logged("job_pause_asked", job_id, self._jobs.pause_job(job_id, reason=reason, actor=actor))

    def resume_job(self, job_id: str, *, reason: str | None, actor: str | None) -> ControlAnswer | None:
        """Let a paused job go on; None for an unknown job."""
        return _logged("job_resume_asked", job_id, self._jobs.resume_job(job_id, reason=reason, actor=actor))

    def rerun_job(
        self, ref: JobRef, request: RerunRequest, definition: Mapping[str, Any] | None
    ) -> ControlAnswer | None:
        """Begin the run after `ref.run` of a job that has ended; None for an unknown job."""
        answer = self._jobs.rerun_job(ref, request, definition)
        return _logged("job_rerun_asked", ref.job_id, answer)

    def adjust_job(self, job_id: str, request: AdjustRequest) -> AdjustAnswer | None:
        """Change how fast a job goes on; None for an unknown job."""
        answer = self._jobs.adjust_job(job_id, request)
        if answer is not None:
            record = {"checkpoint": "JOB_CONTROL", "job_id": job_id, "run": answer.run, "status": answer.status}
            log.info("job_adjust_asked", extra={**record, "outcome": answer.outcome, **request.changes})
        return answer

    def delete_job(self, job_id: str, *, reason: str | None, actor: str | None, limit: int) -> DeleteAnswer | None:
        """Delete at most `limit` of an ended job's tasks, and with the last of them the job. None: unknown."""
        answer = self._jobs.delete_job(job_id, reason=reason, actor=actor, limit=limit)
        if answer is not None and answer.outcome is not DeleteOutcome.DELETING:
            record = {"checkpoint": "JOB_DELETE", "job_id": job_id, "outcome": answer.outcome}
            log.info("job_delete_asked", extra={**record, "status": answer.status})
        return answer

    def hold_job(self, job_id: str, *, is_held: bool, reason: str | None, actor: str | None) -> HoldAnswer | None:
        """Keep a job from being deleted, or no more; None for an unknown job."""
        answer = self._jobs.hold_job(job_id, is_held=is_held, reason=reason, actor=actor)
        if answer is not None and answer.has_changed:
            log.info("job_hold_changed", extra={"checkpoint": "JOB_HOLD", "job_id": job_id, "is_held": is_held})
        return answer

    def find_parked_tasks(self, job_id: str | None, limit: int, hold_seconds: float) -> list[ParkedTask]:
        """Tasks that need a message once more, held for the caller; of one job or of all."""
        return self._jobs.find_parked_tasks(job_id, limit, hold_seconds)

    def unpark_tasks(self, ref: JobRef, task_ids: Sequence[str], held_until: datetime) -> int:
        """A queue has the messages for these parked tasks."""
        return self._jobs.unpark_tasks(ref, task_ids, held_until)

    def record_dead_letter(self, letter: DeadLetter) -> RecordedLetter:
        """Keep a dead message once; the rows that it named wait for another: queued becomes pending."""
        recorded = self._jobs.record_dead_letter(letter)
        log.warning(
            "message_dead_lettered",
            extra={
                "checkpoint": "DEAD_LETTER",
                "queue": letter.queue,
                "message_id": letter.message_id,
                "job_id": letter.reference.job_id,
                "stage": letter.reference.stage,
                "reason": letter.reason,
                "description": redacted_start(letter.description or "", _LOGGED_DESCRIPTION),
                "is_known": recorded.known,
                "released": recorded.released,
            },
        )
        return recorded


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def _all_of(results: Mapping[str, JsonObject]) -> StageCheck:
    """What a call did that ends all of a stage's tasks, or none."""
    return StageCheck(tuple(results), is_last_task_in_stage=True, stage_status=None, job_status=None)


def _logged(event: str, job_id: str, answer: ControlAnswer | None) -> ControlAnswer | None:
    if answer is not None:
        log.info(
            event,
            extra={
                "checkpoint": "JOB_CONTROL",
                "job_id": job_id,
                "run": answer.run,
                "status": answer.status,
                "outcome": answer.outcome,
            },
        )
    return answer
