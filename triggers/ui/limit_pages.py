"""Limits that stages share: how full each is, which stages hold it, which wait, and its numbers to choose."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from fastapi import Query as InQuery
from pydantic import BeforeValidator

from core.models.fields import Cursor
from core.models.limit import LimitFacts, LimitName
from triggers import limits_api
from triggers.actor import Actor
from triggers.api_models import Query
from triggers.endpoints import NoQuery
from triggers.problems import ProblemError, invalid_request, wrong_field
from triggers.ui.forms import Form, whole_number
from triggers.ui.jobs_page import blank_is_none
from triggers.ui.page import PageRoute, go_to, render
from triggers.ui.ports import Services
from triggers.ui.recent import recent_reads

router = APIRouter(route_class=PageRoute)
PAGE = 50
_MOST_WAITERS = 20
_NOTES = {
    "set": "The numbers count from now on. What waits and may run now was announced.",
    "forgotten": "The numbers are those that stages declare. What waits and may run now was announced.",
}


class LimitsQuery(Query):
    cursor: Annotated[Cursor | None, BeforeValidator(blank_is_none)] = None


class LimitQuery(Query):
    note: Literal["set", "forgotten"] | None = None


@router.get("/ui/limits")
def show_limits(request: Request, services: Services, query: Annotated[LimitsQuery, InQuery()]) -> Response:
    """By name."""
    page = recent_reads(request).get(
        ("limits", query.cursor), lambda: services.limits.list_limits(limit=PAGE, cursor=query.cursor)
    )
    return render(request, "limits.html", nav="limits", limits=page.items, next_cursor=page.next_cursor)


@router.get("/ui/limits/{name:path}")
def show_limit(
    name: Annotated[LimitName, Path()],
    request: Request,
    services: Services,
    query: Annotated[LimitQuery, InQuery()],
) -> Response:
    """One limit, with the jobs that hold it and those that wait."""
    limit = _find(services, name)
    return render(
        request,
        "limit.html",
        nav="limits",
        limit=limit,
        waiters=services.limits.list_waiters(name, limit=_MOST_WAITERS),
        note=_NOTES.get(query.note or ""),
    )


@router.post("/ui/limits/{name:path}")
def change_limit(
    name: Annotated[LimitName, Path()],
    request: Request,
    services: Services,
    form: Form,
    query: NoQuery,
    actor: Actor,
) -> Response:
    """`action` set: choose its numbers; forget: leave them to the stages that declare it."""
    action = form.get("action")
    if action == "forget":
        limits_api.forget_limit(name, services, query, actor)
        # A limit that no stage needs is gone with the choice.
        found = services.limits.read_limits([name])
        return go_to(request, "limits", name, note="forgotten") if found else go_to(request, "limits")
    if action != "set":
        raise invalid_request([wrong_field("action", "set or forget", repr(action)[:100])])
    body: dict[str, Any] = {field: form[field] for field in ("rate", "reason") if field in form}
    if "at_once" in form:
        body["at_once"] = whole_number("at_once", form["at_once"].strip())
    limits_api.put_limit(name, services, body, query, actor)
    return go_to(request, "limits", name, note="set")


def _find(services: Services, name: str) -> LimitFacts:
    found = services.limits.read_limits([name])
    if not found:
        raise ProblemError(404, "unknown_limit", f"There is no limit {name!r} now: no stage has needed it for an hour.")
    return found[0]
