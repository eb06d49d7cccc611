"""Pumps a queue of a storage account: a message is deleted when its function has succeeded, else it is visible again.

After `maxDequeueCount` attempts it goes to `<queue>-poison`, as in Azure. The queue is asked again and again, less
often while it is empty, but every two seconds at least: Azure waits up to a minute (`maxPollingInterval`).
"""

from __future__ import annotations

import concurrent.futures
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from azure.functions.meta import Datum

from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.functions import IndexedFunction, QueueTrigger
from coremachine.local.host.invoker import Call
from coremachine.local.host.loop_pump import LoopPump
from coremachine.local.host.settings import StorageQueueOptions
from coremachine.local.host.storage import Storage
from coremachine.local.host.tracing import child_trace_parent

if TYPE_CHECKING:
    from azure.storage.queue import QueueClient, QueueMessage

log = logging.getLogger(__name__)

_Running = tuple["QueueMessage", Future[Datum | None]]

_INVISIBLE_SECONDS = 600
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 2.0


class StoragePump(LoopPump):
    """Moves the messages of one storage queue to one function, up to `batch_size` at a time."""

    def __init__(
        self,
        function: IndexedFunction,
        trigger: QueueTrigger,
        storage: Storage,
        dispatcher: Dispatcher,
        options: StorageQueueOptions,
        *,
        batch_size: int,
    ) -> None:
        super().__init__(function, trigger.queue_name, limit=1)
        self._trigger = trigger
        self._storage = storage
        self._dispatcher = dispatcher
        self._options = options
        self._batch_size = batch_size

    def _consume(self) -> bool:
        pause = _FIRST_PAUSE_SECONDS
        with self._storage.open_queue(self._trigger.connection, self._trigger.queue_name) as client:
            while not self._stopping.is_set():
                messages = self._receive(client)
                self._trouble.clear()
                self._finish(client, self._start(client, messages))
                pause = _FIRST_PAUSE_SECONDS if messages else min(pause * 2, self._longest_pause)
                if not messages:
                    self._stopping.wait(pause)
        return True

    def _close(self) -> None:
        """The client is closed where it is used."""

    @property
    def _longest_pause(self) -> float:
        return min(_LONGEST_PAUSE_SECONDS, self._options.max_polling_seconds)

    def _receive(self, client: QueueClient) -> list[QueueMessage]:
        from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415 - an extra

        with self._receiving():
            try:
                return list(
                    client.receive_messages(max_messages=self._batch_size, visibility_timeout=_INVISIBLE_SECONDS)
                )
            except ResourceNotFoundError:  # nobody has sent anything yet
                return []

    def _start(self, client: QueueClient, messages: list[QueueMessage]) -> list[_Running]:
        running = []
        for message in messages:
            try:
                text = self._storage.decode(message.content)
            except ValueError:
                log.exception("message_unreadable function=%s message_id=%s", self._function.name, message.id)
                self._tell(message, partial(self._poison, client))
                continue
            call = queue_call(self._function, text, metadata_of(message, text))
            running.append((message, self._dispatcher.submit(call, f"message on {self._entity}")))
        return running

    def _finish(self, client: QueueClient, running: list[_Running]) -> None:
        """Settle each message as its function ends, and keep the others invisible meanwhile."""
        renew_at = time.monotonic() + _INVISIBLE_SECONDS / 2
        while running:
            outcomes = [outcome for _, outcome in running]
            left = max(0.0, renew_at - time.monotonic())
            ended = concurrent.futures.wait(outcomes, left, return_when=concurrent.futures.FIRST_COMPLETED).done
            for message, outcome in running:
                if outcome in ended:
                    self._tell(message, self._verdict(client, message, succeeded=outcome.exception() is None))
            running = [(message, outcome) for message, outcome in running if outcome not in ended]
            if time.monotonic() >= renew_at:
                renew_at = time.monotonic() + _INVISIBLE_SECONDS / 2
                for message, _ in running:
                    self._tell(message, partial(self._hide, client, seconds=_INVISIBLE_SECONDS))

    def _verdict(self, client: QueueClient, message: QueueMessage, *, succeeded: bool) -> Callable[[QueueMessage], Any]:
        if succeeded:
            return client.delete_message
        if (message.dequeue_count or 0) >= self._options.max_dequeue_count:
            return partial(self._poison, client)
        return partial(self._hide, client, seconds=int(self._options.visibility_seconds))

    @staticmethod
    def _hide(client: QueueClient, message: QueueMessage, *, seconds: int) -> None:
        message.pop_receipt = client.update_message(message, visibility_timeout=seconds).pop_receipt

    def _poison(self, client: QueueClient, message: QueueMessage) -> None:
        name = f"{self._trigger.queue_name}-poison"
        log.warning("message_poisoned function=%s message_id=%s queue=%s", self._function.name, message.id, name)
        self._storage.forward(self._trigger.connection, name, message.content)
        client.delete_message(message)

    def _tell(self, message: QueueMessage, act: Callable[[QueueMessage], Any]) -> None:
        """A failure is logged only: the message is visible again later."""
        try:
            act(message)
        except Exception as exc:  # noqa: BLE001 - as documented
            log.warning("settle_failed function=%s message_id=%s error=%r", self._function.name, message.id, exc)


def queue_call(function: IndexedFunction, text: str, metadata: dict[str, Datum]) -> Call:
    """The invocation for a message of a storage queue."""
    return Call(function=function, data=Datum(text, "string"), metadata=metadata, trace_parent=child_trace_parent(""))


def metadata_of(message: QueueMessage, text: str) -> dict[str, Datum]:
    """What the real host sends beside the message."""
    times = {
        "ExpirationTime": message.expires_on,
        "InsertionTime": message.inserted_on,
        "NextVisibleTime": message.next_visible_on,
    }
    return {
        "Id": Datum(message.id, "string"),
        "PopReceipt": Datum(message.pop_receipt, "string"),
        "QueueTrigger": Datum(text, "string"),
        "DequeueCount": Datum(json.dumps(message.dequeue_count), "json"),
        **{name: Datum(json.dumps(_text_of(moment)), "json") for name, moment in times.items()},
    }


def _text_of(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
