"""What a store is asked to write, and what it answers: the values of the transitions that PostgreSQL decides.

Outcomes are the words that the functions of `sql/functions` return; a test holds them against each other.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from core.basics.strict_json import EncodedJson
from core.models.lease import Lease
from core.models.record import TaskRecord
from core.models.status import StoredEnum

# A JSON object, or its text if it was encoded before.
JsonObject = Mapping[str, Any] | EncodedJson


class PlannedTask(NamedTuple):
    """A task row to insert. `parameters` is checked JSON text."""

    job_id: str
    run: int
    task_id: str
    stage: int
    task_index: int
    task_type: str
    queue: str
    name: str | None
    parameters: EncodedJson


TaskRow = PlannedTask | TaskRecord


@dataclass(frozen=True)
class SmallStage:
    """A stage of few tasks to be planned in one call; with a lease its tasks are born claimed under it."""

    tasks: Sequence[PlannedTask]
    lease: Lease | None = None
    tasks_per_message: int | None = None


class PlanOutcome(StoredEnum):
    """What became of planning a stage; of all but `planned` nothing was written.

    busy: another process plans it. closed: it was planned already, or is not to be any more.
    expired: a deadline has passed, which `enforce_deadlines` acts on.
    """

    PLANNED = "planned"
    BUSY = "busy"
    MISSING = "missing"
    STALE_RUN = "stale_run"
    CLOSED = "closed"
    PAUSED = "paused"
    EXPIRED = "expired"


class ClaimOutcome(StoredEnum):
    """What became of the claim of a task.

    duplicate: it is leased, or has ended. not_due: it is to be retried later. paused: its job is; it is announced
    again afterwards. held: a limit of its stage has no place; it waits without a message. closed: its stage or job does
    not run. expired: a deadline has passed, which `enforce_deadlines` acts on.
    """

    CLAIMED = "claimed"
    DUPLICATE = "duplicate"
    NOT_DUE = "not_due"
    PAUSED = "paused"
    HELD = "held"
    CLOSED = "closed"
    EXPIRED = "expired"
    MISSING = "missing"


class ClaimedRow(NamedTuple):
    """The answer to the claim of one task, which runs if it is claimed. Of a missing one only the id is known.

    Args:
        interruptions: Those of its attempts that ended without an outcome.
        wait_seconds: Until it is due, if it is to be retried.
    """

    task_id: str
    outcome: ClaimOutcome
    attempt: int
    interruptions: int
    task_type: str
    task_index: int
    name: str | None
    parameters: dict[str, Any]
    wait_seconds: float = 0.0

    @property
    def counted_attempt(self) -> int:
        """What the retry policy counts: interruptions are not among it."""
        return self.attempt - self.interruptions


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a message's claim: the lease of those that are claimed, and a row for each of its tasks."""

    lease_id: UUID
    rows: tuple[ClaimedRow, ...]


@dataclass(frozen=True, slots=True)
class NextTask:
    """Asks for the next task in line of a stage, of this type, for the process of this name."""

    task_type: str
    owner: str


@dataclass(frozen=True, slots=True)
class Completion:
    """The results of one message's tasks, by their ids, and the lease under which they ran.

    Args:
        wanted: What its process goes on with, if one waits.
    """

    lease_id: UUID
    results: Mapping[str, EncodedJson]
    wanted: NextTask | None = None


@dataclass(frozen=True, slots=True)
class NextTasks:
    """What a process asks for that goes on without messages: tasks of these types, at most `limit`, and their lease."""

    task_types: Collection[str]
    limit: int
    lease: Lease


@dataclass(frozen=True)
class StageCheck:
    """What a settlement did. The rows are the signal; this answer is a hint that may never arrive.

    `job_status` is None while the job is paused: nothing follows then.
    """

    updated_ids: tuple[str, ...]
    is_last_task_in_stage: bool
    stage_status: str | None
    job_status: str | None


@dataclass(frozen=True)
class Released:
    """Tasks that were released: pending again. `is_in_line`: they wait for their turn, and want no message now."""

    task_ids: Sequence[str]
    is_in_line: bool


class RetryOutcome(StoredEnum):
    """What became of a failed attempt that is to be retried.

    exhausted: no attempt is left, nothing was changed. closed: its stage or job has ended, nothing was changed.
    stale: the task is not held under this lease any more.
    """

    SCHEDULED = "scheduled"
    EXHAUSTED = "exhausted"
    CLOSED = "closed"
    STALE = "stale"


@dataclass(frozen=True)
class RetryAnswer:
    """Whether another attempt is scheduled; then also the attempt that failed, and when the next is due.

    Args:
        is_in_line: It needs no message of its own if one of its stage comes soon after it is due.
    """

    outcome: RetryOutcome
    attempt: int | None
    due_at: datetime | None
    delay_seconds: float
    is_in_line: bool = False


@dataclass(frozen=True)
class TakenBack:
    """What became of the tasks of a stage whose lease had run out, in numbers.

    Args:
        taken_back: To be retried; of these and of those given up, `timed_out` had run out of time.
        task_ids, owners: Some of them, and the processes that had them.
    """

    taken_back: int
    given_up: int
    is_last_task_in_stage: bool
    timed_out: int
    task_ids: list[str] | None
    owners: list[str] | None


class DeadlineOutcome(StoredEnum):
    """Which deadline had passed, and so what `enforce_deadlines` ended: tasks that nobody began, or the job."""

    NOTHING = "nothing"
    TASKS_EXPIRED = "tasks_expired"
    QUEUE_TIME_EXPIRED = "queue_time_expired"
    STAGE_TIMED_OUT = "stage_timed_out"
    JOB_TIMED_OUT = "job_timed_out"


@dataclass(frozen=True)
class Enforcement:
    """What `enforce_deadlines` did.

    `job_status` is the job's afterwards; `is_last_task_in_stage`: the stage ended with the expired tasks.
    """

    outcome: DeadlineOutcome
    expired_count: int
    is_last_task_in_stage: bool
    job_status: str | None


class PostponeOutcome(StoredEnum):
    """What became of work that was postponed since this release does not know it.

    early: as postponed, but it was postponed before and is not due yet. Of a job's step, exhausted: its patience is
    over and nothing was changed; not_waiting: the job does not wait for it. Of a task, failed: its patience is over.
    """

    POSTPONED = "postponed"
    EARLY = "early"
    EXHAUSTED = "exhausted"
    NOT_WAITING = "not_waiting"
    FAILED = "failed"


@dataclass(frozen=True)
class PostponedStep:
    """What became of a job's step that was postponed; `error` is there when its patience is over."""

    outcome: PostponeOutcome
    delay_seconds: float | None
    error: dict[str, Any] | None


@dataclass(frozen=True)
class PostponedTask:
    """What became of a task that was postponed, and, if it failed, what that did to its stage and job."""

    task_id: str
    outcome: PostponeOutcome
    queue: str
    wait_seconds: float
    is_last_task_in_stage: bool
    job_status: str
