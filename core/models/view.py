"""What readers get: rows without what only the engine needs, pages of them, and a job with its stages."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from core.models.definition import FrozenModel, StoredParallelism
from core.models.record import JobEvent, JobRecord
from core.models.status import StoredJobStatus, StoredStageStatus, StoredTaskStatus, TaskStatus

Item = TypeVar("Item")


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Part of a list. `next_cursor` asks for the part after it; None on the last one."""

    items: tuple[Item, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class EventPosition:
    """How far a reader has followed a job's timeline: all up to `floor`, and `count` of those after it."""

    job_id: str
    floor: int
    count: int


class JobSummary(FrozenModel):
    """A job in a list; its parameters, definition and result are read one by one."""

    job_id: str
    job_type: str
    status: StoredJobStatus
    run: int
    stage: int
    total_stages: int
    correlation_id: str
    error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    paused_at: datetime | None
    # Null in the first run, which began at `created_at`.
    run_started_at: datetime | None = None
    tags: dict[str, Any] | None = None
    start_at: datetime | None = None


class JobRun(FrozenModel):
    """One run of a job. Its number goes up with each rerun."""

    run: int
    status: StoredJobStatus
    parameters: dict[str, Any]
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    started_at: datetime
    finished_at: datetime | None


class TaskSummary(FrozenModel):
    """A task in a list. Its lease id is nobody else's business.

    Args:
        held_for: The limit that it waits for since its message came.
        from_run: It ran there, and a rerun kept it.
    """

    task_id: str
    run: int
    stage: int
    task_index: int
    task_type: str
    queue: str
    name: str | None
    parameters: dict[str, Any]
    status: StoredTaskStatus
    attempt: int
    interruptions: int
    lease_owner: str | None
    lease_expires_at: datetime | None
    due_at: datetime | None
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    timed_out_at: datetime | None = None
    held_for: str | None = None
    from_run: int | None


class StageDetail(FrozenModel):
    """A stage that a job has come to. `counts` has every task status; all are 0 until the stage is planned.

    Args:
        counted_at: When `counts` was counted, for a large stage that has not completed; None: they are those of now.
            Each process counts for itself: of two answers, that with the later time is the newer one.
        max_parallel: How many of its tasks run at a time; None: any number.
    """

    stage: int
    name: str
    task_type: str
    parallelism: StoredParallelism
    status: StoredStageStatus
    expected_count: int | None
    failed_count: int
    counts: dict[TaskStatus, int]
    counted_at: datetime | None = None
    max_parallel: int | None = None
    created_at: datetime
    planned_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None = None
    queue_deadline_at: datetime | None = None
    from_run: int | None = None


def run_times(job: JobRecord | JobSummary) -> tuple[datetime | None, float | None]:
    """When the job's present run began, and the seconds that it took; None while it has not ended.

    A rerun that began before releases kept its beginning has neither.
    """
    started_at = job.created_at if job.run == 1 else job.run_started_at
    if started_at is None or job.finished_at is None:
        return started_at, None
    return started_at, (job.finished_at - started_at).total_seconds()


@dataclass(frozen=True)
class JobDetail:
    """A job and the stages of its current run that it has come to, in order."""

    job: JobRecord
    stages: tuple[StageDetail, ...]


@dataclass(frozen=True)
class NewEvents:
    """What came to a job's timeline after a position. `cursor` is the position after it."""

    items: tuple[JobEvent, ...]
    cursor: str
    position: EventPosition
