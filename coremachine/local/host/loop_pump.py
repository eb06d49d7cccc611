"""The part that all pumps of Service Bus share: threads that receive until stopped, and back off after errors."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from coremachine.local.host.functions import IndexedFunction
from coremachine.local.host.trouble import Trouble, Unreadable, back_off

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusReceivedMessage

log = logging.getLogger(__name__)

# How long one request for messages stays open: bounds how late a thread notices that it should stop.
RECEIVE_SECONDS = 0.5


class Settler(Protocol):
    """The part of the SDK's receiver that ends deliveries."""

    def complete_message(self, message: ServiceBusReceivedMessage) -> None: ...

    def abandon_message(self, message: ServiceBusReceivedMessage) -> None: ...


class LoopPump(ABC):
    """Moves messages of one entity to one function, in up to `limit` threads."""

    def __init__(self, function: IndexedFunction, entity: str, *, limit: int, is_dead_letter: bool = False) -> None:
        self._function = function
        self._entity = entity
        self._limit = limit
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._opened = 0
        self._asking = 0
        self._trouble = Trouble(entity, log)
        self._unreadable = Unreadable(function.name, is_dead_letter=is_dead_letter, log=log)

    def start(self) -> None:
        log.info("pump_started function=%s entity=%s threads<=%d", self._function.name, self._entity, self._limit)
        self._add_threads(1)

    def stop(self) -> None:
        """Take no more messages. Those in flight go on; `join` waits for them to be settled."""
        self._stopping.set()

    def quiesce(self, timeout_seconds: float) -> None:
        """After `stop`: wait until no thread asks for messages any more.

        A message that is abandoned before that comes straight back to another thread of the pump that is going down,
        which can only abandon it again: each round costs it a delivery.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._asking == 0, timeout_seconds)

    def join(self, timeout_seconds: float) -> bool:
        """Wait until every thread has settled its messages and closed its receiver; False when that takes longer."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            with self._changed:
                threads = list(self._threads)
            if not threads:
                self._close()
                return True
            threads[0].join(max(0.0, deadline - time.monotonic()))
            if threads[0].is_alive():
                return False

    @abstractmethod
    def _consume(self) -> bool:
        """Receive and handle messages for a while; False: this thread is not needed any more."""

    @abstractmethod
    def _close(self) -> None:
        """Close the client, when all threads have ended."""

    def _may_end_after_error(self) -> bool:
        """Whether a thread that met an error is not needed any more."""
        return False

    def _add_threads(self, count: int) -> None:
        """Start this number of threads, or fewer where the limit is reached."""
        with self._changed:
            if self._stopping.is_set():
                return
            for _ in range(min(count, self._limit - len(self._threads))):
                self._opened += 1
                name = f"pump-{self._function.name}-{self._opened}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._threads.add(thread)
                thread.start()

    def _run(self) -> None:
        failures = 0
        try:
            while not self._stopping.is_set():
                try:
                    if not self._consume():
                        return
                    failures = 0
                    self._trouble.clear()
                except Exception as exc:  # noqa: BLE001 - whatever the SDK raises, the pump must go on
                    self._trouble.report(exc)
                    if self._may_end_after_error():
                        return
                    self._stopping.wait(back_off(failures))
                    failures += 1
        finally:
            with self._changed:
                self._threads.discard(threading.current_thread())

    def _let_rest(self, messages: Sequence[ServiceBusReceivedMessage], error: Exception) -> None:
        """Report messages that no function can be given, and keep them for as long as they are to rest."""
        pauses = [self._unreadable.report(one.message_id, one.delivery_count or 0, error) for one in messages]
        self._stopping.wait(max(pauses))

    @contextlib.contextmanager
    def _receiving(self) -> Iterator[None]:
        with self._changed:
            self._asking += 1
        try:
            yield
        finally:
            with self._changed:
                self._asking -= 1
                self._changed.notify_all()

    def _settle(self, settler: Settler, messages: Sequence[ServiceBusReceivedMessage], *, succeeded: bool) -> None:
        """Complete or abandon all. A failure is logged only: the broker delivers the message again."""
        settle: Callable[[ServiceBusReceivedMessage], None]
        settle = settler.complete_message if succeeded else settler.abandon_message
        verb = "complete" if succeeded else "abandon"
        for message in messages:
            try:
                settle(message)
            except Exception as exc:  # noqa: BLE001 - as documented
                name = self._function.name
                log.warning(
                    "settle_failed function=%s message_id=%s verb=%s error=%r", name, message.message_id, verb, exc
                )
