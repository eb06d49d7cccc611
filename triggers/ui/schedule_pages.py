"""Schedules: the list, and one with its history, its next times and why it submits nothing."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi import Query as InQuery
from pydantic import BeforeValidator, Field, TypeAdapter

from core.models.fields import Cursor, JobTypeText
from core.models.schedule import TickRecord
from core.scheduling.explain import explain_schedule
from jobs.parameter_schema import to_json_schema
from triggers import schedule_models, schedules_api
from triggers.actor import Actor
from triggers.api_models import Query
from triggers.author_threads import calls_authors
from triggers.endpoints import NoQuery
from triggers.ui.edit_form import Draft, Editor, answer_form, draft_of, show_form
from triggers.ui.forms import Form
from triggers.ui.jobs_page import blank_is_none
from triggers.ui.page import PageRoute, go_to, render
from triggers.ui.places import with_places
from triggers.ui.ports import Services, UiServices
from triggers.ui.visitor import visitor_of

router = APIRouter(route_class=PageRoute)
PAGE = 50
# Ticks of a history, of which equal ones are one line.
_TICKS = 200
_NEXT = 5
# Of the list, the newest ticks of each.
_STRIP = 20
_NOTES = {
    "run": "A job was submitted for this schedule; it is the first line of the history.",
    "pause": "The schedule is paused: its ticks submit nothing until it is resumed.",
    "resume": "The schedule goes on with its next tick.",
    "created": "The schedule is there. Its next times are those below.",
    "saved": "The changes are saved. Ticks that were due before keep what they were due for.",
    "deleted": "The schedule was deleted. Its jobs are still there.",
}
EDITOR = Editor(
    schedule_models.PutSchedule,
    *("schedule", "schedules", "new-schedule"),
    TypeAdapter(schedule_models.ScheduleName),
    "up to 100 letters, digits, dots, dashes and underscores",
)
NamePath = Annotated[schedule_models.ScheduleName, Path()]


class ListQuery(Query):
    cursor: Annotated[Cursor | None, BeforeValidator(blank_is_none)] = None
    note: Annotated[str | None, Field(max_length=20)] = None


class NewQuery(Query):
    job_type: Annotated[JobTypeText | None, BeforeValidator(blank_is_none)] = None


@dataclass(frozen=True)
class TickLine:
    """Ticks, one after the other, that ended in the same way; `latest` and `first` are one where `count` is 1."""

    latest: TickRecord
    first: TickRecord
    count: int

    @property
    def begin(self) -> datetime:
        return self.first.tick_at

    @property
    def end(self) -> datetime:
        return self.latest.until_at or self.latest.tick_at


def fold_ticks(ticks: Iterable[TickRecord]) -> list[TickLine]:
    """The newest first, as given. A tick that has a job, or that somebody asked for, has a line of its own."""
    lines: list[TickLine] = []
    for tick in ticks:
        before = lines[-1] if lines else None
        if before is not None and _kind_of(tick) is not None and _kind_of(tick) == _kind_of(before.first):
            lines[-1] = TickLine(before.latest, tick, before.count + 1)
        else:
            lines.append(TickLine(tick, tick, 1))
    return lines


def _kind_of(tick: TickRecord) -> tuple[str, str | None, str | None] | None:
    """What equal ticks have in common; None for one that is like no other."""
    is_own = tick.submitted_job_id is not None or tick.is_manual or tick.status.is_open
    return None if is_own else (tick.status, tick.reason, tick.detail)


@router.get("/ui/schedules")
def show_schedules(request: Request, services: Services, query: Annotated[ListQuery, InQuery()]) -> Response:
    """By name, each with its latest ticks."""
    page = services.schedule_queries.list_schedules(limit=PAGE, cursor=query.cursor)
    rows = [
        (schedule, services.schedule_queries.list_ticks(schedule.name, limit=_STRIP).items) for schedule in page.items
    ]
    note = _NOTES.get(query.note or "")
    return render(request, "schedules.html", nav="schedules", rows=rows, next_cursor=page.next_cursor, note=note)


@router.get("/ui/new-schedule")
def show_new(request: Request, services: Services, query: Annotated[NewQuery, InQuery()]) -> Response:
    """The form for a new one; of a job type, with the parameters that it has to have."""
    given: dict[str, str] = {}
    if query.job_type is not None:
        schema = to_json_schema(services.registry.get_job(query.job_type).parameters_schema)
        required = dict.fromkeys(schema.get("required", ()), "")
        given = {"job_type": query.job_type, "parameters": json.dumps(required, indent=2, ensure_ascii=False)}
    return show_form(request, Draft(EDITOR, given=given, suggestions=_suggestions(services)))


@router.post("/ui/new-schedule")
@calls_authors
def create_schedule(request: Request, services: Services, form: Form, query: NoQuery, actor: Actor) -> Response:
    """Write it, where no other has its name."""
    del query
    present = services.schedule_queries.find_schedule(form.get("name", "").strip())

    def put(name: str, body: dict[str, Any]) -> Response:
        schedules_api.write_schedule(services, name, body, actor)
        return go_to(request, "schedules", name, note="created")

    draft = Draft(EDITOR, suggestions=_suggestions(services))
    return answer_form(request, draft, form, present.revision if present else None, put)


def _suggestions(services: UiServices) -> dict[str, list[str]]:
    return {"job_type": list(services.registry.job_types)}


@router.get("/ui/schedules/{name}")
def show_schedule(
    name: NamePath, request: Request, services: Services, query: Annotated[ListQuery, InQuery()]
) -> Response:
    """One schedule."""
    facts = schedules_api.find_facts(services, name)
    schedule = schedules_api.get_schedule(name, services, Query())
    ticks = services.schedule_queries.list_ticks(name, limit=_TICKS, cursor=query.cursor)
    next_times = schedules_api.list_next_ticks(name, request, services, schedule_models.NextQuery(count=_NEXT)).value
    return render(
        request,
        "schedule.html",
        nav="schedules",
        schedule=schedule,
        findings=with_places(explain_schedule(facts), "", (), visitor_of(request)),
        ticks=fold_ticks(ticks.items),
        next_cursor=ticks.next_cursor,
        query=query,
        next_times=next_times,
        note=_NOTES.get(query.note or ""),
        at=facts.now,
        is_known_type=schedule.job_type in services.registry.job_types,
    )


@router.post("/ui/schedules/{name}/pause")
def pause_schedule(
    name: NamePath, request: Request, services: Services, form: Form, query: NoQuery, actor: Actor
) -> Response:
    """Pause it."""
    del query
    schedules_api.pause_schedule(name, services, dict(form), Query(), actor)
    return go_to(request, "schedules", name, note="pause")


@router.post("/ui/schedules/{name}/resume")
def resume_schedule(
    name: NamePath, request: Request, services: Services, form: Form, query: NoQuery, actor: Actor
) -> Response:
    """Let it go on."""
    del query
    schedules_api.resume_schedule(name, services, dict(form), Query(), actor)
    return go_to(request, "schedules", name, note="resume")


@router.post("/ui/schedules/{name}/run")
@calls_authors
def run_schedule(name: NamePath, request: Request, services: Services, query: NoQuery, actor: Actor) -> Response:
    """Submit a job of it now."""
    del query
    schedules_api.run_tick(services, name, actor)
    return go_to(request, "schedules", name, note="run")


@router.get("/ui/schedules/{name}/edit")
def show_edit(name: NamePath, request: Request, services: Services, query: NoQuery) -> Response:
    """The form for what it is now."""
    found = schedules_api.get_schedule(name, services, query)
    return show_form(request, draft_of(EDITOR, name, found, suggestions=_suggestions(services)))


@router.post("/ui/schedules/{name}/edit")
@calls_authors
def edit_schedule(
    name: NamePath, request: Request, services: Services, form: Form, query: NoQuery, actor: Actor
) -> Response:
    """Write it as the form has it."""
    found = schedules_api.get_schedule(name, services, query)

    def put(name: str, body: dict[str, Any]) -> Response:
        schedules_api.write_schedule(services, name, body, actor)
        return go_to(request, "schedules", name, note="saved")

    return answer_form(request, Draft(EDITOR, name, suggestions=_suggestions(services)), form, found.revision, put)


@router.post("/ui/schedules/{name}/delete")
def delete_schedule(name: NamePath, request: Request, services: Services, query: NoQuery, actor: Actor) -> Response:
    """Delete it."""
    schedules_api.delete_schedule(name, services, query, actor)
    return go_to(request, "schedules", note="deleted")
