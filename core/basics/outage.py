"""What a process logs about a database that is away: at once, then once a minute, and when it is back."""

import threading
import time
from collections.abc import Callable

from core.safety.credentials import redact
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

REPEAT_SECONDS = 60.0
_LONGEST_REASON = 1000


class OutageLog:
    """Gathers the failures of all threads into a few lines.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = 0.0
        self._said: float | None = None
        self._is_told = False
        self._unsaid = 0
        self._count = 0
        self.is_on = False

    def note(self, reason: str) -> None:
        """Something met the outage: a refused connection, a message that stays with the broker, a renewal, a sweep.

        Args:
            reason: Said on one line, and without what opens something.
        """
        with self._lock:
            now = self._clock()
            if not self.is_on:
                self._began, self._count, self._is_told, self.is_on = now, 0, False, True
            self._count += 1
            self._unsaid += 1
            # Also when it comes and goes: some calls fail while others succeed.
            if self._said is not None and now - self._said < REPEAT_SECONDS:
                return
            failures, self._unsaid, self._said, self._is_told = self._unsaid, 0, now, True
            seconds = round(now - self._began, 1)
        said = redact(" ".join(reason.split()))[:_LONGEST_REASON]
        details = {"checkpoint": "DATABASE_AWAY", "reason": said, "failures": failures, "outage_seconds": seconds}
        log.warning("database_away", extra=details)

    def end(self) -> None:
        """The database answers. Nothing is said unless it was said to be away."""
        with self._lock:
            if not self.is_on:
                return
            self.is_on = False
            if not self._is_told:
                return
            seconds, count = round(self._clock() - self._began, 1), self._count
        details = {"checkpoint": "DATABASE_BACK", "failures": count, "outage_seconds": seconds}
        log.info("database_back", extra=details)


# One for the process, as there is one database.
outage = OutageLog()
