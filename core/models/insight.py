"""What one look at a job's rows found, and what people should know of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator

from core.models.app import FleetFacts
from core.models.dead_letter import DeadLetterGroup, FailureGroup
from core.models.foreign import NOTHING_FOREIGN, ForeignFacts
from core.models.limit import LimitFacts
from core.models.status import JobStatus, StoredEnum


class Severity(StoredEnum):
    """info: as it should be. warning: worth a look. error: it will not go on by itself, or it went wrong."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


StoredSeverity = Annotated[Severity, BeforeValidator(Severity.stored)]


@dataclass(frozen=True)
class Finding:
    """One reason. `since` is when it began, `next_at` when something happens by itself; `advice` is for people.

    `about` names what it is about, for pages that link there: queue, limit, task_id, fingerprint.
    """

    code: str
    severity: Severity
    message: str
    since: datetime | None = None
    next_at: datetime | None = None
    advice: str | None = None
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RetryingTask:
    """A task that waits for another attempt. `error` is what the last one failed with."""

    task_id: str
    name: str | None
    attempt: int
    due_at: datetime
    error: Mapping[str, Any] | None


@dataclass(frozen=True)
class RetryFacts:
    """Tasks that wait for a time. `unannounced`: due, and no message for them is confirmed."""

    count: int
    next_at: datetime
    unannounced: int
    examples: tuple[RetryingTask, ...]


@dataclass(frozen=True)
class LeaseFacts:
    """Tasks of the stage that one process has leased. `expired`: how many of their leases ran out without a heartbeat.

    `next_expires_at` is of the leases that have not run out and are still renewed; None where there is none.
    """

    owner: str | None
    count: int
    expired: int
    first_expires_at: datetime
    oldest_started_at: datetime | None
    examples: tuple[str, ...]
    next_expires_at: datetime | None = None


@dataclass(frozen=True)
class InterruptedTask:
    """An open task that was interrupted. `owner` had it last.

    Args:
        released: How many of the interruptions were in order: the process was asked to end.
        unwritten: How often it had ended, and the database did not take its outcome; `reason` of the last time.
    """

    task_id: str
    name: str | None
    interruptions: int
    owner: str | None
    released: int = 0
    unwritten: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class UnwrittenFacts:
    """The database refuses the end of a job's step; `since` when it does, as it was first noted of this step."""

    since: datetime
    at: datetime
    reason: str


@dataclass(frozen=True)
class QueueFacts:
    """Tasks of the stage whose messages lie on a queue.

    Args:
        busy: How many tasks of this queue, of any job, are leased now, and by which processes.
        last_start: When a task of this job on this queue last began.
    """

    queue: str
    count: int
    announced_at: datetime | None
    busy: int
    owners: tuple[str, ...]
    last_start: datetime | None


@dataclass(frozen=True)
class UnknownFacts:
    """Work of the job that was postponed, since the app that received it did not know something.

    Args:
        kind: What is not known; `name` is its name.
        count: How many tasks; 1 for the job's step.
        by: The app that postponed it last; `times` is how often, for the task that was postponed most often.
        waited_seconds: What has been spent of `patience_seconds`. Then it fails.
    """

    kind: str
    name: str
    count: int
    since: datetime
    times: int
    by: str
    next_at: datetime | None
    waited_seconds: float
    patience_seconds: float


@dataclass(frozen=True)
class StepLeaseFacts:
    """The process that takes the job's step, and when its lease ends unless it is renewed.

    Args:
        interruptions: How many processes ended while they took this step, `lost` the last of them.
        has_ended: No process has the lease now.
    """

    owner: str
    since: datetime
    expires_at: datetime
    interruptions: int = 0
    lost: str | None = None
    has_ended: bool = False


@dataclass(frozen=True)
class UnannouncedFacts:
    """Tasks without a message. `since` is None where it is not known; `held_until`: left alone until then."""

    count: int
    since: datetime | None
    held: int
    held_until: datetime | None


@dataclass(frozen=True)
class LockHolder:
    """A session whose open transaction has rows or tables of the engine locked.

    Args:
        open_seconds: Since its transaction began; None where the role of this app may not see that.
        state: As PostgreSQL has it, such as `idle in transaction`; None as before.
        waiting: How many sessions wait for it now.
    """

    pid: int
    application: str
    user: str
    state: str | None
    open_seconds: float | None
    tables: tuple[str, ...]
    waiting: int

    @property
    def text(self) -> str:
        """Names the session, and what it has locked."""
        return (
            f"session {self.pid} (application {self.application or 'without a name'}, user {self.user}, "
            f"{self.state or 'state not visible to this role'}) has rows or all of {', '.join(self.tables)} locked"
        )

    @property
    def advice(self) -> str:
        return (
            "what needs these rows waits until it commits or rolls back; if its owner cannot do that: "
            f"select pg_terminate_backend({self.pid})"
        )


