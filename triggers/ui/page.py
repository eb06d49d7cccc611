"""How a page is made: its template, its links, its answer where something is wrong."""

import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from fastapi import Request, Response

from core.basics.first_imports import IMPORTS
from core.basics.version import VERSION
from triggers.endpoints import OneValueRoute
from triggers.problems import find_answer
from triggers.ui import texts
from triggers.ui.attention import find_alerts
from triggers.ui.cron_words import cron_words
from triggers.ui.guard import check_same_site
from triggers.ui.visitor import visitor_of

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent
# Nothing from elsewhere, nothing inline, no other page around it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY}
_KEPT_HEADERS = {"retry-after", "www-authenticate"}
# The pages of the navigation: place below /ui, name, the key that goes there after `g`, and the role that they need.
NAVIGATION = (
    ("jobs", "Jobs", "j", "viewer"),
    ("schedules", "Schedules", "s", "viewer"),
    ("queues", "Queues", "q", "viewer"),
    ("limits", "Limits", "l", "viewer"),
    ("dead-letters", "Dead letters", "d", "viewer"),
    ("webhooks", "Webhooks", "w", "operator"),
)
# The key that the Functions host asks for goes with each link, as people opened the page with it.
_PASSED_ON = ("code", "clientId")


class PageRoute(OneValueRoute):
    """An endpoint whose errors are pages, and whose POST is for pages of this app alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                if request.method == "POST":
                    check_same_site(request.headers)
                return await handle(request)
            except Exception as error:
                problem = _problem_of(request, error)
                if problem is None:
                    raise
                return problem

        return answer


def _problem_of(request: Request, error: Exception) -> Response | None:
    """The API's own answer to this error as a page; None for an error that it has no answer to."""
    answer = find_answer(request, error)
    return None if answer is None else problem_page(request, answer)


def problem_page(request: Request, answer: Response) -> Response:
    """The page of a problem that the API answers as JSON."""
    page = render(request, "error.html", problem=json.loads(bytes(answer.body)))
    page.status_code = answer.status_code
    for name in _KEPT_HEADERS & set(answer.headers):
        page.headers[name] = answer.headers[name]
    return page


def render(request: Request, template: str, **values: Any) -> Response:
    """The page. Templates have `url`, `now`, `visitor` and the values."""
    values = {"now": datetime.now(UTC), "version": VERSION, "visitor": visitor_of(request), **values}
    links = {"url": links_of(request), "navigation": NAVIGATION}
    # A page without a place, such as that of an error, needs no database.
    values["alerts"] = find_alerts(request) if "nav" in values else {}
    text = environment().get_template(template).render(request=request, **links, **values)
    return Response(text, media_type="text/html; charset=utf-8", headers=HEADERS)


def root_of(request: Request) -> str:
    """What is before the app's own paths; mostly nothing."""
    root: str = request.scope.get("app_root_path", request.scope.get("root_path", ""))
    return root


def links_of(request: Request) -> Callable[..., str]:
    """A function that makes links to pages of this app: `url("jobs", job_id, tab="events")`."""
    root = root_of(request)
    given = {name: request.query_params[name] for name in _PASSED_ON if request.query_params.get(name)}

    def url(*parts: object, **query: object) -> str:
        path = "/".join(quote(str(part), safe="") for part in ("api", *parts))
        asked = {name: value for name, value in query.items() if value not in (None, "", False, [])}
        asked = {name: "true" if value is True else value for name, value in asked.items()} | given
        return f"{root}/{path}" + (f"?{urlencode(asked, doseq=True)}" if asked else "")

    return url


def go_to(request: Request, *parts: str, **query: object) -> Response:
    """After a change: the browser asks for a page, so that a reload repeats nothing."""
    return Response(status_code=303, headers={"Location": links_of(request)("ui", *parts, **query), **HEADERS})


@lru_cache(maxsize=1)
def environment() -> "Environment":
    """The templates. Jinja2 is imported for the first page, and never at a cold start."""
    with IMPORTS:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    made = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for text in (
        texts.number,
        texts.capped,
        texts.duration,
        texts.ago,
        texts.exact,
        texts.short_id,
        texts.short_ids,
        texts.moment,
        texts.pretty_json,
        texts.words,
        texts.label,
        texts.code_parts,
        cron_words,
    ):
        made.filters[text.__name__] = text
    return made
