"""Where the engine reports what it does: records of tasks, stages and jobs to the log, all else to an observer.

Nothing is recorded where nothing changed. Without an observer of its own, a process reports to the log alone. An
observer never raises, and nothing depends on it: what is reported happens in the same way without it.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from core.basics.log_fields import bound_field, with_log_fields
from core.models import JobRecord, JobRef, JobStatus, StageDefinition, StageRef, StageStatus
from core.models.submission import Submitted
from core.models.transition import (
    ClaimedRow,
    ClaimOutcome,
    PlanOutcome,
    RetryAnswer,
    RetryOutcome,
    StageCheck,
    TakenBack,
)
from core.models.upkeep import SweepReport
from core.safety.safe_log import safe_logger
from core.telemetry.instruments import (
    INTERRUPTIONS,
    REFUSED_CLAIMS,
    REFUSED_LEASES,
    RETRIES,
    TASKS_ENDED,
    Instrument,
)

log = safe_logger(__name__)

# Calls an attempt at a task and reports it; returns what the attempt returns.
AttemptWatch = Callable[[Callable[[ClaimedRow], Any], ClaimedRow], Any]


class Observer:
    """Reports to nobody; another one overrides what it wants to know."""

    def measure(self, instrument: Instrument, value: float, **attributes: str) -> None:
        """Add to a counter, record in a histogram, or set a gauge."""

    def submission(self, job_type: str) -> AbstractContextManager[str | None]:
        """Around a submission. Gives the W3C `traceparent` that the job's row is to keep; None: none."""
        del job_type
        return nullcontext()

    def step(self, job: JobRecord) -> AbstractContextManager[None]:
        """Around the step that the job waits for: `plan_stage` or `finalize_job`."""
        del job
        return nullcontext()

    def attempts_of(self, job: JobRecord, stage: StageDefinition) -> AttemptWatch | None:
        """What the attempts of a message's tasks are called through; None: they are called as they are."""
        del job, stage
        return None

    def job_ended(self, ref: JobRef, status: str) -> None:
        """A run of a job has ended, and that is committed."""

    def job_cancelled(self, job_id: str) -> None:
        """A cancel left the job cancelled: now, or it was so before."""

    def sweep_ended(self, report: SweepReport) -> None:
        """A sweep of the janitor has ended."""

    def outgoing_headers(self) -> Mapping[str, str]:
        """What a message carries, so that its receiver knows in which trace it was sent."""
        return {}

    def receiving(self, headers: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Around what a request or message with these headers or properties leads to."""
        del headers
        return nullcontext()

    def flush(self) -> None:
        """Send what was gathered: the process is about to end."""


_NOBODY = Observer()
_observer = _NOBODY


def observer() -> Observer:
    """The process's observer."""
    return _observer


def observe_with(chosen: Observer | None) -> None:
    """From now on the process reports to this one; None: to nobody."""
    global _observer  # noqa: PLW0603 - one for the process, as there is one log
    _observer = chosen or _NOBODY


def report_submitted(correlation_id: str, submitted: Submitted) -> None:
    """A submission was written, or found its job."""
    log.info(
        "job_submitted",
        extra={
            "checkpoint": "JOB_SUBMITTED",
            "job_id": submitted.job_id,
            "run": submitted.run,
            "correlation_id": correlation_id,
            "outcome": submitted.outcome,
            "status": submitted.status,
            "same_parameters": submitted.same_parameters,
        },
    )


def report_planned(ref: StageRef, outcome: PlanOutcome, count: int, began: float) -> None:
    """A stage was planned, or was not to be. `began`: when the call did, by time.monotonic()."""
    if log.is_enabled_for(logging.INFO):
        record = with_log_fields(checkpoint="STAGE_PLAN", **ref.log_fields)
        record |= {"outcome": outcome, "count": count, "duration_seconds": round(time.monotonic() - began, 3)}
        log.info("stage_plan_ended", extra=record)


def report_finalized(ref: JobRef, status: str | None) -> None:
    """A job ended; None if it did not wait for that."""
    if status is None:
        return
    record = with_log_fields(checkpoint="JOB_COMPLETE", **ref.log_fields, status=status)
    began: datetime | None = bound_field("_run_began")
    if began is not None:
        record["duration_seconds"] = round((datetime.now(UTC) - began).total_seconds(), 3)
    log.info("job_finalized", extra=record)
    _observer.job_ended(ref, status)


def report_job_ended(ref: StageRef, status: str | None) -> None:
    """A job ended otherwise than by its finalizer, together with its stage. Nothing is logged of one that goes on."""
    if status == JobStatus.FAILED:
        record = with_log_fields(checkpoint="JOB_FAILED", **ref.log_fields, status=status)
        log.error("job_failed", extra=record)
    elif status == JobStatus.CANCELLED:
        record = with_log_fields(checkpoint="JOB_CANCEL", **ref.log_fields, status=status)
        log.info("job_cancelled", extra=record)
    else:
        return
    _observer.job_ended(ref.job_ref, status)


def report_job_failed(job: JobRecord, error: Mapping[str, Any]) -> None:
    """A job failed as a whole, outside of its tasks."""
    record = {"checkpoint": "JOB_FAILED", **job.stage_ref.log_fields}
    record |= {"correlation_id": job.correlation_id, "error": dict(error)}
    log.error("job_failed", extra=record)
    _observer.job_ended(job.ref, JobStatus.FAILED)


def report_cancel(job_id: str, status: str | None) -> None:
    """A cancel was asked for, and left the job so."""
    log.info("job_cancel_asked", extra={"checkpoint": "JOB_CANCEL", "job_id": job_id, "status": status})
    if status == JobStatus.CANCELLED:
        _observer.job_cancelled(job_id)


def report_claims(ref: StageRef, refused: Mapping[str, ClaimOutcome]) -> None:
    """Tasks of a message were not claimed, and why, by their ids."""
    log.info("tasks_not_claimed", extra={"checkpoint": "NOT_CLAIMED", **ref.log_fields, "outcomes": refused})
    for outcome, count in Counter(refused.values()).items():
        _observer.measure(REFUSED_CLAIMS, count, outcome=outcome)


def report_released(count: int) -> None:
    """Tasks were released while their handlers ran; the log has a record of that already."""
    _observer.measure(INTERRUPTIONS, count, reason="drain")


def report_interrupted(ref: StageRef, answer: TakenBack) -> None:
    """Tasks were taken back from processes whose leases expired."""
    record = {"checkpoint": "TASKS_INTERRUPTED", **ref.log_fields, **asdict(answer)}
    log.warning("tasks_interrupted", extra=record)
    _observer.measure(INTERRUPTIONS, answer.taken_back, reason="lease_expired")
    _observer.measure(INTERRUPTIONS, answer.given_up, reason="given_up")


def report_ended(checkpoint: str, ref: StageRef, asked: Iterable[str], check: StageCheck) -> None:
    """Tasks ended as asked, came too late for it, or are no longer ours."""
    refused = sorted(set(asked) - set(check.updated_ids))
    if refused:
        record = with_log_fields(checkpoint="STALE_LEASE", **ref.log_fields)
        log.warning("stale_lease_refused", extra={**record, "task_ids": refused})
        _observer.measure(REFUSED_LEASES, len(refused))
    if not check.updated_ids:
        return
    # Their stage or job had ended, or was about to: they became cancelled.
    ends_its_stage = checkpoint == "TASK_FAILED" and check.is_last_task_in_stage
    is_late = check.job_status in {JobStatus.CANCELLING, JobStatus.CANCELLED} or (
        check.stage_status in {StageStatus.FAILED, StageStatus.CANCELLED} and not ends_its_stage
    )
    outcome = "too_late" if is_late else "completed" if checkpoint == "TASK_COMPLETE" else "failed"
    _observer.measure(TASKS_ENDED, len(check.updated_ids), outcome=outcome)
    if log.is_enabled_for(logging.INFO):
        record = with_log_fields(checkpoint="TASK_TOO_LATE" if is_late else checkpoint, **ref.log_fields)
        record |= {"stage_complete": check.is_last_task_in_stage, **_of_attempts(check.updated_ids)}
        log.info("task_came_too_late" if is_late else checkpoint.lower(), extra=record)
    if check.is_last_task_in_stage:
        report_job_ended(ref, check.job_status)


def report_retry(ref: StageRef, task_id: str, answer: RetryAnswer) -> None:
    """Another attempt was scheduled, or refused."""
    record = with_log_fields(checkpoint="RETRY_SCHEDULED", **ref.log_fields)
    record |= {**_of_attempts([task_id]), "outcome": answer.outcome, "delay_seconds": answer.delay_seconds}
    log.warning("retry_scheduled" if answer.outcome is RetryOutcome.SCHEDULED else "retry_refused", extra=record)
    _observer.measure(RETRIES, 1, outcome=answer.outcome)


def _of_attempts(task_ids: Sequence[str]) -> dict[str, Any]:
    """A record's fields for attempts that ended together: lists in one order; for a single one, its values too."""
    outcomes = bound_field("_outcomes") or ()
    attempts = {one.task.task_id: (one.task.attempt, round(one.duration_seconds, 3)) for one in outcomes}
    known = [attempts.get(task_id, (None, None)) for task_id in task_ids]
    record: dict[str, Any] = {"task_ids": list(task_ids)}
    if len(known) == 1:
        ((attempt, seconds),) = known
        return {**record, "task_id": task_ids[0], "attempt": attempt, "duration_seconds": seconds}
    return {**record, "attempts": [one[0] for one in known], "durations_seconds": [one[1] for one in known]}
