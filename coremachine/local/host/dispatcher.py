"""Between the triggers and the invoker: what is in flight, what takes too long, what is said about it in the log."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

from azure.functions.meta import Datum

from coremachine.local.host.errors import InvocationAbortedError
from coremachine.local.host.functions import SERVICE_BUS
from coremachine.local.host.invoker import Call, Invoker

log = logging.getLogger(__name__)

_BEYOND_SECONDS = 0.01
_CANCELLED = "it was cancelled, by itself or because its worker ends"


@dataclass(frozen=True)
class _Running:
    call: Call
    outcome: Future[Datum | None]
    started: float


class Dispatcher:
    """Submits calls and keeps the book of those that run.

    The future that a trigger waits for is not the invoker's: a thread cannot be stopped from outside, so when the
    worker gives an invocation up (timeout, shutdown), its trigger gets the error at once, and the thread goes on until
    the process ends.
    """

    def __init__(self, invoker: Invoker, *, timeout_seconds: float | None) -> None:
        self._invoker = invoker
        self._timeout_seconds = timeout_seconds
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()
        self._aborted: str | None = None

    @property
    def in_flight(self) -> int:
        return len(self._running)

    def submit(self, call: Call, reason: str) -> Future[Datum | None]:
        """Start a call; from any thread. The future carries what the invoker's does, or InvocationAbortedError."""
        outcome: Future[Datum | None] = Future()
        running = _Running(call, outcome, time.monotonic())
        with self._lock:
            if self._aborted is not None:
                outcome.set_exception(InvocationAbortedError(self._aborted))
                return outcome
            self._running[call.invocation_id] = running
        _tell(logging.DEBUG, "invocation_started function=%s id=%s reason=%s", *_names(call), reason)
        try:
            inner = self._invoker.submit(call)
        except RuntimeError as exc:  # the pool is closed: the worker is going down
            error = exc  # outlives this block, for the closure
            self._settle(running, lambda: outcome.set_exception(error))
        else:
            inner.add_done_callback(lambda done: self._finish(running, done))
        return outcome

    def overdue(self) -> Call | None:
        """A call that has run longer than functionTimeout, if there is one."""
        if self._timeout_seconds is None:
            return None
        limit = time.monotonic() - self._timeout_seconds
        with self._lock:
            return next((running.call for running in self._running.values() if running.started < limit), None)

    def seconds_to_overdue(self) -> float:
        """For how long no call can become overdue, those that are still to come among them.

        Raises:
            RuntimeError: There is no functionTimeout.
        """
        if self._timeout_seconds is None:
            raise RuntimeError("expected a functionTimeout, found none")
        now = time.monotonic()
        with self._lock:
            oldest = min((running.started for running in self._running.values()), default=now)
        # A little later, so that the call is overdue then.
        return max(0.0, oldest + self._timeout_seconds - now) + _BEYOND_SECONDS

    def drain(self, timeout_seconds: float) -> bool:
        """Block until nothing is in flight; False when the time is up before."""
        with self._lock:
            outcomes = [running.outcome for running in self._running.values()]
        return not concurrent.futures.wait(outcomes, timeout_seconds).not_done

    def abort_all(self, reason: str) -> None:
        """Fail every call in flight, and every later one, with InvocationAbortedError."""
        with self._lock:
            self._aborted = reason
            running = list(self._running.values())
        for one in running:
            self._settle(one, lambda one=one: one.outcome.set_exception(InvocationAbortedError(reason)))  # type: ignore[misc]

    def _finish(self, running: _Running, done: Future[Datum | None]) -> None:
        error = InvocationAbortedError(_CANCELLED) if done.cancelled() else done.exception()
        milliseconds = (time.monotonic() - running.started) * 1000
        if error is None:
            self._settle(running, lambda: running.outcome.set_result(done.result()))
            # Of a message the app records what came of it; a second line would be a third of a short task's log.
            is_message = running.call.function.trigger_type == SERVICE_BUS
            _tell(
                logging.DEBUG if is_message else logging.INFO,
                "invocation_succeeded function=%s id=%s duration_ms=%.1f",
                *_names(running.call),
                milliseconds,
            )
            return
        self._settle(running, lambda: running.outcome.set_exception(error))
        # Azure's host logs each failed call. Here, what the app has reported itself once for all is not repeated.
        is_reported = getattr(error, "is_reported", False) is True
        _tell(
            logging.DEBUG if is_reported else logging.ERROR,
            "invocation_failed function=%s id=%s duration_ms=%.1f error=%r",
            *_names(running.call),
            milliseconds,
            error,
            exc_info=None if is_reported else error,
        )

    def _settle(self, running: _Running, act: Callable[[], None]) -> None:
        with contextlib.suppress(InvalidStateError):  # aborted before: that outcome stays
            act()
        with self._lock:
            self._running.pop(running.call.invocation_id, None)


def _names(call: Call) -> tuple[str, str]:
    return call.function.name, call.invocation_id


def _tell(level: int, message: str, *args: object, exc_info: BaseException | None = None) -> None:
    """The app may have put handlers of its own into this process's log; one that raises keeps no call from ending."""
    with contextlib.suppress(Exception):
        log.log(level, message, *args, exc_info=exc_info, stacklevel=2)
