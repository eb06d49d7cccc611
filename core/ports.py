"""What the engine asks of the outside, owned by the caller: stores and a sender."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from core.models import JobRecord, TaskRecord


@dataclass(frozen=True)
class StageCheck:
    """What a settlement did. The rows are the signal; this answer is a hint that may never arrive."""

    updated_ids: tuple[str, ...]
    is_last_task_in_stage: bool
    stage_status: str | None
    job_status: str | None


class JobStore(Protocol):
    """Job rows. `infrastructure.jobs_tasks.JobRepository` says what each call does."""

    def submit_job(self, job: JobRecord) -> tuple[bool, str]: ...
    def find_job(self, job_id: str) -> JobRecord | None: ...
    def finalize_job(self, job_id: str, run: int, result: Mapping[str, Any] | None) -> str | None: ...
    def fail_job(self, job_id: str, run: int, error: Mapping[str, Any]) -> bool: ...
    def cancel_job(self, job_id: str, reason: str | None) -> str | None: ...


class TaskStore(Protocol):
    """Task rows up to their lease."""

    def plan_stage(self, job_id: str, run: int, stage: int, tasks: Iterable[TaskRecord]) -> tuple[str, int]: ...
    def mark_tasks_announced(self, job_id: str, run: int, task_ids: Sequence[str]) -> int: ...
    def claim_tasks(
        self, job_id: str, run: int, stage: int, task_ids: Sequence[str], *, lease_id: UUID, owner: str
    ) -> list[dict[str, Any]]: ...
    def renew_leases(
        self, job_id: str, run: int, leases: Mapping[str, UUID], progress: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, str]: ...


class StageStore(Protocol):
    """Ends of tasks and of stages."""

    def complete_task_and_check_stage(
        self, job_id: str, run: int, stage: int, *, lease_id: UUID, results: Mapping[str, Mapping[str, Any]]
    ) -> StageCheck: ...
    def fail_task_and_check_stage(
        self, job_id: str, run: int, stage: int, *, lease_id: UUID, errors: Mapping[str, Mapping[str, Any]]
    ) -> StageCheck: ...
    def increment_task_retry_count(
        self,
        job_id: str,
        run: int,
        stage: int,
        task_id: str,
        *,
        lease_id: UUID,
        error: Mapping[str, Any],
        delay_seconds: float,
    ) -> dict[str, Any]: ...
    def take_back_tasks(self, job_id: str, run: int, stage: int) -> dict[str, Any]: ...
