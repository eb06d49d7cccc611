"""Dead letters: grouped by reason, one by one, and sent again."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi import Query as InQuery
from pydantic import BeforeValidator, Field

from core.models.fields import Cursor, DeadLetterId, Fingerprint
from triggers import insight_api
from triggers.actor import Actor
from triggers.api_models import Query
from triggers.endpoints import NoQuery
from triggers.insight_models import DeadLettersQuery
from triggers.ui.forms import Form
from triggers.ui.jobs_page import blank_is_none
from triggers.ui.page import PageRoute, go_to, render
from triggers.ui.ports import Services, UiServices

router = APIRouter(route_class=PageRoute)
PAGE = 50


class LettersQuery(Query):
    fingerprint: Annotated[Fingerprint | None, BeforeValidator(blank_is_none)] = None
    resolved: bool = False
    cursor: Annotated[Cursor | None, BeforeValidator(blank_is_none)] = None
    # What a redrive did, as counts by outcome; never a text that a link could put on the page.
    done: Annotated[str | None, Field(pattern=r"^[a-z_]{1,20}:[0-9]{1,9}(,[a-z_]{1,20}:[0-9]{1,9}){0,9}$")] = None


@router.get("/ui/dead-letters")
def show_dead_letters(request: Request, services: Services, query: Annotated[LettersQuery, InQuery()]) -> Response:
    """The groups, and the letters of one of them or of all."""
    groups = services.dead_letter_queries.group_dead_letters(resolved=query.resolved)
    asked = DeadLettersQuery(fingerprint=query.fingerprint, resolved=query.resolved, cursor=query.cursor, limit=PAGE)
    letters = services.dead_letter_queries.list_dead_letters(
        fingerprint=asked.fingerprint, resolved=query.resolved, limit=asked.limit, cursor=asked.cursor
    )
    chosen = next((group for group in groups if group.fingerprint == query.fingerprint), None)
    return render(
        request,
        "dead_letters.html",
        nav="dead-letters",
        groups=groups,
        letters=letters.items,
        next_cursor=letters.next_cursor,
        fingerprint=query.fingerprint,
        chosen=chosen,
        resolved=query.resolved,
        forecast=_forecast(services, query.fingerprint) if query.fingerprint and not query.resolved else None,
        note=_note(query.done),
    )


def _forecast(services: UiServices, fingerprint: str) -> dict[str, int]:
    """What a redrive of the group would do now, by outcome."""
    answer = insight_api.redrive_dead_letters(services, {"fingerprint": fingerprint, "dry_run": True}, Query(), None)
    return dict(answer.counts)


@router.get("/ui/dead-letters/{dead_letter_id}")
def show_dead_letter(
    dead_letter_id: Annotated[DeadLetterId, Path()], request: Request, services: Services, query: NoQuery
) -> Response:
    """One, with its body."""
    del query
    letter = insight_api.get_dead_letter(dead_letter_id, services, Query())
    return render(request, "dead_letter.html", nav="dead-letters", letter=letter)


@router.post("/ui/dead-letters/redrive")
def redrive(request: Request, services: Services, form: Form, query: NoQuery, actor: Actor) -> Response:
    """Send a group again, or one letter."""
    del query
    body: dict[str, object] = {name: form[name] for name in ("fingerprint",) if name in form}
    if form.get("id", "").isdigit():
        body["ids"] = [int(form["id"])]
    answer = insight_api.redrive_dead_letters(services, body, Query(), actor)
    counts = {**answer.counts, "remaining": answer.remaining}
    done = ",".join(f"{outcome}:{count}" for outcome, count in sorted(counts.items()) if count)
    return go_to(request, "dead-letters", done=done)


def _note(done: str | None) -> str | None:
    if done is None:
        return None
    pairs = [pair.split(":") for pair in done.split(",")]
    return "Redriven: " + ", ".join(f"{int(count):,} {outcome.replace('_', ' ')}" for outcome, count in pairs) + "."
