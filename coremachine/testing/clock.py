"""The time of a test's engine: it runs as any clock does, and tests turn it forward."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class Clock:
    """One time for the queues and the database.

    Args:
        on_turn: Called with the seconds that the clock is ahead, whenever it is turned.
    """

    def __init__(self, on_turn: Callable[[float], None] = lambda _ahead: None) -> None:
        self._on_turn = on_turn
        self._ahead = 0.0

    @property
    def ahead_seconds(self) -> float:
        """By how much it was turned in all."""
        return self._ahead

    def monotonic(self) -> float:
        """Seconds, of which only differences mean something."""
        return time.monotonic() + self._ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._ahead)

    def advance(self, seconds: float) -> None:
        """Turn it forward: leases run out, delays end, deadlines pass. What is due then still has to be delivered."""
        if not seconds >= 0:
            raise ValueError(f"seconds: expected 0 or more, found {seconds}; no clock of the engine goes back")
        self._ahead += seconds
        self._on_turn(self._ahead)
