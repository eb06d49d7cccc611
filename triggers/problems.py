"""Every error of the HTTP API as application/problem+json (RFC 9457), with a stable `code` to decide by."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.authors.intact import intact
from core.basics.canonical import NotJson, ValueTooLarge, shown
from core.basics.outage import outage
from core.errors import (
    AuthorError,
    DataRefused,
    DeliveryError,
    IdempotencyKeyReused,
    InvalidParameters,
    JobTypeBusy,
    StoreBusy,
    StoreCancelled,
    StoreReadOnly,
    StoreShort,
    StoreUnavailable,
    SubmissionHangs,
    SubmissionRefused,
    UnknownWork,
)
from core.models.fields import without_consequences
from core.safety.credentials import redact
from core.safety.safe_log import safe_logger
from core.safety.safe_text import bounded_text
from infrastructure.base import ChangeRefused, DatabaseUnsuitable, RepositoryError
from infrastructure.queries import InvalidCursor, JobNotFound
from jobs.parameters import MAX_PROBLEMS, ParameterErrors, count_of
from jobs.registry import UnknownJobType
from triggers.ports import ServicesNotReady
from triggers.problem_models import FieldProblem, Problem

log = safe_logger(__name__)

PROBLEM_MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
_LONGEST_REASON = 2000


class ProblemError(Exception):
    """Raised by an endpoint: this answer and no other."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        more_errors: int = 0,
        headers: Mapping[str, str] | None = None,
        job_status: str | None = None,
        job_run: int | None = None,
        run_url: str | None = None,
        allowed_actions: Sequence[str] | None = None,
    ) -> None:
        self.status, self.code, self.detail = status, code, detail
        self.job_status, self.allowed_actions = job_status, allowed_actions
        self.job_run, self.run_url = job_run, run_url
        self.errors, self.headers = tuple(errors[:MAX_PROBLEMS]), dict(headers or {})
        self.more_errors = more_errors + len(errors) - len(self.errors)
        super().__init__(detail)


def install(api: FastAPI) -> None:
    """Make the app answer every error, also its own, with a problem."""
    api.add_middleware(LastResort)
    api.add_exception_handler(ProblemError, _own)
    api.add_exception_handler(HTTPException, _from_framework)
    api.add_exception_handler(RequestValidationError, _from_validation)
    for kind in _SUBMISSIONS.keys() - {StoreUnavailable, DataRefused}:
        api.add_exception_handler(kind, _from_submission)
    api.add_exception_handler(JobNotFound, _from_unknown_job)
    api.add_exception_handler(InvalidCursor, _from_cursor)
    api.add_exception_handler(DatabaseUnsuitable, _from_unsuitable)
    api.add_exception_handler(ChangeRefused, _from_refused)
    for unavailable in (StoreUnavailable, ServicesNotReady, DeliveryError):
        api.add_exception_handler(unavailable, _from_unavailable)


def find_answer(request: Request, error: Exception) -> JSONResponse | None:
    """The app's answer to an error outside of its endpoints; None for one that it has no answer to."""
    handlers = request.app.exception_handlers
    handler = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
    found: JSONResponse | None = None if handler is None else handler(request, error)
    return found


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
        except Exception as error:
            intact.note(error)
            if started or scope["type"] != "http":
                raise
            log.exception("request_failed", extra={"method": scope["method"], "path": scope["path"]})
            detail = "The request met an error that is not its fault; the log has the trace."
            await answer(scope["path"], ProblemError(500, "internal_error", detail))(scope, receive, send)


def answer(instance: str, problem: ProblemError) -> JSONResponse:
    """The problem as a response."""
    return JSONResponse(
        problem_document(instance, problem),
        status_code=problem.status,
        headers=problem.headers,
        media_type=PROBLEM_MEDIA_TYPE,
    )


def problem_document(instance: str, problem: ProblemError) -> dict[str, Any]:
    """The problem as JSON: bounded, and encodable whatever the request held."""
    return problem_of(instance, problem).model_dump(exclude_none=True)


def problem_of(instance: str, problem: ProblemError) -> Problem:
    """The problem as a part of an answer."""
    return Problem(
        type=f"urn:coremachine:problem:{problem.code}",
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.detail,
        instance=instance,
        code=problem.code,
        errors=list(problem.errors) or None,
        more_errors=problem.more_errors or None,
        job_status=problem.job_status,
        job_run=problem.job_run,
        run_url=problem.run_url,
        allowed_actions=None if problem.allowed_actions is None else list(problem.allowed_actions),
    )


# Each handler is registered for its type alone; the framework's signature has Exception.
def _own(request: Request, error: Exception) -> JSONResponse:
    return answer(request.scope["path"], error)  # type: ignore[arg-type]


