"""Rows. The DDL is generated from these models, so a column's type, default and comment stand here alone."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from core.models.definition import FrozenModel
from core.models.status import (
    JobStatus,
    StageStatus,
    StoredJobStatus,
    StoredStageStatus,
    StoredTaskStatus,
    TaskStatus,
)

JobId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class JobRecord(FrozenModel):
    """One submitted job. `attempt` counts failed tries to plan its stage or to finalize it; `due_at` is the next.

    A forced job has a `nonce`, which is part of its id, and `forced_from`: the job of the same type and parameters.
    While `paused_at` is set nothing new is claimed, planned or finalized. `cancel_deadline_at` is when a job that is
    cancelling ends whether its tasks have stopped or not. `waiting_for` is what an app did not know that was to take
    its step (`sql/functions/postpone.sql`); it counts while the job stands where it stood then. `run_started_at` is
    when its current run began; null in its first one, which began at `created_at`.
    """

    job_id: JobId
    job_type: str
    status: StoredJobStatus = JobStatus.QUEUED
    run: Annotated[int, Field(ge=1)] = 1
    stage: Annotated[int, Field(ge=1)] = 1
    total_stages: Annotated[int, Field(ge=1)]
    parameters: dict[str, Any] = Field(default={})
    definition: dict[str, Any]
    correlation_id: str
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    attempt: Annotated[int, Field(ge=0)] = 0
    due_at: datetime | None = None
    announced_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    finished_at: datetime | None = None
    nonce: str | None = None
    forced_from: str | None = None
    deadline_at: datetime | None = None
    paused_at: datetime | None = None
    cancel_deadline_at: datetime | None = None
    waiting_for: dict[str, Any] | None = None
    run_started_at: datetime | None = None

    def queued_for(self, stage: int) -> "JobRecord":
        """The job as its row is when it waits for this stage to be planned."""
        return self.model_copy(update={"status": JobStatus.QUEUED, "stage": stage, "attempt": 0, "paused_at": None})

    def finalizing_after(self, stage: int) -> "JobRecord":
        """The job as its row is when it waits for its finalizer, after its last stage."""
        return self.model_copy(update={"status": JobStatus.FINALIZING, "stage": stage, "attempt": 0, "paused_at": None})

    def after_stage(self, stage: int, status: str | None) -> "JobRecord | None":
        """The job as its row is after its stage ended.

        Args:
            status: The job's, as the transition that ended the stage returned it.

        Returns:
            None if the job waits for no step: it has ended, is paused, or the stage has not ended.
        """
        if status == JobStatus.QUEUED:
            return self.queued_for(stage + 1)
        return self.finalizing_after(stage) if status == JobStatus.FINALIZING else None


class JobRunRecord(FrozenModel):
    """A run of a job that a rerun has followed, as it ended; the current run stands in the job's row."""

    job_id: JobId
    run: Annotated[int, Field(ge=1)]
    status: StoredJobStatus
    parameters: dict[str, Any]
    definition: dict[str, Any]
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    finished_at: datetime | None = None
    followed_at: datetime


class StageRecord(FrozenModel):
    """One stage in one run of a job.

    `deadline_at` is when it must have ended, `queue_deadline_at` when its tasks must have begun, if that was declared.
    `is_unwatched`: none of its open tasks could be watched when that was tried. `from_run`: the run that it, or a part
    of its tasks, was kept from.
    """

    job_id: JobId
    run: Annotated[int, Field(ge=1)]
    stage: Annotated[int, Field(ge=1)]
    status: StoredStageStatus = StageStatus.QUEUED
    settings: dict[str, Any]
    expected_count: Annotated[int, Field(ge=0)] | None = None
    failed_count: Annotated[int, Field(ge=0)] = 0
    created_at: datetime | None = None
    planned_at: datetime | None = None
    finished_at: datetime | None = None
    is_unwatched: bool = False
    deadline_at: datetime | None = None
    queue_deadline_at: datetime | None = None
    from_run: Annotated[int, Field(ge=1)] | None = None


class TaskRecord(FrozenModel):
    """One unit of work, retried alone.

    `is_watched`: the open task whose end tells whether its stage is over. `timed_out_at`: its latest attempt was
    refused more time.
    `parked_at`: it needs a message once more: one came while the job was paused, or a rerun wrote it. While that
    message is being sent, it lies ahead, so that nobody else sends it.
    `from_run`: the run that it ran in, where a rerun kept it. `waiting_for`: as a job's, of the app that was to run it.
    """

    job_id: JobId
    run: Annotated[int, Field(ge=1)]
    task_id: Annotated[str, Field(max_length=100)]
    stage: Annotated[int, Field(ge=1)]
    task_index: Annotated[int, Field(ge=0)]
    task_type: str
    queue: str
    name: str | None = None
    parameters: dict[str, Any] = Field(default={})
    status: StoredTaskStatus = TaskStatus.PENDING
    attempt: Annotated[int, Field(ge=0)] = 0
    interruptions: Annotated[int, Field(ge=0)] = 0
    lease_id: UUID | None = None
    lease_expires_at: datetime | None = None
    lease_owner: str | None = None
    due_at: datetime | None = None
    announced_at: datetime | None = None
    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    is_watched: bool = False
    timed_out_at: datetime | None = None
    parked_at: datetime | None = None
    from_run: Annotated[int, Field(ge=1)] | None = None
    waiting_for: dict[str, Any] | None = None


class IdempotencyKeyRecord(FrozenModel):
    """A submission's own key, the payload it came with and the job that it got; kept as long as that job."""

    job_id: JobId
    idempotency_key: str
    payload_hash: str
    created_at: datetime | None = None


class JobEvent(FrozenModel):
    """One line of a job's timeline."""

    job_id: JobId
    event_id: int
    run: int
    stage: int | None = None
    task_id: str | None = None
    event: str
    detail: dict[str, Any] = Field(default={})
    at: datetime
