"""Pumps an entity with sessions: each thread holds one session, and takes its messages one after another.

A session is left when it has had no message for `sessionIdleTimeout`. Its lock is renewed while the function runs. With
cardinality many the function gets what the session has ready, as a list.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from azure.functions.meta import Datum
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.exceptions import ServiceBusError

from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.functions import IndexedFunction, ServiceBusTrigger
from coremachine.local.host.lock_times import is_done, seconds_until
from coremachine.local.host.loop_pump import RECEIVE_SECONDS, LoopPump, Settler
from coremachine.local.host.message_calls import batch_call, message_call
from coremachine.local.host.settings import ServiceBusOptions

log = logging.getLogger(__name__)

# Another connection than that of the service may need a sign of life.
_LONGEST_SILENCE_SECONDS = 30.0


class SessionReceiver(Settler, Protocol):
    """The part of the SDK's receiver for one session that this pump uses."""

    @property
    def session(self) -> Any: ...

    def receive_messages(
        self, max_message_count: int | None = 1, max_wait_time: float | None = None
    ) -> Sequence[ServiceBusReceivedMessage]: ...

    def close(self) -> None: ...


class SessionReceivers(Protocol):
    """Opens receivers for the next session that has messages."""

    def open(self) -> SessionReceiver | None:
        """A receiver that holds a session; None when none had messages within a few seconds."""
        ...

    def close(self) -> None: ...


class SessionPump(LoopPump):
    """Moves the messages of one entity to one function, `max_concurrent_sessions` sessions at a time."""

    def __init__(
        self,
        function: IndexedFunction,
        trigger: ServiceBusTrigger,
        receivers: SessionReceivers,
        dispatcher: Dispatcher,
        options: ServiceBusOptions,
        *,
        max_concurrent_sessions: int,
    ) -> None:
        super().__init__(function, trigger.entity, limit=max_concurrent_sessions)
        self._trigger = trigger
        self._receivers = receivers
        self._dispatcher = dispatcher
        self._options = options
        self._batch_size = (trigger.max_batch_size or options.max_message_batch_size) if trigger.is_batch else 1
        self._auto_complete = options.auto_complete_messages if trigger.auto_complete is None else trigger.auto_complete
        self._waiting = 0

    def _consume(self) -> bool:
        """One session, from its first message until it is idle."""
        with self._changed:
            self._waiting += 1
        try:
            with self._receiving():
                receiver = self._receivers.open()
        finally:
            with self._changed:
                self._waiting -= 1
                others_wait = self._waiting > 0
        if receiver is None:
            return not others_wait  # one thread that waits is enough
        if not others_wait:
            self._add_threads(1)  # for the next session, while this one lasts
        try:
            self._drain(receiver)
        finally:
            receiver.close()
        return True

    def _close(self) -> None:
        self._receivers.close()

    def _drain(self, receiver: SessionReceiver) -> None:
        idle_since = time.monotonic()
        while not self._stopping.is_set():
            with self._receiving():
                messages = receiver.receive_messages(self._batch_size, RECEIVE_SECONDS)
            if messages:
                self._handle(receiver, messages)
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since >= self._options.session_idle_seconds:
                return
            elif seconds_until(receiver.session.locked_until_utc) < _LONGEST_SILENCE_SECONDS / 2:
                receiver.session.renew_lock()

    def _handle(self, receiver: SessionReceiver, messages: Sequence[ServiceBusReceivedMessage]) -> None:
        reason = f"{len(messages)} messages of session {receiver.session.session_id} on {self._trigger.entity}"
        try:
            if self._trigger.is_batch:
                call = batch_call(self._function, self._trigger, messages)
            else:
                call = message_call(self._function, self._trigger, messages[0])
            outcome = self._dispatcher.submit(call, reason)
        except Exception:  # a message that cannot be converted fails like a function that raises
            log.exception("message_unreadable function=%s session=%s", self._function.name, receiver.session.session_id)
            self._settle(receiver, messages, succeeded=False)
            return
        self._wait(receiver, outcome)
        succeeded = outcome.exception() is None
        if not succeeded or self._auto_complete:
            self._settle(receiver, messages, succeeded=succeeded)

    def _wait(self, receiver: SessionReceiver, outcome: Future[Datum | None]) -> None:
        """Wait for the outcome, renewing the session's lock at half of what is left of it, or after a long silence."""
        limit = self._options.max_auto_lock_renewal_seconds
        started = time.monotonic()
        while True:
            pause = min(seconds_until(receiver.session.locked_until_utc) / 2, _LONGEST_SILENCE_SECONDS)
            is_over = limit is not None and time.monotonic() + pause - started > limit
            if is_done(outcome, None if is_over or pause <= 0 else pause):
                return
            try:
                receiver.session.renew_lock()
            except (ServiceBusError, ValueError) as exc:
                log.warning("lock_renewal_failed function=%s error=%r", self._function.name, exc)
                is_done(outcome, None)
                return
