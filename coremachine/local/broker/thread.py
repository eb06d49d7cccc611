"""The broker in a background thread: for tests and for programs that bring their own."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.limits import IdleLimits
from coremachine.local.broker.performatives import AmqpError
from coremachine.local.broker.server import Broker, TlsPorts

T = TypeVar("T")

_CALL_TIMEOUT_SECONDS = 30.0


class BrokerThread:
    """A context manager that runs a broker, on free ports unless the config names others.

    Its methods may be called from any thread; ports and connection string are known once it is entered.
    """

    def __init__(
        self,
        config: BrokerConfig,
        *,
        host: str = "127.0.0.1",
        amqp_port: int = 0,
        admin_port: int = 0,
        tls: TlsPorts | None = None,
        idle: IdleLimits | None = None,
        durable: Path | None = None,
    ) -> None:
        self._config = config
        self._address = (host, amqp_port, admin_port)
        self._tls, self._idle, self._durable = tls, idle, durable
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._broker: Broker | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the thread and wait until both ports are open; raises what `Broker.start()` raises."""
        host, amqp_port, admin_port = self._address
        broker = Broker(
            self._config,
            host=host,
            amqp_port=amqp_port,
            admin_port=admin_port,
            tls=self._tls,
            idle=self._idle,
            durable=self._durable,
        )
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="service-bus-broker", daemon=True)
        thread.start()
        self._loop, self._thread = loop, thread
        try:
            asyncio.run_coroutine_threadsafe(broker.start(), loop).result(_CALL_TIMEOUT_SECONDS)
        except BaseException:
            self._stop_loop()
            raise
        self._broker = broker

    def stop(self) -> None:
        """Stop the broker and its thread; a stopped one is left alone."""
        if self._broker is None or self._loop is None:
            return
        broker, self._broker = self._broker, None
        try:
            asyncio.run_coroutine_threadsafe(broker.stop(), self._loop).result(_CALL_TIMEOUT_SECONDS)
        finally:
            self._stop_loop()

    @property
    def connection_string(self) -> str:
        return self._running().connection_string

    @property
    def admin_url(self) -> str:
        return self._running().admin_url

    @property
    def admin_connection_string(self) -> str:
        return self._running().admin_connection_string

    @property
    def amqps_port(self) -> int | None:
        return self._running().amqps_port

    @property
    def amqp_port(self) -> int:
        return self._running().amqp_port

    @property
    def admin_port(self) -> int:
        return self._running().admin_port

    def counts(self, queue: str) -> dict[str, int]:
        """Active, locked, scheduled, deferred and dead_letter of a queue, or of `topic/Subscriptions/name`."""
        return self._call(lambda: self._running().counts(queue))

    def reset(self) -> None:
        """Be as new for the next test: no messages, locks, states of sessions and faults, and the clock is right.

        Queues, topics and rules stay, and so do connections.
        """
        self._call(lambda: self._running().reset())

    def purge(self, queue: str) -> int:
        return self._call(lambda: self._running().purge(queue))

    def purge_all(self) -> None:
        """Forget all messages, dead letters too; queues, topics and rules stay."""
        self._call(lambda: self._running().purge_all())

    def drop_connections(self) -> int:
        return self._call(lambda: self._running().drop_connections())

    def reject_sends(self, count: int) -> None:
        """Answer the next sends with server-busy; a batch is one."""
        self._call(lambda: self._running().reject_sends(count))

    def duplicate_messages(self, count: int, entity: str | None = None) -> None:
        """Take each of the next messages twice: those to one queue or topic, or to any."""
        self._call(lambda: self._running().duplicate_messages(count, entity))

    def delay_messages(self, count: int, seconds: float, entity: str | None = None) -> None:
        """Keep each of the next messages back for some seconds of the broker's clock, as if it had been scheduled."""
        self._call(lambda: self._running().delay_messages(count, seconds, entity))

    def clear_faults(self) -> None:
        """Forget the faults that were asked for and have not happened."""
        self._call(lambda: self._running().clear_faults())

    def expire_locks(self, queue: str | None = None) -> int:
        return self._call(lambda: self._running().expire_locks(queue))

    def detach_links(self, queue: str) -> int:
        return self._call(lambda: self._running().detach_links(queue))

    def turn_clock(self, seconds: float) -> None:
        """Let time pass for the broker: locks end, messages expire, scheduled ones become active."""
        self._call(lambda: self._running().turn_clock(seconds))

    def _running(self) -> Broker:
        if self._broker is None:
            raise RuntimeError("expected a running broker, found a stopped one; use it inside its with block")
        return self._broker

    def _call(self, action: Callable[[], T]) -> T:
        """Run something in the broker's event loop and wait for its result.

        Raises:
            ValueError: What a client would be refused with, such as a queue that does not exist.
        """
        if self._loop is None:
            raise RuntimeError("expected a running broker, found a stopped one; use it inside its with block")

        async def in_loop() -> T:
            try:
                return action()
            except AmqpError as exc:
                raise ValueError(exc.description) from exc

        return asyncio.run_coroutine_threadsafe(in_loop(), self._loop).result(_CALL_TIMEOUT_SECONDS)

    def _stop_loop(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.close()
