"""The HTTP API as the Functions host calls it, made at the first request."""

import functools
import logging
import os
from json import dumps
from urllib.parse import unquote_to_bytes, urlsplit

import azure.functions as func

from core.basics.first_imports import keep_imported
from core.safety.safe_log import safe_logger
from triggers.access import AccessRules
from triggers.actor import is_authentication_on
from triggers.api import create_api
from triggers.edge import HEADERS, find_host_problem
from triggers.ports import ApiServices, ServicesNotReady
from triggers.problems import PROBLEM_MEDIA_TYPE, ProblemError, invalid_request, problem_document, wrong_field
from triggers.read_audit import wants_reads
from triggers.services import get_api_services
from triggers.traces import TracedRequests

log = safe_logger(__name__)


async def answer(request: func.HttpRequest, context: func.Context, *, problems: tuple[str, ...]) -> func.HttpResponse:
    """The API's answer; it names the settings that keep the app from working."""
    problem = find_target_problem(request)
    if problem is not None:
        return _refusal(problem)
    try:
        response: func.HttpResponse = await _middleware(problems).handle_async(request, context)
    except Exception:
        # The app answers for its own errors: this is Azure's library, on what it cannot read.
        log.exception("request_unreadable", extra={"method": request.method})
        return _refusal(ProblemError(400, "malformed_request", "The request's address or headers cannot be read."))
    return response


def find_target_problem(request: func.HttpRequest) -> ProblemError | None:
    """What is wrong with the address that was asked for, where Azure's library would raise on it."""
    problem = find_host_problem(request.headers.get("host"))
    if problem is not None:
        return problem
    try:
        unquote_to_bytes(urlsplit(request.url).path).decode()
    except ValueError:
        return invalid_request([wrong_field("path", "percent-encoded UTF-8", ascii(request.url[:300]))])
    return None


def _refusal(problem: ProblemError) -> func.HttpResponse:
    return func.HttpResponse(
        dumps(problem_document("/", problem)),
        status_code=problem.status,
        headers=HEADERS,
        mimetype=PROBLEM_MEDIA_TYPE,
    )


def _record_read(job_id: str, actor: str | None, path: str) -> None:
    get_api_services().audit.record_read(job_id, actor, path)


def _is_no_answer(record: logging.LogRecord) -> bool:
    """Azure's library logs each answer whole at debug: the cookie that has a key, parameters and results."""
    return record.msg != "Received %s from ASGI worker."


@functools.cache
def _middleware(problems: tuple[str, ...]) -> func.AsgiMiddleware:
    def refuse() -> ApiServices:
        raise ServicesNotReady("; ".join(problems))

    trusts = is_authentication_on(os.environ)
    access = AccessRules.read(os.environ, trusts_principal=trusts)
    record_read = _record_read if wants_reads(os.environ) else None
    services = refuse if problems else get_api_services
    api = create_api(services, trusts_principal=trusts, access=access, record_read=record_read)
    logging.getLogger().addFilter(_is_no_answer)
    middleware = func.AsgiMiddleware(TracedRequests(api))  # type: ignore[no-untyped-call]
    keep_imported()
    return middleware
