"""Shares this process between messages: many at a time, or one exclusively that may be what ends processes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# How long an exclusive run waits for the others to end. None begins meanwhile, so a handler that hangs must not decide.
PATIENCE_SECONDS = 300.0
_LOOK_SECONDS = 1.0


class ProcessGate:
    """A shared or exclusive lock that any thread may take. While an exclusive run waits, no shared one begins.

    Args:
        refuse: Called while a thread waits; raises when this process is about to end.
    """

    def __init__(self, refuse: Callable[[], None], *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._refuse = refuse
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        self._present = 0
        self._waiting = 0
        self._is_alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Run beside others."""
        with self._changed:
            if self._is_alone or self._waiting:
                self._wait(lambda: not self._is_alone and not self._waiting)
            self._present += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Run alone. Yields False, and runs beside others after all, where those do not end in time."""
        with self._changed:
            self._waiting += 1
            try:
                is_alone = self._wait_for_quiet()
                self._is_alone = is_alone
                self._present += 1
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield is_alone
        finally:
            self._leave(was_alone=is_alone)

    def _wait_for_quiet(self) -> bool:
        """False where shared runs did not end in time; an exclusive run is waited for without a limit."""
        while True:
            self._wait(lambda: not self._is_alone)
            if self._wait(lambda: not self._present, time.monotonic() + self._patience_seconds):
                return True
            if not self._is_alone:
                return False

    def _wait(self, condition: Callable[[], bool], deadline: float | None = None) -> bool:
        while not condition():
            if deadline is not None and time.monotonic() >= deadline:
                return False
            self._changed.wait(_LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, self._patience_seconds))
            self._refuse()
        return True

    def _leave(self, *, was_alone: bool = False) -> None:
        with self._changed:
            self._present -= 1
            self._is_alone = self._is_alone and not was_alone
            self._changed.notify_all()
