"""The broker's HTTP port: health, counts, and faults on demand for tests.

    GET  /health
    GET  /queues
    POST /queues/{name}/purge
    POST /faults/drop-connections
    POST /faults/server-busy?count=n
    POST /faults/duplicate?count=n&queue=name           (sends to any queue or topic without a name)
    POST /faults/delay?seconds=n&count=n&queue=name     (as above)
    POST /faults/clear
    POST /faults/expire-locks?queue=name                (all queues without a name)
    POST /faults/detach-links?queue=name
    POST /clock/turn?seconds=n                          (forward: locks end, messages expire)

Every other path is left to the administration protocol (`atom`). Pages of other origins are refused as by the Functions
host, and so is a request that is not complete in time.
"""

import asyncio
import json
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import NoReturn, Protocol
from urllib.parse import parse_qs, unquote

from coremachine.local.broker.atom import AtomRequest, answer_atom
from coremachine.local.broker.namespace import Namespace
from coremachine.local.connections import ConnectionBook
from coremachine.local.problem import Problem, RefusedError
from coremachine.local.request_head import check_head
from coremachine.local.web_guard import is_loopback_address

log = logging.getLogger(__name__)

_MAX_BODY = 1024 * 1024
_READ_TIMEOUT_SECONDS = 30.0
_FULL = Problem(503, "too_many_connections", "Expected a free connection, found all at work.", (("retry-after", "5"),))
_COUNT = re.compile("[0-9]{1,9}")
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Operations(Protocol):
    """What can be asked of the broker."""

    @property
    def namespace(self) -> Namespace: ...

    def queue_counts(self) -> dict[str, dict[str, int]]: ...

    def purge(self, queue: str) -> int: ...

    def drop_connections(self) -> int: ...

    def reject_sends(self, count: int) -> None: ...

    def duplicate_messages(self, count: int, entity: str | None = None) -> None: ...

    def delay_messages(self, count: int, seconds: float, entity: str | None = None) -> None: ...

    def clear_faults(self) -> None: ...

    def expire_locks(self, queue: str | None = None) -> int: ...

    def detach_links(self, queue: str) -> int: ...

    def turn_clock(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    is_update: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"

    @classmethod
    def of(cls, value: object, status: HTTPStatus = HTTPStatus.OK) -> "Response":
        return cls(status, json.dumps(value).encode())

    def encoded(self) -> bytes:
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        )
        return head.encode("ascii") + self.body


class BadRequest(RefusedError):
    """A request that cannot be answered."""

    def __init__(self, detail: str) -> None:
        super().__init__(Problem(400, "invalid_request", detail))


