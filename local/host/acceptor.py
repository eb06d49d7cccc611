"""Takes new connections from the socket that all workers listen on."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)

# What asyncio waits as well, when the process has no descriptor left for one more.
_PAUSE_SECONDS = 1.0


class Acceptor:
    """Accepts one connection at a time, in Python. An `asyncio.Server` by shape, as far as uvicorn asks.

    uvloop would accept a connection before it waits for the interpreter. When a function holds the interpreter, that
    one connection waits for minutes, while the other workers could have taken it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._make_protocol = make_protocol
        self._opening: set[asyncio.Task[object]] = set()  # the loop itself does not keep them
        self._is_closed = False

    def start(self) -> None:
        if not self._is_closed:
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._listener.fileno())

    async def wait_closed(self) -> None:
        """There is nothing to wait for."""

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was faster, or the client gave up
        except OSError as error:
            log.error("cannot_accept error=%r; the next try is in %.0f s", error, _PAUSE_SECONDS)  # noqa: TRY400
            self._loop.remove_reader(self._listener.fileno())
            self._loop.call_later(_PAUSE_SECONDS, self.start)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task: asyncio.Task[object] = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:
            connection.close()  # the client has gone already
