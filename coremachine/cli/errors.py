"""How a command ends, and errors that a person reads.

CliError
+-- UsageProblem        what was asked for makes no sense
+-- ServerUnreachable   no server answers
+-- ServerSilent        a server is there, and does not answer
+-- ApiError            the server refused; holds its problem document
+-- TimeIsUp            the wait was longer than allowed
"""

from collections.abc import Mapping
from enum import IntEnum
from http import HTTPStatus
from typing import Any

from coremachine import client
from coremachine.cli.stack_log import find_stack_log


class Exit(IntEnum):
    """Exit codes; scripts rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    TIMEOUT = 5
    UNREACHABLE = 6


class CliError(Exception):
    """A reason to end with an exit code; its text is for people."""

    exit_code = Exit.FAILED

    @property
    def summary(self) -> str:
        """What happened, without the advice: the first line of the text."""
        return str(self).partition("\n")[0]

    def to_json(self) -> dict[str, Any]:
        """For programs: `title`, `detail` and `exit_code`; the server's problem document where it has one."""
        return {"title": self.summary, "detail": str(self), "exit_code": int(self.exit_code)}


class UsageProblem(CliError):
    """What was asked for makes no sense."""

    exit_code = Exit.USAGE


class TimeIsUp(CliError):
    """The wait was longer than allowed; the job goes on."""

    exit_code = Exit.TIMEOUT


class NoResult(CliError):
    """The job has none: it has not ended, or not well."""

    exit_code = Exit.CONFLICT


class ServerUnreachable(CliError):
    """No server answers."""

    exit_code = Exit.UNREACHABLE

    def __init__(self, url: str, reason: str, origin: str | None = None) -> None:
        super().__init__(
            f"no server at {url}{f' ({origin})' if origin else ''}: {reason}\n"
            "Start one with `coremachine up`, or name another with --url or COREMACHINE_URL."
        )


class ServerSilent(CliError):
    """A server takes requests, and answers none: its processes hang, or have too much to do."""

    exit_code = Exit.UNREACHABLE

    def __init__(self, url: str, reason: str, origin: str | None = None) -> None:
        log = find_stack_log(url)
        see = f"its log, {log}," if log is not None else "the log of its host"
        super().__init__(
            f"no answer from {url}{f' ({origin})' if origin else ''}: {reason}\n"
            f"A server is there: see {see} and whether its processes are stopped, or have no memory or "
            "processor left; restart it if it stays so."
        )


class ApiError(CliError):
    """The server refused, or failed. `problem` is its RFC 9457 document."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        self.exit_code = exit_code_of(status)
        super().__init__(describe_problem(status, problem))

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), **self.problem, "status": self.status}


def error_of(error: client.ClientError, origin: str | None) -> CliError:
    """An error of the client, for people. `origin`: who named the address."""
    if isinstance(error, client.ApiProblem):
        return ApiError(error.status, error.problem)
    if isinstance(error, client.ServerUnreachable):
        kind = ServerSilent if error.is_silent else ServerUnreachable
        return kind(error.url, error.reason, origin)
    return UsageProblem(str(error)) if isinstance(error, client.WrongArgument) else CliError(str(error))


def exit_code_of(status: int) -> Exit:
    """The exit code for an HTTP status."""
    known = {HTTPStatus.NOT_FOUND: Exit.NOT_FOUND, HTTPStatus.CONFLICT: Exit.CONFLICT, HTTPStatus.GONE: Exit.CONFLICT}
    if status in known:
        return known[HTTPStatus(status)]
    return Exit.USAGE if status < HTTPStatus.INTERNAL_SERVER_ERROR else Exit.UNREACHABLE


def describe_problem(status: int, problem: Mapping[str, Any]) -> str:
    """The problem for people: what it is, then what to know, a line for each field that is wrong."""
    title = str(problem.get("title") or f"HTTP {status}")
    code = problem.get("code")
    lines = [f"{title} ({status}{f', {code}' if code else ''})"]
    errors = problem.get("errors") or []
    if errors:
        lines += [f"  {_describe_field(error)}" for error in errors]
        if problem.get("more_errors"):
            lines.append(f"  and {problem['more_errors']:,} more")
    elif problem.get("detail"):
        lines.append(str(problem["detail"]))
    advice = _advice_on(status, str(code or ""))
    return "\n".join([*lines, advice] if advice else lines)


def _advice_on(status: int, code: str) -> str | None:
    """What helps on the command line beside the server's own words."""
    # The local stack refuses foreign hosts and origins; no key would change that.
    if status == HTTPStatus.UNAUTHORIZED or (status == HTTPStatus.FORBIDDEN and not code.startswith("foreign_")):
        return "Set COREMACHINE_FUNCTION_KEY to a key of this app."
    return None


def _describe_field(error: Any) -> str:
    if not isinstance(error, Mapping):
        return str(error)
    if error.get("message"):
        return str(error["message"])
    text = f"{error.get('field', '?')}: expected {error.get('expected', '?')}, found {error.get('found', '?')}"
    return f"{text}; {error['hint']}" if error.get("hint") else text
