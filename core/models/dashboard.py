"""What the pages for people count and draw, beside what the API gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from core.models.status import TaskStatus


@dataclass(frozen=True)
class JobCounts:
    """Jobs by status, and those that are paused. None is above `most`, which then reads as that number or more."""

    by_status: Mapping[str, int]
    paused: int
    most: int


@dataclass(frozen=True)
class StageProgress:
    """The stage where a job is, in numbers. `expected` is None until the stage is planned.

    Args:
        is_counted: False where the tasks are too many to be counted for a list.
    """

    stage: int
    name: str
    expected: int | None
    completed: int
    failed: int
    running: int
    is_counted: bool = True


@dataclass(frozen=True)
class TaskBar:
    """A task of a run as its line in the timeline is drawn. `started_at` is of its latest attempt."""

    task_id: str
    stage: int
    name: str | None
    status: TaskStatus
    attempt: int
    interruptions: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    due_at: datetime | None
    from_run: int | None


@dataclass(frozen=True)
class AttemptMark:
    """The end of an attempt that did not succeed."""

    task_id: str
    event: str
    at: datetime
    error_type: str | None


@dataclass(frozen=True)
class PulseCell:
    """How many tasks of a stage ended in one part of a run's time. `recent`: in the last minute of it."""

    stage: int
    cell: int
    completed: int
    failed: int
    recent: int


@dataclass(frozen=True)
class PulseWindow:
    """The time of a run, in equal parts."""

    begin: datetime
    end: datetime
    cells: int


@dataclass(frozen=True)
class OpenTasks:
    """What the rows say of the open tasks of one queue: those that are due again or to be sent, and who has some.

    Others are counted with the queues of the fleet.
    """

    queue: str
    retrying: int
    unannounced: int
    owners: tuple[str, ...]
