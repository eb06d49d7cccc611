"""Schedules: when jobs of a type are submitted by the clock, and what became of each such time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from core.models.definition import FrozenModel
from core.models.status import StoredEnum


class CatchUp(StoredEnum):
    """What becomes of ticks that nobody could act on in time, as in an outage.

    skip: ticks more than five minutes late are skipped. latest: the newest due tick gets its job, however late.
    all: each due tick gets its job, up to the hundred newest.
    """

    SKIP = "skip"
    LATEST = "latest"
    ALL = "all"


class Overlap(StoredEnum):
    """What becomes of a tick while a job of the schedule is open.

    skip: the tick is skipped. wait: it waits for that job's end. allow: it gets its job at once.
    """

    SKIP = "skip"
    WAIT = "wait"
    ALLOW = "allow"


class TickStatus(StoredEnum):
    """What became of a tick.

    waiting: for the end of an earlier job. due: its job is about to be submitted. submitted: it has its job.
    skipped: it gets none, for a reason. failed: its job was refused.
    """

    WAITING = "waiting"
    DUE = "due"
    SUBMITTED = "submitted"
    SKIPPED = "skipped"
    FAILED = "failed"

    @property
    def is_open(self) -> bool:
        return self in {TickStatus.WAITING, TickStatus.DUE}


StoredCatchUp = Annotated[CatchUp, BeforeValidator(CatchUp.stored)]
StoredOverlap = Annotated[Overlap, BeforeValidator(Overlap.stored)]
StoredTickStatus = Annotated[TickStatus, BeforeValidator(TickStatus.stored)]


class ScheduleRecord(FrozenModel):
    """When jobs of a type are submitted by the clock."""

    name: str = Field(description="The schedule's name.")
    job_type: str = Field(description="The type of its jobs.")
    parameters: dict[str, Any] = Field(
        default={}, description="Parameters of its jobs; texts may have {tick} and {tick:%Y-%m-%d} in them."
    )
    cron: str = Field(description="Cron expression of five fields: minute, hour, day of month, month, day of week.")
    time_zone: str = Field(description="IANA name of the zone whose clock the expression is about.")
    catch_up: StoredCatchUp = Field(
        default=CatchUp.LATEST, description="What becomes of ticks that nobody acted on in time: skip, latest, all."
    )
    overlap: StoredOverlap = Field(
        default=Overlap.SKIP, description="What becomes of a tick while a job of it is open: skip, wait, allow."
    )
    starts_at: datetime | None = Field(default=None, description="No tick is before this time. Null: from now on.")
    ends_at: datetime | None = Field(default=None, description="No tick is after this time. Null: without end.")
    description: str | None = Field(default=None, description="A text for people.")
    revision: Annotated[int, Field(ge=1)] = Field(
        default=1, description="Raised by each change, a pause or a resume included."
    )
    next_tick_at: datetime | None = Field(
        default=None,
        description="The first tick that nothing was decided about. Moved together with the rows of the ticks before "
        "it. Null: there is none any more.",
    )
    paused_at: datetime | None = Field(
        default=None, description="While set, no tick is decided about; a resume skips those that passed."
    )
    last_change: dict[str, Any] = Field(
        default={}, description="The latest change: action (created, replaced, paused, resumed), actor, reason, at."
    )
    created_at: datetime | None = Field(default=None, description="When it was first written.")
    updated_at: datetime | None = Field(default=None, description="When it was last changed, or paused, or resumed.")


class TickRecord(FrozenModel):
    """What became of one tick of a schedule, or of a range of ticks that were skipped together."""

    schedule: str = Field(description="The schedule.")
    tick_at: datetime = Field(description="The time that the expression names; of a manual one, when it was asked for.")
    until_at: datetime | None = Field(
        default=None, description="Of ticks that were skipped together: the last one. Null: it is one tick."
    )
    is_manual: bool = Field(default=False, description="True: somebody asked for it (run now).")
    status: StoredTickStatus = Field(description="waiting, due, submitted, skipped or failed.")
    reason: str | None = Field(
        default=None,
        description="Why it was skipped or failed, or is retried: a word such as overlap, missed, paused.",
    )
    detail: str | None = Field(default=None, description="The same for people, such as the error's message.")
    job_type: str = Field(description="The schedule's job type when the tick was decided about.")
    parameters: dict[str, Any] = Field(default={}, description="Parameters of its job, with the tick's time in them.")
    submission_key: str = Field(
        description="Idempotency key of its submission: however often that is repeated, one job is made."
    )
    submitted_job_id: str | None = Field(default=None, description="Its job. Null: it has none.")
    attempt: Annotated[int, Field(ge=0)] = Field(default=0, description="How often its submission was begun.")
    held_until: datetime | None = Field(default=None, description="While due: nobody else submits it before this time.")
    actor: str | None = Field(default=None, description="Of a manual tick: who asked for it.")
    created_at: datetime | None = Field(default=None, description="When it was decided about.")
    decided_at: datetime | None = Field(
        default=None, description="When it was submitted, skipped or failed. Null while it is open."
    )


@dataclass(frozen=True)
class PlannedTick:
    """A tick to be written down. With `reason` it is skipped; with `until_at` it and all up to that one are."""

    tick_at: datetime
    parameters: Mapping[str, Any]
    submission_key: str
    until_at: datetime | None = None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class TickPlan:
    """What to decide about a schedule's due ticks, and the tick after them."""

    ticks: tuple[PlannedTick, ...]
    next_tick_at: datetime | None


@dataclass(frozen=True)
class DueTick:
    """A tick whose job is to be submitted by its holder."""

    schedule: str
    tick_at: datetime
    job_type: str
    parameters: Mapping[str, Any]
    submission_key: str
    attempt: int
    is_manual: bool
    actor: str | None
    created_at: datetime


@dataclass(frozen=True)
class TickAnswer:
    """What is to be noted of a tick. `delay_seconds`: while it stays due, until the next attempt."""

    status: TickStatus
    job_id: str | None = None
    reason: str | None = None
    detail: str | None = None
    delay_seconds: float | None = None


@dataclass
class TickReport:
    """What one look at the schedules did."""

    decided: int = 0
    submitted: int = 0
    failed: int = 0
    postponed: int = 0
    late_seconds: float = 0.0


@dataclass(frozen=True)
class ScheduleFacts:
    """One look at a schedule and its ticks, for `explain`."""

    now: datetime
    schedule: ScheduleRecord
    # The newest first.
    latest: tuple[TickRecord, ...] = ()
    open_job_id: str | None = None
    waiting: int = 0
    due: int = 0
    oldest_due_at: datetime | None = None
    is_known_job_type: bool = True
