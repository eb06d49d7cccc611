"""Operator actions on jobs. Each method calls one SQL function."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from core.models.control import ControlAnswer, ParkedTask
from core.models.refs import JobRef, StageRef
from core.models.status import JobStatus
from infrastructure.postgresql import PostgreSQLRepository, as_jsonb


class JobControlRepository(PostgreSQLRepository):
    """Transitions of a job from outside its own work. None for an unknown job."""

    def pause_job(self, job_id: str, *, reason: str | None, actor: str | None) -> ControlAnswer | None:
        """Outcome: paused, already_paused, refused."""
        return self._control("pause_job", (job_id, reason, actor))

    def resume_job(self, job_id: str, *, reason: str | None, actor: str | None) -> ControlAnswer | None:
        """Outcome: resumed, not_paused, refused. What waits has to be announced after it."""
        return self._control("resume_job", (job_id, reason, actor))

    def rerun_job(
        self,
        ref: JobRef,
        *,
        mode: str,
        from_stage: int | None,
        parameters: Mapping[str, Any] | None,
        definition: Mapping[str, Any] | None,
        reason: str | None,
        actor: str | None,
    ) -> ControlAnswer | None:
        """Outcome: rerun, refused, other_run, nothing_failed, stage_not_reached, pruned.

        Args:
            run: The run that the caller has seen; of another one nothing is begun.
            parameters, definition: None leaves the last run's.
        """
        values = (*ref.key, mode, from_stage, as_jsonb(parameters), as_jsonb(definition), reason, actor)
        return self._control("rerun_job", values)

    def cancel_job(
        self, job_id: str, reason: str | None, *, grace_seconds: float = 300.0, actor: str | None = None
    ) -> str | None:
        """The job's status afterwards; None for an unknown job."""
        (row,) = self._call("cancel_job", (job_id, reason, grace_seconds, actor))
        return row["cancel_job"]  # type: ignore[no-any-return]

    def force_cancel(self, ref: StageRef) -> int | None:
        """Revoke the leases of a job whose cancel is overdue and end it: how many tasks had not stopped."""
        (row,) = self._call("force_cancel", ref.key)
        return row["force_cancel"]  # type: ignore[no-any-return]

    def find_parked_tasks(self, job_id: str | None, limit: int, hold_seconds: float) -> list[ParkedTask]:
        """Tasks that need a message once more, of one job or of all (None), ordered by job; held for the caller."""
        return [ParkedTask(**row) for row in self._call("find_parked_tasks", (job_id, limit, hold_seconds))]

    def unpark_tasks(self, ref: JobRef, task_ids: Sequence[str], held_until: datetime) -> int:
        """Their messages are confirmed. Those that are not held until then any more stay parked."""
        (row,) = self._call("unpark_tasks", (*ref.key, list(task_ids), held_until))
        return int(row["unpark_tasks"])

    def _control(self, function: str, parameters: Sequence[Any]) -> ControlAnswer | None:
        (row,) = self._call(function, parameters)
        if row["outcome"] == "missing":
            return None
        row["wait_seconds"] = row.get("wait_seconds") or 0.0
        return ControlAnswer(**row | {"status": JobStatus.stored(row["status"])})
