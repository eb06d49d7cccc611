"""How many tasks run at once in a process: one number, whatever the messages name; and which of them runs alone.

First come, first served, but messages of young stages (`core/running/time_slice.py`) go ahead of others for a while,
and then have each second slot.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

# What a process has if nothing else is declared: docs/adr/0034-one-number-of-slots.md has the reasons.
DEFAULT_SLOTS = 8
# A message that has waited this long is not passed over any more: it and those that are ahead have slots in turns.
PASSED_OVER_SECONDS = 1.0
# How often a thread that waits looks whether its process is about to end.
_LOOK_SECONDS = 1.0
# How long an exclusive run waits for the others to end. None begins meanwhile, so a handler that hangs must not decide.
PATIENCE_SECONDS = 300.0
# How long a message waits for the end of an exclusive run. Then another process is to have it.
MOST_WAIT_SECONDS = 2.0


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


class Place:
    """A place in the line for slots, kept until it is left. A `with`."""

    __slots__ = ("_is_taken", "_line", "_slots", "is_served", "since", "wake")

    def __init__(self, slots: "TaskSlots", line: "deque[Place]") -> None:
        self._slots, self._line = slots, line
        self.is_served = self._is_taken = False
        self.since = time.monotonic()
        # Released when the slot is its.
        self.wake = threading.Lock()
        self.wake.acquire()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._slots.leave(self, self._line)
        if self.is_served and not self._is_taken:
            self._slots.release(Slot())

    def wait(self, timeout_seconds: float) -> Slot | None:
        """The slot, when it is this one's turn; None after the timeout. To wait again costs no place."""
        self._is_taken = self.wake.acquire(timeout=max(0.0, timeout_seconds))
        return Slot() if self._is_taken else None


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
        self._line: deque[Place] = deque()
        # Those of young stages.
        self._ahead: deque[Place] = deque()
        # The one that the last slot went to.
        self._served = self._ahead

    def is_wanted(self, *, is_ahead: bool = False, is_over: bool = True) -> bool:
        """Whether a message is to let somebody who waits have its slot.

        Args:
            is_ahead: Only for those that are ahead, too, or have waited for long.
            is_over: It has had the slot for a time slice. Else only for those that are ahead of it.
        """
        with self._lock:
            if not is_over:
                return bool(self._ahead) and not is_ahead
            return bool(self._ahead or (self._is_overdue if is_ahead else self._line))

    @property
    def is_awaited(self) -> bool:
        """Whether anybody waits for a slot: asked after each task, so without the lock."""
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
        with self.line_up(is_ahead=is_ahead) as place:
            until = time.monotonic() + timeout_seconds
            while True:
                refuse()
                left = until - time.monotonic()
                slot = place.wait(min(_LOOK_SECONDS, left))
                if slot is not None or left <= _LOOK_SECONDS:
                    return slot

    def line_up(self, *, is_ahead: bool = False) -> Place:
        """A place in line; see `take`. With a spare slot it is served at once."""
        with self._lock:
            line = self._ahead if is_ahead else self._line
            place = Place(self, line)
            if self._free > 0:
                self._free -= 1
                place.is_served = True
                place.wake.release()
            else:
                line.append(place)
            return place

    def leave(self, place: Place, line: deque[Place]) -> None:
        """It is in line no more, unless it was served."""
        with self._lock:
            if not place.is_served:
                line.remove(place)

    def release(self, slot: Slot) -> None:
        """Let the first in line have it."""
        if not slot.is_held:
            return
        slot.is_held = False
        with self._lock:
            if not self._line and not self._ahead:
                self._free += 1
                return
            self._served = self._next_line()
            first = self._served.popleft()
            first.is_served = True
        first.wake.release()

    @property
    def _is_overdue(self) -> bool:
        """Whether the first of those that are not ahead has waited for long. Under the lock."""
        return bool(self._line) and self._line[0].since < time.monotonic() - PASSED_OVER_SECONDS

    def _next_line(self) -> deque[Place]:
        """Where the next slot goes. Under the lock."""
        is_turn = self._is_overdue and self._served is not self._line
        return self._line if is_turn or not self._ahead else self._ahead


class RunsAlone(Exception):
    """A suspect runs alone in this process, or is about to: a message that came meanwhile is for another process."""


class ProcessGate:
    """A shared or exclusive lock that any thread may take. While an exclusive run waits, no shared one begins.

    Args:
        refuse: Called while a thread waits; raises when this process is about to end.
        held: The attempts and steps of this process; whether each has ended for the database, although its thread may
            still run. When all that began alone have, nobody waits for their threads any more.
    """

    def __init__(
        self,
        refuse: Callable[[], None],
        held: Callable[[], Mapping[Any, bool]] = dict,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        most_wait_seconds: float = MOST_WAIT_SECONDS,
    ) -> None:
        self._refuse = refuse
        self._held = held
        self._patience_seconds = patience_seconds
        self._most_wait_seconds = most_wait_seconds
        self._changed = threading.Condition()
        self._present = 0
        self._waiting = 0
        # What runs alone, and what the process held before: threads that hang.
        self._alone: object | None = None
        self._held_before: frozenset[Any] = frozenset()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Run beside others. Raises RunsAlone where it would have to wait for long."""
        with self._changed:
            if self._alone is not None or self._waiting:
                self._wait_for_turn(lambda: self._alone is None and not self._waiting)
            self._present += 1
        try:
            yield
        finally:
            with self._changed:
                self._present -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Run alone. Yields False, and runs beside others after all, where those do not end in time.

        Raises RunsAlone where another one runs alone for long.
        """
        run = object()
        with self._changed:
            self._waiting += 1
            try:
                is_alone = self._wait_for_quiet()
                if is_alone:
                    self._alone, self._held_before = run, frozenset(self._held())
                self._present += 1
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield is_alone
        finally:
            with self._changed:
                if self._alone is run:
                    self._leave_alone()
                elif not is_alone:
                    self._present -= 1
                    self._changed.notify_all()

    def _wait_for_quiet(self) -> bool:
        """False where shared runs did not end in time."""
        while True:
            self._wait_for_turn(lambda: self._alone is None)
            patience = time.monotonic() + self._patience_seconds
            self._wait(lambda: not self._present or self._alone is not None, patience)
            if self._alone is None:
                return not self._present

    def _wait_for_turn(self, condition: Callable[[], bool]) -> None:
        if not self._wait(condition, time.monotonic() + self._most_wait_seconds):
            raise RunsAlone

    def _wait(self, condition: Callable[[], bool], deadline: float) -> bool:
        while not condition():
            if self._alone is not None and self._is_over():
                self._leave_alone()
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._changed.wait(min(_LOOK_SECONDS, left))
            self._refuse()
        return True

    def _is_over(self) -> bool:
        ends = [is_over for each, is_over in self._held().items() if each not in self._held_before]
        return bool(ends) and all(ends)

    def _leave_alone(self) -> None:
        """What runs alone is not counted any more, whatever its thread does."""
        self._alone = None
        self._present -= 1
        self._changed.notify_all()
