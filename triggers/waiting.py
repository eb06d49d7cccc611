"""Wakes requests that wait for something of jobs: one query for all of them, whatever their number."""

import asyncio
import time
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastapi.concurrency import run_in_threadpool

# A job that has just been submitted often ends at once; of one that takes longer, the end is noticed a little later.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.003, 0.05
LATENESS = 0.2
# After a look that took long, because everything does, as many times as long: looking must not be what slows it.
REST = 2.0

Key = TypeVar("Key", bound=Hashable)


def pause_for(age_seconds: float) -> float:
    """How long to wait before the next look for a request of this age."""
    return min(FIRST_PAUSE_SECONDS + LATENESS * max(age_seconds, 0.0), LONGEST_PAUSE_SECONDS)


@dataclass(frozen=True, eq=False)
class _Waiter(Generic[Key]):
    key: Key
    since: float
    ended: asyncio.Future[None]


class Watcher(Generic[Key]):
    """One per event loop. It looks only while a request waits.

    Args:
        find: For which of these keys what is waited for has happened, such as the end of a job; called in a thread.
    """

    def __init__(self, find: Callable[[Collection[Key]], Collection[Key]]) -> None:
        self._find = find
        self._waiters: set[_Waiter[Key]] = set()
        self._came = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._next_look_at = 0.0
        self._rest_until = 0.0

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._waiters)

    async def wait(self, key: Key, seconds: float) -> None:
        """Return when a look, begun after this call, finds that it has happened; or when the time is over.

        Raises:
            Exception: What the look raised.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(key, time.monotonic(), loop.create_future())
        self._waiters.add(waiter)
        if self._looking is None:
            self._came = asyncio.Event()
            self._next_look_at = waiter.since + FIRST_PAUSE_SECONDS
            self._looking = loop.create_task(self._look_while_somebody_waits())
        elif waiter.since + FIRST_PAUSE_SECONDS < self._next_look_at:
            self._next_look_at = waiter.since + FIRST_PAUSE_SECONDS
            self._came.set()
        try:
            await asyncio.wait([waiter.ended], timeout=seconds)
            if waiter.ended.done():
                waiter.ended.result()
        finally:
            self._waiters.discard(waiter)

    async def _look_while_somebody_waits(self) -> None:
        try:
            while self._waiters:
                await self._until_next_look()
                if self._waiters:
                    await self._look()
        finally:
            self._looking = None
            for waiter in self._waiters:  # of a loop that ends
                waiter.ended.cancel()

    async def _until_next_look(self) -> None:
        """One who comes meanwhile may bring it nearer."""
        while (pause := max(self._next_look_at, self._rest_until) - time.monotonic()) > 0:
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), pause)
            except TimeoutError:
                return

    async def _look(self) -> None:
        waiters = list(self._waiters)
        self._next_look_at = float("inf")
        started = time.monotonic()
        try:
            ended = set(await run_in_threadpool(self._find, {waiter.key for waiter in waiters}))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            for waiter in waiters:
                _tell(waiter, error)
            self._waiters.difference_update(waiters)
        else:
            found = {waiter for waiter in waiters if waiter.key in ended}
            for waiter in found:
                _tell(waiter, None)
            self._waiters -= found
        now = time.monotonic()
        self._rest_until = now + REST * (now - started)
        youngest = max((waiter.since for waiter in self._waiters), default=now)
        self._next_look_at = min(self._next_look_at, now + pause_for(now - youngest))


def _tell(waiter: _Waiter[Key], error: Exception | None) -> None:
    if waiter.ended.done():
        return
    if error is None:
        waiter.ended.set_result(None)
    else:
        waiter.ended.set_exception(error)
