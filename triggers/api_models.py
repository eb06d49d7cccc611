"""What the HTTP API takes in queries and bodies, and what it answers. Times are RFC 3339 in UTC."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from core.basics.canonical import shown
from core.models import JobStatus, TaskStatus, control, view
from core.models.control import DEFAULT_CANCEL_GRACE_SECONDS, IfEnded, RerunMode, StoredJobAction
from core.models.fields import (
    MAX_INTEGER,
    MOST_TAGS,
    CorrelationId,
    Cursor,
    EventId,
    Instant,
    JobTypeText,
    PriorityText,
    Reason,
    RunNumber,
    StageNumber,
    StartAt,
    StorableText,
    TaskIdText,
    check_digits,
    expectation,
)
from core.models.insight import Severity
from core.models.job_filter import JobFilter, JobSort, read_tags, read_wanted_tags
from core.models.status import JobPriority, StoredJobPriority, StoredJobStatus
from core.models.submission import StoredSubmissionOutcome, expect_one_wish
from jobs.parameters import near_name_hint, nearest_name_hint

if TYPE_CHECKING:  # clients read these models, and have no use for the framework
    from fastapi import Request

MAX_LIMIT = 1000
MAX_WAIT_SECONDS = 30.0
_MOST_FILTERS = 100

T = TypeVar("T")


class Query(BaseModel):
    """A query string: other names than the model's are refused. These four are a gateway's, and mean nothing here."""

    model_config = ConfigDict(extra="forbid")
    # What to do about a name that is known elsewhere.
    hints: ClassVar[Mapping[str, str]] = {}

    code: Annotated[str | None, Field(description="The function key, where the host asks for one.")] = None
    clientId: Annotated[str | None, Field(description="The function key's name.")] = None  # noqa: N815 - the host's
    api_version: Annotated[
        str | None,
        Field(
            alias="api-version",
            pattern=r"^(v?[0-9]{1,3}(\.[0-9]{1,3})?|[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?)$",
            description="Accepted where Azure clients send it, such as 1 or 2026-11-01. There is one version.",
        ),
    ] = None
    subscription_key: Annotated[
        str | None, Field(alias="subscription-key", description="Of API Management, which checks it.")
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _knows_all_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        own = [name for name in cls.model_fields if name not in Query.model_fields]
        known = {field.alias or name for name, field in cls.model_fields.items()}
        for name in values:
            if name not in known:
                hint = cls.hints.get(name) or nearest_name_hint(name, own)
                error = expectation("a known query parameter", shown(name, 100), hint)
                error.context["field"] = name  # type: ignore[index]
                raise error
        return values


def _split(values: Any, known: list[str]) -> Any:
    """`a,b` and repeated parameters alike; the nearest name for one that is not known."""
    texts = [text.strip() for value in values for text in str(value).split(",") if text.strip()]
    for text in texts:
        if text not in known:
            raise expectation("a known status", shown(text, 100), nearest_name_hint(text, known))
    return texts


def _job_statuses(values: Any) -> Any:
    return _split(values, [str(status) for status in JobStatus])


def _task_statuses(values: Any) -> Any:
    return _split(values, [str(status) for status in TaskStatus])


def _rerun_mode(value: Any) -> Any:
    """Strict models take no text for an enum's member."""
    known = [mode.value for mode in RerunMode]
    if not isinstance(value, str) or value not in known:
        raise expectation(f"one of {', '.join(known)}", shown(value, 100), near_name_hint(str(value)[:50], known))
    return RerunMode(value)


def read_if_ended(value: Any) -> Any:
    """One of the words, or an error with the nearest one."""
    known = [each.value for each in IfEnded]
    if value not in known:
        raise expectation(f"one of {', '.join(known)}", repr(value)[:100], near_name_hint(str(value)[:50], known))
    return value


def _sort(value: Any) -> Any:
    known = [each.value for each in JobSort]
    if value not in known:
        raise expectation(f"one of {', '.join(known)}", shown(value, 100), near_name_hint(str(value)[:50], known))
    return value


