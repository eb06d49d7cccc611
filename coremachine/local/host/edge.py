"""The outermost layer of the HTTP server: what uvicorn leaves open is decided here, before the app sees a request.

- Who may ask: not the pages of other origins (`coremachine.local.web_guard`).
- What a request may look like: target, version, framing, and the limits of Kestrel, the server of Azure's host.
- How long a client may take: a head 30 s; a body 30 s and one second more for each 240 bytes that came, Kestrel's rate;
  30 s without taking any of an answer.
- How many connections a worker keeps (`coremachine.local.connections`).

Every refusal is a problem document, after which the connection ends: later bytes cannot be trusted.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from coremachine.local.connections import ConnectionBook
from coremachine.local.host.cors import NO_CORS, CorsPolicy
from coremachine.local.problem import Problem, RefusedError
from coremachine.local.request_head import check_head
from coremachine.local.web_guard import is_loopback_address

# uvicorn warns of each request that cannot be parsed: its client has the answer, and a flood of them no line each.
_log = logging.getLogger(f"{__name__}.uvicorn")
_log.setLevel(logging.ERROR)

_BODY_BYTES_PER_TICK = 240
# Bytes that belong neither to the head that was checked nor to a body: an unfinished head, chunk extensions, trailers.
_MAX_UNSEEN_BYTES = 64 * 1024
_MOST_FRAMING_BYTES = 16


@dataclass(frozen=True)
class EdgeLimits:
    """The first three are Kestrel's defaults, the fourth that of Azure's host."""

    request_line_bytes: int = 8 * 1024
    header_bytes: int = 32 * 1024
    header_count: int = 100
    body_bytes: int = 100 * 1024 * 1024
    silence_ticks: int = 30
    farewell_ticks: int = 2


class Phase(Enum):
    """What the parser expects next."""

    BETWEEN = auto()
    HEAD = auto()
    BODY = auto()
    FAREWELL = auto()  # a refusal has been written: what still comes is thrown away, so that the client can read it


# Looked up with each request: an attribute of an Enum costs more than a name.
_BETWEEN, _HEAD, _BODY, _FAREWELL = Phase.BETWEEN, Phase.HEAD, Phase.BODY, Phase.FAREWELL

_TOO_SLOW = Problem(
    408, "request_timeout", "Expected the whole request in time, found part of it. Send it again at once."
)
_FULL = Problem(
    503,
    "too_many_connections",
    "Expected a free connection, found all of them at work. Send the request again later.",
    (("retry-after", "5"),),
)
_GARBAGE = Problem(400, "malformed_request", "Expected an HTTP/1.1 request, found something that cannot be parsed.")


def too_long_line(limit: int) -> RefusedError:
    detail = f"Expected a request line of at most {limit} bytes, found a longer one. Send the data in a body."
    return RefusedError(Problem(414, "target_too_long", detail))


def too_large_head(limits: EdgeLimits) -> RefusedError:
    detail = f"Expected at most {limits.header_count} headers of {limits.header_bytes} bytes together, found more."
    return RefusedError(Problem(431, "headers_too_large", detail))


def too_large_body(limit: int) -> RefusedError:
    return RefusedError(
        Problem(413, "body_too_large", f"Expected a body of at most {limit} bytes, found a larger one.")
    )


class EdgeProtocol(HttpToolsProtocol):
    """One client's connection."""

    def __init__(
        self,
        book: ConnectionBook,
        limits: EdgeLimits,
        cors: CorsPolicy = NO_CORS,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _log
        self._running: RequestResponseCycle | None = None
        self._book = book
        self._limits = limits
        self._cors = cors
        self._phase = _BETWEEN
        self._ticks = 0
        self._fed = 0  # bytes since this head or body began
        self._received = 0  # bytes of this body
        self._unsent = 0  # bytes of answers that the client had not taken at the last tick
        self._refusal: Problem | None = None
        self._on_loopback = False

    # What the server calls.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._on_loopback = self.server is None or is_loopback_address(self.server[0])
        if not self._book.admit(self):
            self._refuse(_FULL)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._running is not None:
            self._running.disconnected = True  # uvicorn knows only the last of several requests sent at once
            self._running.message_event.set()
        self._book.lost(self)

    def data_received(self, data: bytes) -> None:
        if self._phase is _FAREWELL:
            return
        self._fed += len(data)  # begins anew with each head and each body
        super().data_received(data)
        self._check_unseen()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._book.waits(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_answering():
            self._book.works(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the parser's words are the same for everything
        """The parser, or one of the checks that run inside it, has refused what came."""
        self._refuse(self._refusal or _GARBAGE)

    def _unsupported_upgrade_warning(self) -> None:
        """Answer as if nobody had asked for another protocol; the parser cannot go on in this connection, though."""
        self.cycle.keep_alive = False

    # What the parser calls.
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._enter(_HEAD)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._limits.request_line_bytes:
            raise self._remember(too_long_line(self._limits.request_line_bytes))

    def on_headers_complete(self) -> None:
        try:
            self._check_head()
        except RefusedError as refused:
            raise self._remember(refused) from None
        super().on_headers_complete()
        self.headers = []  # for trailers: they come after the checks, so nobody sees them
        self._enter(_BODY)

    def on_body(self, body: bytes) -> None:
        self._received += len(body)
        if self._received > self._limits.body_bytes:
            raise self._remember(too_large_body(self._limits.body_bytes))
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._enter(_BETWEEN)
        if not self.cycle.response_complete:
            self._book.works(self)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        self._ticks = 0
        if self._phase is _BODY and self.expect_100_continue:
            self.transport.close()  # nobody knows whether the client still sends the body that it announced
        elif not self.pipeline:
            self._book.waits(self)

    # What the book of connections calls.
    def tick(self) -> None:
        unsent, before = self.transport.get_write_buffer_size(), self._unsent
        self._unsent = unsent
        if self._is_answering() or self.flow.read_paused or unsent < before:
            self._ticks = 0
            return
        self._ticks += 1
        allowed = self._limits.farewell_ticks if self._phase is _FAREWELL else self._limits.silence_ticks
        if self._ticks > allowed + self._received // _BODY_BYTES_PER_TICK:
            if self._phase in {_HEAD, _BODY}:
                self._refuse(_TOO_SLOW)
            elif self.transport.is_closing():
                self.transport.abort()  # it was closed, and the client does not take what is still to be sent
            else:
                self.transport.close()

    def evict(self) -> None:
        self.transport.abort()

    def _is_answering(self) -> bool:
        """Whether the next step is ours: the client is not in the middle of a body, and takes what we send."""
        is_busy = self.cycle is not None and not self.cycle.response_complete
        return is_busy and self._phase is not _BODY and not self.flow.write_paused

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._ticks = self._fed = self._received = 0

    def _remember(self, refused: RefusedError) -> RefusedError:
        """The parser raises an error of its own for ours."""
        self._refusal = refused.problem
        return refused

    def _check_head(self) -> None:
        limits, headers, version = self._limits, self.headers, self.parser.get_http_version()
        line_bytes = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n")
        if line_bytes > limits.request_line_bytes:
            raise too_long_line(limits.request_line_bytes)
        header_bytes = sum(len(name) + len(value) + len(": \r\n") for name, value in headers)
        if len(headers) > limits.header_count or header_bytes > limits.header_bytes:
            raise too_large_head(limits)
        self.url, length = check_head(
            version, self.url, headers, on_loopback=self._on_loopback, lets_in=self._cors.allows
        )
        if length > limits.body_bytes:
            raise too_large_body(limits.body_bytes)

    def _check_unseen(self) -> None:
        unseen = self._fed - self._received * (_MOST_FRAMING_BYTES + 1)
        if self._phase is _HEAD and unseen > _MAX_UNSEEN_BYTES:
            self._refuse(too_large_head(self._limits).problem)
        elif self._phase is _BODY and unseen > _MAX_UNSEEN_BYTES:
            self._refuse(_GARBAGE)

    def _refuse(self, problem: Problem) -> None:
        """Write the problem, unless earlier requests are to be answered first: then the connection ends after them."""
        if self.transport.is_closing() or self._phase is _FAREWELL:
            return
        in_body = self._phase is _BODY
        self._enter(_FAREWELL)
        if in_body:
            # The app gets to know that the rest never comes.
            answered = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if answered or self.pipeline:
                self.transport.close()
                return
        elif self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            return
        is_head = self.headers is not None and self.parser.get_method() == b"HEAD"
        self.transport.write(problem.as_bytes(self._instance(), with_body=not is_head))
        self.transport.write_eof()
        self.flow.resume_reading()  # an unread body may have paused it, and then the client's end would not be seen
        self._book.waits(self)

    def _instance(self) -> str:
        target: bytes = getattr(self, "url", b"")
        return target.partition(b"?")[0].decode("latin-1")
