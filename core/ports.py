"""What the engine asks of the outside, owned by the caller: stores and a sender."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from core.context import TaskContext
from core.models import JobQueueMessage, JobRecord, JobRef, QueueMessage, StageRef, TaskDefinition
from core.models.announcement import FoundTask, ParkedTask, TakenTask, UnannouncedJob
from core.models.app import AppProfile, FleetFacts
from core.models.bulk import DeleteAnswer, HoldAnswer
from core.models.context import CompletedTask, FailedTask, JobExecutionContext, StageSummary
from core.models.control import ControlAnswer, IfEnded, RerunRequest
from core.models.dead_letter import DeadLetter, DeadLetterDetail, RecordedLetter, Selection, WaitingRows
from core.models.job_filter import JobFilter, JobSort
from core.models.lease import HeldTask, Lease, LeaseOutcome
from core.models.schedule import (
    DueTick,
    PlannedTick,
    ScheduleFacts,
    ScheduleRecord,
    TickAnswer,
    TickPlan,
    TickRecord,
    TickReport,
)
from core.models.submission import ForcedJob, JobWish, KeyedPayload, Submitted
from core.models.transition import (
    ClaimedRow,
    Completion,
    Enforcement,
    JsonObject,
    PlanOutcome,
    PostponedStep,
    PostponedTask,
    RetryAnswer,
    SmallStage,
    StageCheck,
    TakenBack,
    TaskRow,
)
from core.models.upkeep import Pruned
from core.models.view import JobSummary, Page
from core.models.webhook import DeliveryAnswer, DueDelivery, WebhookRecord


class JobStore(Protocol):
    """Job rows. `infrastructure.jobs_tasks.JobRepository` describes each call."""

    def submit_job(
        self,
        job: JobRecord,
        *,
        forced: ForcedJob | None = None,
        key: KeyedPayload | None = None,
        if_ended: IfEnded = IfEnded.RETURN,
        outside_id: Collection[str] = (),
    ) -> Submitted: ...
    def submit_jobs(self, wishes: Sequence[JobWish]) -> list[Submitted]: ...
    def mark_jobs_announced(self, refs: Sequence[JobRef]) -> int: ...
    def note_submission(self, ref: JobRef, detail: Mapping[str, Any]) -> None: ...
    def note_trace(self, ref: JobRef, traceparent: str) -> None: ...
    def mark_job_announced(self, ref: StageRef) -> bool: ...
    def retry_job_step(self, ref: StageRef, error: Mapping[str, Any], delay_seconds: float) -> int | None: ...
    def postpone_job_step(
        self, ref: StageRef, unknown: Mapping[str, str], patience: float, delays: Sequence[float]
    ) -> PostponedStep: ...
    def find_job(self, job_id: str) -> JobRecord | None: ...
    def finalize_job(self, ref: JobRef, result: JsonObject | None) -> str | None: ...
    def fail_job(self, ref: JobRef, error: Mapping[str, Any]) -> bool: ...
    def record_event(self, ref: StageRef, task_id: str | None, event: str, detail: Mapping[str, Any]) -> None: ...
    def delete_job(self, job_id: str, *, reason: str | None, actor: str | None, limit: int) -> DeleteAnswer | None: ...
    def hold_job(self, job_id: str, *, is_held: bool, reason: str | None, actor: str | None) -> HoldAnswer | None: ...
    def cancel_job(
        self, job_id: str, reason: str | None, *, grace_seconds: float = ..., actor: str | None = None
    ) -> str | None: ...
    def force_cancel(self, ref: StageRef) -> int | None: ...
    def pause_job(self, job_id: str, *, reason: str | None, actor: str | None) -> ControlAnswer | None: ...
    def resume_job(self, job_id: str, *, reason: str | None, actor: str | None) -> ControlAnswer | None: ...
    def rerun_job(
        self, ref: JobRef, request: RerunRequest, definition: Mapping[str, Any] | None
    ) -> ControlAnswer | None: ...
    def find_parked_tasks(self, job_id: str | None, limit: int, hold_seconds: float) -> list[ParkedTask]: ...
    def unpark_tasks(self, ref: JobRef, task_ids: Sequence[str], held_until: datetime) -> int: ...
    def record_dead_letter(self, letter: DeadLetter) -> RecordedLetter: ...


class TaskStore(Protocol):
    """Task rows up to their lease."""

    def plan_stage(
        self,
        ref: StageRef,
        tasks: Iterable[TaskRow],
        *,
        tasks_per_message: int | None = None,
        first_window: int | None = None,
    ) -> tuple[PlanOutcome, int]: ...
    def plan_small_stage(self, ref: StageRef, planned: SmallStage) -> PlanOutcome: ...
    def mark_tasks_announced(self, ref: JobRef, task_ids: Sequence[str]) -> int: ...
    def take_next_tasks(self, ref: StageRef) -> list[TakenTask]: ...
    def claim_tasks(self, ref: StageRef, task_ids: Sequence[str], *, lease: Lease) -> list[ClaimedRow]: ...
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
    def complete_tasks_and_check_stage(self, ref: StageRef, completions: Sequence[Completion]) -> StageCheck: ...
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
    ) -> RetryAnswer: ...
    def expected_count(self, ref: StageRef) -> int: ...
    def take_back_tasks(self, ref: StageRef) -> TakenBack: ...
    def count_lost_processes(self, ref: JobRef, task_ids: Sequence[str]) -> dict[str, int]: ...
    def enforce_deadlines(self, ref: StageRef, limit: int) -> Enforcement: ...
    def resume_stalled_job(self, ref: StageRef) -> bool: ...


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
    """The six methods, as the engine calls them on a job class. `jobs.base.JobBase` describes each.

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
        """When the oldest of the messages that are ready or locked arrived in the queue (logical name).

        By the broker's clock. What came back to the queue keeps its time; what was scheduled came when it was due, and
        until then it is not looked at, nor is what somebody deferred. None: there is no such message.
        `NOT_SEEN_THROUGH`: there may be, behind more of those others than are looked at.
        """
        ...