@dataclass(frozen=True)
class JobFacts:
    """What one look at a job's rows found.

    Args:
        attempt: Failed attempts at planning or finalizing; `due_at` is the next, `step_error` the last error.
        step_unwritten: When the database last refused the end of its step, and why; of the present step alone.
        step_lease: The process that takes its step now, or did until its lease ran out; None: it was quick so far.
        stage_status: Of the job's current stage.
        waiting_queues: Queues (logical names) by which tasks of the stage still have to come: the first and the last.
        missing_queues: Configured queues that are not there, with what to do; not from rows.
        unnamed_queues: Those of the waiting queues that the app which explains has no name for; not from rows.
        unknown_step: Why its step is postponed. `unknown_tasks`: so for tasks of the stage, by what is not known.
        lease_seconds: Of the stage's tasks, as `max_interruptions`: the number that each survives.
        interrupted: Its open tasks that lost processes most often; `interrupted_count` counts all of them.
        in_line: Tasks of the stage that wait in line in its window; at most `max_parallel` of it are open at a
            time, if that is declared.
        limits: Those of the stage, and how they are used now by all jobs.
        held_back: Tasks of the stage that a limit holds back though their message came or is scheduled.
        held_back_until: When the first of those begins that a rate holds back.
        parked: Tasks whose messages came while the job was paused.
        cancel_requested_at: None where nobody asked. `cancel_deadline_at`: when it is forced.
        foreign: What others did to the engine's tables: triggers and rules, own triggers disabled, locks left behind.
        holders: Other sessions that have locked rows of the engine's tables for long.
        fleet: The apps that run, and the work of this job that waits for one; None where it is over.
        deadline_at: When the job or its stage must have ended; `queue_deadline_at`: when its tasks must have begun.
    """

    now: datetime
    job_id: str
    status: JobStatus
    run: int
    stage: int
    total_stages: int
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    attempt: int = 0
    due_at: datetime | None = None
    start_at: datetime | None = None
    announced_at: datetime | None = None
    error: Mapping[str, Any] | None = None
    deadline_at: datetime | None = None
    queue_deadline_at: datetime | None = None
    stage_name: str = ""
    stage_status: str | None = None
    step_error: Mapping[str, Any] | None = None
    step_unwritten: UnwrittenFacts | None = None
    step_lease: StepLeaseFacts | None = None
    paused_at: datetime | None = None
    paused_by: str | None = None
    pause_reason: str | None = None
    parked: int = 0
    cancel_requested_at: datetime | None = None
    cancel_reason: str | None = None
    cancel_deadline_at: datetime | None = None
    open_count: int = 0
    in_line: int = 0
    max_parallel: int | None = None
    limits: tuple[LimitFacts, ...] = ()
    held_back: int = 0
    held_back_until: datetime | None = None
    unannounced: UnannouncedFacts | None = None
    waiting_queues: tuple[str, ...] = ()
    missing_queues: Mapping[str, str] = field(default_factory=dict)
    unnamed_queues: tuple[str, ...] = ()
    unknown_step: UnknownFacts | None = None
    unknown_tasks: tuple[UnknownFacts, ...] = ()
    queues: tuple[QueueFacts, ...] = ()
    leases: tuple[LeaseFacts, ...] = ()
    lease_seconds: float | None = None
    max_interruptions: int | None = None
    interrupted: tuple[InterruptedTask, ...] = ()
    interrupted_count: int = 0
    retries: RetryFacts | None = None
    failures: tuple[FailureGroup, ...] = ()
    dead_letters: tuple[DeadLetterGroup, ...] = ()
    fleet: FleetFacts | None = None
    foreign: ForeignFacts = NOTHING_FOREIGN
    holders: tuple[LockHolder, ...] = ()

    @property
    def is_step_taken(self) -> bool:
        """Whether a process that lives takes the job's step."""
        lease = self.step_lease
        return lease is not None and not lease.has_ended and lease.expires_at > self.now

    @property
    def step(self) -> str:
        """What the job waits for between stages."""
        if self.status is JobStatus.FINALIZING:
            return "finalizing"
        return f"planning of stage {self.stage}{f' ({self.stage_name})' if self.stage_name else ''}"
