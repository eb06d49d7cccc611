"""Jobs for clients of Durable Functions: its payload of addresses, its status document, its actions.

Addresses hold no key: who calls them adds its own.
"""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi import Query as InQuery
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from core.models import JobRecord, JobStatus
from core.models.control import ControlAnswer, RerunMode, RerunRequest
from core.models.fields import JobTypeText, Reason
from core.models.submission import SubmitRequest
from jobs.registry import UnknownJobType
from triggers import api_models, problems
from triggers.actor import Actor
from triggers.author_threads import calls_authors
from triggers.endpoints import JobIdPath, JsonBody, NoQuery, OneValueRoute, Services, job_links
from triggers.job_answers import retry_after
from triggers.problems import ProblemError

router = APIRouter(prefix="/durable", tags=["Durable Functions"], route_class=OneValueRoute)

_WORDS = {
    JobStatus.QUEUED: "Pending",
    JobStatus.COMPLETED: "Completed",
    JobStatus.COMPLETED_WITH_ERRORS: "Completed",
    JobStatus.FAILED: "Failed",
    JobStatus.CANCELLED: "Terminated",
}


class ManagementPayload(BaseModel):
    """Where an instance is looked at and acted on. `{text}` is the reason, for the client to fill in."""

    id: str
    status: Annotated[str, Field(serialization_alias="statusQueryGetUri")]
    terminate: Annotated[str, Field(serialization_alias="terminatePostUri")]
    suspend: Annotated[str, Field(serialization_alias="suspendPostUri")]
    resume: Annotated[str, Field(serialization_alias="resumePostUri")]
    rewind: Annotated[str, Field(serialization_alias="rewindPostUri")]


class InstanceStatus(BaseModel):
    """A job as an orchestration instance. `customStatus` has its own status, run and stage."""

    name: str
    instance_id: Annotated[str, Field(serialization_alias="instanceId")]
    runtime_status: Annotated[
        str,
        Field(
            serialization_alias="runtimeStatus",
            description="Pending, Running, Suspended, Completed, Failed or Terminated.",
        ),
    ]
    input: dict[str, Any]
    custom_status: Annotated[dict[str, Any], Field(serialization_alias="customStatus")]
    output: dict[str, Any] | None
    created_at: Annotated[datetime | None, Field(serialization_alias="createdTime")]
    updated_at: Annotated[datetime | None, Field(serialization_alias="lastUpdatedTime")]


class ReasonQuery(api_models.Query):
    reason: Reason | None = None


