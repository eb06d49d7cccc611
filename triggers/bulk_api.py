"""Endpoints about many jobs at once, about deleting jobs and keeping them, and about who did what."""

from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Request
from fastapi import Query as InQuery

from core.models.bulk import BulkAction, BulkReport, BulkRequest, DeleteAnswer, DeleteOutcome, HoldAnswer
from core.models.record import AuditRecord
from core.models.view import Page
from core.operating.bulk import MoreJobsMatch
from core.safety.roles import Role
from triggers import api_models, problems
from triggers import bulk_models as models
from triggers.access import expect_role
from triggers.actor import Actor
from triggers.endpoints import JobIdPath, JsonBody, NoQuery, OneValueRoute, body_schema, parse_body
from triggers.job_answers import list_item
from triggers.problems import ProblemError

router = APIRouter(route_class=OneValueRoute)


class BulkActions(Protocol):
    """`core.operating.bulk.BulkControl`."""

    def run(self, request: BulkRequest) -> BulkReport: ...


class Keeping(Protocol):
    """`core.machine.CoreMachine`."""

    def delete_job(self, job_id: str, *, reason: str | None, actor: str | None) -> DeleteAnswer | None: ...
    def hold_job(self, job_id: str, *, is_held: bool, reason: str | None, actor: str | None) -> HoldAnswer | None: ...


class AuditReads(Protocol):
    """`infrastructure.audit.AuditRepository`."""

    def list_audit(
        self,
        *,
        job_id: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[AuditRecord]: ...


class BulkServices(Protocol):
    """All that these endpoints need."""

    @property
    def bulk(self) -> BulkActions: ...
    @property
    def machine(self) -> Keeping: ...
    @property
    def audit(self) -> AuditReads: ...


def _services(request: Request) -> BulkServices:
    services: BulkServices = request.app.state.get_services()
    return services


Services = Annotated[BulkServices, Depends(_services)]


@router.post("/jobs/bulk", tags=["job actions"], openapi_extra=body_schema(models.BulkBody, required=True))
def act_on_jobs(
    request: Request, services: Services, body: JsonBody, query: NoQuery, actor: Actor
) -> models.BulkAnswer:
    """Cancel, pause, resume, retry, rerun or delete all jobs of a filter that it can be done to, the oldest first.

    Without `confirm` it only counts them. With the count as `confirm` it acts, on at most `limit` of them, as long as
    no more match than that (409, `more_jobs_match`). While `remaining` is not 0, the request goes on with that number
    as `confirm` and with `cursor` from `next_cursor`: a job that was acted on may match again.
    """
    del query
    asked = parse_body(models.BulkBody, body).to_request(actor)
    if asked.action is BulkAction.DELETE:
        expect_role(request, Role.ADMIN)
    try:
        report = services.bulk.run(asked)
    except MoreJobsMatch as error:
        raise ProblemError(409, "more_jobs_match", str(error)) from error
    return models.BulkAnswer(
        action=asked.action,
        dry_run=report.is_dry_run,
        matched=report.matched,
        remaining=report.remaining,
        counts=report.counts,
        next_cursor=report.next_cursor,
        value=[models.BulkItemAnswer.model_validate(vars(item)) for item in report.items],
        sample=[list_item(request, job) for job in report.sample],
    )


@router.delete("/jobs/{job_id}", tags=["job actions"])
def delete_job(
    job_id: JobIdPath, services: Services, query: Annotated[models.DeleteQuery, InQuery()], actor: Actor
) -> models.DeletedJob:
    """Delete a job that has ended, with its tasks, stages and events. The audit log keeps who did it, and why.

    409 where it has not ended (`job_has_not_ended`) or is under a legal hold (`job_is_held`).
    """
    answer = services.machine.delete_job(job_id, reason=query.reason, actor=actor)
    if answer is None:
        raise problems.unknown_job(job_id)
    if answer.outcome is DeleteOutcome.HELD:
        detail = "The job is under a legal hold: expected one that is not; release it first."
        raise ProblemError(409, "job_is_held", detail, job_status=answer.status)
    if answer.outcome is DeleteOutcome.REFUSED:
        detail = f"The job is {answer.status.value}: expected one that has ended; cancel it first."
        raise ProblemError(409, "job_has_not_ended", detail, job_status=answer.status)
    return models.DeletedJob(job_id=job_id, outcome=answer.outcome, pruned_tasks=answer.pruned_tasks)


@router.post("/jobs/{job_id}/hold", tags=["job actions"], openapi_extra=body_schema(api_models.ActionRequest))
def hold_job(job_id: JobIdPath, services: Services, body: JsonBody, query: NoQuery, actor: Actor) -> models.HeldJob:
    """Put a job under a legal hold: neither retention nor people delete it. Again changes nothing."""
    del query
    return _hold(services, job_id, parse_body(api_models.ActionRequest, body), actor, is_held=True)


@router.post("/jobs/{job_id}/release", tags=["job actions"], openapi_extra=body_schema(api_models.ActionRequest))
def release_job(job_id: JobIdPath, services: Services, body: JsonBody, query: NoQuery, actor: Actor) -> models.HeldJob:
    """End a job's legal hold. For one that is under none it changes nothing."""
    del query
    return _hold(services, job_id, parse_body(api_models.ActionRequest, body), actor, is_held=False)


def _hold(
    services: BulkServices, job_id: str, asked: api_models.ActionRequest, actor: str | None, *, is_held: bool
) -> models.HeldJob:
    answer = services.machine.hold_job(job_id, is_held=is_held, reason=asked.reason, actor=actor)
    if answer is None:
        raise problems.unknown_job(job_id)
    return models.HeldJob(job_id=job_id, status=answer.status, hold=answer.hold, changed=answer.has_changed)


@router.get("/audit", tags=["audit"], response_model_exclude_unset=True)
def list_audit(
    request: Request, services: Services, query: Annotated[models.AuditQuery, InQuery()]
) -> api_models.Page[models.AuditEntry]:
    """What was done to which job, by which person or app, and why; the latest first. Rows outlive their jobs."""
    page = services.audit.list_audit(
        job_id=query.job_id, actor=query.actor, action=query.action, limit=query.limit, cursor=query.cursor
    )
    entries = [models.AuditEntry(**dict(row) | {"job_id": row.job_id or None}) for row in page.items]
    return api_models.page_of(entries, page.next_cursor, request)
