"""Why a job in a list waits or failed, in one short sentence. Its own page has all of it: `core.operating.explain`.

The codes are those of `explain`, whose most telling finding this is, as far as a look at a few rows shows it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.basics.words import in_times
from core.models.app import WaitingWork
from core.models.dashboard import JobBrief, OpenSample
from core.models.insight import Finding, Severity
from core.models.status import JobStatus
from core.operating.explain import QUEUE_PATIENCE_SECONDS, SWEEP_OVERDUE_SECONDS

FindMissing = Callable[[WaitingWork], Finding | None]
# Errors whose message has all that matters.
_PLAIN_TYPES = frozenset({"StageFailed", "Cancelled"})


@dataclass(frozen=True)
class BriefReason:
    """Why. `at`: when something happens by itself."""

    code: str
    severity: Severity
    text: str
    at: datetime | None = None


def brief_reason(brief: JobBrief, find_missing: FindMissing) -> BriefReason | None:
    """Why the job waits or failed; None where it goes on or completed as it should.

    Args:
        find_missing: Why no app takes work that waits, as `core.operating.fleet.find_missing_app`; None: one does.
    """
    status = brief.job.status
    if status.is_terminal:
        return _ended(brief)
    held_up = _held_up(brief)
    if held_up is not None:
        return held_up
    if status in {JobStatus.QUEUED, JobStatus.FINALIZING}:
        return _waits_for_step(brief)
    return None if brief.sample is None else _tasks(brief, brief.sample, find_missing)


def _held_up(brief: JobBrief) -> BriefReason | None:
    """Whatever the job is doing, it does not go on."""
    status = brief.job.status
    if not status.is_known:
        return _warning("status_not_known", f"{status}: a newer release wrote this status")
    if brief.job.paused_at is not None:
        return _paused(brief)
    if brief.unknown_step is not None:
        return _warning("waits_for_release", f"Waits for an app that knows the {brief.unknown_step}")
    if brief.dead_letter is not None:
        why = f": {brief.dead_letter}" if brief.dead_letter else ""
        return _warning("dead_lettered", f"A message of it is a dead letter{why}")
    return None


def _ended(brief: JobBrief) -> BriefReason | None:
    job = brief.job
    if job.status is JobStatus.FAILED:
        # Where tasks failed, the error of one of them has the cause.
        is_by_tasks = (job.error or {}).get("type") == "StageFailed" and brief.failure is not None
        return BriefReason("failed", Severity.ERROR, _error_text(brief.failure if is_by_tasks else job.error))
    if job.status is JobStatus.CANCELLED:
        return BriefReason("cancelled", Severity.INFO, _error_text(job.error))
    if job.status is JobStatus.COMPLETED_WITH_ERRORS and brief.failure is not None:
        return _warning("completed_with_errors", _error_text(brief.failure))
    return None


def _paused(brief: JobBrief) -> BriefReason:
    pause = brief.pause or {}
    by = f" by {pause['actor']}" if pause.get("actor") else ""
    why = f": {pause['reason']}" if pause.get("reason") else ""
    return _warning("paused", f"Paused{by}{why or '; nothing new begins until it is resumed'}")


def _waits_for_step(brief: JobBrief) -> BriefReason:
    job, now = brief.job, brief.now
    step = "finalizing" if job.status is JobStatus.FINALIZING else f"planning of stage {job.stage}"
    if brief.step_unwritten is not None:
        text = f"{step.capitalize()} ended, and the database refuses to write that: {brief.step_unwritten}"
        return BriefReason("step_not_written", Severity.ERROR, text)
    if brief.step_owner is not None:
        return BriefReason("step_running", Severity.INFO, f"{step.capitalize()} by {brief.step_owner}")
    if brief.attempt > 0:
        text = f"{step.capitalize()} failed {in_times(brief.attempt)}: {_error_text(brief.step_error)}"
        return BriefReason("step_retry", Severity.WARNING, text, brief.due_at)
    if job.start_at is not None and job.start_at > now:
        return BriefReason("starts_later", Severity.INFO, "Begins later, as it was submitted", job.start_at)
    return _waits_for_message(brief, step)


def _waits_for_message(brief: JobBrief, step: str) -> BriefReason:
    job, now = brief.job, brief.now
    if brief.announced_at is None:
        waiting = BriefReason("step_not_announced", Severity.INFO, f"Waits for {step}; no message is sent yet")
        return _janitor_late(brief, max(job.updated_at, brief.due_at or job.updated_at)) or waiting
    is_long = (now - brief.announced_at).total_seconds() > QUEUE_PATIENCE_SECONDS
    severity = Severity.WARNING if is_long else Severity.INFO
    text = f"Waits for {step}{'; no app took its message yet' if is_long else ''}"
    return BriefReason("step_announced", severity, text)


def _tasks(brief: JobBrief, sample: OpenSample, find_missing: FindMissing) -> BriefReason | None:
    if brief.job.status is JobStatus.CANCELLING:
        return BriefReason("cancelling", Severity.INFO, "Waits for its running tasks to stop")
    if not sample.count:
        over = _warning("stage_over", f"Stage {brief.job.stage} is over; the janitor moves the job on")
        return _janitor_late(brief, brief.job.updated_at) or over
    if sample.unknown is not None:
        return _warning("waits_for_release", f"Waits for an app that knows the {sample.unknown}")
    if sample.expired:
        return _warning("lease_expired", "Its process was lost; the janitor takes its tasks back")
    return _waiting_tasks(brief, sample, find_missing)


def _waiting_tasks(brief: JobBrief, sample: OpenSample, find_missing: FindMissing) -> BriefReason | None:
    if sample.running:
        return None
    if sample.retry_at is not None:
        text = f"Tries again after {_error_text(sample.retry_error)}"
        return BriefReason("waiting_for_retry", Severity.WARNING, text, sample.retry_at)
    if sample.held_for or sample.limits:
        return _limit(sample)
    return _in_queue(brief, sample, find_missing)


def _limit(sample: OpenSample) -> BriefReason:
    """One that lets none begin is the reason, whichever another one holds back."""
    if sample.closed_limits:
        names = ", ".join(sample.closed_limits)
        return _warning("waits_for_limit", f"Waits for the limit {names}, which lets none begin")
    names = sample.held_for or ", ".join(sample.limits)
    return BriefReason("waits_for_limit", Severity.INFO, f"Waits for the limit {names}")


def _in_queue(brief: JobBrief, sample: OpenSample, find_missing: FindMissing) -> BriefReason | None:
    if sample.queue is None or sample.task_type is None or sample.since is None:
        return None
    missing = find_missing(WaitingWork(sample.queue, sample.task_type, sample.since))
    if missing is not None:
        no_reader = f"No app reads the queue {sample.queue}"
        no_handler = f"No app on the queue {sample.queue} has a handler for {sample.task_type}"
        text = no_reader if missing.code == "queue_without_app" else no_handler
        return BriefReason(missing.code, missing.severity, text)
    if not sample.is_sent:
        waiting = BriefReason("tasks_not_announced", Severity.INFO, "Messages for its tasks are still to be sent")
        return _janitor_late(brief, sample.unannounced_since) or waiting
    if (brief.now - sample.since).total_seconds() > QUEUE_PATIENCE_SECONDS:
        return _warning("no_worker_seen", f"Waits on the queue {sample.queue}; no process takes its tasks")
    return BriefReason("waiting_in_queue", Severity.INFO, f"Waits on the queue {sample.queue}")


def _janitor_late(brief: JobBrief, since: datetime | None) -> BriefReason | None:
    """Where only a janitor goes on, and none did in time."""
    if since is None or (brief.now - since).total_seconds() <= SWEEP_OVERDUE_SECONDS:
        return None
    return BriefReason("janitor_late", Severity.ERROR, "Waits for the janitor, and none has come")


def _warning(code: str, text: str) -> BriefReason:
    return BriefReason(code, Severity.WARNING, text)


def _error_text(error: Mapping[str, Any] | None) -> str:
    if not error:
        return "no reason is kept"
    kind, message = error.get("type"), str(error.get("message") or "").strip()
    return ": ".join(filter(None, (None if kind in _PLAIN_TYPES else kind, message))) or "no reason is kept"
