"""Endpoints that submit jobs: one, many at once, or none but what a submission would do."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi import Query as InQuery

from core.basics.canonical import shown
from core.errors import OtherParameters, StoreUnavailable
from core.models import JobStatus
from core.models.fields import CorrelationIdHeader, IdempotencyKeyHeader, JobTypeText
from core.models.job_filter import read_tags
from core.models.message_schema import submission_schema
from core.models.submission import Submission, SubmissionOutcome, SubmitRequest
from core.safety.roles import Role
from triggers import api_models, problems
from triggers import submit_models as models
from triggers.access import expect_role_for
from triggers.actor import Actor, find_actor
from triggers.author_threads import calls_authors, run_of_type
from triggers.endpoints import (
    NoQuery,
    OneValueRoute,
    Services,
    body_schema,
    find_services,
    job_links,
    parse_body,
)
from triggers.job_answers import job_answer, look_when_ended, retry_after
from triggers.ports import ApiServices
from triggers.prefer import read_wait
from triggers.problems import ProblemError
from triggers.request_body import read_json_object, read_large_object

_OTHER_RUN = (
    "While run {run} of this job was waited for, run {present} began. "
    "GET /api/jobs/{job_id}/runs has the results and parameters of both."
)
# What takes less is the way of the request, and other clocks.
_PAST = timedelta(minutes=1)
# Of a batch.
_LIST = "jobs"
SUBMIT_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}
LargeBody = Annotated[dict[str, Any], Depends(read_large_object)]
router = APIRouter(tags=["jobs"], route_class=OneValueRoute)


@router.post("/jobs/submit:batch", openapi_extra=body_schema(models.BatchRequest, required=True))
@calls_authors
def submit_batch(
    request: Request, services: Services, body: LargeBody, query: NoQuery, actor: Actor
) -> models.BatchAnswer:
    """Submit up to 1,000 jobs. Each has its own outcome: one that is refused keeps no other from being written.

    Those of one job type are written in one transaction, and announced together. Sent again, a batch gives the same
    jobs; items with `force`, or with `if_ended` rerun or force, need an `idempotency_key` for that.
    """
    del query
    asked = parse_body(models.BatchRequest, body)
    outcomes: dict[int, models.BatchOutcome] = {}
    wanted: list[tuple[int, SubmitRequest]] = []
    for index, item in enumerate(asked.jobs):
        try:
            one = _read_item(item, index).to_request(actor)
            expect_role_for(request, one.job_type, Role.SUBMITTER)
            wanted.append((index, one))
        except ProblemError as problem:
            outcomes[index] = _refused(request, index, problem)
    answers = services.machine.submit_jobs([each for _, each in wanted])
    unavailable = [answer for answer in answers if isinstance(answer, StoreUnavailable)]
    if unavailable and len(unavailable) == len(answers):
        raise unavailable[0]
    for (index, item), answer in zip(wanted, answers, strict=True):
        outcomes[index] = _outcome(request, index, item, answer)
    value = [outcomes[index] for index in sorted(outcomes)]
    return models.BatchAnswer(
        value=value, counts=Counter(str(each.job.outcome) if each.job else "refused" for each in value)
    )


@router.get("/messages/submission", tags=["messages"])
async def get_submission_schema(query: NoQuery) -> dict[str, Any]:
    """The JSON Schema of a message that submits a job, for producers that put it on the jobs queue."""
    del query
    return submission_schema()


def _read_item(item: Any, index: int) -> models.BatchItem:
    """Raises ProblemError where it is no submission."""
    if not isinstance(item, dict):
        raise problems.invalid_request([problems.wrong_field(f"{_LIST}.{index}", "an object", shown(item, 100))])
    return parse_body(models.BatchItem, item)


def _outcome(
    request: Request, index: int, wanted: SubmitRequest, answer: Submission | Exception
) -> models.BatchOutcome:
    if isinstance(answer, Exception):
        if isinstance(answer, OtherParameters):
            return _refused(request, index, _other_parameters(request, answer))
        return _refused(request, index, problems.submission_problem(answer))
    fields = {
        name: getattr(answer, name) for name in api_models.BatchJob.model_fields if name not in {"status", "links"}
    }
    fields["advice"] = _advice_on(wanted, answer)
    status, links = JobStatus.stored(answer.status), job_links(request, answer.job_id)
    return models.BatchOutcome(index=index, status=202, job=api_models.BatchJob(**fields, status=status, links=links))


def _refused(request: Request, index: int, problem: ProblemError) -> models.BatchOutcome:
    document = problems.problem_of(request.scope["path"], problem)
    return models.BatchOutcome(index=index, status=problem.status, problem=document)


@router.post(
    "/jobs/submit/{job_type}",
    status_code=202,
    openapi_extra=SUBMIT_BODY,
    responses={200: {"model": models.DraftAnswer, "description": "Of a dry run: what would be written"}},
)
async def submit_job(
    job_type: Annotated[JobTypeText, Path(description="See `GET /api/job-types`.")],
    request: Request,
    response: Response,
    query: Annotated[api_models.SubmitQuery, InQuery()],
    idempotency_key: Annotated[
        IdempotencyKeyHeader | None,
        Header(description="A name for this request: sent again with the same content, it gives the same job."),
    ] = None,
    x_correlation_id: Annotated[CorrelationIdHeader | None, Header()] = None,
    prefer: Annotated[
        str | None, Header(description="`wait=<seconds>`, at most 30: answer when the job has ended, with `job`.")
    ] = None,
) -> api_models.SubmittedJob:
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
    wanted = SubmitRequest(
        job_type,
        await read_json_object(request),
        correlation_id=x_correlation_id,
        force=query.force,
        idempotency_key=idempotency_key,
        actor=find_actor(request),
        if_ended=query.if_ended,
        tags=read_tags(query.tag),
        start_at=query.start_at,
        priority=query.priority,
    )
    if query.dry_run:
        return await _draft(services, wanted)  # type: ignore[return-value]
    try:
        submitted = await run_of_type(services, job_type, partial(services.machine.submit_job, wanted))
    except OtherParameters as error:
        raise _other_parameters(request, error) from error
    submitted = replace(submitted, advice=_advice_on(wanted, submitted))
    return await _answer(request, response, services, submitted, read_wait(prefer))


def _advice_on(wanted: SubmitRequest, submitted: Submission) -> str | None:
    """What its caller may not have wished."""
    begins = submitted.created or submitted.outcome is SubmissionOutcome.RERUN
    if wanted.start_at is None or not begins or datetime.now(UTC) - wanted.start_at < _PAST:
        return submitted.advice
    at = wanted.start_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return f"start_at, {at}, is in the past: it begins at once"


async def _draft(services: ApiServices, wanted: SubmitRequest) -> Response:
    draft = await run_of_type(services, wanted.job_type, partial(services.machine.draft_job, wanted))
    content = models.DraftAnswer.of(draft).model_dump_json(by_alias=True)
    return Response(content, media_type="application/json")


async def _answer(
    request: Request, response: Response, services: ApiServices, submitted: Submission, seconds: float | None
) -> api_models.SubmittedJob:
    job, advice = None, submitted.advice
    headers = {"Retry-After": "1"}
    if seconds:
        detail = await look_when_ended(request, services, submitted.job_id, seconds)
        if detail is not None and detail.job.run != submitted.run:
            advice = _OTHER_RUN.format(run=submitted.run, present=detail.job.run, job_id=submitted.job_id)
        elif detail is not None:
            job = job_answer(request, detail)
            headers = {**retry_after(detail.job), "Preference-Applied": f"wait={seconds:g}"}
    if submitted.outcome is SubmissionOutcome.REPLAYED:
        headers["Idempotency-Replayed"] = "true"
    links = job_links(request, submitted.job_id)
    # `Location` is what Logic Apps and others poll until it is no 202 any more, `Operation-Location` what Azure's do.
    response.headers.update({"Location": links.poll, "Operation-Location": links.operation, **headers})
    return api_models.SubmittedJob(
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


def _other_parameters(request: Request, error: OtherParameters) -> ProblemError:
    """No link to the job as it is: a client that follows one would take the other run's result for its own."""
    url = f"{job_links(request, error.job_id).runs}/{error.run}"
    return ProblemError(409, "other_parameters", str(error), job_status=error.status, job_run=error.run, run_url=url)
