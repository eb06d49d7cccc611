"""A job as clients of long-running operations poll it: Azure's own by a status word, Logic Apps and others by 202."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, Field

from core.models import JobRecord, JobStatus
from triggers import api_models as models
from triggers.endpoints import JobIdPath, NoQuery, OneValueRoute, find_services, job_links
from triggers.entity_tag import answer_with_tag
from triggers.job_answers import describe_error, job_answer, read_job, retry_after

router = APIRouter(tags=["operations"], route_class=OneValueRoute)

# As Azure's guidelines have them. What is not there runs, a status of a newer release too.
_WORDS = {
    JobStatus.QUEUED: "NotStarted",
    JobStatus.COMPLETED: "Succeeded",
    JobStatus.COMPLETED_WITH_ERRORS: "Succeeded",
    JobStatus.FAILED: "Failed",
    JobStatus.CANCELLED: "Canceled",
}


class OperationError(BaseModel):
    code: str
    message: str


class Operation(BaseModel):
    """A job in the words of Azure's clients; `jobStatus` is its own.

    `Succeeded` is also one that completed with errors, which its job type tolerates.
    """

    id: str
    status: Annotated[str, Field(description="NotStarted, Running, Succeeded, Failed or Canceled.")]
    job_status: Annotated[JobStatus, Field(serialization_alias="jobStatus")]
    created_at: Annotated[datetime | None, Field(serialization_alias="createdDateTime")]
    updated_at: Annotated[datetime | None, Field(serialization_alias="lastActionDateTime")]
    resource: Annotated[str, Field(serialization_alias="resourceLocation", description="The job.")]
    result: dict[str, Any] | None
    error: OperationError | None


def operation_word(job: JobRecord) -> str:
    """The status word of a job's present run."""
    if job.status is JobStatus.QUEUED and job.stage > 1:
        return "Running"
    return _WORDS.get(job.status, "Running")


@router.get("/operations/{job_id}")
async def get_operation(
    job_id: JobIdPath,
    request: Request,
    query: NoQuery,
    if_none_match: Annotated[str | None, Header(description="The `ETag` of an earlier answer.")] = None,
) -> Operation:
    """A job as a long-running operation, which is where `Operation-Location` leads. Always 200, however the job ended.

    `Retry-After` grows with the time that the job has run, to 30 seconds.
    """
    del query
    services = await find_services(request)
    detail, _ = await read_job(request, services, job_id, None)
    job = detail.job
    word = operation_word(job)
    has_failed = word in {"Failed", "Canceled"}
    operation = Operation(
        id=job.job_id,
        status=word,
        job_status=job.status,
        created_at=job.created_at,
        updated_at=job.updated_at,
        resource=job_links(request, job_id).self_,
        result=job.result,
        error=OperationError(**describe_error(job.error, job.status.value)) if has_failed else None,
    )
    return answer_with_tag(operation, retry_after(job), if_none_match)  # type: ignore[return-value]


@router.get("/jobs/{job_id}/poll", responses={202: {"model": models.JobAnswer, "description": "It has not ended"}})
async def poll_job(job_id: JobIdPath, request: Request, response: Response, query: NoQuery) -> models.JobAnswer:
    """The job: 202 with `Location` and `Retry-After` until it has ended, then 200, also where it failed.

    This is what the HTTP action of Logic Apps follows by itself.
    """
    del query
    services = await find_services(request)
    detail, _ = await read_job(request, services, job_id, None)
    if not detail.job.status.is_terminal:
        response.status_code = 202
        response.headers["Location"] = job_links(request, job_id).poll
        response.headers.update(retry_after(detail.job))
    return job_answer(request, detail)