class JanitorStore(Protocol):
    """What the janitor asks of the rows; `infrastructure.janitor_store.JanitorRepository` is one."""

    def find_expired_stages(self, limit: int) -> list[StageRef]: ...
    def find_overdue_stages(self, limit: int) -> list[StageRef]: ...
    def find_stalled_jobs(self, limit: int, grace_seconds: float) -> list[StageRef]: ...
    def find_overdue_cancels(self, limit: int) -> list[StageRef]: ...
    def find_unannounced_tasks(self, limit: int, grace_seconds: float, hold_seconds: float) -> list[FoundTask]: ...
    def find_idle_windows(self, limit: int, planned_seconds: float, idle_seconds: float) -> list[StageRef]: ...
    def find_unannounced_jobs(self, limit: int, grace_seconds: float, hold_seconds: float) -> list[UnannouncedJob]: ...
    def let_go_of_tasks(self, ref: JobRef, task_ids: list[str]) -> None: ...
    def let_go_of_job(self, ref: JobRef, attempt: int) -> None: ...
    def record_repair(self, ref: StageRef, event: str, detail: Mapping[str, Any]) -> None: ...
    def read_clock(self) -> datetime: ...
    def find_lost_tasks(self, queue: str, limit: int, before: datetime) -> list[FoundTask]: ...
    def find_lost_jobs(self, limit: int, before: datetime) -> list[UnannouncedJob]: ...
    def find_unknown_work(self, limit: int) -> list[tuple[str, str]]: ...
    def renew_patience(self, kind: str, name: str, limit: int) -> int: ...


class FleetStore(Protocol):
    """The processes of all apps; `infrastructure.apps.AppRepository` describes each call."""

    def record_app_instance(self, profile: AppProfile) -> None: ...
    def end_app_instance(self, instance: str) -> None: ...
    def prune_app_instances(self, older_than_seconds: float, *, most: int) -> int: ...
    def read_fleet(self, job_id: str | None = None) -> FleetFacts: ...


class Watch(Protocol):
    """Looks for work that no live app can take; `core.operating.fleet_watch.FleetWatch` is one."""

    def look(self) -> int: ...


class Pruner(Protocol):
    """Deletes old jobs, up to about a number of task rows; `infrastructure.retention.RetentionRepository` is one."""

    def prune_jobs(self, older_than_seconds: float, *, most_tasks: int | None = None) -> Pruned: ...
    def prune_dead_letters(self, older_than_seconds: float, *, most: int | None = None) -> int: ...
    def prune_audit(self, older_than_seconds: float, *, most: int | None = None) -> int: ...
    def prune_ticks(self, older_than_seconds: float, *, most: int | None = None) -> int: ...


class WebhookStore(Protocol):
    """Webhooks. `infrastructure.webhooks.WebhookRepository` describes each call."""

    def put_webhook(self, webhook: WebhookRecord, *, seed: str, actor: str | None) -> tuple[bool, str | None]: ...
    def rotate_secret(self, name: str, seed: str, *, both_seconds: float, actor: str | None) -> bool: ...
    def find_webhook(self, name: str) -> WebhookRecord | None: ...


