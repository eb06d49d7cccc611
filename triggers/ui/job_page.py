"""A job: why it does not move, its stages, its timeline, its tasks, its events, its data and its runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from fastapi import Query as InQuery
from pydantic import BeforeValidator, Field

from core.models import JobStatus, TaskStatus
from core.models.control import JobAction, allowed_actions
from core.models.dashboard import PulseCell
from core.models.fields import Cursor, Fingerprint, RunNumber, StageNumber, TaskIdText, expectation
from core.models.refs import JobRef
from core.models.view import JobDetail, Page, TaskSummary, run_times
from infrastructure.queries import TaskNotFound
from triggers import insight_api, problems
from triggers.api_models import Query
from triggers.endpoints import JobIdPath
from triggers.ui import timeline
from triggers.ui.bars import StageCard, stage_cards
from triggers.ui.jobs_page import blank_is_none
from triggers.ui.page import PageRoute, render
from triggers.ui.paging import Chain
from triggers.ui.ports import Services, UiServices
from triggers.ui.texts import seconds_between

router = APIRouter(route_class=PageRoute)
PAGE = 50
_MOST_MARKS = 2000
_MOST_GROUPS = 20
_ATTEMPTS = 100
# The order of a list that shows first what people look for.
_TASK_ORDER = (
    (TaskStatus.FAILED,),
    (TaskStatus.PROCESSING,),
    (TaskStatus.PENDING_RETRY,),
    (TaskStatus.QUEUED, TaskStatus.PENDING),
    (TaskStatus.CANCELLED,),
    (TaskStatus.COMPLETED,),
)
_NOTES = {
    "submitted": "The job was submitted.",
    "existing": "A job of the same type and parameters was there already: this is that one. Nothing new runs.",
    "rerun": "The next run of the job began.",
    "cancel": "The job was cancelled. Tasks that run have been asked to stop.",
    "pause": "The job is paused. Nothing new begins until it is resumed.",
    "resume": "The job goes on.",
}


def _task_status(value: str | None) -> str | None:
    known = [status.value for status in TaskStatus]
    if value is not None and value not in known:
        raise expectation(f"one of {', '.join(known)}", repr(value)[:100])
    return value


class JobPageQuery(Query):
    tab: Literal["overview", "tasks", "events", "data", "runs"] = "overview"
    status: Annotated[str | None, BeforeValidator(_task_status), BeforeValidator(blank_is_none)] = None
    stage: Annotated[StageNumber | None, BeforeValidator(blank_is_none)] = None
    fingerprint: Annotated[Fingerprint | None, BeforeValidator(blank_is_none)] = None
    cursor: Annotated[Cursor | None, BeforeValidator(blank_is_none)] = None
    note: Annotated[str | None, Field(max_length=20)] = None


@router.get("/ui/jobs/{job_id}")
def show_job(
    job_id: JobIdPath, request: Request, services: Services, query: Annotated[JobPageQuery, InQuery()]
) -> Response:
    """The job, with one of its tabs."""
    detail = services.queries.get_job_detail(job_id)
    explanation = insight_api.explain_job(job_id, services, Query())
    pulse = _read_pulse(services, detail, explanation.at)
    return render(
        request,
        "job.html",
        nav="jobs",
        tab=query.tab,
        query=query,
        note=_NOTES.get(query.note or ""),
        head=_head(services, detail, explanation.at),
        findings=explanation.findings,
        cards=_cards(detail, pulse, explanation.at),
        at=explanation.at,
        **_TABS[query.tab](services, detail, query, pulse, explanation.at),
    )


@dataclass(frozen=True)
class Head:
    """What the top of a job's page shows."""

    job: Any
    actions: tuple[JobAction, ...]
    is_paused: bool
    is_open: bool
    started_at: datetime | None
    seconds: float | None
    has_view: bool
    can_rerun_failed: bool
    is_known_type: bool
    running: int
    waiting: int
    completed: int
    not_completed: int


def _head(services: UiServices, detail: JobDetail, now: datetime) -> Head:
    job = detail.job
    started_at, seconds = run_times(detail.job)
    is_open = not job.status.is_terminal
    counts = {status: sum(stage.counts[status] for stage in detail.stages) for status in TaskStatus}
    waiting = counts[TaskStatus.PENDING] + counts[TaskStatus.QUEUED] + counts[TaskStatus.PENDING_RETRY]
    is_known_type = job.job_type in services.registry.job_types
    return Head(
        job=job,
        actions=allowed_actions(job.status, is_paused=job.paused_at is not None),
        is_paused=job.paused_at is not None,
        is_open=is_open,
        started_at=started_at,
        seconds=seconds_between(started_at, now) if is_open else seconds,
        has_view=is_known_type and services.registry.get_job(job.job_type).view is not None and job.result is not None,
        can_rerun_failed=not is_open and job.status is not JobStatus.COMPLETED,
        is_known_type=is_known_type,
        running=counts[TaskStatus.PROCESSING],
        waiting=waiting,
        completed=counts[TaskStatus.COMPLETED],
        not_completed=waiting + counts[TaskStatus.FAILED] + counts[TaskStatus.CANCELLED],
    )


