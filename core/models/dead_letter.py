"""Messages that their queue gave up: the rows that keep them, and what readers get."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from core.models.definition import FrozenModel
from core.models.status import StoredEnum


class DeadLetterKind(StoredEnum):
    """What a dead message was about, as far as it can be read.

    submission: it holds a job's parameters, and nothing else does. The others name rows, which lose nothing.
    """

    TASK = "task"
    JOB = "job"
    STAGE_COMPLETE = "stage_complete"
    SUBMISSION = "submission"
    UNREADABLE = "unreadable"


class DeadLetterResolution(StoredEnum):
    """How a dead message was dealt with. obsolete: its rows had changed, so nothing was sent."""

    REDRIVEN = "redriven"
    OBSOLETE = "obsolete"


StoredKind = Annotated[DeadLetterKind, BeforeValidator(DeadLetterKind.stored)]
StoredResolution = Annotated[DeadLetterResolution, BeforeValidator(DeadLetterResolution.stored)]


@dataclass(frozen=True)
class MessageReference:
    """What a message was about, as far as it can be read."""

    kind: DeadLetterKind = DeadLetterKind.UNREADABLE
    job_id: str | None = None
    run: int | None = None
    stage: int | None = None
    task_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeadLetter:
    """A dead message as it is written down. `enqueued_at` is when it came into the dead-letter queue."""

    queue: str
    message_id: str
    sequence_number: int
    enqueued_at: datetime
    reference: MessageReference
    reason: str | None
    description: str | None
    delivery_count: int
    correlation_id: str | None
    body: str
    body_size: int


@dataclass(frozen=True)
class RecordedLetter:
    """`known`: it was written down before. `released`: rows that the janitor announces after the hold."""

    dead_letter_id: int | None
    known: bool
    job_found: bool
    released: int
    hold_seconds: float | None


@dataclass(frozen=True)
class Selection:
    """Which dead messages: all conditions that are set must hold, and at least one must be set."""

    ids: tuple[int, ...] = ()
    fingerprint: str | None = None
    queue: str | None = None
    job_id: str | None = None

    def __post_init__(self) -> None:
        if not (self.ids or self.fingerprint or self.queue or self.job_id):
            raise ValueError("expected at least one of ids, fingerprint, queue and job_id, found none")


@dataclass(frozen=True)
class WaitingRows:
    """What the rows of a dead message wait for: whether its job waits for a step, and which of its tasks wait."""

    job_waits: bool
    task_ids: tuple[str, ...]


class DeadLetterRecord(FrozenModel):
    """One message that its queue gave up, kept with what it was about."""

    job_id: str = Field(description="The job that it names; empty where none can be read.")
    dead_letter_id: int = Field(description="Identity, in the order of arrival.")
    queue: str = Field(description="Logical name of the queue that gave it up.")
    message_id: str = Field(description="The message's own id; with sequence_number and enqueued_at it is unique.")
    sequence_number: int = Field(description="The broker's number of the message in its dead-letter queue.")
    enqueued_at: datetime = Field(description="When it came into the dead-letter queue, by the broker's clock.")
    kind: StoredKind = Field(
        description=(
            "What it was about: task, job, stage_complete (rows, which get another message), submission (a job's "
            "parameters, which nothing else holds), or unreadable."
        )
    )
    run: int | None = Field(default=None, description="The run that it names; null where none can be read.")
    stage: int | None = Field(default=None, description="The stage that it names; null where none can be read.")
    task_id: str = Field(description="The first of task_ids, or empty: finds earlier dead letters of the same task.")
    task_ids: tuple[str, ...] = Field(description="The tasks that it names; empty if it names none.")
    reason: str | None = Field(default=None, description="Why its queue gave it up, in the broker's or the app's word.")
    description: str | None = Field(default=None, description="The same in more words, such as the last error.")
    fingerprint: str = Field(
        description="16 hexadecimal digits over reason and description without ids, numbers and paths: groups letters."
    )
    delivery_count: int = Field(
        description="How often it was delivered, its delivery to the function that wrote this row included."
    )
    correlation_id: str | None = Field(default=None, description="The correlation id that it carried; null if none.")
    body: str = Field(description="Its body as text, cut off where body_size is beyond what is kept.")
    body_size: int = Field(description="Size of the whole body in bytes.")
    received_at: datetime = Field(description="When this row was written. Retention counts from here.")
    resolved_at: datetime | None = Field(
        default=None, description="When it was dealt with, by an operator or a redrive. Null: still open."
    )
    resolution: StoredResolution | None = Field(
        default=None,
        description="redriven (sent again), obsolete (its rows had changed, so nothing was sent). Null: still open.",
    )


class DeadLetterSummary(FrozenModel):
    """A dead message in a list; its body is read one by one. `job_id` is None where none can be read."""

    dead_letter_id: int
    queue: str
    message_id: str
    sequence_number: int
    kind: StoredKind
    job_id: str | None
    run: int | None
    stage: int | None
    task_ids: tuple[str, ...]
    reason: str | None
    description: str | None
    fingerprint: str
    delivery_count: int
    body_size: int
    enqueued_at: datetime
    received_at: datetime
    resolved_at: datetime | None
    resolution: StoredResolution | None


class DeadLetterDetail(DeadLetterSummary):
    """A dead message with its body."""

    correlation_id: str | None
    body: str


class DeadLetterGroup(FrozenModel):
    """Dead messages with one fingerprint: the same reason, and the same description but for numbers, ids and paths."""

    fingerprint: str
    reason: str | None
    description: str | None
    count: int
    queues: tuple[str, ...]
    job_count: int
    first_at: datetime
    last_at: datetime
    examples: tuple[int, ...]


class FailedTaskSummary(FrozenModel):
    """A failed task of a job's current run."""

    job_id: str
    job_type: str
    run: int
    stage: int
    task_id: str
    task_index: int
    task_type: str
    name: str | None
    attempt: int
    fingerprint: str
    error: dict[str, Any]
    finished_at: datetime | None


class FailureExample(FrozenModel):
    job_id: str
    run: int
    stage: int
    task_id: str
    name: str | None


class FailureGroup(FrozenModel):
    """Failed tasks with one fingerprint: the same error type, and the same message but for numbers, ids and paths.

    `message` is that of one of them. `job_types`, `task_types` and `stages` are all that there are in it.
    """

    fingerprint: str
    error_type: str | None
    message: str | None
    retryable: bool | None
    count: int
    job_count: int
    job_types: tuple[str, ...]
    task_types: tuple[str, ...]
    stages: tuple[int, ...]
    first_at: datetime | None
    last_at: datetime | None
    examples: tuple[FailureExample, ...]
