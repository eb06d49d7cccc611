"""Pumps Service Bus queues: PeekLock, complete on success, abandon on failure.

A slot is one thread with one receiver of its own: it asks for one message, waits for the function, renews the lock
meanwhile, settles, and asks again. So a message is requested only where a slot is free, the SDK's objects have one
owner each (they are not safe to share), no credit is left behind on an idle receiver, and a lone message is handed on
at once (a receiver that asks for several holds the first one back for 0.2 s). The price is a connection a slot;
therefore slots open when all others have been busy for a while, and close when they have been idle for longer.

The owner renews the lock itself instead of an AutoLockRenewer: no second thread touches the connection, and a message
that is done before half of its lock has passed costs nothing. For the same reason the SDK's keep-alive thread is off:
it would read the slot's message from the connection, and leave the slot to its read of 0.2 s that brings nothing more.
Asking and renewing keep the connection alive.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Protocol

from azure.functions.meta import Datum
from azure.servicebus import ServiceBusReceivedMessage, ServiceBusReceiver, ServiceBusSubQueue
from azure.servicebus.exceptions import ServiceBusError

from coremachine.local.host.clients import service_bus_client, turn_off_keep_alive
from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.functions import IndexedFunction, ServiceBusTrigger
from coremachine.local.host.lock_times import is_done, seconds_until
from coremachine.local.host.loop_pump import RECEIVE_SECONDS, LoopPump, Settler
from coremachine.local.host.message_calls import message_call
from coremachine.local.host.settings import ServiceBusOptions
from coremachine.local.host.slots import PATIENCE_SECONDS, SlotDemand

log = logging.getLogger(__name__)

# Where no message came for a while, a request stays open longer: each costs a millisecond of the two processes' time.
_QUIET_SECONDS = 30.0
_RECEIVE_SECONDS_WHERE_QUIET = 2.0
# A read that brings nothing ends after this time; one that brings something ends at once.
_READ_SECONDS = 0.5
# What a link gets to open: several round trips, and all slots of all workers open theirs when the broker comes back.
_OPEN_SECONDS = 10.0
_IDLE_SECONDS = 60.0
# Below the idle timeouts of the service's connections (120 s and more): a lock may last longer than a connection does.
_LONGEST_SILENCE_SECONDS = 30.0


class Receiver(Settler, Protocol):
    """The part of the SDK's receiver that a slot uses; the seam for tests."""

    def receive_messages(
        self, max_message_count: int | None = 1, max_wait_time: float | None = None
    ) -> Sequence[ServiceBusReceivedMessage]: ...

    def renew_message_lock(self, message: ServiceBusReceivedMessage) -> datetime: ...

    def close(self) -> None: ...


class Receivers(Protocol):
    """Opens receivers for one entity; when one is handed out, its link is open."""

    def open(self) -> Receiver: ...

    def close(self) -> None: ...


class SdkReceivers:
    """Receivers of the real SDK, for the connection that a trigger names."""

    def __init__(self, trigger: ServiceBusTrigger, environment: Mapping[str, str]) -> None:
        self._trigger = trigger
        self._client = service_bus_client(trigger.connection, environment)
        self._lock = threading.Lock()  # the client keeps its receivers in a set that is not made for threads

    def open(self) -> Receiver:
        """A receiver whose link is open: one that opened it as it first receives would have to do so in that time."""
        receiver = self._make()
        turn_off_keep_alive(receiver)
        try:
            return contextlib.ExitStack().enter_context(receiver)
        except BaseException:
            receiver.close()
            raise

    def _make(self) -> ServiceBusReceiver:
        trigger = self._trigger
        sub_queue = ServiceBusSubQueue.DEAD_LETTER if trigger.is_dead_letter else None
        with self._lock:
            if trigger.queue_name:
                return self._client.get_queue_receiver(
                    trigger.queue_name, sub_queue=sub_queue, socket_timeout=_READ_SECONDS
                )
            return self._client.get_subscription_receiver(
                trigger.topic_name, trigger.subscription_name, sub_queue=sub_queue, socket_timeout=_READ_SECONDS
            )

    def close(self) -> None:
        self._client.close()


