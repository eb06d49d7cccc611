"""What the stack logs of a part that died: at once, then once a minute, and when it is back."""

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

REPEAT_SECONDS = 60.0


class RestartLog:
    """The story of one part, in a few lines, however often it is started in vain.

    Args:
        name: Of the part.
        clock: Seconds, monotonic.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._died_at = 0.0
        self._failed_said_at: float | None = None
        self._failures = 0

    def died(self, status: int | None) -> None:
        self._died_at, self._failed_said_at, self._failures = self._clock(), None, 0
        log.error("%s_died exit_status=%s; starting it again", self._name, status)

    def failed(self, error: Exception) -> None:
        """It could not be started."""
        self._failures += 1
        now = self._clock()
        if self._failed_said_at is not None and now - self._failed_said_at < REPEAT_SECONDS:
            return
        self._failed_said_at = now
        log.error("%s_restart_failed attempts=%d: %s", self._name, self._failures, " ".join(str(error).split()))

    def back(self) -> None:
        seconds = self._clock() - self._died_at
        log.info("%s_back attempts=%d away_seconds=%.1f", self._name, self._failures + 1, seconds)
