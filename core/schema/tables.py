"""What the models do not say about their tables: keys, foreign keys, indexes with a reason, generated columns."""

from dataclasses import dataclass, field
from typing import LiteralString

from core.models.app import AppInstanceRecord
from core.models.dead_letter import DeadLetterRecord
from core.models.definition import FrozenModel
from core.models.record import (
    AuditRecord,
    IdempotencyKeyRecord,
    JobEvent,
    JobRecord,
    JobRunRecord,
    LimitPlaceRecord,
    LimitRecord,
    LimitStartRecord,
    LimitWaiterRecord,
    StageRecord,
    TaskRecord,
)
from core.models.schedule import ScheduleRecord, TickRecord
from core.models.webhook import DeliveryRecord, WebhookRecord
from core.schema.statuses import (
    ACTIVE_JOBS,
    ENDED_JOBS,
    OPEN_DELIVERIES,
    OPEN_JOBS,
    OPEN_STAGES,
    OPEN_TASKS,
    OPEN_TICKS,
)


@dataclass(frozen=True)
class Index:
    """With `statuses` it covers only rows in one of them, with `condition` those for which that column is true.

    With `where_set` it covers those that have a value in that column; with `unless` only those for which that one is
    false. `of_parts`: it finds what a JSON column contains.
    """

    name: str
    columns: tuple[str, ...]
    statuses: tuple[str, ...] = ()
    condition: str | None = None
    where_set: str | None = None
    unless: str | None = None
    is_unique: bool = False
    of_parts: bool = False


@dataclass(frozen=True)
class Table:
    """A model's table. Every key of what belongs to a job starts with job_id, so that it can be distributed by it."""

    name: str
    model: type[FrozenModel]
    key: tuple[str, ...]
    indexes: tuple[Index, ...] = ()
    references: tuple[tuple[tuple[str, ...], str], ...] = ()
    identity: str | None = None
    # Numbers beyond 32 bits.
    bigints: tuple[str, ...] = ()
    now_columns: tuple[str, ...] = field(default=("created_at",))
    # Storage parameters, such as those of autovacuum.
    storage: tuple[tuple[LiteralString, float], ...] = ()