def _from_framework(request: Request, error: Any) -> JSONResponse:
    path = request.scope["path"]
    if error.status_code == HTTPStatus.NOT_FOUND:
        code, detail = "not_found", f"There is no {shown(path, 300)} here; /api/docs lists what there is."
    else:
        code, detail = "request_refused", str(error.detail)
    return answer(path, ProblemError(error.status_code, code, detail, headers=error.headers))


def _from_validation(request: Request, error: Any) -> JSONResponse:
    return answer(
        request.scope["path"], invalid_request([field_problem(item) for item in without_consequences(error.errors())])
    )


def _from_submission(request: Request, error: Exception) -> JSONResponse:
    return answer(request.scope["path"], submission_problem(error))


def submission_problem(error: Exception) -> ProblemError:
    """What is wrong with a submission, whether it came alone or among others."""
    found = next((_SUBMISSIONS[kind] for kind in type(error).__mro__ if kind in _SUBMISSIONS), None)
    if found is None:
        raise error
    return found(error)


def _parameters(error: Any) -> ProblemError:
    errors = [FieldProblem.model_validate(item) for item in error.as_list()]
    return ProblemError(400, "invalid_parameters", str(error), errors=errors, more_errors=error.more)


def _large_parameters(error: Any) -> ProblemError:
    expected, found = f"at most {error.most_bytes} bytes of JSON", str(error.size)
    problem = FieldProblem(field="parameters", expected=expected, found=found, message=str(error))
    return ProblemError(400, "invalid_parameters", str(error), errors=[problem])


def _author(error: Any) -> ProblemError:
    """The request may be right: the job type's own code is not."""
    log.error("job_type_failed", exc_info=error, extra={"code": "job_type_failed"})
    reason = bounded_text(error.failure.message, _LONGEST_REASON)
    detail = f"The job type's own code failed; nothing was written. {error.failure.error_type}: {reason}"
    return ProblemError(500, "job_type_failed", detail)


def _unavailable(error: Exception) -> ProblemError:
    """Of a submission among others; one alone is answered by `_from_unavailable`."""
    outage.note(redact(str(error)))
    return ProblemError(503, "database_unavailable", _away(error))


def _away(error: Exception) -> str:
    """Nothing of the reason, which may name hosts and users."""
    if isinstance(error, StoreCancelled):
        return (
            "The database stopped the statement: it took longer than a limit of the server's allows, or somebody "
            "cancelled it. Raise statement_timeout for the role of this app, or send the request again later."
        )
    if isinstance(error, StoreReadOnly):
        return (
            "The database takes no writes now: it is a standby, or default_transaction_read_only is on for the role "
            "or the database of this app. Change that, or send the request again later."
        )
    if isinstance(error, StoreShort):
        return (
            f"The database answers, and refused the statement now ({error.condition}): a limit of its own, or of this "
            "app's role, is reached. Raise that, or send the request again later."
        )
    if not isinstance(error, StoreBusy):
        return "The database cannot be reached now; send the request again later."
    return (
        f"All {error.connections} database connections of this process are in use; send the request again later. "
        "COREMACHINE_POOL_SIZE sets how many it has."
    )


# The nearest class of an error counts.
_SUBMISSIONS: dict[type[Exception], Callable[[Any], ProblemError]] = {
    ParameterErrors: _parameters,
    InvalidParameters: lambda error: ProblemError(400, "invalid_parameters", str(error)),
    ValueTooLarge: _large_parameters,
    NotJson: lambda error: ProblemError(400, "invalid_parameters", str(error)),
    DataRefused: lambda error: ProblemError(400, "invalid_parameters", redact(str(error))),
    AuthorError: _author,
    SubmissionHangs: lambda error: ProblemError(504, "validation_hangs", error.failure.message),
    JobTypeBusy: lambda error: ProblemError(
        503, "job_type_busy", f"{error}. Nothing was written.", headers={"Retry-After": str(RETRY_AFTER_SECONDS)}
    ),
    UnknownJobType: lambda error: ProblemError(404, "unknown_job_type", str(error)),
    UnknownWork: lambda error: ProblemError(409, "unknown_work", str(error)),
    IdempotencyKeyReused: lambda error: ProblemError(422, "idempotency_key_reused", str(error)),
    SubmissionRefused: lambda error: ProblemError(409, "job_is_there", str(error), job_status=error.status),
    StoreUnavailable: _unavailable,
}


def _from_unknown_job(request: Request, error: Any) -> JSONResponse:
    return answer(request.scope["path"], unknown_job(error.job_id))


def _from_cursor(request: Request, error: Any) -> JSONResponse:
    found = FieldProblem(
        field="cursor",
        expected="the next_cursor of an earlier page of this list",
        found=repr(error.cursor[:100]),
        hint="leave it out to begin at the first page",
        message=str(error),
    )
    return answer(request.scope["path"], invalid_request([found]))


