"""A job: why it does not move, its stages, its timeline, its tasks, its events, its data and its runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from fastapi import Query as InQuery
from fastapi.concurrency import run_in_threadpool
from pydantic import BeforeValidator, Field

from core.authors.author_code import call_author
from core.errors import AuthorError
from core.models import JobStatus, StageStatus, TaskStatus
from core.models.control import JobAction, allowed_actions
from core.models.dashboard import PulseCell
from core.models.fields import Cursor, Fingerprint, RunNumber, StageNumber, TaskIdText, expectation
from core.models.insight import JobFacts
from core.models.refs import JobRef
from core.models.view import JobDetail, Page, StageDetail, TaskSummary, run_times
from core.operating.explain import explain
from core.safety.safe_log import safe_logger
from infrastructure.queries import TaskNotFound
from jobs.views import ViewProblem, ViewRequest, load_figure
from triggers import insight_api, problems
from triggers.api_models import Query
from triggers.author_threads import calls_authors
from triggers.endpoints import JobIdPath
from triggers.traces import trace_id_of
from triggers.ui import timeline
from triggers.ui.bars import StageCard, stage_cards
from triggers.ui.jobs_page import blank_is_none
from triggers.ui.outline_map import MOST_NAMED, draw_map
from triggers.ui.page import PageRoute, render
from triggers.ui.paging import Chain
from triggers.ui.places import with_places, without_failures
from triggers.ui.ports import Services, UiServices
from triggers.ui.recent import RecentReads, recent_reads
from triggers.ui.texts import seconds_between
from triggers.ui.visitor import visitor_of

log = safe_logger(__name__)
router = APIRouter(route_class=PageRoute)
PAGE = 50
_MOST_MARKS = 2000
# Of each stage with heat strips: tasks that went wrong and have a line of their own.
_MOST_UNUSUAL = 8
# To group them, this number of a job's failed tasks is looked at.
_MOST_FAILURES = 10_000
_ATTEMPTS = 100
_MOST_RELATIVES = 20
# A job that has ended may be rerun: its page is asked for again, seldom.
_ENDED_SECONDS = 30
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
    "adjust": "The job was changed. Tasks that are announced already run all the same.",
    "as_before": "Nothing was changed: the job had these values before.",
    "hold": "The job is under a legal hold: neither retention nor people delete it.",
    "release": "The legal hold has ended. Retention and administrators may delete the job.",
    "deleting": "A part of the job is deleted; it is large. Delete it again to go on.",
    "busy": "The job was not deleted: something else works on it. Try again in a moment.",
}


def _task_status(value: str | None) -> str | None:
    known = [status.value for status in TaskStatus]
    if value is not None and value not in known:
        raise expectation(f"one of {', '.join(known)}", repr(value)[:100])
    return value


class JobPageQuery(Query):
    tab: Literal["overview", "tasks", "figure", "events", "data", "runs"] = "overview"
    status: Annotated[str | None, BeforeValidator(_task_status), BeforeValidator(blank_is_none)] = None
    stage: Annotated[StageNumber | None, BeforeValidator(blank_is_none)] = None
    fingerprint: Annotated[Fingerprint | None, BeforeValidator(blank_is_none)] = None
    cursor: Annotated[Cursor | None, BeforeValidator(blank_is_none)] = None
    note: Annotated[str | None, Field(max_length=20)] = None


@router.get("/ui/jobs/{job_id}")
async def show_job(
    job_id: JobIdPath, request: Request, services: Services, query: Annotated[JobPageQuery, InQuery()]
) -> Response:
    """The job, with one of its tabs."""
    if query.tab == "figure":
        return await _show_figure(job_id, request, services, query)
    return await run_in_threadpool(_show, job_id, request, services, query)


def _show(job_id: str, request: Request, services: UiServices, query: JobPageQuery) -> Response:
    detail = services.queries.get_job_detail(job_id)
    view = _look(services, detail, query, recent_reads(request))
    head = _head(services, detail, view.now)
    explained = with_places(explain(view.facts), job_id, head.actions, visitor_of(request))
    return render(
        request,
        "job.html",
        nav="jobs",
        tab=query.tab,
        query=query,
        note=_NOTES.get(query.note or ""),
        head=head,
        findings=without_failures(explained) if query.tab == "overview" else explained,
        sampled=view.sampled,
        cards=_cards(view),
        groups=view.facts.failures,
        at=view.now,
        counted_at=max((stage.counted_at for stage in detail.stages if stage.counted_at), default=None),
        **({} if head.is_open else {"refresh_seconds": _ENDED_SECONDS}),
        **_TABS[query.tab](services, view),
    )


# What draws a figure is a job type's own code.
_show_figure = calls_authors(_show)


@dataclass(frozen=True)
class View:
    """What the parts of a job's page are made from.

    Args:
        sampled: How many failed tasks there are where they are too many to be grouped; else 0.
    """

    detail: JobDetail
    query: JobPageQuery
    facts: JobFacts
    pulse: Sequence[PulseCell]
    sampled: int
    now: datetime
    reads: RecentReads

    @property
    def ref(self) -> JobRef:
        return JobRef(self.detail.job.job_id, self.detail.job.run)

    @property
    def task_count(self) -> int:
        return sum(stage.expected_count or 0 for stage in self.detail.stages)

    def count(self, statuses: tuple[TaskStatus, ...]) -> int:
        """Tasks in these statuses, of the stage that is asked for or of all."""
        stages = (stage for stage in self.detail.stages if self.query.stage in (None, stage.stage))
        return sum(stage.counts[status] for stage in stages for status in statuses)


def _look(services: UiServices, detail: JobDetail, query: JobPageQuery, reads: RecentReads) -> View:
    job, now = detail.job, datetime.now(UTC)
    state = (job.job_id, job.run, job.status, job.updated_at, job.paused_at)
    # What an ended job left changes no more; its page shows how long ago that was.
    seconds = _ENDED_SECONDS if job.status.is_terminal else 0
    facts = reads.get(
        ("facts", *state),
        lambda: services.insight.get_job_facts(job.job_id, most_failures=_MOST_FAILURES),
        seconds=seconds,
    )
    failed = sum(stage.failed_count for stage in detail.stages)
    pulse: Sequence[PulseCell] = ()
    # For the rate of a job that runs; of one that has ended only the heat strips need it.
    if not job.status.is_terminal or query.tab == "overview":
        pulse = reads.get(("pulse", *state), lambda: _read_pulse(services, detail, now), seconds=seconds)
    sampled = failed if failed > _MOST_FAILURES else 0
    return View(detail, query, insight_api.add_queues(facts, services), pulse, sampled, now, reads)


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
    has_figure: bool
    can_rerun_failed: bool
    is_known_type: bool
    tasks: int
    running: int
    waiting: int
    completed: int
    not_completed: int
    trace_id: str | None
    # Its present stage, while some of its tasks wait in line.
    stage_in_turns: StageDetail | None

    @property
    def can_adjust(self) -> bool:
        return bool({JobAction.PAUSE, JobAction.RESUME} & set(self.actions))


def _head(services: UiServices, detail: JobDetail, now: datetime) -> Head:
    job = detail.job
    started_at, seconds = run_times(detail.job)
    is_open = not job.status.is_terminal
    counts = {status: sum(stage.counts[status] for stage in detail.stages) for status in TaskStatus}
    waiting = counts[TaskStatus.PENDING] + counts[TaskStatus.QUEUED] + counts[TaskStatus.PENDING_RETRY]
    is_known_type = job.job_type in services.registry.job_types
    kind = services.registry.get_job(job.job_type) if is_known_type and job.result is not None else None
    return Head(
        job=job,
        actions=allowed_actions(job.status, is_paused=job.paused_at is not None),
        is_paused=job.paused_at is not None,
        is_open=is_open,
        started_at=started_at,
        seconds=seconds_between(started_at, now) if is_open else seconds,
        has_view=kind is not None and kind.view is not None,
        has_figure=kind is not None and kind.figure is not None,
        can_rerun_failed=not is_open and job.status is not JobStatus.COMPLETED,
        is_known_type=is_known_type,
        tasks=sum(counts.values()),
        running=counts[TaskStatus.PROCESSING],
        waiting=waiting,
        completed=counts[TaskStatus.COMPLETED],
        not_completed=waiting + counts[TaskStatus.FAILED] + counts[TaskStatus.CANCELLED],
        trace_id=trace_id_of(job.traceparent),
        stage_in_turns=next(filter(_is_in_turns, detail.stages), None) if is_open else None,
    )


def _is_in_turns(stage: StageDetail) -> bool:
    return stage.status is StageStatus.PROCESSING and stage.counts[TaskStatus.PENDING] > 0


def _read_pulse(services: UiServices, detail: JobDetail, now: datetime) -> list[PulseCell]:
    """When tasks ended; of a run that has not begun there is nothing to read."""
    started_at, _ = run_times(detail.job)
    if started_at is None or not detail.stages:
        return []
    window = timeline.window_of(started_at, detail.job.finished_at or now)
    return services.dashboard.read_pulse(JobRef(detail.job.job_id, detail.job.run), window)


def _cards(view: View) -> list[StageCard]:
    recent: dict[int, int] = {}
    # Of a paused job no rate shows when it will be done.
    for cell in view.pulse if view.detail.job.paused_at is None else ():
        recent[cell.stage] = recent.get(cell.stage, 0) + cell.recent
    return stage_cards(view.detail.job.definition, view.detail.stages, recent, view.now)


def _overview(services: UiServices, view: View) -> dict[str, Any]:
    job, stages = view.detail.job, view.detail.stages
    started_at, _ = run_times(job)
    window = timeline.window_of(started_at or job.created_at or view.now, job.finished_at or view.now)
    if view.task_count > timeline.MOST_BARS:
        # What an ended run left changes no more; else as often as the pulse is read.
        seconds = _ENDED_SECONDS if job.status.is_terminal else 0
        key = ("unusual", job.job_id, job.run, job.status, job.updated_at)
        bars, marks = view.reads.get(
            key, lambda: services.dashboard.list_unusual(view.ref, _MOST_UNUSUAL), seconds=seconds
        )
        times = timeline.RunTimes(window, stages, bars, marks, pulse=view.pulse)
    else:
        bars = services.dashboard.list_bars(view.ref, timeline.MOST_BARS)
        times = timeline.RunTimes(window, stages, bars, services.dashboard.list_marks(view.ref, _MOST_MARKS))
    return {"timeline": timeline.draw(times), "task_count": view.task_count}


def _tasks(services: UiServices, view: View) -> dict[str, Any]:
    query, ref = view.query, view.ref
    if query.fingerprint is not None:
        failures = services.failures.list_failures(
            job_id=ref.job_id, fingerprint=query.fingerprint, limit=PAGE, cursor=query.cursor
        )
        found = [services.queries.get_task(ref.job_id, each.task_id, run=each.run) for each in failures.items]
        return {"tasks": found, "next_cursor": failures.next_cursor}

    def fetch(statuses: tuple[TaskStatus, ...], limit: int, cursor: str | None) -> Page[TaskSummary]:
        # To look for what is not there takes a large stage longer than all else.
        if not view.count(statuses):
            return Page((), None)
        return services.queries.list_tasks(
            ref.job_id, run=ref.run, stage=query.stage, statuses=statuses, limit=limit, cursor=cursor
        )

    groups = _TASK_ORDER if query.status is None else ((TaskStatus(query.status),),)
    page = Chain(groups, fetch).read(PAGE, query.cursor)
    return {"tasks": page.items, "next_cursor": page.next_cursor}


def _events(services: UiServices, view: View) -> dict[str, Any]:
    page = services.dashboard.list_latest_events(view.ref.job_id, limit=PAGE, cursor=view.query.cursor)
    return {"events": page.items, "next_cursor": page.next_cursor}


def _data(services: UiServices, view: View) -> dict[str, Any]:
    """The row of the job has it all."""
    del services, view
    return {}


def _figure(services: UiServices, view: View) -> dict[str, Any]:
    """What the job type shows of the result; or why it cannot."""
    job = view.detail.job
    registry = services.registry
    name = registry.get_job(job.job_type).figure if job.job_type in registry.job_types else None
    if name is None:
        return {"figure": None, "problem": f"Jobs of type {job.job_type} have no figure."}
    asked = ViewRequest(job.job_id, job.run, str(job.status), job.result)
    try:
        # Drawn once for all who look at it, as an ended job's figure stays what it is.
        return view.reads.get(("figure", job.job_id, job.run, job.updated_at), lambda: _draw(name, asked))
    except ViewProblem as problem:
        return {"figure": None, "problem": str(problem)}
    except AuthorError as error:
        log.exception("job_type_failed", extra={"code": "job_type_failed"})
        return {"figure": None, "problem": f"What draws it failed: {error.failure.error_type}; the log has the trace."}


def _draw(name: str, asked: ViewRequest) -> dict[str, Any]:
    drawn = call_author(_ask_for_figure, name, asked)
    if isinstance(drawn, ViewProblem):
        raise drawn
    return drawn


def _ask_for_figure(name: str, asked: ViewRequest) -> dict[str, Any] | ViewProblem:
    try:
        figure = load_figure(name)(asked)
        return {"figure": figure, "map": draw_map(figure.outlines), "most_named": MOST_NAMED}
    except ViewProblem as problem:
        return problem


def _runs(services: UiServices, view: View) -> dict[str, Any]:
    return {
        "runs": services.queries.list_runs(view.ref.job_id),
        "relatives": services.dashboard.list_relatives(view.detail.job, _MOST_RELATIVES),
    }


_TABS: Mapping[str, Callable[[UiServices, View], dict[str, Any]]] = {
    "overview": _overview,
    "tasks": _tasks,
    "events": _events,
    "figure": _figure,
    "data": _data,
    "runs": _runs,
}


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