@router.post(
    "/orchestrators/{job_type}",
    status_code=202,
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
def start_instance(
    job_type: Annotated[JobTypeText, Path(description="See `GET /api/job-types`.")],
    request: Request,
    response: Response,
    services: Services,
    body: JsonBody,
    query: NoQuery,
    actor: Actor,
) -> ManagementPayload:
    """Submit a job of these parameters. The same ones are the same instance, as everywhere."""
    del query
    submitted = services.machine.submit_job(SubmitRequest(job_type, body, actor=actor))
    payload = _payload(request, submitted.job_id)
    response.headers.update({"Location": payload.status, "Retry-After": "1"})
    return payload


@router.get("/instances/{job_id}", responses={202: {"model": InstanceStatus, "description": "It has not ended"}})
async def get_instance(
    job_id: JobIdPath, request: Request, response: Response, services: Services, query: NoQuery
) -> InstanceStatus:
    """The status document: 202 with `Location` until the job has ended, then 200, also where it failed."""
    del query
    job = (await run_in_threadpool(services.queries.get_job_detail, job_id)).job
    if not job.status.is_terminal:
        response.status_code = 202
        response.headers.update({"Location": _payload(request, job_id).status, **retry_after(job)})
    return InstanceStatus(
        name=job.job_type,
        instance_id=job.job_id,
        runtime_status=_runtime_status(job),
        input=job.parameters,
        custom_status={"status": job.status.value, "run": job.run, "stage": job.stage, "stages": job.total_stages},
        output=job.result if job.error is None else job.error,
        created_at=job.created_at,
        updated_at=job.updated_at,
    )


@router.get("/instances/{job_id}/management")
def get_management(job_id: JobIdPath, request: Request, services: Services, query: NoQuery) -> ManagementPayload:
    """The addresses of an instance, as the answer to its start has them."""
    del query
    if services.find_job_status(job_id) is None:
        raise problems.unknown_job(job_id)
    return _payload(request, job_id)


@router.post("/instances/{job_id}/terminate", status_code=202, response_class=Response)
def terminate_instance(
    job_id: JobIdPath, services: Services, query: Annotated[ReasonQuery, InQuery()], actor: Actor
) -> Response:
    """Cancel the job. 410 where it has ended otherwise."""
    status = services.machine.cancel_job(job_id, query.reason, actor=actor)
    if status is None:
        raise problems.unknown_job(job_id)
    if status not in {JobStatus.CANCELLED, JobStatus.CANCELLING}:
        raise _gone(status)
    return Response(status_code=202)


@router.post("/instances/{job_id}/suspend", status_code=202, response_class=Response)
def suspend_instance(
    job_id: JobIdPath, services: Services, query: Annotated[ReasonQuery, InQuery()], actor: Actor
) -> Response:
    """Pause the job. 410 where it has ended."""
    answer = services.machine.pause_job(job_id, reason=query.reason, actor=actor)
    return _accepted(job_id, answer)


@router.post("/instances/{job_id}/resume", status_code=202, response_class=Response)
def resume_instance(
    job_id: JobIdPath, services: Services, query: Annotated[ReasonQuery, InQuery()], actor: Actor
) -> Response:
    """Let a paused job go on. 410 where it has ended."""
    answer = services.machine.resume_job(job_id, reason=query.reason, actor=actor)
    return _accepted(job_id, answer)


@router.post("/instances/{job_id}/rewind", status_code=202, response_class=Response)
@calls_authors
def rewind_instance(
    job_id: JobIdPath, services: Services, query: Annotated[ReasonQuery, InQuery()], actor: Actor
) -> Response:
    """Try the failed tasks of a job that has ended again. 409 where there are none, or it has not ended."""
    request = RerunRequest(mode=RerunMode.FAILED, reason=query.reason, actor=actor)
    try:
        answer = services.machine.rerun_job(job_id, request)
    except UnknownJobType as error:
        raise ProblemError(404, "unknown_job_type", str(error)) from error
    if answer is None:
        raise problems.unknown_job(job_id)
    if not answer.is_done:
        detail = f"The job is {answer.status.value}: expected one that has ended with failed tasks."
        raise ProblemError(409, "nothing_to_rewind", detail, job_status=answer.status)
    return Response(status_code=202)


def _accepted(job_id: str, answer: ControlAnswer | None) -> Response:
    if answer is None:
        raise problems.unknown_job(job_id)
    if not answer.is_done:
        raise _gone(answer.status)
    return Response(status_code=202)


def _gone(status: str) -> ProblemError:
    return ProblemError(
        410, "instance_has_ended", f"The job is {status}: nothing more can be done to it.", job_status=status
    )


def _runtime_status(job: JobRecord) -> str:
    if job.paused_at is not None and not job.status.is_terminal:
        return "Suspended"
    if job.status is JobStatus.QUEUED and job.stage > 1:
        return "Running"
    return _WORDS.get(job.status, "Running")


def _payload(request: Request, job_id: str) -> ManagementPayload:
    own = job_links(request, job_id).self_.removesuffix(f"/jobs/{job_id}")
    instance = f"{own}/durable/instances/{job_id}"
    actions = {name: f"{instance}/{name}?reason={{text}}" for name in ("terminate", "suspend", "resume", "rewind")}
    return ManagementPayload(id=job_id, status=instance, **actions)
