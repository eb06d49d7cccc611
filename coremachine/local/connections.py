"""The connections of one listener: how many there may be, and how long each may keep it waiting.

Time is counted in ticks of the event loop's own timer. A loop that was blocked has not listened: that time counts for
nobody.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from coremachine.local.descriptors import has_free_descriptor

log = logging.getLogger(__name__)

_LOG_EVERY_SECONDS = 60.0
# For what is no connection of a client: the app's files, databases, brokers.
_RESERVED_DESCRIPTORS = 256
_FEWEST, _MOST = 32, 4096


def connection_limit(descriptors: int) -> int:
    """How many connections a process with this number of descriptors may keep."""
    return max(_FEWEST, min(_MOST, descriptors - _RESERVED_DESCRIPTORS))


class WaitingConnection(Protocol):
    """A connection that waits for its client to send something."""

    def tick(self) -> None:
        """Some time has passed; close if it was too much."""

    def evict(self) -> None:
        """Close: others need the place."""


class ConnectionBook:
    """Bounds a listener's connections.

    When the bound is reached, the one that has waited longest for its client makes room: silent sockets cannot keep out
    those who ask for something. If none waits, all are at work, and the newcomer is refused.

    Args:
        name: Of the listener, for the log.
        limit: This many connections at most.
        tick_seconds: How often the waiting ones are asked.
    """

    def __init__(
        self, name: str, limit: int, *, tick_seconds: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._limit = limit
        self._tick_seconds = tick_seconds
        self._clock = clock
        self._open = 0
        self._timer: asyncio.TimerHandle | None = None
        # In the order in which they began to wait.
        self._waiting: dict[WaitingConnection, None] = {}
        self._quiet_until = {"connections_full": 0.0, "descriptors_exhausted": 0.0}

    @property
    def open(self) -> int:
        """How many there are."""
        return self._open

    def admit(self, newcomer: WaitingConnection) -> bool:
        """Count a new connection, which waits for its client; False: there is no place, refuse it."""
        self._open += 1
        has_place = self._open <= self._limit or self._make_room()
        self.waits(newcomer)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick_seconds, self._tick)
        return has_place

    def waits(self, connection: WaitingConnection) -> None:
        """From now on it waits for its client."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def works(self, connection: WaitingConnection) -> None:
        """It has all it needs from its client for now."""
        self._waiting.pop(connection, None)

    def lost(self, connection: WaitingConnection) -> None:
        self._open -= 1
        self._waiting.pop(connection, None)

    def _make_room(self) -> bool:
        longest = next(iter(self._waiting), None)
        found = "all are at work: refusing new ones" if longest is None else "closing those that were silent longest"
        self._warn("connections_full", f"limit={self._limit}: {found}")
        if longest is None:
            return False
        del self._waiting[longest]
        longest.evict()
        return True

    def _tick(self) -> None:
        self._timer = None
        for connection in list(self._waiting):
            connection.tick()
        if not has_free_descriptor():
            self._warn(
                "descriptors_exhausted",
                "this process cannot open any more files or sockets, so new connections are closed: raise `ulimit -n` "
                "or find out what keeps them open",
            )
        if self._open:
            self._timer = asyncio.get_running_loop().call_later(self._tick_seconds, self._tick)

    def _warn(self, event: str, text: str) -> None:
        """Once a minute: a flood of connections must not become a flood of lines."""
        if self._clock() >= self._quiet_until[event]:
            self._quiet_until[event] = self._clock() + _LOG_EVERY_SECONDS
            log.warning("%s listener=%s open=%d %s", event, self._name, self._open, text)


def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception handler for the loop: without descriptors asyncio reports each connection that it cannot accept.

    It tries again by itself after a second; the problem is logged once a minute.
    """
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        return
    loop.default_exception_handler(context)
