"""The HTTP API. Thin: each endpoint reads its request, asks one service and shapes the answer."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Path, Request, Response
from fastapi import Query as InQuery
from fastapi.concurrency import run_in_threadpool

from core.basics.version import VERSION
from core.errors import OtherParameters, StoreUnavailable
from core.models import JobEvent, JobRecord, JobStatus, view
from core.models.control import allowed_actions
from core.models.fields import CorrelationId, IdempotencyKey, JobTypeText, RunNumber, TaskIdText
from core.models.submission import SubmissionOutcome, SubmitRequest
from core.models.view import JobDetail, TaskSummary
from core.safety.safe_log import safe_logger
from infrastructure.queries import RunNotFound, TaskNotFound
from jobs.parameter_schema import to_json_schema
from triggers import api_models as models
from triggers import docs, insight_api, job_actions, preview, problems, schedules_api
from triggers.actor import find_actor
from triggers.api_models import page_of as _page
from triggers.edge import Edge, MethodTable
from triggers.endpoints import JobIdPath, NoQuery, OneValueRoute, Services, find_services, job_links, services_of
from triggers.ports import ApiServices, Check, ServicesNotReady
from triggers.prefer import read_wait
from triggers.problems import Problem
from triggers.request_body import read_json_object
from triggers.ui.router import ROUTERS as PAGES
from triggers.waiting import EndWatcher

log = safe_logger(__name__)

DESCRIPTION = """Submit jobs, watch their stages and tasks; cancel, pause, resume and rerun them.

Lists come in pages: repeat the request with `cursor=<next_cursor>` until `next_cursor` is absent.
In lists, parameters, results and progress above 64 KB of JSON are
`{"truncated": true, "stored_bytes": n, "whole": "..."}`: `whole` is where they are read, `stored_bytes` what they take
in the database, perhaps compressed. Texts of errors and events are cut there to 1,000 characters, and say so.
Every error is `application/problem+json` with a stable `code`. Submitting the same parameters again gives the same job.
"""
# More clients than this are answered at once instead: all that wait are looked for together, and end together.
MAX_WAITING = 250
RETRY_AFTER = {"Retry-After": "1"}
_OTHER_RUN = (
    "While run {run} of this job was waited for, run {present} began. "
    "GET /api/jobs/{job_id}/runs has the results and parameters of both."
)

GetServices = Callable[[], ApiServices]

# `triggers.openapi` puts the statuses of each endpoint in its place.
PROBLEMS: dict[int | str, dict[str, Any]] = {"default": {"model": Problem, "description": "What is wrong"}}
SUBMIT_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}
router = APIRouter(route_class=OneValueRoute)


def create_api(get_services: GetServices, *, trusts_principal: bool = False) -> FastAPI:
    """The ASGI application.

    Args:
        get_services: Called for each request, so that an app which cannot work yet still answers why. Raises
            ServicesNotReady then.
        trusts_principal: Whether App Service vouches for the headers that name the caller.
    """
    routers = (router, job_actions.router, insight_api.router, schedules_api.router)
    api = FastAPI(
        title="CoreMachine",
        version=VERSION,
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    api.state.get_services = get_services
    api.state.services = None
    api.state.document = None
    api.state.ends = EndWatcher(lambda job_ids: get_services().find_ended_jobs(job_ids))
    api.state.trusts_principal = trusts_principal
    problems.install(api)
    api.add_middleware(Edge, methods=MethodTable.of((*routers, docs.router, preview.router, *PAGES), "/api"))
    for routes in routers:
        api.include_router(routes, prefix="/api", responses=PROBLEMS)
    for pages in (docs.router, preview.router, *PAGES):
        api.include_router(pages, prefix="/api", include_in_schema=False)
    return api


@router.post("/jobs/submit/{job_type}", status_code=202, tags=["jobs"], openapi_extra=SUBMIT_BODY)
async def submit_job(
    job_type: Annotated[JobTypeText, Path(description="See `GET /api/job-types`.")],
    request: Request,
    response: Response,
    query: Annotated[models.SubmitQuery, InQuery()],
    idempotency_key: Annotated[
        IdempotencyKey | None,
        Header(description="A name for this request: sent again with the same content, it gives the same job."),
    ] = None,
    x_correlation_id: Annotated[CorrelationId | None, Header()] = None,
    prefer: Annotated[
        str | None, Header(description="`wait=<seconds>`, at most 30: answer when the job has ended, with `job`.")
    ] = None,
) -> models.SubmittedJob:
    """Submit a job; the body holds its parameters (GET /api/job-types has their schemas).

    The answer comes when the job is written down, even while no queue can be reached. The same type and parameters are
    the same job, in whatever status: a job that has ended does not run again, and `advice` names what would
    make it run, or `if_ended` does. Where a rerun gave the job other parameters, its result is not of this submission:
    that is refused (409, `other_parameters`, with `run_url`).
    An `Idempotency-Key` that came before gives the job that it gave then, and `Idempotency-Replayed: true`; with
    another content it is refused (422).
    """
    # Asked for here and not as dependencies, of which each takes FastAPI as long as all of the endpoint.
    services = await find_services(request)
    parameters = await read_json_object(request)
    try:
        submitted = await run_in_threadpool(
            services.machine.submit_job,
            SubmitRequest(
                job_type,
                parameters,
                correlation_id=x_correlation_id,
                force=query.force,
                idempotency_key=idempotency_key,
                actor=find_actor(request),
                if_ended=query.if_ended,
            ),
        )
    except OtherParameters as error:
        raise _other_parameters(request, error) from error
    job, advice, seconds = None, submitted.advice, read_wait(prefer)
    if seconds:
        detail = await _look_when_ended(request, services, submitted.job_id, seconds)
        if detail is not None and detail.job.run != submitted.run:
            advice = _OTHER_RUN.format(run=submitted.run, present=detail.job.run, job_id=submitted.job_id)
        elif detail is not None:
            job = _job_answer(request, detail)
            response.headers["Preference-Applied"] = f"wait={seconds:g}"
    if submitted.outcome is SubmissionOutcome.REPLAYED:
        response.headers["Idempotency-Replayed"] = "true"
    links = job_links(request, submitted.job_id)
    response.headers["Location"] = links.self_
    if job is None or not job.status.is_terminal:
        response.headers.update(RETRY_AFTER)
    return models.SubmittedJob(
        job_id=submitted.job_id,
        job_type=submitted.job_type,
        status=job.status if job is not None else JobStatus.stored(submitted.status),
        run=submitted.run,
        created=submitted.created,
        outcome=submitted.outcome,
        advice=advice,
        correlation_id=submitted.correlation_id,
        links=links,
        job=job,
    )


def _other_parameters(request: Request, error: OtherParameters) -> problems.ProblemError:
    """No link to the job as it is: a client that follows one would take the other run's result for its own."""
    url = f"{job_links(request, error.job_id).runs}/{error.run}"
    return problems.ProblemError(
        409, "other_parameters", str(error), job_status=error.status, job_run=error.run, run_url=url
    )


