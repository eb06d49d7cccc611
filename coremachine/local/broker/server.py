"""The broker as a whole: an AMQP port, an HTTP port and the queues between them."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from coremachine.local.broker.admin_http import AdminHttp
from coremachine.local.broker.clock import TurnableClock
from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.connection import Connection
from coremachine.local.broker.durable_error import DurableError
from coremachine.local.broker.limits import IdleLimits
from coremachine.local.broker.namespace import Namespace
from coremachine.local.broker.performatives import AmqpError
from coremachine.local.broker.queue import Queue
from coremachine.local.broker.websocket import Doorway
from coremachine.local.connections import ConnectionBook, connection_limit
from coremachine.local.descriptors import descriptor_limit


class PortInUse(OSError):
    """A port cannot be listened on."""

    def __init__(self, host: str, port: int, purpose: str, reason: str) -> None:
        self.host, self.port, self.purpose = host, port, purpose
        super().__init__(
            f"expected port {port} on {host} to be free for {purpose}, found: {reason}; "
            "choose another (0 = any free port)"
        )


@dataclass(frozen=True)
class TlsPorts:
    """The same ports with TLS.

    Attributes:
        folder: Holds the certificate authority that clients trust, `ca.pem`; made where missing.
        amqp_port: 0 for any free port, None for none; Service Bus has 5671.
        admin_port: As above.
    """

    folder: Path
    amqp_port: int | None = None
    admin_port: int | None = None


class Broker:
    """A local Service Bus namespace. Without a file, messages are gone when it stops.

    Args:
        config: The queues and topics.
        host: The address to listen on.
        amqp_port: 0 for any free port; read `amqp_port` after `start()`.
        admin_port: The HTTP port; 0 as above.
        tls: Ports with TLS beside them.
        idle: When silent connections and links are closed; never by default.
        clock: Seconds since the Unix epoch; tests can turn the default one.
        durable: A file that keeps all entities and messages, made where missing.

    Raises:
        DurableError: The file cannot be used.
    """

    def __init__(
        self,
        config: BrokerConfig,
        *,
        host: str = "127.0.0.1",
        amqp_port: int = 5672,
        admin_port: int = 5300,
        tls: TlsPorts | None = None,
        idle: IdleLimits | None = None,
        clock: TurnableClock | None = None,
        durable: Path | None = None,
    ) -> None:
        self._clock = clock or TurnableClock()
        self.failure: DurableError | None = None
        self.on_failure: Callable[[], None] | None = None
        self.namespace = self._durable_namespace(config, durable) if durable else Namespace.of(config, self._clock)
        self.host = host
        self.amqp_port = amqp_port
        self.admin_port = admin_port
        self.amqps_port: int | None = None
        self.admin_tls_port: int | None = None
        self._tls = tls
        self._idle = idle or IdleLimits()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []

    def _durable_namespace(self, config: BrokerConfig, path: Path) -> Namespace:
        from coremachine.local.broker.durable import Keeper  # noqa: PLC0415 - only then is SQLite loaded

        keeper = Keeper(path, self._clock, lambda action: asyncio.get_running_loop().call_soon(action))
        try:
            namespace = Namespace.of(keeper.merged(config), self._clock, keeper=keeper)
            keeper.commit()
        except BaseException:
            keeper.abandon()
            raise
        keeper.on_failure = self._fail
        return namespace

    def _fail(self, failure: DurableError) -> None:
        self.failure = failure
        self.drop_connections()
        if self.on_failure is not None:
            self.on_failure()

    @property
    def connection_string(self) -> str:
        return (
            f"Endpoint=sb://localhost:{self.amqp_port};SharedAccessKeyName=RootManageSharedAccessKey;"
            "SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;"
        )

    @property
    def admin_url(self) -> str:
        return f"http://{self.host}:{self.admin_port}"

    @property
    def admin_connection_string(self) -> str:
        """For administration clients, which speak HTTPS only; needs a TLS port for administration."""
        if self.admin_tls_port is None:
            raise RuntimeError("expected a TLS port for administration, found none; start the broker with one")
        return (
            f"Endpoint=sb://localhost:{self.admin_tls_port};SharedAccessKeyName=RootManageSharedAccessKey;"
            "SharedAccessKey=SAS_KEY_VALUE"
        )

    async def start(self) -> None:
        """Listen on all ports.

        Raises:
            PortInUse: One of them is taken; the others are free again.
        """
        limit = connection_limit(descriptor_limit()) // 2
        amqp, admin = ConnectionBook("amqp", limit), ConnectionBook("administration", limit)
        try:
            self.amqp_port = await self._listen_amqp(self.amqp_port, amqp, None)
            self.admin_port = await self._listen_admin(self.admin_port, admin, None)
            if self._tls is not None:
                from coremachine.local.broker.certificates import server_context  # noqa: PLC0415 - slow to import

                context = server_context(self._tls.folder)
                if self._tls.amqp_port is not None:
                    self.amqps_port = await self._listen_amqp(self._tls.amqp_port, amqp, context)
                if self._tls.admin_port is not None:
                    self.admin_tls_port = await self._listen_admin(self._tls.admin_port, admin, context)
        except BaseException:
            await self.stop()
            raise
        self._watch_idle_links()
        # What a file kept may be due.
        self.namespace.clock_turned()

    async def _listen_amqp(self, port: int, book: ConnectionBook, context: ssl.SSLContext | None) -> int:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: Doorway(Connection(self.namespace, self._connections, book, self._idle)),
                self.host,
                port,
                ssl=context,
            )
        except OSError as exc:
            raise PortInUse(self.host, port, "AMQP", exc.strerror or str(exc)) from exc
        return self._added(server)

    async def _listen_admin(self, port: int, book: ConnectionBook, context: ssl.SSLContext | None) -> int:
        try:
            server = await asyncio.start_server(AdminHttp(self, book).on_connection, self.host, port, ssl=context)
        except OSError as exc:
            raise PortInUse(self.host, port, "administration", exc.strerror or str(exc)) from exc
        return self._added(server)

    def _added(self, server: asyncio.Server) -> int:
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def _watch_idle_links(self) -> None:
        limit = self._idle.link_seconds
        if limit is not None:
            self.detach_idle_links(limit)
            self._idle_timer = asyncio.get_running_loop().call_later(limit / 4, self._watch_idle_links)

    async def stop(self) -> None:
        """Close all connections and ports."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)
        # Who does not read the farewell is not waited for.
        self.drop_connections()
        await asyncio.sleep(0)
        self.namespace.close()

    def queue_counts(self) -> dict[str, dict[str, int]]:
        """Per queue and subscription: active, locked, scheduled, deferred and dead_letter."""
        return {entity.name: asdict(entity.queue.counts()) for entity in self.namespace.entities}

    def counts(self, path: str) -> dict[str, int]:
        """As above, of one queue, topic, subscription or dead-letter queue."""
        return asdict(self.namespace.get(path).queue.counts())

    def purge(self, queue: str) -> int:
        """Forget all messages of a queue; `<queue>/$DeadLetterQueue` names its dead letters."""
        return self.namespace.get(queue).queue.purge()

    def purge_all(self) -> None:
        """Forget all messages of all entities, dead letters too."""
        for queue in self._all_queues():
            queue.purge()

    def reset(self) -> None:
        """Forget messages, dead letters, locks, states of sessions and faults, and turn the clock back.

        Queues, topics and rules stay.
        """
        for queue in self._all_queues():
            queue.reset()
        self.namespace.faults.clear()
        self._clock.turn_back()
        self.namespace.clock_turned()

    def _all_queues(self) -> list[Queue]:
        queues = [entity.queue for entity in [*self.namespace.topics, *self.namespace.entities]]
        return [*queues, *(queue.dead_letters for queue in queues if queue.dead_letters is not None)]

    def drop_connections(self) -> int:
        """Cut every AMQP connection without a word; returns how many there were."""
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        return len(connections)

    def reject_sends(self, count: int) -> None:
        """Answer the next sends with server-busy."""
        self.namespace.faults.reject(count)

    def duplicate_messages(self, count: int, entity: str | None = None) -> None:
        """Take each of the next messages twice: those to one queue or topic, or to any.

        Raises:
            ValueError: Clients do not send to this entity, or there is none.
        """
        self.namespace.faults.duplicate(count, self._target(entity))

    def delay_messages(self, count: int, seconds: float, entity: str | None = None) -> None:
        """Keep each of the next messages back for some seconds, as if its sender had scheduled it.

        Raises:
            ValueError: The seconds are not above 0, or the entity is none that clients send to.
        """
        self.namespace.faults.delay(count, seconds, self._target(entity))

    def clear_faults(self) -> None:
        """Forget the faults that were asked for and have not happened."""
        self.namespace.faults.clear()

    def _target(self, name: str | None) -> str | None:
        entity = None if name is None else self.namespace.find(name)
        # Dead-letter queues have none themselves.
        is_target = entity is not None and entity.dead_letters is not None
        if name is not None and (not is_target or self.namespace.find_subscription(name) is not None):
            raise ValueError(f"expected a queue or topic that clients send to, found '{name[:300]}'")
        return None if entity is None else entity.name

    def expire_locks(self, queue: str | None = None) -> int:
        """End all locks of a queue, or of all queues, now; returns how many there were."""
        entities = [self.namespace.get(queue)] if queue is not None else self.namespace.entities
        expired = 0
        for entity in entities:
            expired += entity.queue.expire_locks()
            entity.pump()
        return expired

    def detach_links(self, queue: str) -> int:
        """Detach all links to a queue, topic or subscription by force; returns how many there were."""
        text = f"The link to '{queue}' is force detached on demand of a test."
        return self.namespace.get(queue).detach_links(AmqpError("amqp:link:detach-forced", text))

    def detach_idle_links(self, seconds: float) -> int:
        """Detach the links that were not used for this long; returns how many there were."""
        used_before = self._clock() - seconds
        return sum(connection.detach_idle(used_before) for connection in list(self._connections))

    def turn_clock(self, seconds: float) -> None:
        """Let time pass: locks end, messages expire, scheduled ones become active.

        Raises:
            ValueError: The number is negative or above ten years.
        """
        self._clock.turn(seconds)
        self.namespace.clock_turned()
