"""The broker's HTTP port: health, counts, and faults on demand for tests.

    GET  /health
    GET  /queues
    POST /queues/{name}/purge
    POST /faults/drop-connections
    POST /faults/server-busy?count=n
    POST /faults/expire-locks?queue=name    (all queues without a name)

Every other path is left to the administration protocol (`atom`).
"""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from local.broker.atom import answer_atom
from local.broker.entity import Namespace

log = logging.getLogger(__name__)

_MAX_BODY = 1024 * 1024
_READ_TIMEOUT_SECONDS = 30.0


class Operations(Protocol):
    """What can be asked of the broker."""

    @property
    def namespace(self) -> Namespace: ...

    def queue_counts(self) -> dict[str, dict[str, int]]: ...

    def purge(self, queue: str) -> int: ...

    def drop_connections(self) -> int: ...

    def reject_sends(self, count: int) -> None: ...

    def expire_locks(self, queue: str | None = None) -> int: ...


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: bytes


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
            f"Content-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode("ascii") + self.body


class BadRequest(Exception):
    """A request that cannot be answered."""


class AdminHttp:
    """Answers one request per connection."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_READ_TIMEOUT_SECONDS):
                response = await self._respond(reader)
                if response is not None:
                    writer.write(response.encoded())
                    await writer.drain()
        except (TimeoutError, ConnectionError) as exc:
            log.debug("admin_client_gone", extra={"reason": repr(exc)})
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _respond(self, reader: asyncio.StreamReader) -> Response | None:
        try:
            request = await _read_request(reader)
            return None if request is None else self.answer(request)
        except BadRequest as exc:
            return Response.of({"error": str(exc)}, HTTPStatus.BAD_REQUEST)

    def answer(self, request: Request) -> Response:
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        match request.method, parts:
            case "GET", ["health"]:
                return Response.of({"status": "healthy"})
            case "GET", ["queues"]:
                return Response.of(self._operations.queue_counts())
            case "POST", ["queues", *name, "purge"]:
                return self._of_queue("/".join(name), lambda queue: {"purged": self._operations.purge(queue)})
            case "POST", ["faults", fault]:
                return self._fault(fault, request)
            case _:
                status, body = answer_atom(self._operations.namespace, request.method, "/".join(parts), request.body)
                return Response(status, body, "application/atom+xml; charset=utf-8")

    def _fault(self, fault: str, request: Request) -> Response:
        if fault == "drop-connections":
            return Response.of({"dropped": self._operations.drop_connections()})
        if fault == "server-busy":
            count = request.query.get("count", "1")
            if not count.isdecimal():
                raise BadRequest(f"expected a number in the query's count, found {count!r}")
            self._operations.reject_sends(int(count))
            return Response.of({"rejecting": int(count)})
        if fault == "expire-locks":
            queue = request.query.get("queue")
            if queue is None:
                return Response.of({"expired": self._operations.expire_locks()})
            return self._of_queue(queue, lambda name: {"expired": self._operations.expire_locks(name)})
        raise BadRequest(f"expected the fault drop-connections, server-busy or expire-locks, found {fault!r}")

    def _of_queue(self, name: str, action: Callable[[str], dict[str, int]]) -> Response:
        if self._operations.namespace.find(name) is None:
            return Response.of({"error": f"expected a known queue, found {name!r}"}, HTTPStatus.NOT_FOUND)
        return Response.of(action(name))


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    """The request, or None when the client only looked whether the port is open."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        if not exc.partial:
            return None
        raise BadRequest("expected a complete request head") from exc
    except asyncio.LimitOverrunError as exc:
        raise BadRequest("expected a request head of at most 64 KiB") from exc
    first, *lines = head.decode("latin-1").split("\r\n")
    try:
        method, target, _version = first.split(" ")
    except ValueError as exc:
        raise BadRequest(f"expected a request line, found {first!r}") from exc
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > _MAX_BODY:
        raise BadRequest(f"expected a Content-Length of at most {_MAX_BODY}, found {length!r}")
    url = urlsplit(target)
    query = {key: values[-1] for key, values in parse_qs(url.query).items()}
    try:
        body = await reader.readexactly(int(length))
    except asyncio.IncompleteReadError as exc:
        raise BadRequest(f"expected {length} bytes of body, found {len(exc.partial)}") from exc
    return Request(method, url.path, query, body)
