"""The page about a job's result that its job type offers, and its parts.

Where the host asks for a key, `/api/jobs/{job_id}/preview?code=<key>` passes it on to what the page loads.
"""

from functools import partial
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool

from core.authors.author_code import call_author
from jobs.views import (
    NoSuchPart,
    NothingToShow,
    ViewAnswer,
    ViewBusy,
    ViewFailed,
    ViewNotInstalled,
    ViewProblem,
    ViewRequest,
    load_view,
)
from triggers.author_threads import run_of_type
from triggers.endpoints import JobIdPath, NoQuery, Services
from triggers.ports import ApiServices
from triggers.problems import ProblemError

router = APIRouter()

# Whatever a job type writes into its page: nothing from elsewhere, nothing inline, and no other page around it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_RETRY_AFTER_SECONDS = 1
_PROBLEMS: dict[type[ViewProblem], tuple[int, str]] = {
    ViewProblem: (503, "preview_failed"),
    NoSuchPart: (404, "not_found"),
    NothingToShow: (409, "nothing_to_show"),
    ViewBusy: (429, "too_many_requests"),
    ViewNotInstalled: (501, "preview_not_installed"),
    ViewFailed: (503, "preview_failed"),
}


@router.get("/jobs/{job_id}/preview")
async def show_preview(job_id: JobIdPath, services: Services, query: NoQuery) -> Response:
    """The page."""
    return await _answer(services, job_id, "", query)


@router.get("/jobs/{job_id}/preview/{part}")
async def get_preview_part(
    job_id: JobIdPath, part: Annotated[str, InPath(max_length=200)], services: Services, query: NoQuery
) -> Response:
    """What the page is made of."""
    return await _answer(services, job_id, part, query)


async def _answer(services: ApiServices, job_id: str, part: str, query: NoQuery) -> Response:
    job = (await run_in_threadpool(services.queries.get_job_detail, job_id)).job
    name = _find_name(services, job.job_type)
    if name is None:
        raise ProblemError(404, "no_preview", f"Jobs of type {job.job_type} have no preview.")
    given = {key: value for key, value in (("code", query.code), ("clientId", query.clientId)) if value}
    asked = ViewRequest(job_id, job.run, str(job.status), job.result, part, f"?{urlencode(given)}" if given else "")
    found = await run_of_type(services, job.job_type, partial(call_author, _ask, name, asked))
    if not isinstance(found, ViewProblem):
        return found
    status, code = next(_PROBLEMS[kind] for kind in type(found).__mro__ if kind in _PROBLEMS)
    headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if status in {429, 503} else {}
    raise ProblemError(status, code, str(found), headers=headers)


def _ask(name: str, asked: ViewRequest) -> Response | ViewProblem:
    """Inside of the boundary: the view may do anything, and what it answers may be anything."""
    try:
        return _response(load_view(name)(asked))
    except ViewProblem as problem:
        return problem


def _find_name(services: ApiServices, job_type: str) -> str | None:
    """None as well for a job type that this app does not know any more: its job is still there."""
    registry = services.registry
    return registry.get_job(job_type).view if job_type in registry.job_types else None


def _response(found: ViewAnswer) -> Response:
    headers = {**found.headers, "Content-Security-Policy": POLICY}
    return Response(found.content, media_type=found.media_type, headers=headers)
