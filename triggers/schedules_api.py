"""Endpoints about schedules: write, look at, pause, resume, run now, delete."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi import Query as InQuery
from pydantic_core import PydanticCustomError

from core.models.schedule import ScheduleFacts, ScheduleRecord, TickRecord, TickStatus
from core.models.view import Page
from core.scheduling.explain import explain_schedule
from core.scheduling.schedules import ScheduleChanged, ScheduleWish, Written
from jobs.parameters import ParameterErrors
from triggers import api_models, problems
from triggers import schedule_models as models
from triggers.actor import Actor
from triggers.author_threads import calls_authors
from triggers.endpoints import JsonBody, NoQuery, OneValueRoute, body_schema, parse_body
from triggers.insight_models import FindingAnswer
from triggers.problems import ProblemError

router = APIRouter(tags=["schedules"], route_class=OneValueRoute)


class ScheduleCommands(Protocol):
    """`core.scheduling.schedules.Schedules`."""

    def put(self, wish: ScheduleWish, *, actor: str | None = None) -> Written: ...
    def pause(self, name: str, *, reason: str | None = None, actor: str | None = None) -> ScheduleRecord | None: ...
    def resume(self, name: str, *, reason: str | None = None, actor: str | None = None) -> ScheduleRecord | None: ...
    def run_now(self, name: str, *, actor: str | None = None) -> TickRecord | None: ...
    def delete(self, name: str, *, actor: str | None = None) -> bool: ...
    def next_times(self, schedule: ScheduleRecord, count: int) -> list[datetime]: ...
    def find_facts(self, name: str) -> ScheduleFacts | None: ...


class ScheduleReads(Protocol):
    """`infrastructure.schedules.ScheduleRepository`."""

    def find_schedule(self, name: str) -> ScheduleRecord | None: ...
    def list_schedules(
        self, *, job_type: str | None = None, paused: bool | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[ScheduleRecord]: ...
    def list_ticks(
        self, name: str, *, statuses: Iterable[TickStatus] = (), limit: int = 50, cursor: str | None = None
    ) -> Page[TickRecord]: ...


class ScheduleServices(Protocol):
    """All that these endpoints need."""

    @property
    def schedules(self) -> ScheduleCommands: ...
    @property
    def schedule_queries(self) -> ScheduleReads: ...


def _services(request: Request) -> ScheduleServices:
    services: ScheduleServices = request.app.state.get_services()
    return services


Services = Annotated[ScheduleServices, Depends(_services)]
NamePath = Annotated[models.ScheduleName, Path()]


@router.get("/schedules", response_model_exclude_unset=True)
def list_schedules(
    request: Request, services: Services, query: Annotated[models.SchedulesQuery, InQuery()]
) -> api_models.Page[models.ScheduleAnswer]:
    """Schedules by name."""
    page = services.schedule_queries.list_schedules(
        job_type=query.job_type, paused=query.paused, limit=query.limit, cursor=query.cursor
    )
    return api_models.page_of(map(_answer, page.items), page.next_cursor, request)


@router.get("/schedules/{name}")
def get_schedule(name: NamePath, services: Services, query: NoQuery) -> models.ScheduleAnswer:
    """One schedule."""
    del query
    return _answer(_find(services, name))


@router.put(
    "/schedules/{name}",
    openapi_extra=body_schema(models.PutSchedule, required=True),
    responses={201: {"model": models.WrittenSchedule, "description": "It is new"}},
)
@calls_authors
def put_schedule(
    name: NamePath, response: Response, services: Services, body: JsonBody, query: NoQuery, actor: Actor
) -> models.WrittenSchedule:
    """Write a schedule, or replace the one of this name; again changes nothing but its revision.

    Its parameters are validated with the time of its next tick. A job type that this app does not know is accepted,
    with a note: another release may know it. Ticks that were due before a change keep what they were due for.
    """
    del query
    written = write_schedule(services, name, body, actor)
    response.status_code = 201 if written.created else 200
    return models.WrittenSchedule(**models.answer_of(written.schedule), notes=list(written.notes))


def write_schedule(services: ScheduleServices, name: str, body: dict[str, Any], actor: str | None) -> Written:
    """Raises ProblemError where it cannot be written as the body asks."""
    asked = parse_body(models.PutSchedule, body)
    try:
        return services.schedules.put(ScheduleWish(name=name, **dict(asked)), actor=actor)
    except PydanticCustomError as error:
        item = {"type": error.type, "ctx": error.context, "loc": ("body", "schedule"), "msg": str(error)}
        raise problems.invalid_request([problems.field_problem(item)]) from error
    except ParameterErrors as error:
        raise _wrong_parameters(error) from error
    except ScheduleChanged as error:
        raise _changed(name) from error


@router.delete("/schedules/{name}")
def delete_schedule(name: NamePath, services: Services, query: NoQuery, actor: Actor) -> models.DeletedSchedule:
    """Delete a schedule and what is known of its ticks. Its jobs stay, those that run too."""
    del query
    if not services.schedules.delete(name, actor=actor):
        raise _unknown(name)
    return models.DeletedSchedule(name=name)


@router.post("/schedules/{name}/pause", openapi_extra=body_schema(api_models.ActionRequest))
def pause_schedule(
    name: NamePath, services: Services, body: JsonBody, query: NoQuery, actor: Actor
) -> models.ScheduleAnswer:
    """Submit nothing at its ticks until it is resumed. Its jobs go on. Again changes nothing."""
    del query
    asked = parse_body(api_models.ActionRequest, body)
    return _answer_or_unknown(name, services.schedules.pause(name, reason=asked.reason, actor=actor))


@router.post("/schedules/{name}/resume", openapi_extra=body_schema(api_models.ActionRequest))
def resume_schedule(
    name: NamePath, services: Services, body: JsonBody, query: NoQuery, actor: Actor
) -> models.ScheduleAnswer:
    """Go on with the next tick; those that passed in the pause are skipped. Again changes nothing."""
    del query
    asked = parse_body(api_models.ActionRequest, body)
    try:
        return _answer_or_unknown(name, services.schedules.resume(name, reason=asked.reason, actor=actor))
    except ScheduleChanged as error:
        raise _changed(name) from error


@router.post("/schedules/{name}/run", status_code=202)
@calls_authors
def run_schedule(name: NamePath, services: Services, query: NoQuery, actor: Actor) -> models.ScheduleTick:
    """Submit a job as if a tick were now, also while it is paused or a job of it is open. Each request is a job."""
    del query
    return models.tick_of(run_tick(services, name, actor))


def run_tick(services: ScheduleServices, name: str, actor: str | None) -> TickRecord:
    """Raises ProblemError where no job was made."""
    tick = services.schedules.run_now(name, actor=actor)
    if tick is None:
        raise _unknown(name)
    if tick.status is TickStatus.FAILED:
        raise ProblemError(409, "tick_failed", f"No job was made: {tick.reason}: {tick.detail}")
    return tick


@router.get("/schedules/{name}/next", response_model_exclude_unset=True)
def list_next_ticks(
    name: NamePath, request: Request, services: Services, query: Annotated[models.NextQuery, InQuery()]
) -> api_models.Page[datetime]:
    """The next times of its expression, on the clock of its zone, whether it is paused or not."""
    schedule = _find(services, name)
    return api_models.page_of(services.schedules.next_times(schedule, query.count), None, request)


@router.get("/schedules/{name}/ticks", response_model_exclude_unset=True)
def list_ticks(
    name: NamePath, request: Request, services: Services, query: Annotated[models.TicksQuery, InQuery()]
) -> api_models.Page[models.ScheduleTick]:
    """What became of its ticks, the newest first."""
    statuses = () if query.status is None else (query.status,)
    page = services.schedule_queries.list_ticks(name, statuses=statuses, limit=query.limit, cursor=query.cursor)
    if not page.items:
        _find(services, name)
    return api_models.page_of(map(models.tick_of, page.items), page.next_cursor, request)


@router.get("/schedules/{name}/explain")
def explain_schedule_by_name(name: NamePath, services: Services, query: NoQuery) -> models.ScheduleExplanation:
    """Why it submits nothing, and what would help."""
    del query
    facts = find_facts(services, name)
    findings = [FindingAnswer.model_validate(vars(finding)) for finding in explain_schedule(facts)]
    return models.ScheduleExplanation(name=name, at=facts.now, findings=findings)


def find_facts(services: ScheduleServices, name: str) -> ScheduleFacts:
    """What explains the schedule. Raises ProblemError (404) where there is none of this name."""
    facts = services.schedules.find_facts(name)
    if facts is None:
        raise _unknown(name)
    return facts


def _find(services: ScheduleServices, name: str) -> ScheduleRecord:
    schedule = services.schedule_queries.find_schedule(name)
    if schedule is None:
        raise _unknown(name)
    return schedule


def _answer(schedule: ScheduleRecord) -> models.ScheduleAnswer:
    return models.ScheduleAnswer(**models.answer_of(schedule))


def _answer_or_unknown(name: str, schedule: ScheduleRecord | None) -> models.ScheduleAnswer:
    if schedule is None:
        raise _unknown(name)
    return _answer(schedule)


def _unknown(name: str) -> ProblemError:
    return ProblemError(404, "unknown_schedule", f"There is no schedule {name}.")


def _changed(name: str) -> ProblemError:
    detail = f"Others changed schedule {name} at the same time, again and again; send the request again."
    return ProblemError(409, "schedule_changed", detail)


def _wrong_parameters(error: ParameterErrors) -> ProblemError:
    """With the whole place of each: a schedule has fields of its own."""
    found: list[dict[str, Any]] = error.as_list()
    errors = [
        problems.wrong_field(f"parameters.{item['field']}", item["expected"], item["found"], item["hint"])
        for item in found
    ]
    detail = "\n".join(each.message for each in errors)
    return ProblemError(400, "invalid_parameters", detail, errors=errors, more_errors=error.more)