async def _look_when_ended(request: Request, services: ApiServices, job_id: str, seconds: float) -> JobDetail | None:
    """The job when it has ended or the time is over; None where waiting fails: the job is written all the same."""
    try:
        if await _wait_for_end(request, job_id, seconds):
            return await run_in_threadpool(services.queries.get_job_detail, job_id)
    except StoreUnavailable as error:
        log.warning("wait_given_up", extra={"job_id": job_id, "reason": str(error)})
    return None


@router.get("/jobs/{job_id}", tags=["jobs"])
async def get_job(
    job_id: JobIdPath,
    request: Request,
    response: Response,
    query: Annotated[models.JobQuery, InQuery()],
    prefer: Annotated[str | None, Header(description="`wait=<seconds>`, as the query parameter.")] = None,
) -> models.JobAnswer:
    """One job with its stages. `wait` holds the answer back until the job has ended, for at most 30 seconds."""
    services = await find_services(request)
    preferred = read_wait(prefer)
    seconds = query.wait if query.wait is not None else preferred
    detail, waited = None, False
    if seconds:
        detail = await run_in_threadpool(services.queries.find_ended_job_detail, job_id)
        waited = detail is not None or await _wait_for_end(request, job_id, seconds)
    if detail is None:
        detail = await run_in_threadpool(services.queries.get_job_detail, job_id)
    if waited and query.wait is None:
        response.headers["Preference-Applied"] = f"wait={seconds:g}"
    if not detail.job.status.is_terminal:
        response.headers.update(RETRY_AFTER)
    return _job_answer(request, detail)


def _job_answer(request: Request, detail: JobDetail) -> models.JobAnswer:
    job = {name: getattr(detail.job, name) for name in models.JobAnswer.model_fields if name in JobRecord.model_fields}
    job["run_started_at"], job["duration_seconds"] = view.run_times(detail.job)
    return models.JobAnswer(
        **job,
        paused=detail.job.paused_at is not None,
        allowed_actions=list(allowed_actions(detail.job.status, is_paused=detail.job.paused_at is not None)),
        stages=list(detail.stages),
        links=job_links(request, detail.job.job_id),
    )


