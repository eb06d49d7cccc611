"""Which of the configured queues are not there. Looked at aside and seldom: who asks never waits for a broker."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from core.errors import QueueNotFound

log = logging.getLogger(__name__)

FRESH_SECONDS = 30.0
# A look that takes so long waits for a peer that says nothing; another thread then tries.
ABANDONED_SECONDS = 120.0
_WAIT_SECONDS = 2.0


@dataclass(frozen=True)
class QueueState:
    """What the last look found, by logical name. `unknown`: none of the looks at them came to an end."""

    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class QueueProbe:
    """Any thread may ask. One thread at a time looks, and only when somebody asks.

    Args:
        check: Raises QueueNotFound for a queue that is not there, and anything else when that cannot be told.
        queues: Logical names.
        clock: Seconds that only grow.
        wait_seconds: At most so long does `look` wait for a look that has just begun.
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
        self._is_there: dict[str, bool] = {}
        self._begun_at = -math.inf
        self._ended = threading.Event()
        self._ended.set()

    def look(self) -> QueueState:
        """What is known, at most half a minute old where the broker answers.

        What a look could not tell stays as it was found before: a broker that is away for a moment makes no queue
        missing, and none present.
        """
        with self._lock:
            now = self._clock()
            if self._is_due(now):
                self._begin(now)
            ended, wait_seconds = self._ended, self._begun_at + self._wait_seconds - now
        ended.wait(max(0.0, wait_seconds))
        with self._lock:
            return QueueState(
                missing=tuple(queue for queue in self._queues if self._is_there.get(queue) is False),
                unknown=tuple(queue for queue in self._queues if queue not in self._is_there),
            )

    def _is_due(self, now: float) -> bool:
        return now - self._begun_at > (FRESH_SECONDS if self._ended.is_set() else ABANDONED_SECONDS)

    def _begin(self, now: float) -> None:
        self._begun_at = now
        self._ended = threading.Event()
        # A daemon: a process that ends does not wait for it.
        threading.Thread(target=self._look_at_all, args=(self._ended,), name="queue-probe", daemon=True).start()

    def _look_at_all(self, ended: threading.Event) -> None:
        try:
            for queue in self._queues:
                is_there = self._look_at(queue)
                with self._lock:
                    if is_there is not None:
                        self._is_there[queue] = is_there
        finally:
            ended.set()

    def _look_at(self, queue: str) -> bool | None:
        try:
            self._check(queue)
        except QueueNotFound:
            return False
        except Exception as error:  # noqa: BLE001 - whatever it was, it does not say that the queue is missing
            reason = f"{type(error).__name__}: {error}"
            log.warning("queue_not_looked_at", extra={"queue": queue, "reason": reason})
            return None
        return True
