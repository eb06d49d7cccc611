"""Pumps a Service Bus entity in batches (cardinality many): one batch at a time, settled all or none.

As in Azure: one loop for the function on the whole host, no lock is renewed (a batch must be done within the lock's
duration), and when the function fails every message of its batch is abandoned.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from azure.servicebus import ServiceBusReceivedMessage

from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.functions import IndexedFunction, ServiceBusTrigger
from coremachine.local.host.loop_pump import RECEIVE_SECONDS, LoopPump, Settler
from coremachine.local.host.message_calls import batch_call
from coremachine.local.host.settings import ServiceBusOptions


class BatchReceiver(Settler, Protocol):
    """The part of the SDK's receiver that this pump uses."""

    def receive_messages(
        self, max_message_count: int | None = 1, max_wait_time: float | None = None
    ) -> Sequence[ServiceBusReceivedMessage]: ...

    def close(self) -> None: ...


class BatchReceivers(Protocol):
    """Opens receivers for one entity."""

    def open(self) -> BatchReceiver: ...

    def close(self) -> None: ...


class BatchPump(LoopPump):
    """Moves the messages of one entity to one function, a list at a time."""

    def __init__(
        self,
        function: IndexedFunction,
        trigger: ServiceBusTrigger,
        receivers: BatchReceivers,
        dispatcher: Dispatcher,
        options: ServiceBusOptions,
    ) -> None:
        super().__init__(function, trigger.entity, limit=1, is_dead_letter=trigger.is_dead_letter)
        self._trigger = trigger
        self._receivers = receivers
        self._dispatcher = dispatcher
        self._most = trigger.max_batch_size or options.max_message_batch_size
        self._fewest = min(options.min_message_batch_size, self._most)
        self._wait_seconds = options.max_batch_wait_seconds
        self._auto_complete = options.auto_complete_messages if trigger.auto_complete is None else trigger.auto_complete

    def _consume(self) -> bool:
        receiver = self._receivers.open()
        try:
            while not self._stopping.is_set():
                batch = self._collect(receiver)
                self._trouble.clear()
                if batch:
                    self._handle(receiver, batch)
        finally:
            receiver.close()
        return True

    def _close(self) -> None:
        self._receivers.close()

    def _collect(self, receiver: BatchReceiver) -> list[ServiceBusReceivedMessage]:
        """A batch: at least the smallest size, unless that takes too long or the host ends."""
        batch: list[ServiceBusReceivedMessage] = []
        deadline = None
        while not self._stopping.is_set():
            with self._receiving():
                batch += receiver.receive_messages(self._most - len(batch), RECEIVE_SECONDS)
            if len(batch) >= self._fewest or not batch:
                break
            deadline = deadline or time.monotonic() + self._wait_seconds
            if time.monotonic() >= deadline:
                break
        return batch

    def _handle(self, receiver: BatchReceiver, batch: Sequence[ServiceBusReceivedMessage]) -> None:
        try:
            outcome = self._dispatcher.submit(
                batch_call(self._function, self._trigger, batch), f"{len(batch)} messages on {self._trigger.entity}"
            )
            self._unreadable.clear()
            succeeded = outcome.exception() is None
        except Exception as error:  # noqa: BLE001 - messages that cannot be converted fail as a function that raises
            self._let_rest(batch, error)
            succeeded = False
        if not succeeded or self._auto_complete:
            self._settle(receiver, batch, succeeded=succeeded)
