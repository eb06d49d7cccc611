"""What the engine asks of the outside, owned by the caller: stores and a sender."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from core.basics.canonical import EncodedJson
from core.context import TaskContext
from core.models import JobQueueMessage, JobRecord, QueueMessage, TaskDefinition, TaskRecord
from core.models.context import CompletedTask, JobExecutionContext, StageSummary
from core.models.control import ControlAnswer, IfEnded, ParkedTask
from core.models.dead_letter import DeadLetter, RecordedLetter
from core.models.refs import JobRef, Lease, StageRef

# A JSON object, or its text if it was encoded before.
JsonObject = Mapping[str, Any] | EncodedJson


@dataclass(frozen=True, slots=True)
class PlannedTask:
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
class StageCheck:
    """What a settlement did. The rows are the signal; this answer is a hint that may never arrive.

    `job_status` is None while the job is paused: nothing follows then.
    """

    updated_ids: tuple[str, ...]
    is_last_task_in_stage: bool
    stage_status: str | None
    job_status: str | None


@dataclass(frozen=True)
class SmallStage:
    """A stage of few tasks to be planned in one call; with a lease its tasks are born claimed under it."""

    tasks: Sequence[PlannedTask]
    lease: Lease | None = None
    tasks_per_message: int | None = None


class SubmissionOutcome(StrEnum):
    """What became of a submission.

    created: a new job. existing: the job of the same type and parameters was there. forced: a new job beside that one.
    rerun: the next run of that one. other_parameters: it was there, but a rerun gave its present run other parameters,
    so that its result is none of this submission; nothing was written.
    replayed: the same request came before with this idempotency key; the job it got then.
    key_conflict: the key came before with another payload; nothing was written.
    refused: the job was there and does not run with these parameters; nothing was written.
    """

    CREATED = "created"
    EXISTING = "existing"
    OTHER_PARAMETERS = "other_parameters"
    FORCED = "forced"
    RERUN = "rerun"
    REPLAYED = "replayed"
    KEY_CONFLICT = "key_conflict"
    REFUSED = "refused"


@dataclass(frozen=True)
class Submitted:
    """What became of a submission, the job that it led to, and where that job stands."""

    outcome: SubmissionOutcome
    job_id: str
    status: str
    run: int
    correlation_id: str
    # False: the job's present run is of other parameters than the job, and than this submission.
    same_parameters: bool = True

    @property
    def ref(self) -> JobRef:
        return JobRef(self.job_id, self.run)

    @property
    def created(self) -> bool:
        """Whether a new job was made."""
        return self.outcome in {SubmissionOutcome.CREATED, SubmissionOutcome.FORCED}

    @property
    def begins_run(self) -> bool:
        """Whether something runs that did not before: a new job, or the next run of one."""
        return self.created or self.outcome is SubmissionOutcome.RERUN


@dataclass(frozen=True)
class ForcedJob:
    """The id that a forced submission takes if that of its type and parameters is taken, and the nonce in it."""

    job_id: str
    nonce: str


@dataclass(frozen=True)
class KeyedPayload:
    """A submission's idempotency key, and the hash that tells its payload from others."""

    key: str
    payload_hash: str


@dataclass(frozen=True)
class Enforcement:
    """What `enforce_deadlines` did: its outcome's name, and the tasks that it failed.

    `job_status` is the job's afterwards; `is_last_task_in_stage` says that the stage ended with them.
    """

    outcome: str
    expired_count: int
    is_last_task_in_stage: bool
    job_status: str | None


@dataclass(frozen=True)
class PostponedStep:
    """What became of a job's step that was given back: postponed, early, exhausted (see `error`) or not_waiting."""

    outcome: str
    delay_seconds: float | None
    error: dict[str, Any] | None


@dataclass(frozen=True)
class PostponedTask:
    """What became of a task that was given back: postponed, or failed, with what that did to its stage and job."""

    task_id: str
    outcome: str
    queue: str
    wait_seconds: float
    is_last_task_in_stage: bool
    job_status: str


