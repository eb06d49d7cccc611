"""Silence on a connection: empty frames for a client that wants to hear something, an end for one that is silent."""

import asyncio
from collections.abc import Callable


class IdleWatch:
    """The two timers of a connection.

    Args:
        send: Called so often that the client does not take the broker for dead.
        on_silence: Called with the limit when the client has sent nothing for that long.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, send: Callable[[], None], on_silence: Callable[[float], None]
    ) -> None:
        self._loop = loop
        self._send = send
        self._on_silence = on_silence
        self._heard_at = loop.time()
        self._sending: asyncio.TimerHandle | None = None
        self._listening: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        self._heard_at = self._loop.time()

    def start(self, *, send_every: float | None, close_after: float | None) -> None:
        """Begin; seconds, None for never."""
        self.stop()
        if send_every is not None:
            self._keep_alive(send_every)
        if close_after is not None:
            self._listen(close_after)

    def stop(self) -> None:
        for timer in (self._sending, self._listening):
            if timer is not None:
                timer.cancel()
        self._sending = self._listening = None

    def _keep_alive(self, interval: float) -> None:
        self._send()
        self._sending = self._loop.call_later(max(interval, 0.01), self._keep_alive, interval)

    def _listen(self, limit: float) -> None:
        remaining = self._heard_at + limit - self._loop.time()
        if remaining <= 0:
            self._on_silence(limit)
        else:
            self._listening = self._loop.call_later(remaining, self._listen, limit)
