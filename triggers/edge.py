"""The app's outermost layer: what holds for every request and every answer, whatever the endpoint.

A request whose target cannot be understood is refused before anything is done: its links could not be made. Every
answer forbids caches to keep it and browsers to guess its type. HEAD is there wherever GET is.
"""

import re
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from triggers.problems import ProblemError, answer, invalid_request, wrong_field

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
# Which of two was meant, nobody knows; those of which HTTP makes a list (Accept, Prefer, If-None-Match) are not here.
_GIVEN_ONCE = frozenset(
    {
        *(b"authorization", b"content-encoding", b"content-length", b"content-type", b"idempotency-key"),
        *(b"last-event-id", b"traceparent", b"x-correlation-id", b"x-functions-key"),
    }
)
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_MAX_PORT = 65535


def find_host_problem(host: str | None) -> ProblemError | None:
    """What is wrong with a request's `Host`; it is what links are made of."""
    found = _HOST.fullmatch(host) if host is not None else None
    if host is None or (found is not None and int(found[1] or 0) <= _MAX_PORT):
        return None
    return invalid_request([wrong_field("host", "a host name or address, and perhaps a port", ascii(host[:100]))])


def find_doubled_header(headers: Iterable[tuple[bytes, bytes]]) -> ProblemError | None:
    """Which headers that have one value came more than once."""
    given = [name for name, _ in headers if name in _GIVEN_ONCE]
    if len(given) == len(set(given)):
        return None
    doubled = [name.decode() for name, count in Counter(given).items() if count > 1]
    return invalid_request([wrong_field(name, "one value", "several", "give the header once") for name in doubled])


class MethodTable:
    """Which methods each path has."""

    def __init__(self, paths: Iterable[tuple[str, Iterable[str]]]) -> None:
        known = [(path, frozenset(methods)) for path, methods in paths]
        self._whole: dict[str, frozenset[str]] = {}
        for path, methods in known:
            if "{" not in path:
                self._whole[path] = self._whole.get(path, frozenset()) | methods
        # By how many parts they have: a look at each pattern takes a request longer than all else here.
        self._paths: dict[int, list[tuple[re.Pattern[str], frozenset[str]]]] = {}
        for path, methods in known:
            self._paths.setdefault(path.count("/"), []).append((compile_path(path)[0], methods))

    @classmethod
    def of(cls, routers: Iterable[APIRouter], prefix: str) -> "MethodTable":
        """Of routers below a prefix."""
        routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
        return cls((prefix + route.path, route.methods or ()) for route in routes)

    def find(self, path: str) -> list[str]:
        """Sorted; with HEAD where GET is, and OPTIONS. Empty for a path that is not there.

        A path that is written out, such as `/api/dead-letters/redrive`, is no id of another.
        """
        found = set(self._whole.get(path, ()))
        if not found:
            alike = self._paths.get(path.count("/"), ())
            found.update(*(methods for pattern, methods in alike if pattern.match(path)))
        if "GET" in found:
            found.add("HEAD")
        return sorted(found | {"OPTIONS"}) if found else []


class Edge:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, methods: MethodTable) -> None:
        self._app = app
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_RAW_HEADERS]
            elif is_head:
                message["body"] = b""
            await send(message)

        response = self._find_answer(scope)
        if response is not None:
            await response(scope, receive, send_on)
        else:
            await self._app({**scope, "method": "GET"} if is_head else scope, receive, send_on)

    def _find_answer(self, scope: Scope) -> Response | None:
        """The answer to a request that no endpoint is for."""
        path, method = scope["path"], scope["method"]
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        problem = find_host_problem(", ".join(hosts) if hosts else None) or find_doubled_header(scope["headers"])
        if problem is not None:
            return answer(path, problem)
        allowed = self._methods.find(path)
        if not allowed or (method in allowed and method != "OPTIONS"):
            return None
        headers = {"Allow": ", ".join(allowed)}
        if method == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
        detail = f"{path}: expected {' or '.join(allowed)}, found {method[:50]}."
        return answer(path, ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", detail, headers=headers))