class _Caller:
    """A connection in the book; its time limit is that of its task."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def tick(self) -> None:
        pass

    def evict(self) -> None:
        self._writer.transport.abort()


class AdminHttp:
    """Answers one request per connection."""

    def __init__(self, operations: Operations, book: ConnectionBook) -> None:
        self._operations = operations
        self._book = book

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = _Caller(writer)
        has_place = self._book.admit(caller)
        try:
            async with asyncio.timeout(_READ_TIMEOUT_SECONDS):
                address = writer.get_extra_info("sockname") or ("127.0.0.1",)
                on_loopback = is_loopback_address(address[0])
                writer.write(await self._respond(reader, on_loopback=on_loopback) if has_place else _FULL.as_bytes("/"))
                await writer.drain()
        except (TimeoutError, ConnectionError) as exc:
            log.debug("admin_client_gone", extra={"reason": repr(exc)})
        finally:
            self._book.lost(caller)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _respond(self, reader: asyncio.StreamReader, *, on_loopback: bool) -> bytes:
        try:
            request = await _read_request(reader, on_loopback=on_loopback)
            if request is None:
                return b""
            response = self.answer(request)
            self._operations.namespace.commit()
            return response.encoded()
        except RefusedError as exc:
            return exc.problem.as_bytes("/")
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            log.exception("admin_request_failed")
            detail = "The request met an error that is not its fault; the log has the trace."
            return Problem(500, "internal_error", detail).as_bytes("/")

    def answer(self, request: Request) -> Response:
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        match request.method, parts:
            case "GET", ["health"]:
                return Response.of({"status": "healthy"})
            case "GET", ["queues"]:
                return Response.of(self._operations.queue_counts())
            case "POST", ["queues", *name, "purge"]:
                return self._of_queue("/".join(name), lambda queue: {"purged": self._operations.purge(queue)})
            case "POST", ["clock", "turn"]:
                seconds = _number(request, "seconds", None)
                self._operations.turn_clock(seconds)
                return Response.of({"turned": seconds})
            case "POST", ["faults", fault]:
                return self._fault(fault, request)
            case _:
                asked = AtomRequest(
                    request.method, "/".join(parts), request.query, request.body, is_update=request.is_update
                )
                status, body = answer_atom(self._operations.namespace, asked)
                return Response(status, body, "application/atom+xml; charset=utf-8")

    def _fault(self, fault: str, request: Request) -> Response:
        known = {
            "clear": self._clear_faults,
            "delay": self._delay,
            "detach-links": self._detach_links,
            "drop-connections": self._drop_connections,
            "duplicate": self._duplicate,
            "expire-locks": self._expire_locks,
            "server-busy": self._server_busy,
        }
        if fault not in known:
            raise BadRequest(f"expected the fault {', '.join(known)}, found {fault!r}")
        return Response.of(known[fault](request))

    def _clear_faults(self, _request: Request) -> dict[str, int]:
        self._operations.clear_faults()
        return {}

    def _delay(self, request: Request) -> dict[str, int]:
        count, seconds = _number(request, "count", "1"), _number(request, "seconds", None)
        try:
            self._operations.delay_messages(count, seconds, self._queue_in(request))
        except ValueError as exc:
            raise BadRequest(str(exc)) from exc
        return {"delaying": count, "seconds": seconds}

    def _detach_links(self, request: Request) -> dict[str, int]:
        return {"detached": self._operations.detach_links(self._queue_in(request) or self._unknown(""))}

    def _drop_connections(self, _request: Request) -> dict[str, int]:
        return {"dropped": self._operations.drop_connections()}

    def _duplicate(self, request: Request) -> dict[str, int]:
        count = _number(request, "count", "1")
        try:
            self._operations.duplicate_messages(count, self._queue_in(request))
        except ValueError as exc:
            raise BadRequest(str(exc)) from exc
        return {"duplicating": count}

    def _expire_locks(self, request: Request) -> dict[str, int]:
        return {"expired": self._operations.expire_locks(self._queue_in(request))}

    def _server_busy(self, request: Request) -> dict[str, int]:
        count = _number(request, "count", "1")
        self._operations.reject_sends(count)
        return {"rejecting": count}

    def _queue_in(self, request: Request) -> str | None:
        """The queue, topic or subscription that the query names, None where it names none."""
        name = request.query.get("queue")
        return name if name is None or self._operations.namespace.find(name) is not None else self._unknown(name)

    @staticmethod
    def _unknown(name: str) -> NoReturn:
        raise RefusedError(Problem(404, "unknown_queue", f"expected a known queue, found {name!r}"))

    def _of_queue(self, name: str, action: Callable[[str], dict[str, int]]) -> Response:
        if self._operations.namespace.find(name) is None:
            self._unknown(name)
        return Response.of(action(name))


def _number(request: Request, key: str, default: str | None) -> int:
    text: str | None = request.query.get(key) or default
    if text is None or not _COUNT.fullmatch(text):
        found = "none" if text is None else repr(text[:50])
        raise BadRequest(f"expected a number of at most 9 digits in the query's {key}, found {found}")
    return int(text)


async def _read_request(reader: asyncio.StreamReader, *, on_loopback: bool) -> Request | None:
    """The request, or None when the client only looked whether the port is open."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        if not exc.partial:
            return None
        raise BadRequest("expected a complete request head") from exc
    except asyncio.LimitOverrunError as exc:
        raise RefusedError(Problem(431, "headers_too_large", "expected a request head of at most 64 KiB")) from exc
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/"):  # noqa: PLR2004 - method, target, version
        raise BadRequest(f"expected a request line, found {first[:200].decode('latin-1')!r}")
    headers = [_parse_header(line) for line in lines]
    version = parts[2].removeprefix(b"HTTP/").decode("latin-1")
    target, length = check_head(version, parts[1], headers, on_loopback=on_loopback)
    if any(name == b"transfer-encoding" for name, _ in headers):
        raise RefusedError(Problem(411, "length_required", "expected a Content-Length, found a chunked body"))
    # Not urlsplit: it takes the text after // for a host.
    path, _, text = target.decode("ascii").partition("?")
    query = {key: values[-1] for key, values in _parse_query(text).items()}
    is_update = any(name == b"if-match" for name, _ in headers)
    return Request(parts[0].decode("latin-1"), path, query, await _read_body(reader, length), is_update)


def _parse_query(text: str) -> dict[str, list[str]]:
    try:
        return parse_qs(text, max_num_fields=100)
    except ValueError as exc:
        raise BadRequest("expected at most 100 fields in the query, found more") from exc


def _parse_header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _HEADER_NAME.fullmatch(name):
        raise BadRequest(f"expected a header line, found {line[:200].decode('latin-1')!r}")
    return name.lower(), value.strip(b" \t")


async def _read_body(reader: asyncio.StreamReader, length: int) -> bytes:
    if length > _MAX_BODY:
        raise RefusedError(Problem(413, "body_too_large", f"expected a body of at most {_MAX_BODY} bytes"))
    try:
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as exc:
        raise BadRequest(f"expected {length} bytes of body, found {len(exc.partial)}") from exc
