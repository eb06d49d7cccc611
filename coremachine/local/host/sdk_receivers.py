"""Receivers of the real SDK for Service Bus, for batches and for sessions."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import cast

from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusReceiver, ServiceBusSubQueue
from azure.servicebus.exceptions import OperationTimeoutError

from coremachine.local.host.batch_pump import BatchReceiver
from coremachine.local.host.clients import service_bus_client, turn_off_keep_alive
from coremachine.local.host.functions import ServiceBusTrigger
from coremachine.local.host.session_pump import SessionReceiver

# How long one request for a session stays open; the SDK repeats it twice.
_SESSION_SECONDS = 3.0


class PlainReceivers:
    """Receivers of the real SDK for batches: with its keep-alive, since no lock is renewed meanwhile."""

    def __init__(self, trigger: ServiceBusTrigger, environment: Mapping[str, str]) -> None:
        self._trigger = trigger
        self._client = service_bus_client(trigger.connection, environment)
        self._lock = threading.Lock()  # the client keeps its receivers in a set that is not made for threads

    def open(self) -> BatchReceiver:
        receiver = _opened(self._make())
        # Closing would wait for the thread of the keep-alive, which sleeps for a second at a time.
        receiver._handler._keep_alive_thread = None  # noqa: SLF001
        return cast("BatchReceiver", receiver)

    def _make(self, session_id: object = None, max_wait_time: float | None = None) -> ServiceBusReceiver:
        trigger = self._trigger
        options = {
            "sub_queue": ServiceBusSubQueue.DEAD_LETTER if trigger.is_dead_letter else None,
            "session_id": session_id,
            "max_wait_time": max_wait_time,
        }
        with self._lock:
            if trigger.queue_name:
                return self._client.get_queue_receiver(trigger.queue_name, **options)  # type: ignore[arg-type]
            names = trigger.topic_name, trigger.subscription_name
            return self._client.get_subscription_receiver(*names, **options)  # type: ignore[arg-type]

    def close(self) -> None:
        self._client.close()


class NextSessions(PlainReceivers):
    """Receivers of the real SDK that each hold one session."""

    def open(self, stopping: threading.Event) -> SessionReceiver | None:  # type: ignore[override]
        receiver = self._make(NEXT_AVAILABLE_SESSION, _SESSION_SECONDS)
        turn_off_keep_alive(receiver)  # its lock is renewed, and it is asked for messages
        _let_interrupt(receiver, stopping)
        try:
            return cast("SessionReceiver", _opened(receiver))
        except (OperationTimeoutError, _Interrupted):
            return None


class _Interrupted(BaseException):
    """The host ends while a session is waited for. Not an Exception: the SDK would try again."""


def _let_interrupt(receiver: ServiceBusReceiver, stopping: threading.Event) -> None:
    """Before it opens: the SDK asks several times a second whether its link is ready, which it is with a session."""
    create = receiver._create_handler  # noqa: SLF001

    def create_interruptible(auth: object) -> None:
        create(auth)
        is_ready = receiver._handler.client_ready  # noqa: SLF001

        def is_ready_unless_stopping() -> bool:
            if stopping.is_set() and not receiver._running:  # noqa: SLF001
                raise _Interrupted
            return bool(is_ready())

        receiver._handler.client_ready = is_ready_unless_stopping  # type: ignore[method-assign]  # noqa: SLF001

    receiver._create_handler = create_interruptible  # type: ignore[method-assign]  # noqa: SLF001


def _opened(receiver: ServiceBusReceiver) -> ServiceBusReceiver:
    try:
        return contextlib.ExitStack().enter_context(receiver)
    except BaseException:
        receiver.close()
        raise