async def _wait_for_end(request: Request, job_id: str, seconds: float) -> bool:
    """Until the job has ended, or the time is over; False at once where too many wait already."""
    ends: EndWatcher = request.app.state.ends
    if ends.count >= MAX_WAITING:
        return False
    await ends.wait(job_id, seconds)
    return True


@router.get("/jobs", tags=["jobs"], response_model_exclude_unset=True)
def list_jobs(
    request: Request, services: Services, query: Annotated[models.JobsQuery, InQuery()]
) -> models.Page[models.JobListItem]:
    """Jobs, the newest first."""
    page = services.queries.list_jobs(
        statuses=query.status,
        job_types=query.job_type,
        paused=query.paused,
        limit=query.limit,
        cursor=query.cursor,
    )
    return _page([_list_item(request, job) for job in page.items], page.next_cursor)


def _list_item(request: Request, job: view.JobSummary) -> models.JobListItem:
    started_at, seconds = view.run_times(job)
    fields = dict(job) | {"run_started_at": started_at, "duration_seconds": seconds}
    return models.JobListItem(**fields, links=job_links(request, job.job_id))


@router.get("/jobs/{job_id}/tasks", tags=["jobs"], response_model_exclude_unset=True)
def list_tasks(
    job_id: JobIdPath, services: Services, query: Annotated[models.TasksQuery, InQuery()]
) -> models.Page[TaskSummary]:
    """The tasks of one run of a job, by stage and index; values above 64 KB are read one by one."""
    page = services.queries.list_tasks(
        job_id, run=query.run, stage=query.stage, statuses=query.status, limit=query.limit, cursor=query.cursor
    )
    _check_job_is_there(services, job_id, page.items)
    return _page(page.items, page.next_cursor)


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
def list_runs(job_id: JobIdPath, services: Services, query: NoQuery) -> models.Page[view.JobRun]:
    """The runs of a job, the latest first, each with its parameters and how it ended.

    Values above 64 KB are read one by one.
    """
    del query
    runs = services.queries.list_runs(job_id)
    _check_job_is_there(services, job_id, runs)
    return _page(runs, None)


@router.get("/jobs/{job_id}/runs/{run}", tags=["jobs"])
def get_run(job_id: JobIdPath, run: RunNumber, services: Services, query: NoQuery) -> view.JobRun:
    """One run of a job, with its parameters, result and error whole."""
    del query
    try:
        return services.queries.get_run(job_id, run)
    except RunNotFound as error:
        _check_job_is_there(services, job_id, ())
        raise problems.unknown("run", error) from error


@router.get("/jobs/{job_id}/events", tags=["jobs"], response_model_exclude_unset=True)
def list_events(
    job_id: JobIdPath, services: Services, query: Annotated[models.PageQuery, InQuery()]
) -> models.Page[JobEvent]:
    """The job's timeline: transitions, failures, retries, interruptions, what operators did."""
    page = services.queries.list_events(job_id, limit=query.limit, cursor=query.cursor)
    _check_job_is_there(services, job_id, page.items)
    return _page(page.items, page.next_cursor)


@router.get("/jobs/{job_id}/logs", tags=["jobs"], response_model_exclude_unset=True)
def list_logs(
    job_id: JobIdPath, services: Services, query: Annotated[models.LogsQuery, InQuery()]
) -> models.Page[JobEvent]:
    """Attempts that did not succeed, the oldest first: how each ended, and in `detail.log` its last lines.

    An attempt that was interrupted has no lines: its process was lost. What successful attempts logged is in the app's
    log alone.
    """
    page = services.queries.list_logs(
        job_id, task_id=query.task_id, run=query.run, after=query.after, limit=query.limit, cursor=query.cursor
    )
    _check_job_is_there(services, job_id, page.items)
    return _page(page.items, page.next_cursor)


@router.get("/job-types", tags=["job types"], response_model_exclude_unset=True)
def list_job_types(services: Services, query: NoQuery) -> models.Page[models.JobTypeDetail]:
    """Job types of this app, with the JSON Schema of their parameters."""
    del query
    value = []
    for job in map(services.registry.get_job, services.registry.job_types):
        stages = [
            models.StageDescription.model_validate(stage, from_attributes=True) for stage in job.definition().stages
        ]
        schema = to_json_schema(job.parameters_schema)
        value.append(
            models.JobTypeDetail(
                job_type=job.job_type,
                description=job.description,
                timeout_seconds=job.timeout_seconds,
                stages=stages,
                parameters_schema=schema,
            )
        )
    return _page(value, None)


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