class JobStore(Protocol):
    """Job rows. `infrastructure.jobs_tasks.JobRepository` says what each call does."""

    def submit_job(
        self,
        job: JobRecord,
        *,
        forced: ForcedJob | None = None,
        key: KeyedPayload | None = None,
        if_ended: IfEnded = IfEnded.RETURN,
        outside_id: Collection[str] = (),
    ) -> Submitted: ...
    def note_submission(self, ref: JobRef, detail: Mapping[str, Any]) -> None: ...
    def mark_job_announced(self, ref: StageRef) -> bool: ...
    def retry_job_step(self, ref: StageRef, error: Mapping[str, Any], delay_seconds: float) -> int | None: ...
    def postpone_job_step(
        self, ref: StageRef, unknown: Mapping[str, str], patience: float, delays: Sequence[float]
    ) -> PostponedStep: ...
    def find_job(self, job_id: str) -> JobRecord | None: ...
    def finalize_job(self, ref: JobRef, result: JsonObject | None) -> str | None: ...
    def fail_job(self, ref: JobRef, error: Mapping[str, Any]) -> bool: ...
    def record_event(self, ref: StageRef, task_id: str | None, event: str, detail: Mapping[str, Any]) -> None: ...
    def cancel_job(
        self, job_id: str, reason: str | None, *, grace_seconds: float = 300.0, actor: str | None = None
    ) -> str | None: ...
    def force_cancel(self, ref: StageRef) -> int | None: ...
    def pause_job(self, job_id: str, *, reason: str | None, actor: str | None) -> ControlAnswer | None: ...
    def resume_job(self, job_id: str, *, reason: str | None, actor: str | None) -> ControlAnswer | None: ...
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
    ) -> ControlAnswer | None: ...
    def find_parked_tasks(self, job_id: str | None, limit: int, hold_seconds: float) -> list[ParkedTask]: ...
    def unpark_tasks(self, ref: JobRef, task_ids: Sequence[str], held_until: datetime) -> int: ...
    def record_dead_letter(self, letter: DeadLetter) -> RecordedLetter: ...


class TaskStore(Protocol):
    """Task rows up to their lease."""

    def plan_stage(
        self, ref: StageRef, tasks: Iterable[TaskRow], *, tasks_per_message: int | None = None
    ) -> tuple[str, int]: ...
    def plan_small_stage(self, ref: StageRef, planned: SmallStage) -> str: ...
    def mark_tasks_announced(self, ref: JobRef, task_ids: Sequence[str]) -> int: ...
    def claim_tasks(self, ref: StageRef, task_ids: Sequence[str], *, lease: Lease) -> list[dict[str, Any]]: ...
    def release_tasks(self, ref: StageRef, *, lease_id: UUID, task_ids: Sequence[str], started: bool) -> list[str]: ...
    def postpone_tasks(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        task_ids: Sequence[str],
        unknown: Mapping[str, str],
        patience_seconds: float,
        delays: Sequence[float],
    ) -> list[PostponedTask]: ...


class StageStore(Protocol):
    """Ends of tasks and of stages."""

    def complete_task_and_check_stage(
        self, ref: StageRef, *, lease_id: UUID, results: Mapping[str, JsonObject]
    ) -> StageCheck: ...
    def complete_stage_and_plan_next(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        results: Mapping[str, JsonObject],
        following: SmallStage,
    ) -> bool: ...
    def complete_stage_and_finalize(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        results: Mapping[str, JsonObject],
        summary: JsonObject,
    ) -> str | None: ...
    def fail_task_and_check_stage(
        self, ref: StageRef, *, lease_id: UUID, errors: Mapping[str, Mapping[str, Any]]
    ) -> StageCheck: ...
    def increment_task_retry_count(
        self,
        ref: StageRef,
        task_id: str,
        *,
        lease_id: UUID,
        error: Mapping[str, Any],
        delay_seconds: float,
    ) -> dict[str, Any]: ...
    def expected_count(self, ref: StageRef) -> int: ...
    def take_back_tasks(self, ref: StageRef) -> dict[str, Any]: ...
    def count_lost_processes(self, ref: JobRef, task_ids: Sequence[str]) -> dict[str, int]: ...
    def enforce_deadlines(self, ref: StageRef, limit: int) -> Enforcement: ...
    def resume_stalled_job(self, ref: StageRef) -> bool: ...


