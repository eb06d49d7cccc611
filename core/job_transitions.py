"""Every transition of a job as a whole: submitted, planned, finalized, and what operators ask for."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from core.errors import StoreUnavailable
from core.models import JobRecord, JobRef, JobStatus, StageRef
from core.models.announcement import ParkedTask
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
from core.models.submission import ForcedJob, JobWish, KeyedPayload, Submitted
from core.models.transition import JsonObject, PostponedStep
from core.ports import JobStore
from core.safety.credentials import redacted_start
from core.safety.safe_log import safe_logger
from core.telemetry.reports import (
    report_cancel,
    report_finalized,
    report_job_ended,
    report_job_failed,
    report_submitted,
)

log = safe_logger(__name__)

_LOGGED_DESCRIPTION = 500


class JobTransitions:
    """A part of `StateManager`, which adds the transitions of tasks and stages."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs

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
        """The jobs queue has the message for this step. False when the job has advanced meanwhile."""
        return self._jobs.mark_job_announced(ref)

    def mark_jobs_announced(self, refs: Sequence[JobRef]) -> int:
        """The jobs queue has the messages that begin these jobs: how many still wait for them."""
        if len(refs) == 1:
            return int(self._jobs.mark_job_announced(refs[0].at_stage(1)))
        return self._jobs.mark_jobs_announced(refs)

    def retry_job_step(self, job: JobRecord, error: Mapping[str, Any], delay_seconds: float) -> int | None:
        """Planning or finalizing is to be retried: the failed attempts so far, None if the job does not wait for it.

        Args:
            job: As it was when the attempt began. The failure of an attempt that others have replaced counts no more.
        """
        return self._jobs.retry_job_step(job.step_ref, error, delay_seconds)

    def fail_job_step(self, job: JobRecord, error: Mapping[str, Any]) -> bool:
        """Planning or finalizing has failed for good, and with it the job. False if the job does not wait for it.

        Args:
            job: As for `retry_job_step`.
        """
        failed = self._jobs.fail_job_step(job.step_ref, error)
        if failed:
            report_job_failed(job, error)
        return failed

    def postpone_job_step(
        self, job: JobRecord, unknown: Mapping[str, str], *, patience_seconds: float, delays: Sequence[float]
    ) -> PostponedStep:
        """Planning or finalizing is left to an app that knows how; no attempt is counted. Exhausted: fail the job."""
        answer = self._jobs.postpone_job_step(job.stage_ref, unknown, patience_seconds, delays)
        extra = {"checkpoint": "UNKNOWN_WORK", **job.stage_ref.log_fields, "outcome": answer.outcome}
        log.info("job_step_postponed", extra={**extra, "missing": dict(unknown), "wait_seconds": answer.delay_seconds})
        return answer

    def finalize_job(self, ref: JobRef, result: JsonObject | None) -> str | None:
        """Store the job's summary and end it; None when it does not wait for that."""
        status = self._jobs.finalize_job(ref, result)
        report_finalized(ref, status)
        return status

    def fail_all_job_tasks(self, job_id: str, error: Mapping[str, Any]) -> bool:
        """Fail the job: its open stage ends with it, its open tasks are cancelled. False if it had ended."""
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