def _from_unavailable(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, ServicesNotReady):
        code, detail = "app_not_ready", f"The app cannot work as it is set up: {error}"
    elif isinstance(error, DeliveryError):
        code, detail = "queue_unavailable", f"The request can be sent again without harm. {error}"
    else:
        code, detail = "database_unavailable", _away(error)
        outage.note(redact(str(error)))
    _log_refused(request, code, error)
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return answer(request.scope["path"], ProblemError(503, code, detail, headers=headers))


def _from_unsuitable(request: Request, error: Any) -> JSONResponse:
    """The database answers, and somebody must change something; the look at it knows more than the one statement."""
    outage.note(redact(str(error)))
    check = request.app.state.get_services().check_database()
    found = f" {check.detail}." if not check.ok and check.detail != error.reason else ""
    detail = f"The database does not suit this app; send the request again later.{found} {error.reason}"
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    problem = ProblemError(503, "database_unsuitable", redact(detail), headers=headers)
    return answer(request.scope["path"], problem)


def _from_refused(request: Request, error: Any) -> JSONResponse:
    """Of a trigger or a rule, first line alone: what comes after it names functions of the engine."""
    reason = redact(error.reason.splitlines()[0])
    _log_refused(request, "database_unsuitable", error)
    detail = (
        f"The database refused the change, and all of it was rolled back: {reason}. Look for triggers and rules of the "
        "engine's tables that are not the engine's (`coremachine db status` names them)."
    )
    return answer(request.scope["path"], ProblemError(503, "database_unsuitable", detail))


def _log_refused(request: Request, code: str, error: Exception) -> None:
    level = logging.DEBUG if code == "database_unavailable" else logging.WARNING
    log.log(level, "request_refused", extra={"path": request.scope["path"], "code": code, "reason": redact(str(error))})


def unknown_job(job_id: str) -> ProblemError:
    """404 for an id that no job has."""
    return ProblemError(404, "unknown_job", f"There is no job {job_id}.")


def unknown(what: str, error: RepositoryError) -> ProblemError:
    """404 for what a job does not have; the error names it."""
    return ProblemError(404, f"unknown_{what}", f"{error.reason[:1].upper()}{error.reason[1:]}.")


def invalid_request(errors: Sequence[FieldProblem], more: int = 0) -> ProblemError:
    """400 with what is wrong with the request's path, query, headers or body; `more` counts further problems."""
    more += max(0, len(errors) - MAX_PROBLEMS)
    lines = [error.message for error in errors[:MAX_PROBLEMS]] + ([f"and {more} more"] if more else [])
    return ProblemError(400, "invalid_request", "\n".join(lines), errors=errors[:MAX_PROBLEMS], more_errors=more)


def wrong_field(field: str, expected: str, found: str | None, hint: str | None = None) -> FieldProblem:
    """One wrong field, with the sentence made of its parts."""
    message = f"{field}: expected {expected}" + (f", found {found}" if found else "") + (f"; {hint}" if hint else "")
    return FieldProblem(field=field, expected=expected, found=found, hint=hint, message=message)


def field_problem(item: Mapping[str, Any]) -> FieldProblem:
    """One of pydantic's errors in this API's words."""
    field = ".".join(str(part) for part in item["loc"][1:]) or str(item["loc"][0])
    if item["type"] == "expectation":
        context = item["ctx"]
        expected, found, hint = context["expected"], context["found"], context["hint"] or None
        field = context.get("field", field)
    else:
        expected = _expected(item)
        found, hint = "nothing" if item["type"] == "missing" else shown(item.get("input"), 100), None
    return wrong_field(field, expected, found, hint)


_LENGTHS = frozenset({"too_short", "too_long", "string_too_short", "string_too_long"})
# Where pydantic's own sentence does not fit after "expected".
_EXPECTED = {
    "missing": "a value",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "string_type": "text",
    "timezone_aware": "a time with its offset, such as 2026-03-01T06:00:00Z",
}
_BEGINNINGS = re.compile("(?:Input should be |String should |Value should )?(.)")


def _expected(item: Mapping[str, Any]) -> str:
    """What pydantic expected, without its beginning; the letters of a pattern stay as they are."""
    kind, context = item["type"], item.get("ctx") or {}
    if kind in _LENGTHS:
        least = context.get("min_length")
        bound = context["max_length"] if least is None else least
        return f"at {'most' if least is None else 'least'} {count_of(item.get('input'), bound)}"
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind == "string_pattern_mismatch":
        return f"text that matches {context['pattern']}"
    if kind == "int_parsing_size":
        return "a number of fewer digits"
    return _BEGINNINGS.sub(lambda found: found[1].lower(), str(item["msg"]), count=1)
