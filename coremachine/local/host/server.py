"""The HTTP server of one worker, on the socket that all workers share."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import uvicorn

from coremachine.local.connections import ConnectionBook, connection_limit
from coremachine.local.descriptors import raise_descriptor_limit
from coremachine.local.host.acceptor import Acceptor
from coremachine.local.host.cors import CorsApp, CorsPolicy
from coremachine.local.host.edge import EdgeLimits, EdgeProtocol

# How long answers of accepted requests are waited for at the end.
FINISH_SECONDS = 1.5


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: the worker decides when to stop. Reports when it listens."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, on_started: Callable[[], object]) -> None:
        super().__init__(config)
        self._listener = listener
        self._on_started = on_started
        self._ending = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        acceptor = Acceptor(asyncio.get_running_loop(), self._listener, self._make_protocol)
        acceptor.start()
        self.servers.append(cast("asyncio.Server", acceptor))
        self._on_started()

    async def main_loop(self) -> None:
        """Until `end`; that of uvicorn looks ten times a second."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                # on_tick writes the date of answers, which has whole seconds.
                await asyncio.wait_for(self._ending.wait(), 1.0)

    def end(self) -> None:
        """Accept no more, and end when what has been accepted is answered."""
        self.should_exit = True
        self._ending.set()

    def _make_protocol(self) -> asyncio.Protocol:
        kind: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def stop_listening(self) -> None:
        for listener in self.servers:
            listener.close()

    async def finish(self, serving: asyncio.Task[None]) -> None:
        """Answer what has been accepted, then end the serving task."""
        self.end()
        await asyncio.wait([serving], timeout=FINISH_SECONDS)


def make_server(
    app: Any, listener: socket.socket, cors: CorsPolicy, *, grace_seconds: float, on_started: Callable[[], object]
) -> HttpServer:
    """A server for an ASGI application, behind the checks of the edge."""
    book = ConnectionBook("http", connection_limit(raise_descriptor_limit()))
    config = uvicorn.Config(
        CorsApp(app, cors) if cors.origins else app,
        # A factory does where uvicorn's signature asks for a class.
        http=cast("type[asyncio.Protocol]", partial(EdgeProtocol, book, EdgeLimits(), cors)),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=max(1, int(grace_seconds)),
    )
    return HttpServer(config, listener, on_started=on_started)
