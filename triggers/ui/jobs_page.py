"""The list of jobs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Query as InQuery
from pydantic import BeforeValidator, Field, model_validator

from core.models import JobStatus
from core.models.bulk import AS_WISHED, BulkAction
from core.models.fields import MOST_TAGS, Cursor, JobTypeText, StorableText, expectation
from core.models.job_filter import JobFilter, read_wanted_tags
from core.models.view import JobSummary, Page
from core.schema.statuses import ACTIVE_JOBS
from infrastructure.job_search import MOST_SEARCHED
from triggers.api_models import Query
from triggers.job_reasons import reasons_of
from triggers.ui.bars import JobRow, job_row
from triggers.ui.page import PageRoute, render
from triggers.ui.paging import Chain
from triggers.ui.ports import Services, UiServices
from triggers.ui.recent import RecentReads, recent_reads
from triggers.ui.short_parameters import short_parameters

router = APIRouter(route_class=PageRoute)
PAGE = 50

_FAILED_FIRST = ((JobStatus.FAILED,), (JobStatus.COMPLETED_WITH_ERRORS,))
_OPEN = tuple(status for status in JobStatus if not status.is_terminal)
# What a chip chooses: statuses of its own, or one status.
_SETS: Mapping[str, tuple[JobStatus, ...]] = {"open": _OPEN}
# A chip of these is about jobs that are not paused: those have a chip of their own.
_MAY_BE_PAUSED = frozenset(ACTIVE_JOBS)
_ORDER = (
    "processing",
    "queued",
    "finalizing",
    "cancelling",
    "failed",
    "completed_with_errors",
    "completed",
    "cancelled",
)
# What a button for many jobs does, in a word or two.
BULK_WORDS: Mapping[BulkAction, str] = {
    BulkAction.PAUSE: "Pause",
    BulkAction.RESUME: "Resume",
    BulkAction.RETRY: "Retry failed",
    BulkAction.RERUN: "Rerun",
    BulkAction.CANCEL: "Cancel",
    BulkAction.DELETE: "Delete",
}
# Chips that are there even if no job is in their status: a page that changes its shape is hard to use.
_ALWAYS = {"processing", "queued", "failed", "completed"}


def blank_is_none(value: Any) -> Any:
    """A form sends its empty fields too."""
    return None if isinstance(value, str) and not value.strip() else value


def _without_blanks(values: Any) -> Any:
    """Those that were filled in, each once: a form asks for one more tag beside those that are asked for."""
    if not isinstance(values, list):
        return values
    given = (value.strip() if isinstance(value, str) else value for value in values)
    return list(dict.fromkeys(value for value in given if value != ""))


def _known_choice(value: str | None) -> str | None:
    known = [*_ORDER, "open", "paused"]
    if value is not None and value not in known:
        raise expectation(f"one of {', '.join(known)}", repr(value)[:100])
    return value


class ListQuery(Query):
    """Which jobs."""

    status: Annotated[str | None, BeforeValidator(_known_choice), BeforeValidator(blank_is_none)] = None
    job_type: Annotated[JobTypeText | None, BeforeValidator(blank_is_none)] = None
    q: Annotated[
        Annotated[StorableText, Field(max_length=200)] | None,
        BeforeValidator(lambda text: text.strip() if isinstance(text, str) else text),
        BeforeValidator(blank_is_none),
    ] = None
    tag: Annotated[list[str], Field(max_length=MOST_TAGS), BeforeValidator(_without_blanks)] = Field(default=[])
    failed_first: bool = False
    cursor: Annotated[Cursor | None, BeforeValidator(blank_is_none)] = None

    @model_validator(mode="after")
    def _has_tags(self) -> "ListQuery":
        read_wanted_tags(self.tag)
        return self

    def to_wish(self) -> "ListWish":
        return ListWish(
            self.status, self.job_type, self.q, tuple(self.tag), self.cursor, failed_first=self.failed_first
        )


class JobsPageQuery(ListQuery):
    """And, after an action on many, what came of it: `cancelled-17` for each outcome, and how many jobs are left."""

    did: BulkAction | None = None
    outcome: Annotated[list[Annotated[str, Field(pattern=r"^[a-z_]{1,20}-[0-9]{1,7}$")]], Field(max_length=20)] = Field(
        default=[]
    )
    left: Annotated[int, Field(ge=0, lt=10**7)] = 0
    done_until: Cursor | None = None

    @property
    def outcomes(self) -> list[tuple[str, int]]:
        return [(word, int(count)) for word, _, count in (each.partition("-") for each in self.outcome)]


@dataclass(frozen=True)
class ListWish:
    """Which jobs to list. `text` is looked for in ids, parameters and errors."""

    status: str | None
    job_type: str | None
    text: str | None
    tags: tuple[str, ...]
    cursor: str | None
    failed_first: bool

    @property
    def asked(self) -> dict[str, Any]:
        """What a link has that keeps the choice: all but the place in the list."""
        return {
            "status": self.status,
            "job_type": self.job_type,
            "q": self.text,
            "tag": list(self.tags),
            "failed_first": self.failed_first,
        }

    @property
    def statuses(self) -> tuple[JobStatus, ...]:
        if self.status is None or self.status == "paused":
            return ()
        return _SETS.get(self.status) or (JobStatus(self.status),)

    @property
    def paused(self) -> bool | None:
        if self.status in _MAY_BE_PAUSED:
            return False
        return True if self.status == "paused" else None


@router.get("/ui")
@router.get("/ui/")
@router.get("/ui/jobs")
def show_jobs(request: Request, services: Services, query: Annotated[JobsPageQuery, InQuery()]) -> Response:
    """The jobs, with their progress."""
    wish = query.to_wish()
    page = _find(services, wish)
    counts = recent_reads(request).get("counts", services.dashboard.count_jobs)
    chips = [
        (name, counts.by_status.get(name, 0))
        for name in _ORDER
        if counts.by_status.get(name) or name in _ALWAYS or name == wish.status
    ]
    return render(
        request,
        "jobs.html",
        nav="jobs",
        wish=wish,
        rows=rows_of(services, page.items, recent_reads(request)),
        next_cursor=page.next_cursor,
        # A search that came to its bound before the page was full.
        searched=MOST_SEARCHED if wish.text and page.next_cursor and len(page.items) < PAGE else 0,
        tag_chips=_tag_chips(wish),
        chips=[*chips, ("paused", counts.paused)],
        most=counts.most,
        total=counts.total,
        is_total_capped=counts.is_total_capped,
        job_types=services.registry.job_types,
        query=query,
        as_wished=AS_WISHED,
        actions=BULK_WORDS,
    )


def _tag_chips(wish: ListWish) -> list[tuple[str, dict[str, Any]]]:
    """Each tag that is asked for, and the choice without it."""
    return [(tag, wish.asked | {"tag": [each for each in wish.tags if each != tag]}) for tag in wish.tags]


def rows_of(services: UiServices, jobs: tuple[JobSummary, ...], reads: RecentReads) -> list[JobRow]:
    """The jobs with their bars, and with what distinguishes them and holds them up."""
    if not jobs:
        return []
    now = datetime.now(UTC)
    progress = services.dashboard.read_progress(jobs)
    totals = services.dashboard.read_totals([job.job_id for job in jobs if job.status.is_terminal])
    briefs = services.dashboard.briefs.read_briefs(jobs)
    known = set(services.registry.job_types)
    reasons = reasons_of(
        briefs,
        lambda: reads.get("fleet", services.apps.read_fleet),
        lambda: reads.get("open_tasks", services.dashboard.read_open_tasks),
    )

    def row_of(job: JobSummary) -> JobRow:
        row = job_row(job, progress.get(job.job_id), totals.get(job.job_id, (0, 0)), now)
        brief = briefs.get(job.job_id)
        if brief is None:
            return row
        kind = services.registry.get_job(job.job_type) if job.job_type in known else None
        return replace(
            row,
            parameters=short_parameters(brief.parameters, kind),
            apps=brief.apps,
            reason=reasons.get(job.job_id),
        )

    return [row_of(job) for job in jobs]


def _find(services: UiServices, wish: ListWish) -> Page[JobSummary]:
    groups: list[tuple[JobStatus, ...]] = [wish.statuses]
    if wish.failed_first and wish.status is None:
        first = {status for group in _FAILED_FIRST for status in group}
        groups = [*_FAILED_FIRST, tuple(status for status in JobStatus if status not in first)]

    def fetch(statuses: tuple[JobStatus, ...], limit: int, cursor: str | None) -> Page[JobSummary]:
        wanted = JobFilter(
            statuses=statuses,
            job_types=(wish.job_type,) if wish.job_type else (),
            paused=wish.paused,
            tags=read_wanted_tags(wish.tags),
        )
        if wish.text:
            return services.dashboard.search.find_jobs(wish.text, wanted, limit=limit, cursor=cursor)
        return services.queries.find_jobs(wanted, limit=limit, cursor=cursor)

    return Chain(groups, fetch).read(PAGE, wish.cursor)
