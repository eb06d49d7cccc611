"""Renews the lock of a session while functions run on its messages."""

from __future__ import annotations

import logging
import time
from typing import Any, Protocol

from azure.servicebus.exceptions import ServiceBusError

from coremachine.local.host.lock_times import seconds_until

log = logging.getLogger(__name__)

# Another connection than that of the service may need a sign of life.
LONGEST_SILENCE_SECONDS = 30.0


class HoldsSession(Protocol):
    """The part of the SDK's receiver that has the session."""

    @property
    def session(self) -> Any: ...


class SessionLock:
    """The lock of one session, for the thread that owns its receiver.

    It is renewed at half of what is left of it, until `limit_seconds` after the last call was begun (None: without
    end), or until a renewal fails: the function then runs on, and its messages are delivered again.
    """

    def __init__(self, receiver: HoldsSession, function_name: str, limit_seconds: float | None) -> None:
        self._receiver = receiver
        self._function_name = function_name
        self._limit_seconds = limit_seconds
        self._ends: float | None = None
        self._due: float | None = None

    def on_call(self) -> None:
        """A call begins."""
        self._ends = None if self._limit_seconds is None else time.monotonic() + self._limit_seconds
        self._plan()

    @property
    def seconds_left(self) -> float | None:
        """Until the next renewal; None when there is none."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def renew_if_due(self) -> None:
        if self._due is None or time.monotonic() < self._due:
            return
        try:
            self._receiver.session.renew_lock()
        except (ServiceBusError, ValueError) as exc:
            log.warning("lock_renewal_failed function=%s error=%r", self._function_name, exc)
            self._due = None
        else:
            self._plan()

    def _plan(self) -> None:
        pause = min(seconds_until(self._receiver.session.locked_until_utc) / 2, LONGEST_SILENCE_SECONDS)
        due = time.monotonic() + pause
        is_over = self._ends is not None and due > self._ends
        self._due = None if is_over or pause <= 0 else due
