"""The HTTP API. Thin: each endpoint reads its request, asks one service and shapes the answer."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Path, Request, Response
from fastapi import Query as InQuery
from fastapi.concurrency import run_in_threadpool

from core.authors.author_code import call_author
from core.basics.version import VERSION
from core.errors import AuthorError
from core.models import JobEvent, view
from core.models.fields import RunNumber, TaskIdText
from core.models.view import EventPosition, TaskSummary
from core.safety.safe_log import safe_logger
from infrastructure.queries import RunNotFound, TaskNotFound
from jobs.parameter_schema import to_json_schema
from triggers import api_models as models
from triggers import (
    apps_api,
    bulk_api,
    docs,
    durable_api,
    insight_api,
    job_actions,
    limits_api,
    operations_api,
    preview,
    problems,
    schedules_api,
    submit_api,
    webhooks_api,
)
from triggers.access import AccessGate, AccessRules, may_look_at, visible_patterns
from triggers.api_models import page_of as _page
from triggers.edge import Edge, MethodTable
from triggers.endpoints import JobIdPath, NoQuery, OneValueRoute, Services, find_services, services_of
from triggers.entity_tag import answer_with_tag
from triggers.job_answers import job_answer, list_item, read_job, retry_after, with_reasons
from triggers.live_events import EVENT_STREAM, STREAM_SECONDS, answer_stream, follow
from triggers.ports import ApiServices, Check, ServicesNotReady
from triggers.prefer import read_wait
from triggers.problem_models import Problem
from triggers.read_audit import ReadAudit, RecordRead
from triggers.ui.router import ROUTERS as PAGES
from triggers.ui.sign_in import refuse_page
from triggers.waiting import Watcher

log = safe_logger(__name__)

DESCRIPTION = """Submit jobs, watch their stages and tasks; cancel, pause, resume and rerun them.

