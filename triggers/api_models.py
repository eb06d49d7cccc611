"""What the HTTP API takes in queries and bodies, and what it answers. Times are RFC 3339 in UTC."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from core.models import JobStatus, TaskStatus, view
from core.ports import SubmissionOutcome
from jobs.parameters import nearest_name_hint
from triggers.problems import expectation

MAX_LIMIT = 1000
MAX_WAIT_SECONDS = 30.0
_JOB_ID_LENGTH = 64

T = TypeVar("T")


def check_job_id(value: str) -> str:
    """The id itself, if it can be one."""
    if len(value) == _JOB_ID_LENGTH and set(value) <= set("0123456789abcdef"):
        return value
    hint = "ids are written in lower case" if set(value) & set("ABCDEF") else "submit answers with it"
    found = repr(value) if len(value) <= _JOB_ID_LENGTH else f"{len(value)} characters"
    raise expectation("64 hexadecimal digits", found, hint)


JobIdText = Annotated[str, AfterValidator(check_job_id)]


class Query(BaseModel):
    """A query string: other names than the model's are refused. `code` and `clientId` are the Functions host's."""

    model_config = ConfigDict(extra="forbid")

    code: Annotated[str | None, Field(description="The function key, where the host asks for one.")] = None
    clientId: Annotated[str | None, Field(description="The function key's name.")] = None  # noqa: N815 - the host's

    @model_validator(mode="before")
    @classmethod
    def _knows_all_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        own = [name for name in cls.model_fields if name not in Query.model_fields]
        for name in values:
            if name not in cls.model_fields:
                error = expectation("a known query parameter", repr(name), nearest_name_hint(name, own))
                error.context["field"] = name  # type: ignore[index]
                raise error
        return values


def _split(values: Any, known: list[str]) -> Any:
    """`a,b` and repeated parameters alike; the nearest name for one that is not known."""
    texts = [text.strip() for value in values for text in str(value).split(",") if text.strip()]
    for text in texts:
        if text not in known:
            raise expectation("a known status", repr(text), nearest_name_hint(text, known))
    return texts


def _job_statuses(values: Any) -> Any:
    return _split(values, [str(status) for status in JobStatus])


def _task_statuses(values: Any) -> Any:
    return _split(values, [str(status) for status in TaskStatus])


class PageQuery(Query):
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="At most so many; a page may hold fewer.")] = 100
    cursor: Annotated[str | None, Field(max_length=1000, description="`next_cursor` of the page before.")] = None


class JobsQuery(PageQuery):
    status: Annotated[list[JobStatus], BeforeValidator(_job_statuses)] = []
    job_type: list[str] = []


class TasksQuery(PageQuery):
    run: Annotated[int | None, Field(ge=1, description="The job's current run, if left out.")] = None
    stage: Annotated[int | None, Field(ge=1)] = None
    status: Annotated[list[TaskStatus], BeforeValidator(_task_statuses)] = []


class JobQuery(Query):
    wait: Annotated[
        float | None,
        Field(ge=0, le=MAX_WAIT_SECONDS, description="Answer when the job has ended, or after so many seconds."),
    ] = None


class SubmitQuery(Query):
    force: Annotated[
        bool, Field(description="Make a new job even if one of the same type and parameters is there.")
    ] = False


class CancelRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=1000)] | None = None


class Page(BaseModel, Generic[T]):
    """One page; `next_cursor` is absent on the last."""

    value: list[T]
    next_cursor: str | None = None


def page_of(value: Iterable[T], next_cursor: str | None) -> Page[T]:
    """A page whose `next_cursor` is left out of the answer where there is none: a field that is not set is."""
    items = list(value)
    return Page[T](value=items) if next_cursor is None else Page[T](value=items, next_cursor=next_cursor)


class JobLinks(BaseModel):
    self_: Annotated[str, Field(serialization_alias="self")]
    tasks: str
    events: str
    cancel: str


class SubmittedJob(BaseModel):
    """`created` is false when the job was there already; `outcome` says how it was found.

    `advice` is there when this submission makes nothing run: the job had ended before. It says what would.
    """

    job_id: str
    job_type: str
    status: JobStatus
    run: int
    created: bool
    outcome: SubmissionOutcome
    advice: str | None
    correlation_id: str
    links: JobLinks


class CancelledJob(BaseModel):
    """`cancelling` while tasks that were running have not stopped yet."""

    job_id: str
    status: JobStatus
    links: JobLinks


class JobListItem(view.JobSummary):
    links: JobLinks


class JobAnswer(BaseModel):
    """A job, and the stages of its current run that it has come to."""

    job_id: str
    job_type: str
    status: JobStatus
    run: int
    stage: int
    total_stages: int
    parameters: dict[str, Any]
    correlation_id: str
    created_at: datetime | None
    updated_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    forced_from: str | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    stages: list[view.StageDetail]
    links: JobLinks


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
    """One thing that the app needs; `detail` says what was found."""

    name: str
    ok: bool
    detail: str


class Readiness(BaseModel):
    status: str
    checks: list[ReadinessCheck]
