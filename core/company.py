"""Who runs in this process: many side by side, or one alone that may be what ends processes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# How long those who run are waited for. Nobody new begins meanwhile, so a handler that hangs must not decide.
PATIENCE_SECONDS = 300.0
_LOOK_SECONDS = 1.0


class Company:
    """Any thread may enter. While somebody waits to be alone, nobody new begins.

    Args:
        refuse: Asked while somebody waits; raises when this process is about to end.
    """

    def __init__(self, refuse: Callable[[], None], *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._refuse = refuse
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        self._present = 0
        self._waiting = 0
        self._is_alone = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Beside others."""
        with self._changed:
            self._wait(lambda: not self._is_alone and not self._waiting)
            self._present += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Beside nobody. Yields False, beside others after all, where those who run do not end in time."""
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
        """False where those who run did not end in time; somebody who is alone is waited for, however long."""
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
