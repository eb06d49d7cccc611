"""Repeats the write of an outcome while the database is away: the work is done, and its lease is still renewed."""

import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from core.basics.outage import outage
from core.errors import StoreCancelled, StoreShort, StoreUnavailable

T = TypeVar("T")

# A restart or a failover of the database is over by then; else the work is done again.
PATIENCE_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
# A server that stops the statement, or has no room for it, takes other work: no slot is to wait for that.
MOST_REFUSALS = 3


@dataclass(frozen=True)
class Patience:
    """How long a finished attempt waits for the database.

    Args:
        seconds: From the first refusal.
        wait: Lets that many seconds pass; False if this process is about to end.
    """

    seconds: float
    wait: Callable[[float], bool]

    def repeat(self, error: StoreUnavailable, call: Callable[[], T]) -> T:
        """Make a call again that met this error, until it is answered. Raises its last error if it never is."""
        until = time.monotonic() + self.seconds
        for nth in itertools.count():
            outage.note(str(error))
            pause = min(FIRST_PAUSE_SECONDS * 2**nth, LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)
            is_refused = nth >= MOST_REFUSALS and isinstance(error, StoreCancelled | StoreShort)
            if is_refused or time.monotonic() + pause > until or not self.wait(pause):
                break
            try:
                return call()
            except StoreUnavailable as again:
                error = again
        raise error
