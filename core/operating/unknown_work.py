"""Work that this release does not know: a job type, a task type, a stage, a definition, a message of a newer release.

During a rolling upgrade, and after a rollback, another app may know it. So it is postponed with a growing delay:
nothing fails and no attempt is counted. The row, or the message where there is no row, keeps the time since when it
waits, so any app may go on with it. After the patience it fails, and the error names what was missing.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from json import dumps
from typing import Any
from uuid import UUID, uuid4

from core.announcing.announcer import new_cause, step_message
from core.errors import UnknownWork, WorkWaits
from core.models import JobRecord, JobRef
from core.models.dead_letter import DeadLetter
from core.models.message import Kept, KeptMessage, ReadMessage, UnknownMessage
from core.models.retry import postpone_delays
from core.models.transition import ClaimedRow, PostponedTask, PostponeOutcome
from core.operating.dead_letters import keep_body, read_reference
from core.operating.postponed_messages import PostponedMessages
from core.orchestration_manager import OrchestrationManager, task_message
from core.ports import AnnouncedJob
from core.safety.safe_log import safe_logger
from core.state_manager import StateManager

log = safe_logger(__name__)

DEFAULT_PATIENCE_SECONDS = 6 * 3600.0
# How long a message stays away from a process in which something runs alone. It always is this long: another process
# may be idle.
PASS_ON_SECONDS = 1.0


class UnknownTaskType(UnknownWork):
    """This app has no handler for the task type."""

    def __init__(self, task_type: str) -> None:
        super().__init__("task type", task_type)


class Postponer:
    """Postpones what this app does not know.

    Args:
        owner: The process's name in leases.
        patience_seconds: How long it is postponed before it fails.
    """

    def __init__(
        self, state: StateManager, orchestration: OrchestrationManager, *, owner: str, patience_seconds: float
    ) -> None:
        self._state = state
        self._orchestration = orchestration
        self._owner = owner
        self._patience_seconds = patience_seconds
        self.messages = PostponedMessages()

    def postpone_step(self, job: JobRecord, unknown: UnknownWork) -> None:
        """Leave the job's step, planning or finalizing, to an app that knows it."""
        answer = self._state.postpone_job_step(
            job, self._note(unknown), patience_seconds=self._patience_seconds, delays=postpone_delays()
        )
        if answer.outcome is PostponeOutcome.EXHAUSTED:
            self._state.fail_job_step(job, {**(answer.error or {}), "stage": job.stage})
        if answer.delay_seconds is None:
            return
        if self._orchestration.announce_job(step_message(job, new_cause("wait")), delay_seconds=answer.delay_seconds):
            self._state.mark_job_announced(job.stage_ref)

    def postpone_tasks(
        self, job: AnnouncedJob, stage: int, rows: Sequence[ClaimedRow], unknown: UnknownWork, lease_id: UUID
    ) -> str | None:
        """Leave tasks to an app that knows them.

        Args:
            rows: As `claim_tasks` gave them: claimed, or not due since they were postponed before.

        Returns:
            The job's status, if the stage ended since these were its last and their patience is over; else None.
        """
        attempts = {row.task_id: row.attempt for row in rows}
        answers = self._state.postpone_tasks(
            JobRef(job.job_id, job.run).at_stage(stage),
            lease_id=lease_id,
            task_ids=list(attempts),
            unknown=self._note(unknown),
            patience_seconds=self._patience_seconds,
            delays=postpone_delays(),
        )
        waiting = sorted((one for one in answers if one.outcome is PostponeOutcome.POSTPONED), key=_place)
        for (queue, wait_seconds), group in groupby(waiting, key=_place):
            ids = [task.task_id for task in group]
            attempt = max(1, *(attempts[task_id] for task_id in ids))
            message = task_message(job, stage, ids, attempt=attempt, cause=lease_id.hex[:12])
            if self._orchestration.announce_retry(message, queue, wait_seconds):
                self._state.mark_tasks_announced(JobRef(job.job_id, job.run), ids)
        return next((one.job_status for one in answers if one.is_last_task_in_stage), None)

    def keep_message(self, queue: str, document: Mapping[str, Any], kept: Kept | None, why: WorkWaits) -> None:
        """Put a message back that has no row; after the patience it is kept among the dead letters.

        Raises:
            DeliveryError, StoreUnavailable: Neither could be done; the message must stay with the broker.
        """
        kept = _keep_on(kept)
        extra = {"checkpoint": why.checkpoint, "queue": queue, "reason": str(why), "times": kept.times}
        if (datetime.now(UTC) - kept.since).total_seconds() >= self._patience_seconds:
            log.error("message_given_up", extra=extra)
            self._state.record_dead_letter(_dead_letter(queue, document, kept, why))
            return
        delays = postpone_delays()
        log.info("message_postponed", extra=extra)
        self.messages.note(queue, str(why), kept, why.advice)
        message = KeptMessage(document=dict(document), kept=kept)
        self._orchestration.send_back(queue, message, delays[min(kept.times, len(delays)) - 1])

    def pass_on(self, queue: str, message: ReadMessage) -> None:
        """Put a message back for another process, soon: in this one a task or a step runs alone.

        Raises:
            DeliveryError: The message must stay with the broker.
        """
        kept = _keep_on(message.kept)
        log.info("message_passed_on", extra={"checkpoint": "RUNS_ALONE", "queue": queue, "times": kept.times})
        document = message.model_dump(mode="json", exclude_none=True)
        self._orchestration.send_back(queue, KeptMessage(document=document, kept=kept), PASS_ON_SECONDS)

    def keep_unknown(self, message: UnknownMessage) -> None:
        """The same for a message that this release cannot read."""
        self.keep_message(message.queue, message.document, message.kept, UnknownWork("message", message.name))

    def _note(self, unknown: UnknownWork) -> dict[str, str]:
        return {"kind": unknown.kind, "name": unknown.name, "by": self._owner}


def _keep_on(kept: Kept | None) -> Kept:
    return Kept(since=kept.since if kept else datetime.now(UTC), times=kept.times + 1 if kept else 1)


def _place(task: PostponedTask) -> tuple[str, float]:
    return task.queue, task.wait_seconds


def _dead_letter(queue: str, document: Mapping[str, Any], kept: Kept, why: WorkWaits) -> DeadLetter:
    body = dumps(document).encode()
    correlation_id = document.get("correlation_id")
    return DeadLetter(
        queue=queue,
        message_id=f"kept-{uuid4().hex}",
        sequence_number=0,
        enqueued_at=kept.since,
        reference=read_reference(queue, body, {}),
        reason=why.reason,
        description=f"{why}; it was postponed {kept.times} times since {kept.since:%Y-%m-%d %H:%M:%SZ}",
        delivery_count=kept.times,
        correlation_id=correlation_id if isinstance(correlation_id, str) else None,
        body=keep_body(body),
        body_size=len(body),
    )
