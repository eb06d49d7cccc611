"""What the endpoints about failures, dead letters and explanations take and answer."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from core.models.fields import Fingerprint, JobIdText, JobTypeText, QueueName, StrictDeadLetterId, expectation
from core.models.insight import StoredSeverity
from core.models.status import StoredJobStatus
from triggers.api_models import MAX_LIMIT, PageQuery

_Grouped = Annotated[bool, Field(description="One item a fingerprint, or one each.")]
_MOST_IDS = 1000


class FailuresQuery(PageQuery):
    """Grouped, there is one page: the `limit` largest groups."""

    job_id: JobIdText | None = None
    job_type: JobTypeText | None = None
    fingerprint: Fingerprint | None = None
    group: _Grouped = True

    @model_validator(mode="after")
    def _fits_together(self) -> "FailuresQuery":
        if self.group and (self.fingerprint or self.cursor):
            raise expectation("group=false with fingerprint or cursor", "group=true")
        return self


class DeadLettersQuery(PageQuery):
    queue: QueueName | None = None
    job_id: JobIdText | None = None
    fingerprint: Fingerprint | None = None
    resolved: Annotated[bool | Literal["all"], Field(description="true: those that were dealt with.")] = False
    group: _Grouped = False


class RedriveRequest(BaseModel):
    """Which dead messages: all given conditions must hold. A dry run reports what would happen."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ids: Annotated[list[StrictDeadLetterId], FailFast(), Field(max_length=_MOST_IDS)] = []
    fingerprint: Fingerprint | None = None
    queue: QueueName | None = None
    job_id: JobIdText | None = None
    dry_run: bool = False
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="The largest number; the oldest are taken.")] = (
        MAX_LIMIT
    )

    @model_validator(mode="after")
    def _selects(self) -> "RedriveRequest":
        if not (self.ids or self.fingerprint or self.queue or self.job_id):
            raise expectation("at least one of ids, fingerprint, queue and job_id", "none")
        return self


class RedriveItem(BaseModel):
    """`outcome`: sent, to_be_sent (a dry run), obsolete, unreadable, incomplete, resolved, not_sent."""

    dead_letter_id: int
    queue: str
    job_id: str | None
    outcome: str
    detail: str


class RedriveAnswer(BaseModel):
    """`remaining`: unresolved ones that the request selects too, beyond its limit."""

    dry_run: bool
    counts: dict[str, int]
    remaining: int
    value: list[RedriveItem]


class FindingAnswer(BaseModel):
    """`since`: when it began. `next_at`: when something happens by itself. Decide by `code`; the texts may change."""

    code: str
    severity: StoredSeverity
    message: str
    since: datetime | None
    next_at: datetime | None
    advice: str | None


class Explanation(BaseModel):
    """Why a job does not move, the most telling first, as it was at `at`."""

    job_id: str
    status: StoredJobStatus
    run: int
    stage: int
    total_stages: int
    at: datetime
    findings: list[FindingAnswer]