class DeliveryStore(Protocol):
    """What is sent to webhooks. `infrastructure.webhooks.WebhookRepository` describes each call."""

    def has_webhooks(self) -> bool: ...
    def claim_deliveries(self, limit: int, most_each: int, hold_seconds: float) -> list[DueDelivery]: ...
    def settle_delivery(self, delivery: DueDelivery, answer: DeliveryAnswer) -> bool: ...
    def prune_deliveries(self, older_than_seconds: float, limit: int) -> int: ...


class Poster(Protocol):
    """Sends one request. `infrastructure.webhook_http.HttpPoster` describes the call."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int: ...


class ScheduleStore(Protocol):
    """Schedules and their ticks. `infrastructure.schedules.ScheduleRepository` describes each call."""

    def put_schedule(
        self,
        schedule: ScheduleRecord,
        skipped: Sequence[PlannedTick],
        *,
        seen: ScheduleRecord | None,
        actor: str | None,
    ) -> str: ...
    def pause_schedule(self, name: str, *, reason: str | None, actor: str | None) -> bool | None: ...
    def resume_schedule(
        self, seen: ScheduleRecord, plan: TickPlan, *, reason: str | None, actor: str | None
    ) -> bool: ...
    def plan_ticks(self, seen: ScheduleRecord, plan: TickPlan) -> bool: ...
    def find_due_schedules(self, limit: int) -> list[str]: ...
    def admit_waiting_ticks(self, limit: int) -> int: ...
    def claim_due_ticks(self, limit: int, hold_seconds: float) -> list[DueTick]: ...
    def add_manual_tick(
        self, name: str, tick: PlannedTick, *, actor: str | None, hold_seconds: float
    ) -> DueTick | None: ...
    def settle_tick(self, tick: DueTick, answer: TickAnswer) -> bool: ...
    def delete_schedule(self, name: str) -> bool: ...
    def read_clock(self) -> datetime: ...
    def find_schedule(self, name: str) -> ScheduleRecord | None: ...
    def find_tick(self, name: str, tick_at: datetime) -> TickRecord | None: ...
    def find_facts(self, name: str) -> ScheduleFacts | None: ...


class Ticker(Protocol):
    """Acts on the ticks of schedules that are due; `core.scheduling.ticker.ScheduleTicker` is one."""

    def tick(self) -> TickReport: ...


class LeaseStore(Protocol):
    """`infrastructure.jobs_tasks.TaskRepository` is one."""

    def renew_leases(self, held: Sequence[HeldTask]) -> dict[tuple[UUID, str], LeaseOutcome]: ...


class StandIn(Protocol):
    """Renews in this process's place while its interpreter is blocked. `infrastructure.stand_in` has one."""

    def watch(self, lease_seconds: float) -> None:
        """Be ready from now on for leases as short as this. Returns at once if it is already."""

    def close(self) -> None:
        """Renew nothing any more."""


class DeadLetterStore(Protocol):
    """`infrastructure.dead_letters.DeadLetterRepository` describes each call."""

    def select_dead_letters(self, selection: Selection, limit: int) -> tuple[list[DeadLetterDetail], int]: ...
    def find_waiting_rows(self, letters: Sequence[DeadLetterDetail]) -> dict[int, WaitingRows]: ...
    def resolve_dead_letters(self, ids: Sequence[int], resolution: str, *, actor: str | None = None) -> int: ...


class AnnouncedJob(Protocol):
    """The values of a job that its messages carry; a JobRecord is one."""

    @property
    def job_id(self) -> str: ...
    @property
    def job_type(self) -> str: ...
    @property
    def run(self) -> int: ...
    @property
    def correlation_id(self) -> str | None: ...


class BulkJobs(Protocol):
    """`infrastructure.queries.JobQueries`."""

    def count_jobs(self, wanted: JobFilter) -> int: ...
    def find_jobs(
        self, wanted: JobFilter, *, sort: JobSort = ..., limit: int = 50, cursor: str | None = None
    ) -> Page[JobSummary]: ...


class BulkAudit(Protocol):
    """`infrastructure.audit.AuditRepository`."""

    def record_bulk(self, actor: str | None, reason: str | None, detail: dict[str, Any]) -> None: ...


class BulkCommands(Protocol):
    """`core.machine.CoreMachine`."""

    def cancel_job(
        self, job_id: str, reason: str | None, *, grace_seconds: float = ..., actor: str | None = None
    ) -> str | None: ...
    def pause_job(
        self, job_id: str, *, reason: str | None = None, actor: str | None = None
    ) -> ControlAnswer | None: ...
    def resume_job(
        self, job_id: str, *, reason: str | None = None, actor: str | None = None
    ) -> ControlAnswer | None: ...
    def rerun_job(self, job_id: str, request: RerunRequest) -> ControlAnswer | None: ...
    def delete_job(self, job_id: str, *, reason: str | None, actor: str | None) -> DeleteAnswer | None: ...
