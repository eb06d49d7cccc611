"""Signing in with a key, for browsers: they cannot send a header of ours, so they get a cookie for the pages alone.

The cookie has the key itself: the settings have its digest only, and what could be made from a digest, a reader of the
settings could make too. Scripts cannot read it, no other site makes a browser send it, and it ends with the browser.
"""

import re
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request, Response
from fastapi import Query as InQuery
from pydantic import AfterValidator, BeforeValidator, Field
from starlette.types import Scope

from core.models.fields import expectation
from triggers.access import KEY_COOKIE, PAGES, AccessRules, cookie_of_key
from triggers.api_models import Query
from triggers.endpoints import NoQuery
from triggers.problems import ProblemError, answer, invalid_request, wrong_field
from triggers.ui.forms import Form
from triggers.ui.jobs_page import blank_is_none
from triggers.ui.page import HEADERS, PageRoute, go_to, links_of, problem_page, render, root_of
from triggers.ui.visitor import visitor_of

router = APIRouter(route_class=PageRoute)
_LONGEST_KEY, _LONGEST_PLACE = 1000, 2000
# A page of this app: nothing that leads to another host.
_PLACE = re.compile(r"/api/ui(/[A-Za-z0-9._~%/-]*)?(\?[A-Za-z0-9._~%&=+*-]*)?")
_ENTRA = "/.auth/login/aad"


def _check_place(text: str) -> str:
    if not _PLACE.fullmatch(text):
        raise expectation(f"a page below {PAGES}", repr(text)[:100])
    return text


Place = Annotated[str, Field(max_length=_LONGEST_PLACE), AfterValidator(_check_place)]


class SignInQuery(Query):
    # Where to go then.
    next: Annotated[Place | None, BeforeValidator(blank_is_none)] = None


def refuse_page(scope: Scope, problem: ProblemError) -> Response:
    """For the gate: a browser without a role is led to the sign-in page, with the way back; others read why not."""
    request = Request(scope)
    if problem.status == 401 and request.method == "GET":  # noqa: PLR2004
        return go_to(request, "sign-in", next=_place_of(request))
    return problem_page(request, answer(request.url.path, problem))


def _place_of(request: Request) -> str | None:
    """The page that was asked for; the host's key, which links carry, is none of it."""
    asked = [pair for pair in request.query_params.multi_items() if pair[0] not in {"code", "clientId"}]
    place = quote(request.scope["path"], safe="/") + (f"?{urlencode(asked)}" if asked else "")
    return place if len(place) <= _LONGEST_PLACE and _PLACE.fullmatch(place) else None


@router.get("/ui/sign-in")
def show_sign_in(request: Request, query: Annotated[SignInQuery, InQuery()]) -> Response:
    """The form; or the page that was asked for, if the browser has a role after all."""
    rules: AccessRules | None = request.app.state.access
    if rules is None or (query.next is not None and visitor_of(request).role is not None):
        return _lead_to(request, query.next)
    # After a link on another site the browser keeps its cookie back, once: the page then asks for itself again.
    is_from_elsewhere = request.headers.get("sec-fetch-site") == "cross-site"
    return _form(request, rules, query.next, asks_again=is_from_elsewhere)


@router.post("/ui/sign-in")
def sign_in(request: Request, form: Form, query: NoQuery) -> Response:
    """Take the key, if somebody has it."""
    del query
    rules: AccessRules | None = request.app.state.access
    place = _read_place(form.get("next"))
    if rules is None:
        return _lead_to(request, place)
    key = form.get("key", "").strip()
    if len(key) > _LONGEST_KEY or rules.find_holder(key) is None:
        return _form(request, rules, place, error="This key has no role here. Nothing was kept.")
    done = _lead_to(request, place)
    done.set_cookie(KEY_COOKIE, cookie_of_key(key), **_cookie_place(request))
    return done


@router.post("/ui/sign-out")
def sign_out(request: Request, form: Form, query: NoQuery) -> Response:
    """Forget the key."""
    del form, query
    done = go_to(request, "sign-in")
    done.delete_cookie(KEY_COOKIE, **_cookie_place(request))
    return done


def _form(
    request: Request, rules: AccessRules, place: str | None, *, error: str = "", asks_again: bool = False
) -> Response:
    back = root_of(request) + (place or PAGES)
    page = render(
        request,
        "sign_in.html",
        place=place or "",
        error=error,
        asks_again=asks_again,
        takes_keys=bool(rules.keys) and not rules.is_broken,
        entra=f"{_ENTRA}?{urlencode({'post_login_redirect_uri': back})}" if rules.takes_principals else "",
        nobody=_why_nobody(rules),
    )
    page.status_code = 401 if error else 200
    return page


def _why_nobody(rules: AccessRules) -> str:
    """Why no caller at all has a role; empty where some can have one."""
    if rules.is_broken:
        return "The setting for roles cannot be read; the log of the app names what is wrong with it."
    if not rules.keys and not rules.takes_principals:
        return "Roles of Entra are switched on, App Service's authentication is not, and there are no keys."
    return ""


def _read_place(text: str | None) -> str | None:
    if text is not None and (len(text) > _LONGEST_PLACE or not _PLACE.fullmatch(text)):
        raise invalid_request([wrong_field("next", f"a page below {PAGES}", repr(text[:100]))])
    return text


def _cookie_place(request: Request) -> dict[str, Any]:
    """Where the cookie counts: over TLS alone if the page came so; the platform ends TLS before the app."""
    schemes = (
        request.scope["scheme"],
        request.headers.get("x-forwarded-proto", ""),
        request.headers.get("origin", "").partition(":")[0],
    )
    return {
        "path": root_of(request) + PAGES,
        "secure": "https" in schemes,
        "httponly": True,
        "samesite": "strict",
    }


def _lead_to(request: Request, place: str | None) -> Response:
    if place is None:
        return go_to(request)
    _, _, code = links_of(request)("ui").partition("?")
    mark = "&" if "?" in place else "?"
    location = root_of(request) + place + (f"{mark}{code}" if code else "")
    return Response(status_code=303, headers={"Location": location, **HEADERS})
