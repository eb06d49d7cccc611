"""Checks that look outside, where the other side may never answer: a few threads of their own, and a few seconds.

A submission waits no longer than the deadline, and a place that does not answer holds only its share of the threads:
the request pool, other places' checks and the process's end never wait for it. What is not known in time is accepted.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass

from core.basics.threads import ThreadReserve

DEFAULT_THREADS, DEFAULT_SECONDS = 8, 5.0
# The longest wait for a turn in a burst of checks that take milliseconds. Nothing waits behind one that ran longer.
_TURN_SECONDS = 0.25


@dataclass(frozen=True)
class Unknown:
    """The check did not come to an end; has the reason."""

    reason: str


class OutsideChecks:
    """Runs checks with bounds. Threads that are stuck stay counted until they end: they never pile up."""

    def __init__(self, threads: int = DEFAULT_THREADS, seconds: float = DEFAULT_SECONDS) -> None:
        self._reserve = ThreadReserve("outside-check")
        self._changed = threading.Condition()
        self._running: dict[str, list[float]] = {}
        self.configure(threads=threads, seconds=seconds)

    def configure(self, *, threads: int, seconds: float) -> None:
        """Set the bounds: how many checks run at once, and how long a submission waits for all of its own."""
        self.threads, self.seconds = threads, seconds

    @property
    def running(self) -> int:
        """How many checks run now, those included that nobody waits for any more."""
        with self._changed:
            return self._count()

    def run(self, place: str, call: Callable[[], None], seconds: float) -> BaseException | Unknown | None:
        """None when it passed, else what it raised, or why that is not known.

        Args:
            place: What it looks at, such as a server; half of the threads at most look at one place.
            seconds: How long to wait for it.
        """
        started = self._take_turn(place, min(seconds, _TURN_SECONDS)) if seconds > 0 else None
        if started is None:
            return Unknown("too many checks run already that get no answer")
        outcome: Future[BaseException | None] = Future()
        try:
            self._reserve.start(lambda: self._work(place, started, call, outcome))
        except RuntimeError as error:  # the system gives no thread
            self._end_turn(place, started)
            return Unknown(f"no thread could be started: {error}")
        if not wait([outcome], seconds).done:
            return Unknown(f"no answer in {seconds:.1f} s")
        return outcome.result()

    def _take_turn(self, place: str, seconds: float) -> float | None:
        """When the check begins; None where there is no room for it."""
        with self._changed:
            now = time.monotonic()
            until = now + seconds
            while not self._has_room(place):
                if now >= until or now - min(map(min, self._running.values())) > _TURN_SECONDS:
                    return None
                self._changed.wait(until - now)
                now = time.monotonic()
            self._running.setdefault(place, []).append(now)
            return now

    def _has_room(self, place: str) -> bool:
        share = max(1, self.threads // 2)
        return self._count() < self.threads and len(self._running.get(place, ())) < share

    def _count(self) -> int:
        return sum(map(len, self._running.values()))

    def _work(
        self, place: str, started: float, call: Callable[[], None], outcome: "Future[BaseException | None]"
    ) -> None:
        error: BaseException | None = None
        try:
            call()
        except BaseException as raised:  # noqa: BLE001 - whatever a check of an author or a library raises is its outcome
            error = raised
        self._end_turn(place, started)
        outcome.set_result(error)

    def _end_turn(self, place: str, started: float) -> None:
        with self._changed:
            self._running[place].remove(started)
            if not self._running[place]:
                del self._running[place]
            self._changed.notify_all()


OUTSIDE = OutsideChecks()
