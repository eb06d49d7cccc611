"""What the endpoints about schedules take and answer."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from core.basics.canonical import shown
from core.models.fields import JobTypeText, StorableText, check_digits, check_no_credential, expectation
from core.models.schedule import (
    CatchUp,
    Overlap,
    ScheduleRecord,
    StoredCatchUp,
    StoredOverlap,
    StoredTickStatus,
    TickRecord,
    TickStatus,
)
from jobs.parameters import near_name_hint
from triggers.api_models import PageQuery, Query
from triggers.insight_models import FindingAnswer

MAX_NEXT = 100
ScheduleName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Letters, digits, dots, dashes, underscores.")
]


def _member_of(kind: type[StrEnum]) -> BeforeValidator:
    """Strict models take no text for an enum's member."""
    known = [member.value for member in kind]

    def check(value: Any) -> Any:
        if not isinstance(value, str) or value not in known:
            hint = near_name_hint(str(value)[:50], known)
            raise expectation(f"one of {', '.join(known)}", shown(value, 100), hint)
        return kind(value)

    return BeforeValidator(check)


# Far enough from the ends of the calendar for any zone.
_Moment = Annotated[
    AwareDatetime,
    Field(strict=False, ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC)),
]
_Text = Annotated[StorableText, BeforeValidator(lambda text: check_no_credential(text) if text else text)]


class PutSchedule(BaseModel):
    """A schedule as it is to be from now on; what is left out has its default, and a pause stays.

    Texts in `parameters` may have the tick's time in them: `{tick}` (ISO 8601, in the schedule's zone) and
    `{tick:%Y-%m-%d}` with the directives Y m d H M S j G V u y z.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    job_type: Annotated[JobTypeText, Field(description="Of the jobs that it submits.")]
    cron: Annotated[
        StorableText,
        Field(
            min_length=1,
            max_length=200,
            description="Five fields: minute, hour, day of month, month, day of week.",
            examples=["30 2 * * *"],
        ),
    ]
    parameters: Annotated[
        dict[str, Any],
        Field(
            description="Of its jobs. In texts, {tick} and {tick:%Y-%m-%d} are the time of the tick.",
            examples=[{"day": "{tick:%Y-%m-%d}"}],
        ),
    ] = {}
    time_zone: Annotated[
        StorableText, Field(min_length=1, max_length=100, description="IANA name.", examples=["Europe/Berlin"])
    ] = "UTC"
    catch_up: Annotated[
        CatchUp,
        _member_of(CatchUp),
        Field(
            description="Ticks that nobody acted on in time: skip those more than five minutes late, give the latest "
            "one its job, or all (the hundred newest)."
        ),
    ] = CatchUp.LATEST
    overlap: Annotated[
        Overlap,
        _member_of(Overlap),
        Field(description="A tick while a job of the schedule is open: skip it, let it wait, or allow its job."),
    ] = Overlap.SKIP
    starts_at: Annotated[_Moment | None, Field(description="No tick is before it.")] = None
    ends_at: Annotated[_Moment | None, Field(description="No tick is after it.")] = None
    description: Annotated[
        Annotated[_Text, Field(min_length=1, max_length=1000)] | None, Field(description="For people.")
    ] = None


class SchedulesQuery(PageQuery):
    job_type: JobTypeText | None = None
    paused: Annotated[bool | None, Field(description="Only paused ones, or only those that are not.")] = None


class TicksQuery(PageQuery):
    status: Annotated[TickStatus | None, _member_of(TickStatus)] = None


class NextQuery(Query):
    count: Annotated[int, BeforeValidator(check_digits), Field(ge=1, le=MAX_NEXT)] = 5


class ScheduleAnswer(BaseModel):
    """A schedule. `next_tick_at` is the first tick that nothing was decided about; null: there is none any more.

    While it is paused, nothing is decided about; ticks that passed are skipped when it is resumed. `last_change` has
    the action, and actor, reason and time.
    """

    name: str
    job_type: str
    parameters: dict[str, Any]
    cron: str
    time_zone: str
    catch_up: StoredCatchUp
    overlap: StoredOverlap
    starts_at: datetime | None
    ends_at: datetime | None
    description: str | None
    paused: bool
    paused_at: datetime | None
    next_tick_at: datetime | None
    revision: int
    last_change: dict[str, Any]
    created_at: datetime | None
    updated_at: datetime | None


class WrittenSchedule(ScheduleAnswer):
    """`notes`: what could not be checked now, and will show at its ticks."""

    notes: list[str]


class ScheduleTick(BaseModel):
    """What became of one tick; with `until_at`, of all ticks from `tick_at` to it, which were skipped together.

    `status`: waiting (for an earlier job), due (its job is about to be submitted), submitted (as `job_id`), skipped or
    failed. `reason`: overlap, missed, paused, too_many_waiting, invalid_parameters, unknown_job_type, job_type_failed,
    process_ended, internal_error; of one that is due again also database_away. `late_seconds`: from the tick to the
    decision about it.
    """

    tick_at: datetime
    until_at: datetime | None
    status: StoredTickStatus
    reason: str | None
    detail: str | None
    job_id: str | None
    job_type: str
    parameters: dict[str, Any]
    manual: bool
    actor: str | None
    attempt: int
    created_at: datetime | None
    decided_at: datetime | None
    late_seconds: float | None


class ScheduleExplanation(BaseModel):
    """Why a schedule submits nothing, the most telling first, as it was at `at`."""

    name: str
    at: datetime
    findings: list[FindingAnswer]


class DeletedSchedule(BaseModel):
    """Its jobs are still there; what became of its ticks is not."""

    name: str


def answer_of(schedule: ScheduleRecord) -> dict[str, Any]:
    """The fields of a `ScheduleAnswer`."""
    return dict(schedule) | {"paused": schedule.paused_at is not None}


def tick_of(tick: TickRecord) -> ScheduleTick:
    late = None
    if tick.created_at is not None and not tick.is_manual:
        late = (tick.created_at - (tick.until_at or tick.tick_at)).total_seconds()
    return ScheduleTick(
        **{name: value for name, value in tick if name in ScheduleTick.model_fields},
        job_id=tick.submitted_job_id,
        manual=tick.is_manual,
        late_seconds=late,
    )
