"""How many tasks run at once in a process: one number, whatever the messages name.

First come, first served, but messages of young stages (`core/running/time_slice.py`) go ahead of others for a while.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

# What a process has if nothing else is declared: docs/adr/0034-one-number-of-slots.md has the reasons.
DEFAULT_SLOTS = 8
# A message that has waited this long is not passed over any more.
PASSED_OVER_SECONDS = 1.0
# How often a thread that waits looks whether its process is about to end.
_LOOK_SECONDS = 1.0


def _go_on() -> None:
    """For a thread that leaves the line at its timeout alone."""


@dataclass(slots=True, eq=False)
class Slot:
    """The right to run one task at a time. Its holder gives it to `TaskSlots.release`; a second time does nothing."""

    is_held: bool = True

    def hand_over(self) -> "Slot":
        """The same right for somebody else; to release this one does nothing from now on."""
        if not self.is_held:
            raise AssertionError("expected a slot that is held, found one that was released")
        self.is_held = False
        return Slot()


class _Waiter:
    """A thread in line. `wake` is released when the slot is its."""

    __slots__ = ("is_served", "since", "wake")

    def __init__(self) -> None:
        self.is_served = False
        self.since = time.monotonic()
        self.wake = threading.Lock()
        self.wake.acquire()


class TaskSlots:
    """The slots of a process. Any thread may take one.

    Args:
        count: The largest number of tasks that run at once.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"slots: expected at least 1, found {count}")
        self.count = count
        self._free = count
        self._lock = threading.Lock()
        self._line: deque[_Waiter] = deque()
        # Those of young stages.
        self._ahead: deque[_Waiter] = deque()

    @property
    def is_wanted(self) -> bool:
        """Whether a thread waits for a slot."""
        return bool(self._line or self._ahead)

    @property
    def taken(self) -> int:
        """How many slots are in use."""
        return self.count - self._free

    def take_spare(self) -> Slot | None:
        """A slot that nobody waits for; None at once if there is none."""
        with self._lock:
            if self._free == 0:
                return None
            self._free -= 1
            return Slot()

    def take(
        self, timeout_seconds: float, refuse: Callable[[], None] = _go_on, *, is_ahead: bool = False
    ) -> Slot | None:
        """A slot, after those that came before; None if it takes longer than the timeout.

        Args:
            refuse: Called while the thread waits, which keeps its place in line; raises when the process is about to
                end.
            is_ahead: Before those that are not, unless they have waited for long.
        """
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return Slot()
            own = _Waiter()
            line = self._ahead if is_ahead else self._line
            line.append(own)
        try:
            self._wait(own, timeout_seconds, refuse)
        except BaseException:
            if self._leave(own, line):
                self.release(Slot())
            raise
        return Slot() if self._leave(own, line) else None

    def release(self, slot: Slot) -> None:
        """Let the first in line have it."""
        if not slot.is_held:
            return
        slot.is_held = False
        with self._lock:
            line = self._line
            if self._ahead and not (line and line[0].since < time.monotonic() - PASSED_OVER_SECONDS):
                line = self._ahead
            if not line:
                self._free += 1
                return
            first = line.popleft()
            first.is_served = True
        first.wake.release()

    def _wait(self, own: _Waiter, timeout_seconds: float, refuse: Callable[[], None]) -> None:
        until = time.monotonic() + timeout_seconds
        while True:
            refuse()
            left = max(0.0, until - time.monotonic())
            if own.wake.acquire(timeout=min(_LOOK_SECONDS, left)) or left <= _LOOK_SECONDS:
                return

    def _leave(self, own: _Waiter, line: deque[_Waiter]) -> bool:
        """Whether it was served; it is in line no more."""
        with self._lock:
            if not own.is_served:
                line.remove(own)
            return own.is_served