TABLES = (
    Table(
        "jobs",
        JobRecord,
        key=("job_id",),
        indexes=(
            # Lists, newest first: of all jobs, of one status, of one type.
            Index("jobs_by_age", ("created_at", "job_id")),
            Index("jobs_by_status", ("status", "created_at", "job_id")),
            Index("jobs_by_type", ("job_type", "created_at", "job_id")),
            # The janitor's: jobs that wait for a message or for a step, never the finished ones.
            Index("jobs_open", ("updated_at", "job_id"), OPEN_JOBS),
            # Retention's: only ended jobs, by when they ended.
            Index("jobs_finished", ("finished_at",), ENDED_JOBS),
            Index("jobs_by_deadline", ("deadline_at",), ACTIVE_JOBS),
            # Of those few that have tags; and what a trace begins with.
            Index("jobs_by_tag", ("tags",), where_set="tags", of_parts=True),
            Index("jobs_by_correlation", ("correlation_id", "created_at", "job_id")),
            # Of those few that were made beside another job of the same parameters.
            Index("jobs_forced", ("forced_from", "created_at"), where_set="forced_from"),
        ),
        now_columns=("created_at", "updated_at"),
    ),
    Table("job_runs", JobRunRecord, key=("job_id", "run"), references=((("job_id",), "jobs"),), now_columns=()),
    Table(
        "stages",
        StageRecord,
        key=("job_id", "run", "stage"),
        indexes=(
            Index("stages_by_deadline", ("deadline_at",), OPEN_STAGES),
            Index("stages_by_queue_deadline", ("queue_deadline_at",), OPEN_STAGES),
        ),
        references=((("job_id",), "jobs"),),
    ),
    Table(
        "tasks",
        TaskRecord,
        key=("job_id", "run", "task_id"),
        indexes=(
            # Is anything of this stage unfinished? Never a count. With task_id, claims and completions by id stay exact
            # lookups in a table just filled, whose statistics the planner does not have yet.
            Index("tasks_open", ("job_id", "run", "stage", "task_id"), OPEN_TASKS),
            # Results and failures in order. Partial, so that no claim or completion can be planned over them: without
            # statistics the planner would read the whole stage to find one task.
            Index("tasks_completed", ("job_id", "run", "stage", "task_index"), ("completed",)),
            Index("tasks_failed", ("job_id", "run", "stage", "task_index"), ("failed",)),
            # One row per running stage: the task whose end shows whether the stage has ended.
            Index("tasks_watched", ("job_id", "run", "stage"), condition="is_watched"),
            # Sweeps across jobs lead with their time; they are not unique, so each shard keeps its own.
            Index("tasks_leased", ("lease_expires_at",), ("processing",)),
            # Without those that wait in line in a window, which may be millions.
            Index("tasks_unannounced", ("created_at",), ("pending",), unless="is_windowed"),
            Index("tasks_due", ("due_at",), ("pending_retry",)),
            Index("tasks_parked", ("parked_at",), where_set="parked_at"),
        ),
        # A row is written four times in its life: dead versions are cleared away early, in small steps.
        storage=(("autovacuum_vacuum_scale_factor", 0.02), ("autovacuum_analyze_scale_factor", 0.02)),
        references=((("job_id", "run", "stage"), "stages"),),
    ),
    Table(
        "idempotency_keys",
        IdempotencyKeyRecord,
        key=("job_id", "idempotency_key"),
        # Not unique, so that the table can be distributed by job as all others: the lock in submit_job keeps a key
        # to one job.
        indexes=(Index("idempotency_keys_by_key", ("idempotency_key",)),),
        references=((("job_id",), "jobs"),),
    ),
    Table(
        "job_events",
        JobEvent,
        key=("job_id", "event_id"),
        references=((("job_id",), "jobs"),),
        identity="event_id",
        now_columns=(),
    ),
    Table(
        # No foreign key: it outlives its job. Few rows are written by people, and read by age.
        "audit_log",
        AuditRecord,
        key=("job_id", "audit_id"),
        indexes=(
            # Lists, the latest first; and retention's.
            Index("audit_log_in_order", ("audit_id",)),
            Index("audit_log_by_age", ("at",)),
        ),
        identity="audit_id",
        now_columns=(),
    ),
    Table(
        # No foreign key: a message may name a job that is not there; retention deletes it later than its job.
        "dead_letters",
        DeadLetterRecord,
        key=("job_id", "dead_letter_id"),
        indexes=(
            # A message that is delivered again while its row is being written is one row. The broker's sequence numbers
            # may begin again (a local broker keeps nothing); the time does not.
            Index(
                "dead_letters_once",
                ("job_id", "queue", "message_id", "sequence_number", "enqueued_at"),
                is_unique=True,
            ),
            Index("dead_letters_of_task", ("job_id", "run", "stage", "task_id")),
            Index("dead_letters_by_age", ("dead_letter_id",)),
            # Retention's: a sweep that finds none old enough reads none.
            Index("dead_letters_by_receipt", ("received_at",)),
        ),
        identity="dead_letter_id",
        bigints=("sequence_number",),
        now_columns=("received_at",),
    ),
    Table(
        "schedules",
        ScheduleRecord,
        key=("name",),
        # The janitor's: the next ticks that are due.
        indexes=(Index("schedules_by_tick", ("next_tick_at",)),),
        now_columns=("created_at", "updated_at"),
    ),
    Table(
        "schedule_ticks",
        TickRecord,
        key=("schedule", "tick_at"),
        indexes=(
            # What waits for its job: a few rows of all.
            Index("schedule_ticks_open", ("tick_at", "schedule"), OPEN_TICKS),
            # Retention's.
            Index("schedule_ticks_by_age", ("decided_at",)),
        ),
        references=((("schedule",), "schedules"),),
    ),
    # A few rows, which the end of each job reads.
    Table("webhooks", WebhookRecord, key=("name",), now_columns=("created_at", "updated_at")),
    Table(
        # No foreign key: the end of a job waits for nobody who changes a webhook.
        "webhook_deliveries",
        DeliveryRecord,
        key=("webhook", "delivery_id"),
        indexes=(
            # The sender's: what is due, of each webhook.
            Index("webhook_deliveries_due", ("webhook", "due_at"), OPEN_DELIVERIES),
            # What is being sent: a few rows.
            Index("webhook_deliveries_held", ("webhook", "held_until"), where_set="held_until"),
            # Lists, the newest first; and retention's.
            Index("webhook_deliveries_by_age", ("webhook", "created_at", "delivery_id")),
            Index("webhook_deliveries_settled", ("settled_at",), where_set="settled_at"),
        ),
    ),
    # Tens of rows, read whole: no index beside the key, so that a registration writes no index.
    Table("app_instances", AppInstanceRecord, key=("instance",), now_columns=()),
    # Of all jobs together, as are the tables below it: they hold what jobs share.
    Table("limits", LimitRecord, key=("name",), indexes=(Index("limits_by_use", ("used_at",)),)),
    Table(
        "limit_places",
        LimitPlaceRecord,
        key=("job_id", "run", "task_id", "limit_name"),
        indexes=(
            # How many places of a limit are taken, and by whom.
            Index("limit_places_by_limit", ("limit_name", "ends_at")),
        ),
        now_columns=(),
        storage=(("autovacuum_vacuum_scale_factor", 0.02),),
    ),
    Table("limit_starts", LimitStartRecord, key=("limit_name", "ends_at"), now_columns=()),
    Table(
        "limit_waiters",
        LimitWaiterRecord,
        key=("job_id", "run", "stage"),
        # No foreign key: a row whose stage is gone is deleted when its turn comes.
        indexes=(Index("limit_waiters_in_turn", ("limit_name", "turn")),),
        now_columns=(),
    ),
)
