"""Takes new connections from the socket that all workers listen on."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from coremachine.local.host.self_check import self_check

log = logging.getLogger(__name__)

# What asyncio waits as well, when the process has no descriptor left for one more.
_PAUSE_SECONDS = 1.0
# More wait for the next round of the loop, or for another worker.
_AT_ONCE = 4

Opened = tuple[asyncio.Transport, asyncio.Protocol]


class Acceptor:
    """Accepts in Python. An `asyncio.Server` by shape, as far as uvicorn asks.

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
        self._opening: set[asyncio.Task[Opened]] = set()  # the loop itself does not keep them
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
            for _ in range(_AT_ONCE):
                connection, _address = self._listener.accept()
                connection.setblocking(False)
                opening = self._loop.create_task(self._loop.connect_accepted_socket(self._make_protocol, connection))
                self._opening.add(opening)
                opening.add_done_callback(self._opened)
                self_check.succeeded("connections")
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # that was all, another worker was faster, or the client gave up
        except Exception as error:  # noqa: BLE001 - a function may have replaced what this needs
            self_check.failed("connections", error)
            log.error("cannot_accept error=%r; the next attempt is in %.0f s", error, _PAUSE_SECONDS)  # noqa: TRY400
            self._loop.remove_reader(self._listener.fileno())
            self._loop.call_later(_PAUSE_SECONDS, self.start)

    def _opened(self, opening: asyncio.Task[Opened]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled() and opening.exception() is not None:
            log.debug("connection_not_opened error=%r", opening.exception())  # its client has gone already
