"""Looks whether the configured queues are there, aside and seldom: who asks never waits for a broker."""

import math
import threading
import time
from collections.abc import Callable, Iterable

from core.basics.process_limits import start_thread
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

FRESH_SECONDS = 30.0
# A look that takes longer waits for a peer that does not answer; another thread then starts a new one.
ABANDONED_SECONDS = 120.0
_WAIT_SECONDS = 2.0


class QueueProbe:
    """Any thread may ask. One thread at a time looks, and only when somebody asks.

    Args:
        check: Looks at a queue, and remembers what it found: `ServiceBusRepository.check_queue`.
        queues: Logical names.
        clock: Seconds that only grow.
        wait_seconds: The longest time that `refresh` waits for a look that has just begun.
    """

    def __init__(
        self,
        check: Callable[[str], None],
        queues: Iterable[str],
        *,
        clock: Callable[[], float] = time.monotonic,
        wait_seconds: float = _WAIT_SECONDS,
    ) -> None:
        self._check = check
        self._queues = tuple(queues)
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._begun_at = -math.inf
        self._ended = threading.Event()
        self._ended.set()

    def refresh(self) -> None:
        """Have the queues looked at, unless that was done half a minute ago."""
        with self._lock:
            now = self._clock()
            if self._is_due(now):
                self._begin(now)
            ended, wait_seconds = self._ended, self._begun_at + self._wait_seconds - now
        ended.wait(max(0.0, wait_seconds))

    def _is_due(self, now: float) -> bool:
        return now - self._begun_at > (FRESH_SECONDS if self._ended.is_set() else ABANDONED_SECONDS)

    def _begin(self, now: float) -> None:
        ended = threading.Event()
        # A daemon: a process that ends does not wait for it.
        thread = threading.Thread(target=self._look_at_all, args=(ended,), name="queue-probe", daemon=True)
        try:
            start_thread(thread)
        except RuntimeError as error:  # the system gives none: what was found before stays, the next call tries again
            log.warning("queues_not_looked_at", extra={"error": repr(error)})
            return
        self._begun_at, self._ended = now, ended

    def _look_at_all(self, ended: threading.Event) -> None:
        try:
            for queue in self._queues:
                self._look_at(queue)
        finally:
            ended.set()

    def _look_at(self, queue: str) -> None:
        try:
            self._check(queue)
        except Exception as error:  # noqa: BLE001 - this thread has nobody to tell; one queue hides no other
            log.warning("queue_check_failed", extra={"queue": queue, "reason": f"{type(error).__name__}: {error}"})
