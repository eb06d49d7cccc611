"""Daemon threads that are used again: starting one costs more than most light tasks."""

import queue
import threading
import time
from collections.abc import Callable

from core.basics.process_limits import start_thread
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

# How long a thread without work stays.
IDLE_SECONDS = 30.0


class ThreadReserve:
    """Runs every call at once, on an idle thread if there is one, else on a new one. The caller sets the bound."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0

    def start(self, call: Callable[[], None]) -> None:
        """Run it in the background. It must not raise: what it does is logged if it does.

        Raises:
            RuntimeError: The system gives no thread; the call is not made.
        """
        with self._lock:
            is_new_needed = self._idle == 0
            if not is_new_needed:
                self._idle -= 1
        if is_new_needed:
            start_thread(threading.Thread(target=self._work, name=self._name, daemon=True))
        self._calls.put(call)

    def _work(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._idle > 0:  # nobody counts on this thread
                        self._idle -= 1
                        return
                continue
            try:
                call()
            except BaseException:
                log.exception("background_call_failed")
            with self._lock:
                self._idle += 1


class LookingThread:
    """Looks from time to time, as long as there is something to look after: what ends between two looks wakes nobody.

    Args:
        seconds: Between two looks.
        look: One look. It should not raise: that is logged, and the next look comes.
        is_needed: Whether there is something to look after.
    """

    def __init__(self, name: str, seconds: float, look: Callable[[], None], is_needed: Callable[[], bool]) -> None:
        self._name, self._seconds, self._look, self._is_needed = name, seconds, look, is_needed
        self._lock = threading.Lock()
        self._is_running = False

    def need(self) -> None:
        """To be called when there is something new. If the system gives no thread, the next call asks again."""
        with self._lock:
            if self._is_running:
                return
            try:
                start_thread(threading.Thread(target=self._run, name=self._name, daemon=True))
            except RuntimeError as error:
                log.warning("thread_not_started", extra={"checkpoint": "THREADS", "error": repr(error)})
                return
            self._is_running = True

    def _run(self) -> None:
        idle_since = time.monotonic()
        while True:
            time.sleep(self._seconds)
            try:
                self._look()
            except BaseException:
                log.exception("background_call_failed")
            with self._lock:
                if self._is_needed():
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > IDLE_SECONDS:
                    self._is_running = False
                    return
