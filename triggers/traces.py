"""What came with a request or message about its trace, for what it leads to. Telemetry starts with the first."""

import os
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from core.telemetry.reports import observer
from infrastructure.telemetry.start import start_telemetry

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_starting, _started = threading.Lock(), threading.Event()


def in_trace_of(headers: Mapping[str, Any] | None) -> AbstractContextManager[None]:
    """Around what a request or message with these headers or properties leads to."""
    _start()
    return observer().receiving(headers or {})


def trace_id_of(traceparent: str | None) -> str | None:
    """The second part of what W3C writes, which is what telemetry is searched by; None for what is not so written."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else None  # noqa: PLR2004 - as W3C has them


class TracedRequests:
    """ASGI middleware: a request belongs to its caller's trace."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        headers = {name.decode("latin-1"): value for name, value in scope.get("headers", ())}
        with in_trace_of(headers):
            await self._app(scope, receive, send)


def _start() -> None:
    """Once, and not when the app is loaded: a cold start waits for no exporter, and no process is forked after it."""
    if _started.is_set():
        return
    # First messages and requests come together.
    with _starting:
        if not _started.is_set():
            start_telemetry(os.environ)
            _started.set()
