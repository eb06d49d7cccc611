"""What a call can end with, apart from its answer.

ClientError
+-- WrongArgument        an argument that no request can have
+-- ServerUnreachable    no server answers
+-- UnexpectedAnswer     something answers that is not CoreMachine, or not of a release that this client knows
+-- WaitTimeout          the job has not ended in time
+-- ApiProblem           the server's problem document
    +-- InvalidRequest   400, 405, 411, 413, 415: the request itself is wrong; `errors` names its fields
    +-- Unauthorized     401: a key is missing or wrong
    +-- Forbidden        403: the caller's role is too low
    +-- NotFound         404
    +-- Conflict         409, 410, 422: what the state of a job, or an earlier request, does not allow
    +-- Throttled        429: too many requests
    +-- ServerFault      5xx: an error that is not the request's fault
        +-- Unavailable  502, 503, 504: the same request may succeed later
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any


class ClientError(Exception):
    """Any error of this client."""


class WrongArgument(ClientError, ValueError):
    """An argument that no request can have, such as an empty id."""


class ServerUnreachable(ClientError):
    """No server answers.

    Args:
        url: Where it was looked for.
        reason: What happened.
        is_silent: Something took the request there, and gave no answer in time.
    """

    def __init__(self, url: str, reason: str, *, is_silent: bool = False) -> None:
        self.url, self.reason, self.is_silent = url, reason, is_silent
        super().__init__(f"{'no answer from' if is_silent else 'no server at'} {url}: {reason}")


class UnexpectedAnswer(ClientError):
    """What answers is not CoreMachine, or of a release whose answers this client does not know."""


class WaitTimeout(ClientError, TimeoutError):
    """The job has not ended in time; it goes on. `job_id` and `status` are as last seen."""

    def __init__(self, job_id: str, status: str, timeout_seconds: float) -> None:
        self.job_id, self.status = job_id, status
        super().__init__(f"job {job_id} is still {status} after {timeout_seconds:g} s, and goes on")


class ApiProblem(ClientError):
    """The server refused, or failed.

    Args:
        status: The HTTP status.
        problem: The RFC 9457 document; empty where a gateway answered with something else.
        retry_after_seconds: What the answer's Retry-After asks for.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after_seconds: float | None = None) -> None:
        self.status, self.problem, self.retry_after_seconds = status, dict(problem), retry_after_seconds
        code = f", {self.code}" if self.code else ""
        text = f"{self.title} ({status}{code})"
        super().__init__(f"{text}: {self.detail}" if self.detail else text)

    @property
    def code(self) -> str:
        """Decide by it; docs/reference/problem-codes.md has all. Empty for an answer that is none of the API's."""
        return str(self.problem.get("code") or "")

    @property
    def title(self) -> str:
        return str(self.problem.get("title") or f"HTTP {self.status}")

    @property
    def detail(self) -> str:
        """For people; it may change."""
        return str(self.problem.get("detail") or "")

    @property
    def errors(self) -> Sequence[Mapping[str, Any]]:
        """What is wrong with single fields: each has field, expected, found, hint and message."""
        found = self.problem.get("errors")
        return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


class InvalidRequest(ApiProblem):
    """The request itself is wrong."""


class Unauthorized(ApiProblem):
    """A key is missing or wrong."""


class Forbidden(ApiProblem):
    """The caller's role is too low."""


class NotFound(ApiProblem):
    """There is no such thing."""


class Conflict(ApiProblem):
    """What the state of a job, or an earlier request, does not allow.

    `problem` has job_status, job_run and allowed_actions where they are known.
    """


class Throttled(ApiProblem):
    """Too many requests at once."""


class ServerFault(ApiProblem):
    """An error that is not the request's fault."""


class Unavailable(ServerFault):
    """The same request may succeed later: the database, a queue or the app is away."""


_BY_STATUS: Mapping[int, type[ApiProblem]] = {
    HTTPStatus.UNAUTHORIZED: Unauthorized,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.GONE: Conflict,
    HTTPStatus.UNPROCESSABLE_ENTITY: Conflict,
    HTTPStatus.TOO_MANY_REQUESTS: Throttled,
    HTTPStatus.BAD_GATEWAY: Unavailable,
    HTTPStatus.SERVICE_UNAVAILABLE: Unavailable,
    HTTPStatus.GATEWAY_TIMEOUT: Unavailable,
}


def problem_of(status: int, problem: Mapping[str, Any], retry_after_seconds: float | None) -> ApiProblem:
    """The error of its family."""
    is_fault = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    family = _BY_STATUS.get(status, ServerFault if is_fault else InvalidRequest)
    return family(status, problem, retry_after_seconds)
