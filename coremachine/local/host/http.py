"""HTTP: an ASGI application that turns requests into invocations.

Requests and responses travel as the real host sends them: header names in lower case, repeated values joined by commas,
empty query values dropped, a body only with a Content-Length, the whole response at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl

from azure.functions.meta import Datum

from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.errors import InvocationAbortedError
from coremachine.local.host.functions import HttpTrigger, IndexedFunction
from coremachine.local.host.invoker import Call
from coremachine.local.host.key_store import KeyStore
from coremachine.local.host.routes import Route, RouteTable, RouteTemplate
from coremachine.local.host.settings import HttpOptions
from coremachine.local.host.tracing import child_trace_parent
from coremachine.local.problem import Problem

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_TOO_MANY = Problem(
    429,
    "too_many_requests",
    "Expected no more requests at once than maxOutstandingRequests of host.json, found more. Send it again later.",
    (("retry-after", "1"),),
)
_UNAUTHORIZED = Problem(
    401,
    "unauthorized",
    "Expected a valid key in x-functions-key or ?code=, found none. "
    "It is in the settings, or the host shows it at start.",
)
_FAILED = Problem(
    500, "function_failed", "The function raised an exception, or returned what cannot be sent; see the log."
)
_PLAIN = ("content-type", "text/plain; charset=utf-8")
_WITHOUT_BODY = frozenset({204, 304})
_LOWEST_STATUS, _HIGHEST_STATUS = 200, 599
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True)
class Request:
    """One request, its body read."""

    method: str
    path: str
    url: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes

    @property
    def key(self) -> str:
        """The key that the client presents; empty without one."""
        return self.headers.get("x-functions-key") or self.query.get("code", "")

    def to_datum(self, route_values: Mapping[str, str]) -> Datum:
        """The request as the host's protocol shows it to an HTTP trigger."""
        return Datum(
            {
                "method": Datum(self.method, "string"),
                "url": Datum(self.url, "string"),
                "headers": _strings(self.headers),
                "query": _strings(self.query),
                "params": _strings(route_values),
                "body": Datum(self.body, "bytes"),
            },
            "http",
        )