@dataclass(frozen=True)
class FailedTask:
    """A task that failed, as a fan-in handler and the API see it. `error` holds type, message, attempt, retryable."""

    task_id: str
    task_index: int
    name: str | None
    parameters: dict[str, Any]
    error: dict[str, Any]


class ResultStore(Protocol):
    """Results read as streams, page by page, in order of task_index: memory does not grow with them."""

    def stream_results(self, ref: StageRef) -> Iterator[CompletedTask]: ...
    def stream_failures(self, ref: StageRef) -> Iterator[FailedTask]: ...
    def mean_task_seconds(self, job_type: str, stage: int) -> float | None: ...
    def stage_summaries(self, ref: JobRef) -> list[StageSummary]: ...


class MessageSender(Protocol):
    """Sends to queues by their logical name: `jobs`, or a handler's queue such as `tasks` or `raster`."""

    def send_messages(self, queue: str, messages: Sequence[QueueMessage]) -> None:
        """Send all of them, in as few batches as the size limit allows; returns when the broker has them.

        Raises:
            DeliveryError: Some may have been sent, some not.
        """
        ...

    def send_message_with_delay(self, queue: str, message: QueueMessage, delay_seconds: float) -> None:
        """Send it by scheduled delivery. Raises DeliveryError."""
        ...


# Gets the task's own parameters and its context; returns a JSON-able mapping, or None. Raising means failure: the
# exception's type decides whether the task is tried again (core.errors.classify).
HandlerFunction = Callable[[dict[str, Any], TaskContext], Mapping[str, Any] | None]


class HandlerEntry(Protocol):
    """What runs a task type. `jobs.registry.Handler` is one."""

    @property
    def function(self) -> HandlerFunction: ...
    @property
    def queue(self) -> str: ...


class JobType(Protocol):
    """The six methods, as the engine calls them on a job class. `jobs.base.JobBase` says what each does.

    `stages` are as this release declares them; a job in flight keeps those that it was submitted with.
    """

    @property
    def stages(self) -> Sequence[object]: ...
    def validate_job_parameters(self, params: Mapping[str, Any], /) -> dict[str, Any]: ...
    def generate_job_id(self, params: Mapping[str, Any], /) -> str: ...
    def create_job_record(self, job_id: str, params: Mapping[str, Any], /, *, correlation_id: str) -> JobRecord: ...
    def queue_job(self, job_id: str, params: Mapping[str, Any], /, *, correlation_id: str) -> JobQueueMessage: ...
    def create_tasks_for_stage(
        self, stage: int, job_params: Mapping[str, Any], job_id: str, previous_results: Iterable[CompletedTask], /
    ) -> Iterable[TaskDefinition]: ...
    def finalize_job(self, context: JobExecutionContext, /) -> dict[str, Any]: ...


class JobCatalog(Protocol):
    """All job types and handlers of this app. `jobs.registry.Registry` is one."""

    def get_job(self, job_type: str) -> JobType: ...
    def find_handler(self, task_type: str) -> HandlerEntry | None: ...


# A look into a queue that did not come far enough to tell: any confirmed message may be there.
NOT_SEEN_THROUGH = datetime(1970, 1, 1, tzinfo=UTC)


class QueueInspector(Protocol):
    """Looks into queues without taking anything out."""

    def oldest_enqueued_at(self, queue: str) -> datetime | None:
        """When the oldest of the messages that are ready or in somebody's hands came into the queue (logical name).

        By the broker's clock. What came back to the queue keeps its time; what was scheduled came when it was due, and
        until then it is not looked at, nor is what somebody deferred. None: there is no such message.
        `NOT_SEEN_THROUGH`: there may be, behind more of those others than are looked at.
        """
        ...
