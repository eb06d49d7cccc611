"""Schedules: the list, and one with its history, its next times and why it submits nothing."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi import Query as InQuery
from pydantic import BeforeValidator, Field

from core.models.fields import Cursor
from core.models.schedule import TickRecord
from triggers import schedule_models, schedules_api
from triggers.actor import Actor
from triggers.api_models import Query
from triggers.endpoints import NoQuery
from triggers.ui.forms import Form
from triggers.ui.jobs_page import blank_is_none
from triggers.ui.page import PageRoute, go_to, render
from triggers.ui.ports import Services

router = APIRouter(route_class=PageRoute)
PAGE = 50
# Ticks of a history, of which equal ones are one line.
_TICKS = 200
_NEXT = 5
_NOTES = {
    "run": "A job was submitted for this schedule; it is the first line of the history.",
    "pause": "The schedule is paused: its ticks submit nothing until it is resumed.",
    "resume": "The schedule goes on with its next tick.",
}
NamePath = Annotated[schedule_models.ScheduleName, Path()]


class ListQuery(Query):
    cursor: Annotated[Cursor | None, BeforeValidator(blank_is_none)] = None
    note: Annotated[str | None, Field(max_length=20)] = None


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
    """By name, each with its latest tick."""
    page = services.schedule_queries.list_schedules(limit=PAGE, cursor=query.cursor)
    rows = [
        (schedule, next(iter(services.schedule_queries.list_ticks(schedule.name, limit=1).items), None))
        for schedule in page.items
    ]
    return render(request, "schedules.html", nav="schedules", rows=rows, next_cursor=page.next_cursor)


@router.get("/ui/schedules/{name}")
def show_schedule(
    name: NamePath, request: Request, services: Services, query: Annotated[ListQuery, InQuery()]
) -> Response:
    """One schedule."""
    explanation = schedules_api.explain_schedule_by_name(name, services, Query())
    schedule = schedules_api.get_schedule(name, services, Query())
    ticks = services.schedule_queries.list_ticks(name, limit=_TICKS, cursor=query.cursor)
    next_times = schedules_api.list_next_ticks(name, request, services, schedule_models.NextQuery(count=_NEXT)).value
    return render(
        request,
        "schedule.html",
        nav="schedules",
        schedule=schedule,
        findings=explanation.findings,
        ticks=fold_ticks(ticks.items),
        next_cursor=ticks.next_cursor,
        query=query,
        next_times=next_times,
        note=_NOTES.get(query.note or ""),
        at=explanation.at,
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
def run_schedule(name: NamePath, request: Request, services: Services, query: NoQuery, actor: Actor) -> Response:
    """Submit a job of it now."""
    del query
    schedules_api.run_schedule(name, services, Query(), actor)
    return go_to(request, "schedules", name, note="run")