@dataclass(frozen=True)
class Response:
    """What goes back to the client."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @classmethod
    def of(cls, problem: Problem, path: str) -> Response:
        return cls(problem.status, problem.headers, problem.body(path))


class ClientGoneError(Exception):
    """The client has left before its request was complete."""


Admin = Callable[[Request], Awaitable[Response | None]]


def build_routes(functions: Iterable[IndexedFunction], prefix: str) -> RouteTable[IndexedFunction]:
    """The HTTP functions' routes below the prefix, in the order of the functions' names, as in Azure."""
    routes = []
    for function in sorted(functions, key=lambda function: function.name.lower()):
        trigger = function.trigger
        if isinstance(trigger, HttpTrigger):
            template = RouteTemplate.parse(f"{prefix}/{trigger.route.text.strip('/')}")
            routes.append(Route(template, trigger.methods, function))
    return RouteTable(routes)


class HttpApp:
    """The ASGI application of one worker."""

    def __init__(
        self,
        routes: RouteTable[IndexedFunction],
        dispatcher: Dispatcher,
        options: HttpOptions,
        *,
        keys: KeyStore | None,
        admin: Admin,
    ) -> None:
        self._routes = routes
        self._dispatcher = dispatcher
        self._keys = keys
        self._admin = admin
        self._slots = asyncio.Semaphore(options.max_concurrent_requests) if options.max_concurrent_requests else None
        self._max_outstanding = options.max_outstanding_requests
        self._outstanding = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"expected an HTTP request, found ASGI scope {scope['type']!r}")
        self._outstanding += 1
        try:
            response = await self._answer(scope, receive)
        except ClientGoneError:
            return  # what came of the body is not what the client meant: no function sees it
        finally:
            self._outstanding -= 1
        await _send(response, scope, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        if self._max_outstanding is not None and self._outstanding > self._max_outstanding:
            return Response.of(_TOO_MANY, scope["path"])
        request = await _read(scope, receive)
        if request.path.lower().startswith("/admin/"):
            return await self._answer_admin(request)
        return await self._answer_function(request)

    async def _answer_function(self, request: Request) -> Response:
        found = self._routes.find(request.method, request.path)
        if found is None:
            return _not_found(request)
        function, route_values = found
        trigger = function.trigger
        if isinstance(trigger, HttpTrigger) and not self._allows(trigger.auth_level, request, function.name):
            return Response.of(_UNAUTHORIZED, request.path)
        if self._slots is None:
            return await self.invoke(function, request, route_values)
        async with self._slots:
            return await self.invoke(function, request, route_values)

    async def _answer_admin(self, request: Request) -> Response:
        if not self._allows("admin", request):
            return Response.of(_UNAUTHORIZED, request.path)
        return await self._admin(request) or _not_found(request)

    def _allows(self, auth_level: str, request: Request, function: str = "") -> bool:
        return self._keys is None or self._keys.allow(auth_level, request.key, function)

    async def invoke(self, function: IndexedFunction, request: Request, route_values: Mapping[str, str]) -> Response:
        """Run an HTTP function; one that raises answers 500, and the log has the traceback."""
        call = http_call(function, request, route_values)
        outcome = self._dispatcher.submit(call, f"{request.method} {request.path}")
        await _end_of(outcome)
        error = outcome.exception()
        if isinstance(error, InvocationAbortedError):
            return Response.of(_aborted(error), request.path)
        if error is not None:
            return Response.of(_FAILED, request.path)
        datum = outcome.result()
        if datum is None:
            log.warning("function=%s set no HTTP response: set its func.Out[func.HttpResponse]", function.name)
            return Response(204)
        try:
            return _response(datum)
        except (CookieError, TypeError, ValueError):
            # What a function returns has parts that no response can have, such as half of a surrogate pair.
            log.exception("response_cannot_be_sent path=%s", request.path)
            return Response.of(_FAILED, request.path)


def _aborted(error: InvocationAbortedError) -> Problem:
    """This process ends: the client must not come back to it."""
    detail = f"The function did not end: {error}. Send the request again if it may run twice."
    return Problem(500, "invocation_aborted", detail, (("connection", "close"),))


def json_response(status: int, document: object) -> Response:
    return Response(status, (("content-type", "application/json; charset=utf-8"),), json.dumps(document).encode())


def _not_found(request: Request) -> Response:
    detail = (
        f"No function has the method {request.method} on this path; /admin/functions lists all. A wrong method is 404."
    )
    return Response.of(Problem(404, "not_found", detail), request.path)


async def _end_of(outcome: Future[Datum | None]) -> None:
    """Wait for it, whatever it is. An async function ends in this very thread: then nothing has to wake the loop."""
    loop, thread = asyncio.get_running_loop(), threading.get_ident()
    ended = loop.create_future()

    def release() -> None:
        if not ended.done():
            ended.set_result(None)

    def on_end(_outcome: Future[Datum | None]) -> None:
        if threading.get_ident() == thread:
            release()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(release)

    outcome.add_done_callback(on_end)
    await ended


def http_call(function: IndexedFunction, request: Request, route_values: Mapping[str, str]) -> Call:
    """An invocation of an HTTP function."""
    return Call(
        function=function,
        data=request.to_datum(route_values),
        metadata={},
        trace_parent=child_trace_parent(request.headers.get("traceparent", "")),
        trace_state=request.headers.get("tracestate", ""),
    )


async def _read(scope: Scope, receive: Receive) -> Request:
    """The request with its body.

    Raises:
        ClientGoneError: the body is not complete, and nobody waits for an answer.
    """
    headers = _joined((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
    length = headers.get("content-length", "0")
    body = await _read_body(receive) if length.isdigit() and int(length) > 0 else b""
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    host = headers.get("host") or ":".join(str(part) for part in scope["server"])
    return Request(
        method=scope["method"],
        path=path,
        url=f"{scope['scheme']}://{host}{path}" + (f"?{query}" if query else ""),
        headers=headers,
        query=_joined(parse_qsl(query)),
        body=body,
    )


async def _read_body(receive: Receive) -> bytes:
    chunks = []
    while True:
        event = await receive()
        if event["type"] != "http.request":
            raise ClientGoneError
        chunks.append(event.get("body", b""))
        if not event.get("more_body", False):
            return b"".join(chunks)


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in pairs:
        separator = "; " if name == "cookie" else ","
        values[name] = f"{values[name]}{separator}{value}" if name in values else value
    return values


def _strings(values: Mapping[str, str]) -> dict[str, Datum]:
    return {name: Datum(value, "string") for name, value in values.items()}


def _response(datum: Datum) -> Response:
    if datum.type == "string":
        return text_response(datum.value)
    value = datum.value
    cookies: list[SimpleCookie] = value["cookies"] or []
    return Response(
        status=int(value["status_code"].value),
        headers=(
            *((name.lower(), header.value) for name, header in value["headers"].items()),
            *(("set-cookie", morsel.OutputString()) for cookie in cookies for morsel in cookie.values()),
        ),
        body=value["body"].value,
    )


def text_response(text: str) -> Response:
    """What a function's text becomes. As in Azure, a JSON object with a `body` describes the whole response."""
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else None
    except ValueError:
        found = None
    fields = {name.lower(): value for name, value in found.items()} if isinstance(found, dict) else {}
    if "body" not in fields:
        return Response(200, (_PLAIN,), text.encode())
    body, headers = fields["body"], fields.get("headers")
    given = {name.lower(): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}
    status = str(fields.get("statuscode", fields.get("status", 200)))
    content = "" if body is None else body if isinstance(body, str) else json.dumps(body, separators=(",", ":"))
    return Response(int(status) if status.isdigit() else 200, tuple((dict([_PLAIN]) | given).items()), content.encode())


async def _send(response: Response, scope: Scope, send: Send) -> None:
    try:
        headers = _encoded(response, is_head=scope["method"] == "HEAD")
    except ValueError:
        log.exception("response_cannot_be_sent path=%s", scope["path"])
        response = Response.of(_FAILED, scope["path"])
        headers = _encoded(response, is_head=scope["method"] == "HEAD")
    body = b"" if response.status in _WITHOUT_BODY else response.body
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _encoded(response: Response, *, is_head: bool) -> list[tuple[bytes, bytes]]:
    """The headers as they are sent. The length in an answer to HEAD is that of another answer: only the app knows it.

    Raises:
        ValueError: a name or a value has characters that would end a header line or are not Latin-1; a wrong status.
    """
    if not _LOWEST_STATUS <= response.status <= _HIGHEST_STATUS:
        raise ValueError(f"expected a status of {_LOWEST_STATUS} to {_HIGHEST_STATUS}, found {response.status}")
    ours = {"transfer-encoding"} if is_head else {"content-length", "transfer-encoding"}
    headers = [(name, value) for name, value in response.headers if name not in ours]
    if response.status not in _WITHOUT_BODY and not is_head:
        headers.append(("content-length", str(len(response.body))))
    for name, value in headers:
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"expected a header of one line of Latin-1 text, found {name!r}: {value!r}")
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
