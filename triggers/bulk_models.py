"""What the endpoints about many jobs, deletion, holds and the audit log take and answer."""

from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from core.basics.canonical import shown
from core.models import JobStatus
from core.models.audit import AuditAction
from core.models.bulk import MOST_JOBS_AT_ONCE, BulkAction, BulkRequest, StoredDeleteOutcome
from core.models.control import DEFAULT_CANCEL_GRACE_SECONDS
from core.models.fields import (
    MOST_TAGS,
    CorrelationId,
    Cursor,
    Instant,
    JobIdText,
    JobTypeText,
    Reason,
    StorableText,
    TagName,
    expectation,
)
from core.models.job_filter import JobFilter
from core.models.status import StoredJobStatus
from jobs.parameters import near_name_hint, nearest_name_hint
from triggers.api_models import JobListItem, PageQuery, Query


def _known_statuses(values: Any) -> Any:
    known = [str(status) for status in JobStatus]
    for value in values if isinstance(values, list) else []:
        if value not in known:
            raise expectation("a known status", shown(value, 100), nearest_name_hint(str(value)[:50], known))
    return values


def _one_of(kind: type[StrEnum], value: Any) -> Any:
    known = [each.value for each in kind]
    if value not in known:
        raise expectation(f"one of {', '.join(known)}", shown(value, 100), near_name_hint(str(value)[:50], known))
    return kind(value)


class BulkFilter(BaseModel):
    """As the filters of a list of jobs; those that the action cannot be done to are left out by themselves.

    A list that is left out is no condition. An empty one is refused, since it may mean none of them or all.
    """

    model_config = ConfigDict(extra="forbid")

    job_id: Annotated[list[JobIdText], Field(min_length=1, max_length=MOST_JOBS_AT_ONCE)] = []
    status: Annotated[
        list[JobStatus],
        BeforeValidator(_known_statuses),
        Field(min_length=1, max_length=100, examples=[["queued", "failed"]]),
    ] = []
    job_type: Annotated[list[JobTypeText], Field(min_length=1, max_length=100, examples=[["flood_risk_cog"]])] = []
    paused: Annotated[bool | None, Field(strict=True)] = None
    tags: Annotated[dict[TagName, StorableText | None], Field(max_length=MOST_TAGS)] = {}
    correlation_id: CorrelationId | None = None
    error: Annotated[StorableText | None, Field(min_length=1, max_length=200)] = None
    created_after: Instant | None = None
    created_before: Instant | None = None

    def to_filter(self) -> JobFilter:
        fields: dict[str, Any] = dict(self)
        lists = {"job_ids": "job_id", "statuses": "status", "job_types": "job_type"}
        fields |= {name: tuple(fields.pop(given)) for name, given in lists.items()}
        return JobFilter(**fields)


class BulkBody(BaseModel):
    """Without `confirm` nothing is done: the answer has the count to confirm."""

    model_config = ConfigDict(extra="forbid")

    action: Annotated[BulkAction, BeforeValidator(partial(_one_of, BulkAction))]
    filter: Annotated[BulkFilter, Field(description="`{}` is all jobs.")]
    reason: Reason | None = None
    confirm: Annotated[
        int | None, Field(ge=0, strict=True, description="The count that was seen; nothing is done if more match.")
    ] = None
    limit: Annotated[
        int,
        Field(
            ge=1,
            le=MOST_JOBS_AT_ONCE,
            strict=True,
            description="The largest number to act on; ask again for the others.",
        ),
    ] = MOST_JOBS_AT_ONCE
    cursor: Annotated[Cursor | None, Field(description="`next_cursor` of the request before.")] = None
    cancel_grace_seconds: Annotated[
        float, Field(ge=0, le=86400, strict=True, description="As for the cancel of one job.")
    ] = DEFAULT_CANCEL_GRACE_SECONDS

    @model_validator(mode="after")
    def _grace_goes_with_cancel(self) -> "BulkBody":
        if "cancel_grace_seconds" in self.model_fields_set and self.action is not BulkAction.CANCEL:
            raise expectation("cancel_grace_seconds with action cancel alone", f"action {self.action.value}")
        return self

    def to_request(self, actor: str | None) -> BulkRequest:
        fields = {name: value for name, value in self if name != "filter"}
        return BulkRequest(**fields, wanted=self.filter.to_filter(), actor=actor)


class BulkItemAnswer(BaseModel):
    job_id: str
    outcome: Annotated[
        str, Field(description="Such as cancelled, paused, rerun, deleted; refused where it has changed.")
    ]
    detail: str | None = None


class BulkAnswer(BaseModel):
    """What was found and done. `remaining` jobs matched and were not come to: go on from `next_cursor`.

    Of a dry run, `value` is empty and `sample` has the first jobs.
    """

    action: BulkAction
    dry_run: bool
    matched: int
    remaining: int
    counts: dict[str, int]
    next_cursor: str | None
    value: list[BulkItemAnswer]
    sample: list[JobListItem]


class DeleteQuery(Query):
    reason: Reason | None = None


class DeletedJob(BaseModel):
    """`deleting`: a part of a large job is left; send the request again."""

    job_id: str
    outcome: StoredDeleteOutcome
    pruned_tasks: int


class HeldJob(BaseModel):
    """`hold` is null where the job is under none. `changed` is false where it was so before."""

    job_id: str
    status: StoredJobStatus
    hold: dict[str, Any] | None
    changed: bool


class AuditQuery(PageQuery):
    job_id: JobIdText | None = None
    actor: Annotated[StorableText | None, Field(min_length=1, max_length=320)] = None
    action: Annotated[AuditAction | None, BeforeValidator(partial(_one_of, AuditAction))] = None


class AuditEntry(BaseModel):
    """One action. `job_id` is null for the request of an action on many."""

    audit_id: int
    job_id: str | None
    action: str
    actor: str | None
    reason: str | None
    detail: dict[str, Any]
    at: datetime