class PageQuery(Query):
    limit: Annotated[
        int,
        BeforeValidator(check_digits),
        Field(ge=1, le=MAX_LIMIT, description="The largest number per page; a page may hold fewer."),
    ] = 100
    cursor: Cursor | None = None


class JobsQuery(PageQuery):
    job_id: Annotated[
        str | None,
        Field(pattern=r"^[0-9A-Fa-f]{1,64}$", description="The id, or its beginning: 1 to 64 hexadecimal digits."),
    ] = None
    status: Annotated[list[JobStatus], BeforeValidator(_job_statuses), Field(max_length=_MOST_FILTERS)] = []
    job_type: Annotated[list[JobTypeText], Field(max_length=_MOST_FILTERS)] = []
    paused: Annotated[bool | None, Field(description="Only paused jobs, or only those that are not.")] = None
    held: Annotated[bool | None, Field(description="Only jobs under a legal hold, or only the others.")] = None
    tag: Annotated[
        list[str],
        Field(max_length=MOST_TAGS, description="`team=geo`, or `team` for any value of it. Repeated: all of them."),
    ] = []
    correlation_id: CorrelationId | None = None
    error: Annotated[
        StorableText | None,
        Field(min_length=1, max_length=200, description="A part of the error's type or message, in any case."),
    ] = None
    created_after: Annotated[Instant | None, Field(description="Submitted at this time or later.")] = None
    created_before: Annotated[Instant | None, Field(description="Submitted before this time.")] = None
    sort: Annotated[
        JobSort,
        BeforeValidator(_sort),
        Field(description="Newest first, if left out. By finished_at: ended jobs alone."),
    ] = JobSort.NEWEST
    reasons: Annotated[
        bool, Field(description="With `reason` in each job: why it waits or failed. It takes a look at more rows.")
    ] = False

    def to_filter(self) -> JobFilter:
        return JobFilter(
            id_begins=self.job_id,
            statuses=tuple(self.status),
            job_types=tuple(self.job_type),
            paused=self.paused,
            held=self.held,
            tags=read_wanted_tags(self.tag),
            correlation_id=self.correlation_id,
            error=self.error,
            created_after=self.created_after,
            created_before=self.created_before,
        )

    @model_validator(mode="after")
    def _has_tags(self) -> "JobsQuery":
        read_wanted_tags(self.tag)
        return self


class TasksQuery(PageQuery):
    run: Annotated[RunNumber | None, Field(description="The job's current run, if left out.")] = None
    stage: StageNumber | None = None
    status: Annotated[list[TaskStatus], BeforeValidator(_task_statuses), Field(max_length=_MOST_FILTERS)] = []


class TaskQuery(Query):
    run: Annotated[RunNumber | None, Field(description="The job's current run, if left out.")] = None


class EventsQuery(PageQuery):
    wait: Annotated[
        float | None,
        Field(
            ge=0,
            le=MAX_WAIT_SECONDS,
            description="To follow: answer when something happens, or after this number of seconds. `next_cursor` is "
            "always there, and asks for what comes after.",
        ),
    ] = None


class LogsQuery(PageQuery):
    task_id: TaskIdText | None = None
    run: Annotated[RunNumber | None, Field(description="All runs, if left out.")] = None
    after: Annotated[EventId | None, Field(description="An `event_id`: only what came later.")] = None


class JobQuery(Query):
    wait: Annotated[
        float | None,
        Field(ge=0, le=MAX_WAIT_SECONDS, description="Answer when the job has ended, or after this number of seconds."),
    ] = None


class SubmitQuery(Query):
    hints: ClassVar[Mapping[str, str]] = {"wait": "to wait for the job's end here, send the header `Prefer: wait=10`"}

    force: Annotated[
        bool, Field(description="Make a new job even if one of the same type and parameters is there.")
    ] = False
    if_ended: Annotated[
        IfEnded,
        BeforeValidator(read_if_ended),
        Field(
            description="What is wanted where the job of these parameters is there and does not run with them: the job "
            "as it is (return), another run of it (rerun), a new job (force), or 409 (fail)."
        ),
    ] = IfEnded.RETURN

    tag: Annotated[
        list[str],
        Field(max_length=MOST_TAGS, description="`team=geo`: to find the job by. A job that is there keeps its own."),
    ] = []
    start_at: StartAt | None = None
    priority: PriorityText | None = None
    dry_run: Annotated[
        bool, Field(description="Write nothing: answer with the checked parameters and the tasks of the first stage.")
    ] = False

    @model_validator(mode="after")
    def _says_one_thing(self) -> "SubmitQuery":
        expect_one_wish(self.if_ended, force=self.force)
        read_tags(self.tag)
        return self


class ActionRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Reason | None = None


class CancelRequest(ActionRequest):
    cancel_grace_seconds: Annotated[
        float,
        Field(ge=0, le=86400, description="Tasks that still run after this number of seconds are ended; 0: at once."),
    ] = DEFAULT_CANCEL_GRACE_SECONDS


class AdjustJob(ActionRequest):
    """`stage` goes with max_parallel: where the job is at another stage, nothing is changed (409)."""

    priority: PriorityText | None = None
    max_parallel: (
        Annotated[
            Annotated[int, Field(ge=1, le=MAX_INTEGER)] | Literal["none"],
            Field(description='How many tasks of its present stage run at a time; "none": any number.'),
        ]
        | None
    ) = None
    stage: StageNumber | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> "AdjustJob":
        if self.priority is None and self.max_parallel is None:
            raise expectation("priority or max_parallel", "neither")
        if self.stage is not None and self.max_parallel is None:
            raise expectation("stage with max_parallel alone", "no max_parallel")
        return self

    def to_request(self, *, actor: str | None) -> control.AdjustRequest:
        changes: dict[str, str | int | None] = {}
        if self.priority is not None:
            changes["priority"] = self.priority.value
        if self.max_parallel is not None:
            changes["max_parallel"] = None if self.max_parallel == "none" else self.max_parallel
        return control.AdjustRequest(changes, stage=self.stage, reason=self.reason, actor=actor)


class RerunRequest(ActionRequest):
    """`mode` may be left out: it is from_stage where `from_stage` is given, else failed."""

    mode: Annotated[RerunMode, BeforeValidator(_rerun_mode)] | None = None
    from_stage: Annotated[StageNumber, Field(description="Of mode from_stage: the first stage to do again.")] | None = (
        None
    )
    parameters: (
        Annotated[dict[str, Any], Field(description="Take the place of those of the last run; the others stay.")] | None
    ) = None

    expected_run: (
        Annotated[RunNumber, Field(description="The run that you have seen; if the job is in another one: 409.")] | None
    ) = None

    @model_validator(mode="after")
    def _stage_goes_with_its_mode(self) -> "RerunRequest":
        self.to_request(actor=None)
        return self

    def to_request(self, *, actor: str | None) -> control.RerunRequest:
        mode = RerunMode.FAILED if self.from_stage is None else RerunMode.FROM_STAGE
        return control.RerunRequest(**dict(self) | {"mode": self.mode or mode, "actor": actor})


class Page(BaseModel, Generic[T]):
    """One page; `next_cursor` and `nextLink` are absent on the last."""

    value: list[T]
    next_cursor: str | None = None
    nextLink: Annotated[  # noqa: N815 - as Azure's clients read it
        str | None, Field(description="Where the next page is; without a key that was in the address of this one.")
    ] = None


def page_of(value: Iterable[T], next_cursor: str | None, request: "Request") -> Page[T]:
    """A page whose `next_cursor` is left out of the answer where there is none: a field that is not set is."""
    items = list(value)
    if next_cursor is None:
        return Page[T](value=items)
    link = request.url.remove_query_params(["code", "subscription-key"]).include_query_params(cursor=next_cursor)
    return Page[T](value=items, next_cursor=next_cursor, nextLink=str(link))


class JobLinks(BaseModel):
    self_: Annotated[str, Field(validation_alias=AliasChoices("self_", "self"), serialization_alias="self")]
    poll: Annotated[str, Field(description="202 until the job has ended, then 200.")]
    operation: Annotated[str, Field(description="Its status in the words of Azure's clients.")]
    tasks: str
    events: str
    runs: str
    cancel: str
    pause: str
    resume: str
    rerun: str


