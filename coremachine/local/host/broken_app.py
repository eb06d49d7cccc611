"""What a worker answers when its app cannot be loaded: 503 with the reason, until the app is loaded anew."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from coremachine.local.host.cors import NO_CORS
from coremachine.local.host.forks import keep_from_children
from coremachine.local.host.protocol import WorkerOptions
from coremachine.local.host.server import make_server
from coremachine.local.problem import Problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class BrokenApp:
    """An ASGI application that answers everything with the reason."""

    def __init__(self, reason: str) -> None:
        detail = f"Expected an app that can be loaded, found: {reason}. Correct it, and reload or start the host again."
        self._problem = Problem(503, "app_cannot_be_loaded", detail, (("retry-after", "5"),))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        is_head = scope["method"] == "HEAD"
        body = b"" if is_head else self._problem.body(scope["path"])
        headers = [(name.encode(), value.encode()) for name, value in self._problem.headers]
        if not is_head:
            headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": self._problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def serve_broken(
    reason: str, options: WorkerOptions, messages: Iterator[dict[str, Any]], on_started: Callable[[], object]
) -> None:
    """Answer with the reason until the supervisor sends stop or is gone."""
    loop = asyncio.get_running_loop()
    stop_requested = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, number, stop_requested)
    threading.Thread(target=_obey, args=(messages, loop, stop_requested), name="control", daemon=True).start()
    with socket.socket(fileno=options.listener_fd) as listener:
        keep_from_children(listener)
        server = make_server(BrokenApp(reason), listener, NO_CORS, grace_seconds=1.0, on_started=on_started)
        serving = asyncio.create_task(server.serve(sockets=[]))
        await stop_requested.wait()
        await server.finish(serving)


def _on_signal(number: int, stop_requested: asyncio.Event) -> None:
    if number == signal.SIGTERM:  # Ctrl-C reaches the whole process group; the supervisor decides
        stop_requested.set()


def _obey(messages: Iterator[dict[str, Any]], loop: asyncio.AbstractEventLoop, stop_requested: asyncio.Event) -> None:
    for message in messages:
        if message["command"] == "stop":
            break
    loop.call_soon_threadsafe(stop_requested.set)
