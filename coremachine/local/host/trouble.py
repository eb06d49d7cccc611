"""What a pump reports about an entity that cannot be read, and how long it waits before it tries again."""

from __future__ import annotations

import logging
import threading
import time

from coremachine.local.host.self_check import is_of_own_code, self_check

BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_REPEAT_SECONDS = 30.0
# How long a message rests that no function can be given: a worker that a function has broken finds that out meanwhile,
# and no message uses up its deliveries there.
_REST_SECONDS = 1.0
_UNREADABLE = "messages that no function can be given"


class Trouble:
    """Logs once, not at each attempt of each slot, that an entity cannot be read, and once that it can again."""

    def __init__(self, entity: str, log: logging.Logger) -> None:
        self._entity = entity
        self._log = log
        self._lock = threading.Lock()
        self._said_at: float | None = None

    def report(self, error: BaseException) -> None:
        with self._lock:
            now = time.monotonic()
            if self._said_at is None or now - self._said_at > _REPEAT_SECONDS:
                self._log.warning(
                    "entity_unavailable entity=%s error=%s: %s; trying again",
                    self._entity,
                    type(error).__name__,
                    str(error).splitlines()[0] if str(error) else "",
                )
                self._said_at = now

    def clear(self) -> None:
        if self._said_at is None:  # read without the lock: this runs for every message
            return
        with self._lock:
            self._said_at = None
            self._log.info("entity_available entity=%s", self._entity)


class Unreadable:
    """Reports messages that no function can be given, and how long each rests before it is abandoned.

    In a dead-letter queue no count of deliveries ends that: it rests longer each time.
    """

    def __init__(self, function: str, *, is_dead_letter: bool, log: logging.Logger) -> None:
        self._function, self._is_dead_letter, self._log = function, is_dead_letter, log

    def report(self, message_id: object, delivery_count: int, error: Exception) -> float:
        """Log it; seconds to wait before it is abandoned.

        Args:
            delivery_count: Of the deliveries before this one.
        """
        reason = f"{type(error).__name__}: {error}"
        self._log.error("message_unreadable function=%s message_id=%s error=%s", self._function, message_id, reason)
        self_check.failed(_UNREADABLE, error)
        rests_longer = self._is_dead_letter or is_of_own_code(error)
        return back_off(delivery_count) if rests_longer else _REST_SECONDS

    @staticmethod
    def clear() -> None:
        """A function was given its message."""
        self_check.succeeded(_UNREADABLE)


def back_off(failures: int) -> float:
    """Seconds to wait after this number of failures in a row."""
    return BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS) - 1)]
