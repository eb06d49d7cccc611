"""When a pump opens more slots. Decides only: the pump opens them, and its lock guards what is counted here."""

from __future__ import annotations

from collections.abc import Callable

# Opening a link costs about as much as handling a dozen short messages, and it competes with them: it pays where
# messages go on waiting, not for a burst that the open slots have handled by then. It also takes half a second, which
# the SDK spends asleep; therefore few steps, each a large one.
PATIENCE_SECONDS = 0.25
_GROWTH = 4
# A message that was there already comes within a round trip, also of a broker far away; a longer wait was for a sender.
AT_ONCE_SECONDS = 0.2


class SlotDemand:
    """Asks for more slots when all have been busy for a while, each with one long message or with one after another.

    Args:
        limit: The largest number of slots.
        clock: Seconds that only grow.
    """

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._busy = 0
        self._full_since: float | None = None

    def on_answer(self, asked_at: float, *, has_message: bool) -> None:
        """A slot has asked for a message since `asked_at`: if it had to wait for it, nothing else was waiting."""
        if not has_message or self._clock() - asked_at > AT_ONCE_SECONDS:
            self._full_since = None

    def on_message(self) -> None:
        self._busy += 1

    def on_done(self) -> None:
        self._busy -= 1

    def wanted(self, slots: int) -> int:
        """How many to open beside those that there are. To be asked at each message, and while one takes long."""
        if self._busy < slots:
            return 0
        now = self._clock()
        if self._full_since is None:
            self._full_since = now
        if now - self._full_since < PATIENCE_SECONDS:
            return 0
        self._full_since = None
        return min(slots * (_GROWTH - 1), self._limit - slots)
