"""One look at a time for all who ask, in a thread of its own: who asks waits no longer than a bound."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from core.basics.threads import ThreadReserve

T = TypeVar("T")


class NoAnswer(Exception):
    """The look that is under way has lasted too long: `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"no answer for {seconds:.1f} s")


class _Look(Generic[T]):
    def __init__(self) -> None:
        self.begun_at = time.monotonic()
        self.ended = threading.Event()
        self.answers: list[T] = []
        self.error: Exception | None = None


class SharedLook(Generic[T]):
    """Any thread may ask.

    Args:
        seconds: The longest time that somebody waits, from the look's begin.
    """

    def __init__(self, name: str, look: Callable[[], T], seconds: float) -> None:
        self._look, self._seconds = look, seconds
        self._threads = ThreadReserve(name)
        self._lock = threading.Lock()
        self._current: _Look[T] | None = None

    def ask(self) -> T:
        """What a look found that has ended just now.

        Raises:
            NoAnswer: It has not ended in time, and goes on.
            RuntimeError: The system gives no thread.
            Exception: What the look raised.
        """
        with self._lock:
            current = self._current
            if current is None:
                current = _Look()
                self._threads.start(lambda: self._run(current))
                self._current = current
        if not current.ended.wait(max(0.0, current.begun_at + self._seconds - time.monotonic())):
            raise NoAnswer(time.monotonic() - current.begun_at)
        if current.error is not None:
            raise current.error
        return current.answers[0]

    def _run(self, current: _Look[T]) -> None:
        try:
            current.answers.append(self._look())
        except Exception as error:  # noqa: BLE001 - raised to those who asked
            current.error = error
        finally:
            with self._lock:
                self._current = None
            current.ended.set()
