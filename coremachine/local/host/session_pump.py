"""Pumps an entity with sessions: each thread holds one session, and takes its messages one after another.

With `maxConcurrentCallsPerSession` above one it starts as many before the first has ended; their order is then no
longer kept. A session is left when it has had no message for `sessionIdleTimeout`. Its lock is renewed while a function
runs. With cardinality many the function gets what the session has ready, as a list, one list at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, Protocol

from azure.functions.meta import Datum
from azure.servicebus import ServiceBusReceivedMessage

from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.functions import IndexedFunction, ServiceBusTrigger
from coremachine.local.host.lock_times import seconds_until
from coremachine.local.host.loop_pump import RECEIVE_SECONDS, LoopPump, Settler
from coremachine.local.host.message_calls import batch_call, message_call
from coremachine.local.host.session_lock import LONGEST_SILENCE_SECONDS, SessionLock
from coremachine.local.host.settings import ServiceBusOptions

log = logging.getLogger(__name__)

# How long a further message of a session is waited for while functions run on others.
_GLANCE_SECONDS = 0.1


@dataclass(frozen=True)
class _Running:
    """A call that runs, and its messages."""

    messages: Sequence[ServiceBusReceivedMessage]
    outcome: Future[Datum | None]


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

    def open(self, stopping: threading.Event) -> SessionReceiver | None:
        """A receiver that holds a session; None when none had messages within a few seconds, or the pump stops."""
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
        self._calls = 1 if trigger.is_batch else options.max_calls_per_session
        self._waiting = 0

    def _consume(self) -> bool:
        """One session, from its first message until it is idle."""
        with self._changed:
            self._waiting += 1
        try:
            with self._receiving():
                receiver = self._receivers.open(self._stopping)
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
        """Everything of one session; its receiver belongs to this thread, which settles all of its messages."""
        lock = SessionLock(receiver, self._function.name, self._options.max_auto_lock_renewal_seconds)
        idle_since = time.monotonic()
        running: list[_Running] = []
        while running or not self._stopping.is_set():
            seconds = _GLANCE_SECONDS if running else RECEIVE_SECONDS
            begun = self._begin(receiver, self._calls - len(running), seconds)
            running += begun
            if begun:
                lock.on_call()
            if running:
                is_full = len(running) >= self._calls or self._stopping.is_set()
                wait([one.outcome for one in running], lock.seconds_left if is_full else 0.0, FIRST_COMPLETED)
                lock.renew_if_due()
                running = self._settle_ended(receiver, running)
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since >= self._options.session_idle_seconds:
                return
            elif seconds_until(receiver.session.locked_until_utc) < LONGEST_SILENCE_SECONDS / 2:
                receiver.session.renew_lock()

    def _begin(self, receiver: SessionReceiver, free: int, seconds: float) -> list[_Running]:
        """Take messages where calls are free, and start the function: once for a whole batch, else for each message."""
        if free < 1 or self._stopping.is_set():
            return []
        with self._receiving():
            messages = receiver.receive_messages(free * self._batch_size, seconds)
        groups = [messages] if self._trigger.is_batch and messages else [[message] for message in messages]
        begun = []
        for group in groups:
            outcome = self._submit(receiver, group)
            if outcome is None:
                self._settle(receiver, group, succeeded=False)
            else:
                begun.append(_Running(group, outcome))
        return begun

    def _submit(
        self, receiver: SessionReceiver, messages: Sequence[ServiceBusReceivedMessage]
    ) -> Future[Datum | None] | None:
        """None where a message cannot be converted: that fails like a function that raises."""
        session = receiver.session.session_id
        try:
            if self._trigger.is_batch:
                call = batch_call(self._function, self._trigger, messages)
            else:
                call = message_call(self._function, self._trigger, messages[0])
            reason = f"{len(messages)} messages of session {session} on {self._trigger.entity}"
            return self._dispatcher.submit(call, reason)
        except Exception:
            log.exception("message_unreadable function=%s session=%s", self._function.name, session)
            return None

    def _settle_ended(self, receiver: SessionReceiver, running: Sequence[_Running]) -> list[_Running]:
        """Settle the messages of calls that have ended, in their order; returns those that still run."""
        left = []
        for one in running:
            if not one.outcome.done():
                left.append(one)
                continue
            succeeded = one.outcome.exception() is None
            if not succeeded or self._auto_complete:
                self._settle(receiver, one.messages, succeeded=succeeded)
        return left