def _read_pulse(services: UiServices, detail: JobDetail, now: datetime) -> list[PulseCell]:
    """When tasks ended; of a run that has not begun there is nothing to read."""
    started_at, _ = run_times(detail.job)
    if started_at is None or not detail.stages:
        return []
    window = timeline.window_of(started_at, detail.job.finished_at or now)
    return services.dashboard.read_pulse(JobRef(detail.job.job_id, detail.job.run), window)


def _cards(detail: JobDetail, pulse: Sequence[PulseCell], now: datetime) -> list[StageCard]:
    recent: dict[int, int] = {}
    for cell in pulse:
        recent[cell.stage] = recent.get(cell.stage, 0) + cell.recent
    return stage_cards(detail.job.definition, detail.stages, recent, now)


def _overview(
    services: UiServices, detail: JobDetail, query: JobPageQuery, pulse: Sequence[PulseCell], now: datetime
) -> dict[str, Any]:
    del query
    job = detail.job
    ref = JobRef(job.job_id, job.run)
    started_at, _ = run_times(detail.job)
    window = timeline.window_of(started_at or job.created_at or now, job.finished_at or now)
    tasks = sum(stage.expected_count or 0 for stage in detail.stages)
    if tasks > timeline.MOST_BARS:
        times = timeline.RunTimes(window, detail.stages, pulse=pulse)
    else:
        bars = services.dashboard.list_bars(ref, timeline.MOST_BARS)
        times = timeline.RunTimes(window, detail.stages, bars, services.dashboard.list_marks(ref, _MOST_MARKS))
    return {"timeline": timeline.draw(times), "task_count": tasks, "groups": _groups(services, detail)}


def _groups(services: UiServices, detail: JobDetail) -> list[Any]:
    if not any(stage.failed_count for stage in detail.stages):
        return []
    return services.failures.group_failures(job_id=detail.job.job_id, limit=_MOST_GROUPS)


def _tasks(
    services: UiServices, detail: JobDetail, query: JobPageQuery, pulse: Sequence[PulseCell], now: datetime
) -> dict[str, Any]:
    del pulse, now
    job = detail.job
    if query.fingerprint is not None:
        failures = services.failures.list_failures(
            job_id=job.job_id, fingerprint=query.fingerprint, limit=PAGE, cursor=query.cursor
        )
        found = [services.queries.get_task(job.job_id, each.task_id, run=each.run) for each in failures.items]
        return {"tasks": found, "next_cursor": failures.next_cursor, "groups": _groups(services, detail)}

    def fetch(statuses: tuple[TaskStatus, ...], limit: int, cursor: str | None) -> Page[TaskSummary]:
        return services.queries.list_tasks(
            job.job_id, run=job.run, stage=query.stage, statuses=statuses, limit=limit, cursor=cursor
        )

    groups = _TASK_ORDER if query.status is None else ((TaskStatus(query.status),),)
    page = Chain(groups, fetch).read(PAGE, query.cursor)
    return {"tasks": page.items, "next_cursor": page.next_cursor, "groups": _groups(services, detail)}


def _events(
    services: UiServices, detail: JobDetail, query: JobPageQuery, pulse: Sequence[PulseCell], now: datetime
) -> dict[str, Any]:
    del pulse, now
    page = services.dashboard.list_latest_events(detail.job.job_id, limit=PAGE, cursor=query.cursor)
    return {"events": page.items, "next_cursor": page.next_cursor}


def _data(
    services: UiServices, detail: JobDetail, query: JobPageQuery, pulse: Sequence[PulseCell], now: datetime
) -> dict[str, Any]:
    del services, detail, query, pulse, now
    return {}


def _runs(
    services: UiServices, detail: JobDetail, query: JobPageQuery, pulse: Sequence[PulseCell], now: datetime
) -> dict[str, Any]:
    del query, pulse, now
    return {"runs": services.queries.list_runs(detail.job.job_id)}


_TABS = {"overview": _overview, "tasks": _tasks, "events": _events, "data": _data, "runs": _runs}


class TaskPageQuery(Query):
    run: Annotated[RunNumber | None, BeforeValidator(blank_is_none)] = None


@router.get("/ui/jobs/{job_id}/tasks/{task_id}")
def show_task(
    job_id: JobIdPath,
    task_id: Annotated[TaskIdText, Path()],
    request: Request,
    services: Services,
    query: Annotated[TaskPageQuery, InQuery()],
) -> Response:
    """A task, with what its attempts left behind."""
    detail = services.queries.get_job_detail(job_id)
    try:
        task = services.queries.get_task(job_id, task_id, run=query.run)
    except TaskNotFound as error:
        raise problems.unknown("task", error) from error
    logs = services.queries.list_logs(job_id, task_id=task_id, run=task.run, limit=_ATTEMPTS)
    stage = next((each for each in detail.stages if each.stage == task.stage), None)
    now = datetime.now(UTC)
    return render(
        request,
        "task.html",
        nav="jobs",
        job=detail.job,
        task=task,
        stage_name=stage.name if stage is not None else "",
        attempts=logs.items,
        ran_seconds=seconds_between(task.started_at, task.finished_at or now) if task.started_at else None,
        lease_seconds=_left(task.lease_expires_at, now),
        is_open=not task.status.is_terminal,
    )


def _left(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else max(timedelta(0), moment - now).total_seconds()