class QueuePump(LoopPump):
    """Moves the messages of one entity to one function, `max_concurrent_calls` at a time."""

    def __init__(
        self,
        function: IndexedFunction,
        trigger: ServiceBusTrigger,
        receivers: Receivers,
        dispatcher: Dispatcher,
        options: ServiceBusOptions,
        *,
        max_concurrent_calls: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(function, trigger.entity, limit=max_concurrent_calls, is_dead_letter=trigger.is_dead_letter)
        self._trigger = trigger
        self._receivers = receivers
        self._dispatcher = dispatcher
        self._renewal_seconds = options.max_auto_lock_renewal_seconds
        self._auto_complete = options.auto_complete_messages if trigger.auto_complete is None else trigger.auto_complete
        self._clock = clock
        self._demand = SlotDemand(max_concurrent_calls, clock)

    def _consume(self) -> bool:
        """Receive and handle until stopped (True) or until this slot is not needed any more (False)."""
        receiver = self._receivers.open()
        idle_since = self._clock()
        try:
            while not self._stopping.is_set():
                is_quiet = self._clock() - idle_since > _QUIET_SECONDS
                message = self._ask(receiver, _RECEIVE_SECONDS_WHERE_QUIET if is_quiet else RECEIVE_SECONDS)
                self._trouble.clear()
                if message is not None:
                    self._handle(receiver, message)
                    idle_since = self._clock()
                if self._clock() - idle_since > _IDLE_SECONDS and self._leave_to_others():
                    return False
            return True
        finally:
            receiver.close()

    def _ask(self, receiver: Receiver, seconds: float) -> ServiceBusReceivedMessage | None:
        messages: Sequence[ServiceBusReceivedMessage] = ()
        asked_at = self._clock()
        with self._receiving():
            try:
                messages = receiver.receive_messages(max_message_count=1, max_wait_time=seconds)
            finally:
                with self._changed:
                    self._demand.on_answer(asked_at, has_message=bool(messages))
        return messages[0] if messages else None

    def _close(self) -> None:
        self._receivers.close()

    def _may_end_after_error(self) -> bool:
        return self._leave_to_others()

    def _leave_to_others(self) -> bool:
        """Whether this slot may end because another one stays; takes it off the list in the same step."""
        with self._changed:
            if len(self._threads) > 1:
                self._threads.discard(threading.current_thread())
                return True
            return False

    def _handle(self, receiver: Receiver, message: ServiceBusReceivedMessage) -> None:
        with self._changed:
            self._demand.on_message()
        try:
            self._grow()
            succeeded = self._invoke(receiver, message)
        finally:
            with self._changed:
                self._demand.on_done()
        if not succeeded or self._auto_complete:
            self._settle(receiver, [message], succeeded=succeeded)

    def _grow(self) -> None:
        with self._changed:
            self._add_threads(self._demand.wanted(len(self._threads)))

    def _invoke(self, receiver: Receiver, message: ServiceBusReceivedMessage) -> bool:
        try:
            outcome = self._dispatcher.submit(
                message_call(self._function, self._trigger, message), f"message on {self._trigger.entity}"
            )
        except Exception as error:  # noqa: BLE001 - a message that cannot be converted fails as a function that raises
            self._let_rest([message], error)
            return False
        self._unreadable.clear()
        self._wait(receiver, message, outcome)
        return outcome.exception() is None

    def _wait(self, receiver: Receiver, message: ServiceBusReceivedMessage, outcome: Future[Datum | None]) -> None:
        """Wait for the outcome, renewing the lock at half of what is left of it, or after a long silence.

        When renewal is over, or fails, the function still runs on: the message is then delivered again meanwhile.
        """
        started = time.monotonic()
        if is_done(outcome, min(PATIENCE_SECONDS, max(0.0, seconds_until(message.locked_until_utc) / 2))):
            return
        self._grow()
        renewing = True
        while renewing:
            pause = min(seconds_until(message.locked_until_utc) / 2, _LONGEST_SILENCE_SECONDS)
            over = self._renewal_seconds is not None and time.monotonic() + pause - started > self._renewal_seconds
            if over or pause <= 0:
                break
            if is_done(outcome, pause):
                return
            self._grow()
            try:
                receiver.renew_message_lock(message)
                log.debug("lock_renewed function=%s message_id=%s", self._function.name, message.message_id)
            except (ServiceBusError, ValueError) as exc:
                log.warning("lock_renewal_failed function=%s message_id=%s error=%r", *self._subject(message), exc)
                renewing = False
        is_done(outcome, None)

    def _subject(self, message: ServiceBusReceivedMessage) -> tuple[str, str | None]:
        return self._function.name, message.message_id
