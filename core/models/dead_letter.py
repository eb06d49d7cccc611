"""Messages that their queue gave up: the rows that keep them, and what readers get."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator

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
    """How a dead message was dealt with. obsolete: its rows had moved on, so nothing was sent."""

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
    """One dead message. `job_id` is empty where none can be read; `task_id` is the first of `task_ids`, or empty.

    `body` is text, cut off where `body_size` (bytes) is beyond what is kept. `delivery_count` counts its delivery to
    the function that wrote this too.
    """

    job_id: str
    dead_letter_id: int
    queue: str
    message_id: str
    sequence_number: int
    enqueued_at: datetime
    kind: StoredKind
    run: int | None = None
    stage: int | None = None
    task_id: str
    task_ids: tuple[str, ...]
    reason: str | None = None
    description: str | None = None
    fingerprint: str
    delivery_count: int
    correlation_id: str | None = None
    body: str
    body_size: int
    received_at: datetime
    resolved_at: datetime | None = None
    resolution: StoredResolution | None = None


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
