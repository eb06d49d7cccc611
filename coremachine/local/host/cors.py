"""CORS: pages of other origins that `CORS` of local.settings.json lets send requests. /admin stays closed to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from coremachine.local.problem import Problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ANY = "*"
_CLOSED = Problem(403, "foreign_origin", "Expected a request of a program or of a page of this listener below /admin.")


@dataclass(frozen=True)
class CorsPolicy:
    """The origins of pages that are let in: `*` for all."""

    origins: tuple[str, ...] = ()
    credentials: bool = False

    def allows(self, origin: str) -> bool:
        return ANY in self.origins or origin.rstrip("/").lower() in {allowed.lower() for allowed in self.origins}

    def headers(self, origin: str) -> list[tuple[bytes, bytes]]:
        """What an answer to a page of this origin carries."""
        is_any = ANY in self.origins and not self.credentials
        headers = [(b"access-control-allow-origin", b"*" if is_any else origin.encode("latin-1")), (b"vary", b"Origin")]
        if self.credentials:
            headers.append((b"access-control-allow-credentials", b"true"))
        return headers


NO_CORS = CorsPolicy()


class CorsApp:
    """An ASGI application that answers preflights and marks the answers for pages that are let in."""

    def __init__(self, app: App, policy: CorsPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin or not self._policy.allows(origin):  # the edge has let it pass: a page of the listener itself
            await self._app(scope, receive, send)
            return
        if f"{scope['path'].lower()}/".startswith("/admin/"):
            await _answer(send, 403, list(_encoded(_CLOSED)), _CLOSED.body(scope["path"]))
        elif scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await _answer(send, 204, [*self._policy.headers(origin), *_preflight(headers)])
        else:
            await self._app(scope, receive, self._marking(send, origin))

    def _marking(self, send: Send, origin: str) -> Send:
        async def marked(event: MutableMapping[str, Any]) -> None:
            if event["type"] == "http.response.start":
                own = [pair for pair in event["headers"] if not pair[0].startswith(b"access-control-")]
                event = {**event, "headers": [*own, *self._policy.headers(origin)]}
            await send(event)

        return marked


def _preflight(headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    allowed = [(b"access-control-allow-methods", headers[b"access-control-request-method"])]
    if asked := headers.get(b"access-control-request-headers"):
        allowed.append((b"access-control-allow-headers", asked))
    return allowed


def _encoded(problem: Problem) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in problem.headers]


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
    if body:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
