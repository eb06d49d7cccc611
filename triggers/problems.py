"""Every error of the HTTP API as application/problem+json (RFC 9457), with a stable `code` to decide by."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import DeliveryError, IdempotencyKeyReused, StoreUnavailable, SubmissionRefused
from infrastructure.queries import InvalidCursor, JobNotFound
from jobs.parameters import ParameterErrors
from jobs.registry import UnknownJobType
from triggers.ports import ServicesNotReady

log = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5


class FieldProblem(BaseModel):
    """One thing that is wrong with a request."""

    field: str
    expected: str
    found: str | None = None
    hint: str | None = None
    message: str


class Problem(BaseModel):
    """What every answer from 400 up holds. Decide by `code`; `detail` is for people and may change."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldProblem] | None = None
    # Of a conflict: where the job stands, and what may be asked of it there.
    job_status: str | None = None
    allowed_actions: list[str] | None = None


class ProblemError(Exception):
    """Raised by an endpoint: this answer and no other."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
        job_status: str | None = None,
        allowed_actions: Sequence[str] | None = None,
    ) -> None:
        self.status, self.code, self.detail = status, code, detail
        self.job_status, self.allowed_actions = job_status, allowed_actions
        self.errors, self.headers = tuple(errors), dict(headers or {})
        super().__init__(detail)


def expectation(expected: str, found: str, hint: str | None = None) -> PydanticCustomError:
    """What a validator raises, so that it is told with the words expected, found and hint."""
    return PydanticCustomError(
        "expectation", "expected {expected}, found {found}", {"expected": expected, "found": found, "hint": hint or ""}
    )


def install(api: FastAPI) -> None:
    """Make the app answer every error, also its own, with a problem."""
    api.add_middleware(LastResort)
    api.add_exception_handler(ProblemError, _own)
    api.add_exception_handler(HTTPException, _from_framework)
    api.add_exception_handler(RequestValidationError, _from_validation)
    api.add_exception_handler(ParameterErrors, _from_parameters)
    api.add_exception_handler(UnknownJobType, _from_unknown_job_type)
    api.add_exception_handler(IdempotencyKeyReused, _from_reused_key)
    api.add_exception_handler(SubmissionRefused, _from_refused_submission)
    api.add_exception_handler(JobNotFound, _from_unknown_job)
    api.add_exception_handler(InvalidCursor, _from_cursor)
    for unavailable in (StoreUnavailable, ServicesNotReady, DeliveryError):
        api.add_exception_handler(unavailable, _from_unavailable)


class LastResort:
    """Answers 500 for what nothing else caught, where the framework would answer in plain text and raise again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            if started or scope["type"] != "http":
                raise
            log.exception("request_failed", extra={"method": scope["method"], "path": scope["path"]})
            detail = "The request met an error that is not its fault; the log has the trace."
            await _answer(scope["path"], ProblemError(500, "internal_error", detail))(scope, receive, send)


def _answer(instance: str, problem: ProblemError) -> JSONResponse:
    body = Problem(
        type=f"urn:coremachine:problem:{problem.code}",
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.detail,
        instance=instance,
        code=problem.code,
        errors=list(problem.errors) or None,
        job_status=problem.job_status,
        allowed_actions=None if problem.allowed_actions is None else list(problem.allowed_actions),
    )
    return JSONResponse(
        body.model_dump(exclude_none=True),
        status_code=problem.status,
        headers=problem.headers,
        media_type=PROBLEM_MEDIA_TYPE,
    )


# Each handler is registered for its type alone; the framework's signature says Exception.
def _own(request: Request, error: Exception) -> JSONResponse:
    return _answer(request.url.path, error)  # type: ignore[arg-type]


def _from_framework(request: Request, error: Any) -> JSONResponse:
    path, method = request.url.path, request.method
    if error.status_code == HTTPStatus.NOT_FOUND:
        code, detail = "not_found", f"There is no {path!r} here; /api/docs lists what there is."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        code, detail = "method_not_allowed", f"{path}: expected {allowed}, found {method}."
    else:
        code, detail = "request_refused", str(error.detail)
    return _answer(path, ProblemError(error.status_code, code, detail, headers=error.headers))


def _from_validation(request: Request, error: Any) -> JSONResponse:
    return _answer(request.url.path, invalid_request([field_problem(item) for item in error.errors()]))


def _from_parameters(request: Request, error: Any) -> JSONResponse:
    errors = [FieldProblem.model_validate(item) for item in error.as_list()]
    return _answer(request.url.path, ProblemError(400, "invalid_parameters", str(error), errors=errors))


def _from_unknown_job_type(request: Request, error: Exception) -> JSONResponse:
    return _answer(request.url.path, ProblemError(404, "unknown_job_type", str(error)))


def _from_reused_key(request: Request, error: Exception) -> JSONResponse:
    return _answer(request.url.path, ProblemError(422, "idempotency_key_reused", str(error)))


def _from_refused_submission(request: Request, error: Any) -> JSONResponse:
    problem = ProblemError(409, "job_is_there", str(error), job_status=error.status)
    return _answer(request.url.path, problem)


def _from_unknown_job(request: Request, error: Any) -> JSONResponse:
    return _answer(request.url.path, unknown_job(error.job_id))


def _from_cursor(request: Request, error: Any) -> JSONResponse:
    found = FieldProblem(
        field="cursor",
        expected="the next_cursor of an earlier page of this list",
        found=repr(error.cursor[:100]),
        hint="leave it out to begin at the first page",
        message=str(error),
    )
    return _answer(request.url.path, invalid_request([found]))


def _from_unavailable(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, ServicesNotReady):
        code, detail = "app_not_ready", f"The app cannot work as it is set up: {error}"
    elif isinstance(error, DeliveryError):
        code, detail = "queue_unavailable", f"The request can be sent again without harm. {error}"
    else:
        code, detail = "database_unavailable", "The database cannot be reached now; send the request again later."
    log.warning("request_refused", extra={"path": request.url.path, "code": code, "reason": str(error)})
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return _answer(request.url.path, ProblemError(503, code, detail, headers=headers))


def unknown_job(job_id: str) -> ProblemError:
    """404 for an id that no job has."""
    return ProblemError(404, "unknown_job", f"There is no job {job_id}.")


def invalid_request(errors: Sequence[FieldProblem]) -> ProblemError:
    """400 with everything that is wrong with the request's path, query, headers or body."""
    return ProblemError(400, "invalid_request", "\n".join(error.message for error in errors), errors=errors)


def field_problem(item: Mapping[str, Any]) -> FieldProblem:
    """One of pydantic's errors in this API's words."""
    field = ".".join(str(part) for part in item["loc"][1:]) or str(item["loc"][0])
    if item["type"] == "expectation":
        context = item["ctx"]
        expected, found, hint = context["expected"], context["found"], context["hint"] or None
        field = context.get("field", field)
    else:
        expected = str(item["msg"]).removeprefix("Input should be ").removeprefix("String should ").lower()
        found, hint = None if item["type"] == "missing" else repr(item.get("input"))[:100], None
    message = f"{field}: expected {expected}" + (f", found {found}" if found else "") + (f"; {hint}" if hint else "")
    return FieldProblem(field=field, expected=expected, found=found, hint=hint, message=message)
