"""From a call to its answer: what to send, when to send it again, and how to read what came.

All of it is a generator that yields what is to be done, `Send` or `Sleep`, and gets the response: `Client` and
`AsyncClient` drive the same one, and only they know whether something is awaited.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Any, TypeVar

import httpx

from coremachine.client.call import Call
from coremachine.client.errors import (
    ApiProblem,
    ClientError,
    ServerUnreachable,
    Throttled,
    Unavailable,
    UnexpectedAnswer,
    problem_of,
)

T = TypeVar("T")
# Settings or code that somebody must change first: it does not help to ask again.
NEEDS_CHANGE = frozenset({"app_not_ready", "app_cannot_be_loaded"})
# The local host's 500 for a request that runs while the host ends.
_ENDS = "invocation_aborted"
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0
_SHOWN_TEXT = 500


@dataclass(frozen=True)
class Send:
    """Send it, and come back with the `httpx.Response`, or raise httpx's error here."""

    call: Call[Any]
    headers: Mapping[str, str]
    timeout_seconds: float


@dataclass(frozen=True)
class Sleep:
    seconds: float


Script = Generator[Send | Sleep, Any, T]


@dataclass
class Session:
    """What the calls of one client share.

    Args:
        retry_seconds: How long an outage may last in which a call is sent again.
        on_outage: Called with the error when an outage begins, and with None when the server answers again.
        was_reached: Whether the server has ever answered; one that has not may be the wrong one, and is not waited for.
    """

    url: str
    retry_seconds: float
    on_outage: Callable[[ClientError | None], None] | None = None
    was_reached: bool = False

    def note_outage(self, error: ClientError | None) -> None:
        if self.on_outage is not None:
            self.on_outage(error)


@dataclass(frozen=True)
class Reply:
    """An answer as it came. `document` is None where it has none (304)."""

    status: int
    document: Any
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """Of one call, where they differ from its client's. Seconds; `deadline` is by `time.monotonic()`."""

    retry_seconds: float | None = None
    timeout_seconds: float | None = None
    deadline: float = math.inf


def exchange(
    session: Session, call: Call[Any], limits: Limits | None = None, headers: Mapping[str, str] | None = None
) -> Script[Reply]:
    """The answer to a call, which is sent again while the server is away, where that does no more than sending it once.

    Raises:
        ClientError: Every error, the last one of an outage that did not end.
    """
    limits = limits or Limits()
    retry_seconds = session.retry_seconds if limits.retry_seconds is None else limits.retry_seconds
    send = Send(call, {**call.headers, **(headers or {})}, limits.timeout_seconds or call.timeout_seconds)
    end: float | None = None
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            reply = yield from _once(session, send)
        except ClientError as error:
            if not (session.was_reached and may_repeat(call, error)):
                raise
            now = time.monotonic()
            if end is None:
                end = min(limits.deadline, now + retry_seconds)
                if end > now:
                    session.note_outage(error)
            if now >= end:
                raise
            asked_for = getattr(error, "retry_after_seconds", None) or 0.0
            yield Sleep(min(max(pause, asked_for), end - now))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        else:
            if end is not None:
                session.note_outage(None)
            return reply


def is_outage(error: ClientError) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, ApiProblem):
        is_away = isinstance(error, Unavailable | Throttled) and error.code not in NEEDS_CHANGE
        return is_away or error.code == _ENDS
    return isinstance(error, ServerUnreachable)


def may_repeat(call: Call[Any], error: ClientError) -> bool:
    """What was refused for being one of too many did nothing, whatever it is."""
    return is_outage(error) and (call.repeats or isinstance(error, Throttled))


def perform(session: Session, call: Call[T]) -> Script[T]:
    """The answer as its model."""
    reply = yield from exchange(session, call)
    answer: T = read_answer(call, reply)
    return answer


def read_answer(call: Call[Any], reply: Reply) -> Any:
    """The model of an answer. Fields and words of a newer server are left out, and kept as texts.

    Raises:
        UnexpectedAnswer: It is not what the call answers.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - with the models, for the first answer that becomes one

    try:
        return _adapter(call.answer, is_page=call.is_page).validate_python(reply.document, extra="ignore")
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in wrong["loc"])
        raise UnexpectedAnswer(
            f"expected {call.answer} from {reply.url}, found {place or 'the answer'}: {wrong['msg']}; "
            "a server of an older release, or no CoreMachine"
        ) from error


def _once(session: Session, send: Send) -> Script[Reply]:
    try:
        response: httpx.Response = yield send
    except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
        # There was a connection.
        reason = f"it took the request, and did not answer within {send.timeout_seconds:g} s"
        raise ServerUnreachable(session.url, reason, is_silent=True) from error
    except httpx.TimeoutException as error:
        raise ServerUnreachable(session.url, "it did not answer in time") from error
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise ServerUnreachable(session.url, str(error) or type(error).__name__) from error
    document = _document_of(response)
    # A problem document is an answer too: a server that is not ready yet is there.
    session.was_reached = session.was_reached or isinstance(document, dict)
    status, url = response.status_code, str(response.url)
    if status == HTTPStatus.NOT_MODIFIED:
        return Reply(status, None, url, response.headers)
    if response.has_redirect_location:
        raise UnexpectedAnswer(_redirected(response))
    is_answer = response.is_success or (
        status in send.call.answers_too and isinstance(document, dict) and "code" not in document
    )
    if not is_answer:
        problem = document if isinstance(document, dict) else {"detail": response.text[:_SHOWN_TEXT]}
        raise problem_of(status, problem, _retry_after(response))
    if not isinstance(document, dict):
        raise UnexpectedAnswer(f"expected a JSON object from {url}, found something else: is it CoreMachine?")
    return Reply(status, document, url, response.headers)


def _redirected(response: httpx.Response) -> str:
    """Only where it leads: the rest may hold secrets of a sign-in."""
    target = response.url.join(response.headers["Location"])
    return (
        f"expected a JSON object from {response.url}, found a redirect to {target.scheme}://{target.netloc.decode()}: "
        "is this the address of the app, and does App Service ask for a sign-in there?"
    )


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds; CoreMachine sends no dates."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() and text.isascii() else None


def _document_of(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        # No JSON, no UTF-8, or a number with more digits than Python reads.
        return None


@cache
def _adapter(answer: str, *, is_page: bool) -> Any:
    from pydantic import TypeAdapter  # noqa: PLC0415 - as above

    from coremachine.client import models  # noqa: PLC0415

    kind: Any = dict[str, Any] if answer == "dict" else getattr(models, answer)
    return TypeAdapter(models.Page[kind] if is_page else kind)
