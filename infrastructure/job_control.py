"""Operator actions on jobs. Each method calls one SQL function."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from core.models import JobRef, StageRef
from core.models.announcement import ParkedTask
from core.models.bulk import DeleteAnswer, DeleteOutcome, HoldAnswer
from core.models.control import (
    DEFAULT_CANCEL_GRACE_SECONDS,
    AdjustAnswer,
    AdjustOutcome,
    AdjustRequest,
    ControlAnswer,
    ControlOutcome,
    RerunRequest,
)
from core.models.status import JobPriority, JobStatus
from infrastructure.adapters import as_jsonb
from infrastructure.postgresql import PostgreSQLRepository


class JobControlRepository(PostgreSQLRepository):
    """Transitions of a job from outside its own work. None for an unknown job."""

    def pause_job(self, job_id: str, *, reason: str | None, actor: str | None) -> ControlAnswer | None:
        """From now on nothing of the job begins."""
        return self._control("pause_job", (job_id, reason, actor))

    def resume_job(self, job_id: str, *, reason: str | None, actor: str | None) -> ControlAnswer | None:
        """Let a paused job go on. What waits has to be announced after it."""
        return self._control("resume_job", (job_id, reason, actor))

    def rerun_job(
        self, ref: JobRef, request: RerunRequest, definition: Mapping[str, Any] | None
    ) -> ControlAnswer | None:
        """Begin the next run of a job that has ended.

        Args:
            ref: The run that the caller has seen; of another one nothing is begun.
            request: Its parameters are all of the next run's; None leaves the last run's, as for the definition.
        """
        changed = as_jsonb(request.parameters), as_jsonb(definition)
        who = request.reason, request.actor
        return self._control("rerun_job", (*ref, request.mode, request.from_stage, *changed, *who))

    def adjust_job(self, job_id: str, request: AdjustRequest) -> AdjustAnswer | None:
        """Change its priority, or max_parallel of its present stage."""
        parameters = (job_id, request.stage, as_jsonb(request.changes), request.reason, request.actor)
        (row,) = self._call("adjust_job", parameters)
        if row["outcome"] == "missing":
            return None
        stored = {
            "outcome": AdjustOutcome.stored(row["outcome"]),
            "status": JobStatus.stored(row["status"]),
            "priority": JobPriority.stored(row["priority"]),
        }
        return AdjustAnswer(**row | stored)

    def delete_job(self, job_id: str, *, reason: str | None, actor: str | None, limit: int) -> DeleteAnswer | None:
        """Delete at most `limit` of an ended job's tasks, and with the last of them the job."""
        (row,) = self._call("delete_job", (job_id, reason, actor, limit))
        if row["outcome"] == "missing":
            return None
        outcome, status = DeleteOutcome.stored(row["outcome"]), JobStatus.stored(row["status"])
        return DeleteAnswer(outcome, status, row["pruned_tasks"])

    def hold_job(self, job_id: str, *, is_held: bool, reason: str | None, actor: str | None) -> HoldAnswer | None:
        """Put a job under a legal hold, or take it off."""
        (row,) = self._call("hold_job", (job_id, is_held, reason, actor))
        if row["outcome"] == "missing":
            return None
        return HoldAnswer(JobStatus.stored(row["status"]), row["hold"], row["outcome"] != "unchanged")

    def cancel_job(
        self,
        job_id: str,
        reason: str | None,
        *,
        grace_seconds: float = DEFAULT_CANCEL_GRACE_SECONDS,
        actor: str | None = None,
    ) -> str | None:
        """The job's status afterwards; None for an unknown job."""
        (row,) = self._call("cancel_job", (job_id, reason, grace_seconds, actor))
        return row["cancel_job"]  # type: ignore[no-any-return]

    def force_cancel(self, ref: StageRef) -> int | None:
        """Revoke the leases of a job whose cancel is overdue and end it: how many tasks had not stopped."""
        (row,) = self._call("force_cancel", ref)
        return row["force_cancel"]  # type: ignore[no-any-return]

    def find_parked_tasks(self, job_id: str | None, limit: int, hold_seconds: float) -> list[ParkedTask]:
        """Tasks that need a message once more, of one job or of all (None), ordered by job; held for the caller."""
        return [ParkedTask(**row) for row in self._call("find_parked_tasks", (job_id, limit, hold_seconds))]

    def unpark_tasks(self, ref: JobRef, task_ids: Sequence[str], held_until: datetime) -> int:
        """Their messages are confirmed. Those that are not held until then any more stay parked."""
        (row,) = self._call("unpark_tasks", (*ref, list(task_ids), held_until))
        return int(row["unpark_tasks"])

    def _control(self, function: str, parameters: Sequence[Any]) -> ControlAnswer | None:
        (row,) = self._call(function, parameters)
        if row["outcome"] == "missing":
            return None
        stored = {"outcome": ControlOutcome.stored(row["outcome"]), "status": JobStatus.stored(row["status"])}
        return ControlAnswer(**row | stored | {"wait_seconds": row.get("wait_seconds") or 0.0})