Lists come in pages: repeat the request with `cursor=<next_cursor>`, or follow `nextLink`, until they are absent.
In lists, parameters, results and progress above 64 KB of JSON are
`{"truncated": true, "stored_bytes": n, "whole": "..."}`: `whole` is where they are read, `stored_bytes` what they take
in the database, perhaps compressed. Texts of errors and events are cut there to 1,000 characters, and say so.
Every request may have the query parameters `api-version` (such as 1 or 2026-11-01: there is one version), `code`,
`clientId` and `subscription-key`, which mean nothing to the app; other names that it does not know are refused.
Every error is `application/problem+json` with a stable `code`. Submitting the same parameters again gives the same job.
"""
GetServices = Callable[[], ApiServices]

# `triggers.openapi` puts the statuses of each endpoint in its place.
PROBLEMS: dict[int | str, dict[str, Any]] = {"default": {"model": Problem, "description": "What is wrong"}}
router = APIRouter(route_class=OneValueRoute)
# Paths that are written out come before those with an id in the same place.
_ROUTERS = (
    submit_api.router,
    operations_api.router,
    durable_api.router,
    bulk_api.router,
    router,
    job_actions.router,
    insight_api.router,
    schedules_api.router,
    apps_api.router,
    limits_api.router,
    webhooks_api.router,
)
_PAGES = (docs.router, preview.router, *PAGES)


def create_api(
    get_services: GetServices,
    *,
    trusts_principal: bool = False,
    access: AccessRules | None = None,
    record_read: RecordRead | None = None,
) -> FastAPI:
    """The ASGI application.

    Args:
        get_services: Called for each request, so that an app which cannot work yet still answers why. Raises
            ServicesNotReady then.
        trusts_principal: Whether App Service vouches for the headers that name the caller.
        access: The roles of callers, once they are set up. None: every caller may do everything.
        record_read: Notes who looked at which job. None: nobody asks for that.
    """
    api = FastAPI(
        title="CoreMachine",
        version=VERSION,
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _fill_state(api, get_services)
    api.state.trusts_principal = trusts_principal
    api.state.access = access if access is not None and access.are_on else None
    _add_middleware(api, get_services, record_read)
    api.router.routes.extend(_included().routes)
    return api


@cache
def _included() -> APIRouter:
    """All endpoints below `/api`, for each app of the process: what FastAPI makes of them at first use is the same.

    It takes longer than any request, and tests make an app each.
    """
    included = APIRouter(generate_unique_id_function=lambda route: route.name)
    for routes in _ROUTERS:
        included.include_router(routes, prefix="/api", responses=PROBLEMS)
    for pages in _PAGES:
        included.include_router(pages, prefix="/api", include_in_schema=False)
    return included


def _fill_state(api: FastAPI, get_services: GetServices) -> None:
    """What endpoints share."""
    api.state.get_services = get_services
    api.state.services = None
    api.state.document = None
    api.state.ends = Watcher[str](lambda job_ids: get_services().find_ended_jobs(job_ids))
    api.state.events = Watcher[EventPosition](lambda positions: get_services().find_jobs_with_events(positions))


def _add_middleware(api: FastAPI, get_services: GetServices, record_read: RecordRead | None) -> None:
    """What each request passes; the last one that is added comes first."""
    if record_read is not None:
        api.add_middleware(ReadAudit, record=record_read)
    if api.state.access is not None:
        api.add_middleware(
            AccessGate,
            rules=api.state.access,
            refuse_page=refuse_page,
            find_job_type=lambda job_id: get_services().find_job_type(job_id),
        )
    # Around the gate, which looks at the database too.
    problems.install(api)
    api.add_middleware(Edge, methods=MethodTable.of((*_ROUTERS, *_PAGES), "/api"))


@router.get("/jobs/{job_id}", tags=["jobs"], responses={304: {"description": "It is as `If-None-Match` names it"}})
async def get_job(
    job_id: JobIdPath,
    request: Request,
    query: Annotated[models.JobQuery, InQuery()],
    prefer: Annotated[str | None, Header(description="`wait=<seconds>`, as the query parameter.")] = None,
    if_none_match: Annotated[str | None, Header(description="The `ETag` of an earlier answer.")] = None,
) -> models.JobAnswer:
    """One job with its stages. `wait` holds the answer back until the job has ended, for at most 30 seconds.

    With the `ETag` of an earlier answer in `If-None-Match`, a job that is as it was is answered 304, without a body.
    """
    services = await find_services(request)
    preferred = read_wait(prefer)
    seconds = query.wait if query.wait is not None else preferred
    detail, waited = await read_job(request, services, job_id, seconds)
    headers = retry_after(detail.job)
    if waited and query.wait is None:
        headers["Preference-Applied"] = f"wait={seconds:g}"
    # Written here: its digest is the tag, and the framework would write it once more.
    return answer_with_tag(job_answer(request, detail), headers, if_none_match)  # type: ignore[return-value]


@router.get("/jobs", tags=["jobs"], response_model_exclude_unset=True)
def list_jobs(
    request: Request, services: Services, query: Annotated[models.JobsQuery, InQuery()]
) -> models.Page[models.JobListItem]:
    """Jobs, the newest first unless `sort` asks for another order. What several parameters ask for counts together.

    Jobs of types that the caller's role is not for are left out.
    """
    wanted = replace(query.to_filter(), visible_types=visible_patterns(request))
    page = services.queries.find_jobs(wanted, sort=query.sort, limit=query.limit, cursor=query.cursor)
    items = [list_item(request, job) for job in page.items]
    if query.reasons:
        items = with_reasons(items, services.find_reasons(page.items))
    return _page(items, page.next_cursor, request)


@router.get("/jobs/{job_id}/tasks", tags=["jobs"], response_model_exclude_unset=True)
def list_tasks(
    job_id: JobIdPath, request: Request, services: Services, query: Annotated[models.TasksQuery, InQuery()]
) -> models.Page[TaskSummary]:
    """The tasks of one run of a job, by stage and index; values above 64 KB are read one by one."""
    page = services.queries.list_tasks(
        job_id, run=query.run, stage=query.stage, statuses=query.status, limit=query.limit, cursor=query.cursor
    )
    _check_job_is_there(services, job_id, page.items)
    return _page(page.items, page.next_cursor, request)


@router.get("/jobs/{job_id}/tasks/{task_id}", tags=["jobs"])
def get_task(
    job_id: JobIdPath,
    task_id: Annotated[TaskIdText, Path(description="As the list of tasks has it.")],
    services: Services,
    query: Annotated[models.TaskQuery, InQuery()],
) -> TaskSummary:
    """One task of one run of a job, with its parameters, result and error whole."""
    try:
        return services.queries.get_task(job_id, task_id, run=query.run)
    except TaskNotFound as error:
        _check_job_is_there(services, job_id, ())
        raise problems.unknown("task", error) from error


@router.get("/jobs/{job_id}/runs", tags=["jobs"], response_model_exclude_unset=True)
def list_runs(job_id: JobIdPath, request: Request, services: Services, query: NoQuery) -> models.Page[view.JobRun]:
    """The runs of a job, the latest first, each with its parameters and how it ended.

    Values above 64 KB are read one by one.
    """
    del query
    runs = services.queries.list_runs(job_id)
    _check_job_is_there(services, job_id, runs)
    return _page(runs, None, request)


@router.get("/jobs/{job_id}/runs/{run}", tags=["jobs"])
def get_run(job_id: JobIdPath, run: RunNumber, services: Services, query: NoQuery) -> view.JobRun:
    """One run of a job, with its parameters, result and error whole."""
    del query
    try:
        return services.queries.get_run(job_id, run)
    except RunNotFound as error:
        _check_job_is_there(services, job_id, ())
        raise problems.unknown("run", error) from error


@router.get(
    "/jobs/{job_id}/events",
    tags=["jobs"],
    response_model_exclude_unset=True,
    responses={
        200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}}}},
        204: {"description": "Of a stream: the job has ended, and all was sent"},
    },
)
async def list_events(
    job_id: JobIdPath,
    request: Request,
    query: Annotated[models.EventsQuery, InQuery()],
    accept: Annotated[str | None, Header(description="`text/event-stream` for events as browsers take them.")] = None,
    last_event_id: Annotated[str | None, Header(description="Of a stream: the `id` that came last.")] = None,
) -> models.Page[JobEvent]:
    """The job's timeline: transitions, failures, retries, interruptions, what operators did.

    `wait` follows it: each answer has what came since its cursor. With `Accept: text/event-stream` each answer is a
    part of a stream, which `EventSource` continues by itself until the job has ended and all was sent (204).
    """
    services = await find_services(request)
    if EVENT_STREAM in (accept or ""):
        cursor = last_event_id or query.cursor
        seconds = STREAM_SECONDS if query.wait is None else query.wait
        new = await follow(request, services, job_id, seconds=seconds, limit=query.limit, cursor=cursor)
        return await answer_stream(services, job_id, new)  # type: ignore[return-value]
    if query.wait is not None:
        new = await follow(request, services, job_id, seconds=query.wait, limit=query.limit, cursor=query.cursor)
        return _page(new.items, new.cursor, request)
    return await run_in_threadpool(_list_events, job_id, request, services, query)


def _list_events(
    job_id: str, request: Request, services: ApiServices, query: models.EventsQuery
) -> models.Page[JobEvent]:
    page = services.queries.list_events(job_id, limit=query.limit, cursor=query.cursor)
    _check_job_is_there(services, job_id, page.items)
    return _page(page.items, page.next_cursor, request)


@router.get("/jobs/{job_id}/logs", tags=["jobs"], response_model_exclude_unset=True)
def list_logs(
    job_id: JobIdPath, request: Request, services: Services, query: Annotated[models.LogsQuery, InQuery()]
) -> models.Page[JobEvent]:
    """Attempts that did not succeed, the oldest first: how each ended, and in `detail.log` its last lines.

    An attempt that was interrupted has no lines: its process was lost. What successful attempts logged is in the app's
    log alone.
    """
    page = services.queries.list_logs(
        job_id, task_id=query.task_id, run=query.run, after=query.after, limit=query.limit, cursor=query.cursor
    )
    _check_job_is_there(services, job_id, page.items)
    return _page(page.items, page.next_cursor, request)


@router.get("/job-types", tags=["job types"], response_model_exclude_unset=True)
def list_job_types(request: Request, services: Services, query: NoQuery) -> models.Page[models.JobTypeDetail]:
    """Job types of this app, with the JSON Schema of their parameters."""
    del query
    value = []
    visible = (name for name in services.registry.job_types if may_look_at(request, name))
    for job in map(services.registry.get_job, visible):
        stages = [
            models.StageDescription.model_validate(stage, from_attributes=True) for stage in job.definition().stages
        ]
        try:
            schema = call_author(to_json_schema, job.parameters_schema)
        except AuthorError as error:
            # A model may make its schema anew each time; one that fails hides no other job type.
            log.exception("job_type_failed", extra={"code": "job_type_failed"})
            reason = f"The schema cannot be made now ({error.failure.error_type}); the log has the trace."
            schema = {"description": reason}
        value.append(
            models.JobTypeDetail(
                job_type=job.job_type,
                description=job.description,
                timeout_seconds=job.timeout_seconds,
                stages=stages,
                parameters_schema=schema,
            )
        )
    return _page(value, None, request)


@router.get("/livez", tags=["health"])
async def livez(query: NoQuery) -> models.Liveness:
    """The process answers; nothing else is looked at."""
    del query
    return models.Liveness()


@router.get("/readyz", tags=["health"], responses={503: {"model": models.Readiness, "description": "Not ready"}})
def readyz(request: Request, response: Response, query: NoQuery) -> models.Readiness:
    """Whether the app can do its work, and what each thing that it needs looks like."""
    del query
    try:
        checks = list(services_of(request).check_readiness())
    except ServicesNotReady as error:
        checks = [Check("settings", ok=False, detail=str(error))]
    ready = all(check.ok for check in checks)
    if not ready:
        response.status_code = 503
        response.headers["Retry-After"] = str(problems.RETRY_AFTER_SECONDS)
    return models.Readiness(
        status="ready" if ready else "not_ready",
        checks=[models.ReadinessCheck(name=check.name, ok=check.ok, detail=check.detail) for check in checks],
    )


def _check_job_is_there(services: ApiServices, job_id: str, found: Sequence[object]) -> None:
    """An empty list of a job that does not exist is a 404."""
    if not found and services.find_job_status(job_id) is None:
        raise problems.unknown_job(job_id)
