"""Endpoints about failures, dead letters and jobs that do not move."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Path, Request
from fastapi import Query as InQuery

from core.models.dead_letter import (
    DeadLetterDetail,
    DeadLetterGroup,
    DeadLetterSummary,
    FailedTaskSummary,
    FailureGroup,
    Selection,
)
from core.models.fields import DeadLetterId
from core.models.insight import JobFacts
from core.models.view import Page
from core.operating.dead_letters import RedriveReport
from core.operating.explain import explain
from core.safety.credentials import redact
from triggers import api_models, problems
from triggers import insight_models as models
from triggers.actor import Actor
from triggers.endpoints import JobIdPath, OneValueRoute, body_schema, parse_body
from triggers.problems import ProblemError
from triggers.request_body import read_json_object

router = APIRouter(route_class=OneValueRoute)


class FailureReads(Protocol):
    """`infrastructure.failures.FailureQueries`."""

    def group_failures(
        self, *, job_id: str | None = None, job_type: str | None = None, limit: int = 100
    ) -> list[FailureGroup]: ...
    def list_failures(
        self,
        *,
        job_id: str | None = None,
        job_type: str | None = None,
        fingerprint: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[FailedTaskSummary]: ...


class DeadLetterReads(Protocol):
    """`infrastructure.dead_letters.DeadLetterRepository`."""

    def list_dead_letters(
        self,
        *,
        queue: str | None = None,
        job_id: str | None = None,
        fingerprint: str | None = None,
        resolved: bool | None = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[DeadLetterSummary]: ...
    def group_dead_letters(
        self, *, queue: str | None = None, job_id: str | None = None, resolved: bool | None = False
    ) -> list[DeadLetterGroup]: ...
    def find_dead_letter(self, dead_letter_id: int) -> DeadLetterDetail | None: ...


class DeadLetterCommands(Protocol):
    """`core.operating.dead_letters.DeadLetters`."""

    def redrive(
        self, selection: Selection, *, dry_run: bool = False, limit: int = 1000, actor: str | None = None
    ) -> RedriveReport: ...


class Insight(Protocol):
    """`infrastructure.insight.InsightQueries`."""

    def get_job_facts(self, job_id: str, *, most_failures: int = ...) -> JobFacts: ...


class InsightServices(Protocol):
    """All that these endpoints need."""

    @property
    def failures(self) -> FailureReads: ...
    @property
    def dead_letter_queries(self) -> DeadLetterReads: ...
    @property
    def dead_letters(self) -> DeadLetterCommands: ...
    @property
    def insight(self) -> Insight: ...
    def find_job_status(self, job_id: str) -> str | None: ...
    def find_missing_queues(self) -> Mapping[str, str]: ...
    def find_unnamed_queues(self, queues: Iterable[str]) -> tuple[str, ...]: ...


def _services(request: Request) -> InsightServices:
    services: InsightServices = request.app.state.get_services()
    return services


Services = Annotated[InsightServices, Depends(_services)]
JsonBody = Annotated[dict[str, Any], Depends(read_json_object)]


@router.get("/jobs/{job_id}/explain", tags=["jobs"])
def explain_job(
    job_id: JobIdPath,
    services: Services,
    query: Annotated[api_models.Query, InQuery()],
) -> models.Explanation:
    """Why the job does not move, and what would help."""
    del query
    facts = add_queues(services.insight.get_job_facts(job_id), services)
    return models.Explanation(
        job_id=facts.job_id,
        status=facts.status,
        run=facts.run,
        stage=facts.stage,
        total_stages=facts.total_stages,
        at=facts.now,
        findings=[models.FindingAnswer.model_validate(vars(finding)) for finding in explain(facts)],
    )


def add_queues(facts: JobFacts, services: InsightServices) -> JobFacts:
    """With what the app knows of the queues, which no row has."""
    if facts.status.is_terminal:
        return facts
    return replace(
        facts,
        missing_queues=services.find_missing_queues(),
        unnamed_queues=services.find_unnamed_queues(facts.waiting_queues),
    )


@router.get("/failures", tags=["failures"], response_model_exclude_unset=True)
def list_failures(
    request: Request, services: Services, query: Annotated[models.FailuresQuery, InQuery()]
) -> api_models.Page[FailureGroup] | api_models.Page[FailedTaskSummary]:
    """Failed tasks of the jobs' current runs, grouped by what went wrong or one by one.

    To run failed tasks again, rerun their job: POST /api/jobs/{job_id}/rerun with mode `failed`.
    """
    if query.group:
        groups = services.failures.group_failures(job_id=query.job_id, job_type=query.job_type, limit=query.limit)
        _check_job_is_there(services, query.job_id, groups)
        return api_models.Page[FailureGroup](value=groups)
    page = services.failures.list_failures(
        job_id=query.job_id,
        job_type=query.job_type,
        fingerprint=query.fingerprint,
        limit=query.limit,
        cursor=query.cursor,
    )
    _check_job_is_there(services, query.job_id, page.items)
    return api_models.page_of(page.items, page.next_cursor, request)


@router.get("/dead-letters", tags=["failures"], response_model_exclude_unset=True)
def list_dead_letters(
    request: Request, services: Services, query: Annotated[models.DeadLettersQuery, InQuery()]
) -> api_models.Page[DeadLetterSummary] | api_models.Page[DeadLetterGroup]:
    """Messages that their queue gave up, the newest first; those that wait to be dealt with, unless asked otherwise."""
    resolved = None if query.resolved == "all" else query.resolved
    if query.group:
        groups = services.dead_letter_queries.group_dead_letters(
            queue=query.queue, job_id=query.job_id, resolved=resolved
        )
        return api_models.Page[DeadLetterGroup](value=groups)
    page = services.dead_letter_queries.list_dead_letters(
        queue=query.queue,
        job_id=query.job_id,
        fingerprint=query.fingerprint,
        resolved=resolved,
        limit=query.limit,
        cursor=query.cursor,
    )
    return api_models.page_of(page.items, page.next_cursor, request)


@router.get("/dead-letters/{dead_letter_id}", tags=["failures"])
def get_dead_letter(
    dead_letter_id: Annotated[DeadLetterId, Path()],
    services: Services,
    query: Annotated[api_models.Query, InQuery()],
) -> DeadLetterDetail:
    """One dead message with its body, in which credentials are blanked; a redrive sends it as it came."""
    del query
    found = services.dead_letter_queries.find_dead_letter(dead_letter_id)
    if found is None:
        raise ProblemError(404, "unknown_dead_letter", f"There is no dead letter {dead_letter_id}.")
    return found.model_copy(update={"body": redact(found.body), "description": redact(found.description or "") or None})


@router.post(
    "/dead-letters/redrive", tags=["failures"], openapi_extra=body_schema(models.RedriveRequest, required=True)
)
def redrive_dead_letters(
    services: Services, body: JsonBody, query: Annotated[api_models.Query, InQuery()], actor: Actor
) -> models.RedriveAnswer:
    """Send dead messages again, one by one or by what they have in common; again does no harm.

    What waits for no message any more is marked as obsolete. The rows that a task's or job's message names are
    announced by the janitor in any case; only a submission that came over the queue needs this.
    """
    del query
    asked = parse_body(models.RedriveRequest, body)
    selection = Selection(ids=tuple(asked.ids), fingerprint=asked.fingerprint, queue=asked.queue, job_id=asked.job_id)
    report = services.dead_letters.redrive(selection, dry_run=asked.dry_run, limit=asked.limit, actor=actor)
    return models.RedriveAnswer(
        dry_run=asked.dry_run,
        counts=Counter(item.outcome for item in report.items),
        remaining=report.remaining,
        value=[
            models.RedriveItem(
                dead_letter_id=item.letter.dead_letter_id,
                queue=item.letter.queue,
                job_id=item.letter.job_id,
                outcome=item.outcome,
                detail=item.detail,
            )
            for item in report.items
        ],
    )


def _check_job_is_there(services: InsightServices, job_id: str | None, found: Sequence[object]) -> None:
    if job_id is not None and not found and services.find_job_status(job_id) is None:
        raise problems.unknown_job(job_id)