class CancelledJob(BaseModel):
    """`cancelling` while tasks that were running have not stopped yet."""

    job_id: str
    status: StoredJobStatus
    links: JobLinks


class JobActionAnswer(BaseModel):
    """The job after the action. `changed` is false when the action changed nothing."""

    job_id: str
    status: StoredJobStatus
    paused: bool
    run: int
    stage: int
    changed: bool
    allowed_actions: list[StoredJobAction]
    links: JobLinks


class AdjustedJob(JobActionAnswer):
    """`priority` and `max_parallel` are those that count now, the latter for the present stage."""

    priority: StoredJobPriority
    max_parallel: int | None


class RerunAnswer(JobActionAnswer):
    """`kept_count` tasks of earlier runs count for this one; `fresh_count` of its first stage are retried.

    `fresh_count` is null when that stage is still to be planned.
    """

    kept_count: int
    fresh_count: int | None


class JobReason(BaseModel):
    """Why a job waits or failed. `GET /api/jobs/{job_id}/explain` has all of it."""

    model_config = ConfigDict(from_attributes=True)

    code: str
    severity: Severity
    text: str
    at: Annotated[datetime | None, Field(description="When something happens by itself.")]


class JobListItem(view.JobSummary):
    """`run_started_at` and `duration_seconds` are of the present run; no duration while it has not ended.

    `reason` is there if `reasons` asks for it, and null for a job that goes on, or completed as it should.
    """

    run_started_at: datetime | None
    duration_seconds: float | None
    reason: JobReason | None = None
    links: JobLinks


class JobAnswer(BaseModel):
    """A job, and the stages of its current run that it has come to.

    `run_started_at` and `duration_seconds` are of that run; no duration while it has not ended.
    """

    job_id: str
    job_type: str
    status: StoredJobStatus
    run: int
    stage: int
    total_stages: int
    parameters: dict[str, Any]
    correlation_id: str
    trace_id: Annotated[
        str | None, Field(description="The trace that a backend of telemetry has it under; null if there was none.")
    ] = None
    created_at: datetime | None
    updated_at: datetime | None
    run_started_at: datetime | None
    finished_at: datetime | None
    duration_seconds: float | None
    deadline_at: datetime | None
    forced_from: str | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    paused: bool
    paused_at: datetime | None
    cancel_deadline_at: datetime | None
    tags: dict[str, str] | None
    start_at: datetime | None
    hold: Annotated[dict[str, Any] | None, Field(description="Legal hold: reason, actor, at; it is not deleted.")]
    priority: StoredJobPriority = JobPriority.NORMAL
    allowed_actions: list[StoredJobAction]
    stages: list[view.StageDetail]
    links: JobLinks


class BatchJob(BaseModel):
    """The job that a submission made or found; as the answer to a submission alone."""

    job_id: str
    job_type: str
    status: StoredJobStatus
    run: int
    created: bool
    outcome: StoredSubmissionOutcome
    advice: str | None
    correlation_id: str
    links: JobLinks


class SubmittedJob(BatchJob):
    """`created` is false when the job was there already; `outcome` is how it was found.

    `advice` is there when this submission makes nothing run: the job had ended before. It names what would. It is also
    there when `start_at` is in the past: what was submitted begins at once.
    `job` is the whole job, as it is when the time of `Prefer: wait` is over; null where that was not asked for, and
    where its run is not of this submission.
    """

    job: JobAnswer | None = None


class StageDescription(BaseModel):
    number: int
    name: str
    task_type: str
    parallelism: str
    description: str | None = None
    task_timeout_seconds: float | None = None
    timeout_seconds: float | None = None
    queue_timeout_seconds: float | None = None


class JobTypeDetail(BaseModel):
    """`parameters_schema` is JSON Schema 2020-12 for the body of a submission."""

    job_type: str
    description: str
    timeout_seconds: float | None
    stages: list[StageDescription]
    parameters_schema: dict[str, Any]


class Liveness(BaseModel):
    status: str = "alive"


class ReadinessCheck(BaseModel):
    """One thing that the app needs; `detail` is what was found."""

    name: str
    ok: bool
    detail: str


class Readiness(BaseModel):
    status: str
    checks: list[ReadinessCheck]
