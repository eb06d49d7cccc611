"""What the pages for people count and draw, beside what the API gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.models.status import TaskStatus
from core.models.view import JobSummary


@dataclass(frozen=True)
class JobCounts:
    """Jobs by status without those that are paused, which are counted apart.

    None is above `most`, which then reads as that number or more.
    """

    by_status: Mapping[str, int]
    paused: int
    most: int

    @property
    def total(self) -> int:
        """All jobs, as far as they are counted."""
        return sum(self.by_status.values()) + self.paused

    @property
    def is_total_capped(self) -> bool:
        return any(count >= self.most for count in (*self.by_status.values(), self.paused))


@dataclass(frozen=True)
class StageProgress:
    """The stage where a job is, in numbers. `expected` is None until the stage is planned.

    Args:
        ended: Completed, failed or cancelled.
        is_counted: False where the tasks are too many to be counted for a list.
    """

    stage: int
    name: str
    expected: int | None
    completed: int
    failed: int
    ended: int
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
    """How many tasks of a stage ended in one part of a run's time, and what their attempts took together.

    `recent`: in the last minute of it.
    """

    stage: int
    cell: int
    completed: int
    failed: int
    recent: int
    seconds: float = 0.0


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


@dataclass(frozen=True)
class OpenSample:
    """The first open tasks of a job's stage: enough to see why none of them runs, whatever their number.

    Args:
        count: How many were looked at; 0: the stage has no open task.
        running: Those that a process has; `expired`: those of them whose lease ran out.
        unknown: What an app did not know that was to run one, such as `handler scene_convert`.
        held_for: The limit that holds one back. `limits`: those of the stage where one waits in line.
        closed_limits: Those of the stage that let no task begin, ever.
        retry_at: When the first one is attempted again; `retry_error` is what an earlier attempt failed with.
        queue: Of the first one that waits; `task_type` is its handler, `since` when its message was sent.
        is_sent: Whether its message was sent. `unannounced_since`: how long one that needs a message has had none.
    """

    count: int
    running: int
    expired: int
    unknown: str | None
    held_for: str | None
    limits: tuple[str, ...]
    closed_limits: tuple[str, ...]
    retry_at: datetime | None
    retry_error: Mapping[str, Any] | None
    queue: str | None
    task_type: str | None
    since: datetime | None
    is_sent: bool
    unannounced_since: datetime | None = None


@dataclass(frozen=True)
class JobBrief:
    """What a list of jobs shows of one beside its progress. All of it is read for a whole page at once.

    Args:
        job: Its row in the list.
        parameters: None where they are large.
        apps: Those that have tasks of it now, else the one that had its latest.
        attempt: Failed attempts at its step. `step_error`: the latest.
        due_at: The step is not attempted before this time.
        announced_at: When the message for its step was sent.
        step_owner: The process that takes its step now, if that lasts.
        step_unwritten: Why the database refuses to write that its step has ended, if it does.
        unknown_step: What an app did not know that was to take its step.
        pause: The actor that paused it, and the reason.
        dead_letter: Why a queue gave up a message of it that nobody has dealt with.
        failure: The error of one of its failed tasks.
        sample: Of a job that has a stage with tasks.
    """

    job: JobSummary
    now: datetime
    parameters: Mapping[str, Any] | None
    apps: tuple[str, ...]
    attempt: int
    step_error: Mapping[str, Any] | None
    due_at: datetime | None
    announced_at: datetime | None
    unknown_step: str | None
    pause: Mapping[str, Any] | None
    dead_letter: str | None
    failure: Mapping[str, Any] | None
    sample: OpenSample | None
    step_owner: str | None = None
    step_unwritten: str | None = None


@dataclass(frozen=True)
class WebhookState:
    """The latest deliveries of a webhook in numbers; None where there is none yet."""

    delivered: int = 0
    pending: int = 0
    dead: int = 0
    latest_at: datetime | None = None
