"""The broker as a whole: an AMQP port, an HTTP port and the queues between them."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict

from coremachine.local.broker.admin_http import AdminHttp
from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.connection import Connection
from coremachine.local.broker.namespace import Namespace
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


class Broker:
    """A local Service Bus namespace. Messages live in memory and are gone when it stops.

    Args:
        config: The queues.
        host: The address to listen on.
        amqp_port: 0 for any free port; read `amqp_port` after `start()`.
        admin_port: The HTTP port; 0 as above.
        clock: Seconds since the Unix epoch.
    """

    def __init__(
        self,
        config: BrokerConfig,
        *,
        host: str = "127.0.0.1",
        amqp_port: int = 5672,
        admin_port: int = 5300,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.namespace = Namespace.of(config, clock)
        self.host = host
        self.amqp_port = amqp_port
        self.admin_port = admin_port
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []

    @property
    def connection_string(self) -> str:
        return (
            f"Endpoint=sb://localhost:{self.amqp_port};SharedAccessKeyName=RootManageSharedAccessKey;"
            "SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;"
        )

    @property
    def admin_url(self) -> str:
        return f"http://{self.host}:{self.admin_port}"

    async def start(self) -> None:
        """Listen on both ports.

        Raises:
            PortInUse: One of them is taken; the other is free again.
        """
        loop = asyncio.get_running_loop()
        limit = connection_limit(descriptor_limit()) // 2
        book = ConnectionBook("amqp", limit)
        try:
            amqp = await loop.create_server(
                lambda: Connection(self.namespace, self._connections, book), self.host, self.amqp_port
            )
        except OSError as exc:
            raise PortInUse(self.host, self.amqp_port, "AMQP", exc.strerror or str(exc)) from exc
        self._servers.append(amqp)
        try:
            admin = await asyncio.start_server(
                AdminHttp(self, ConnectionBook("administration", limit)).on_connection, self.host, self.admin_port
            )
        except OSError as exc:
            await self.stop()
            raise PortInUse(self.host, self.admin_port, "administration", exc.strerror or str(exc)) from exc
        self._servers.append(admin)
        self.amqp_port = amqp.sockets[0].getsockname()[1]
        self.admin_port = admin.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close all connections and ports."""
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

    def purge(self, queue: str) -> int:
        """Forget all messages of a queue; `<queue>/$DeadLetterQueue` names its dead letters."""
        return self.namespace.get(queue).queue.purge()

    def drop_connections(self) -> int:
        """Cut every AMQP connection without a word; returns how many there were."""
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        return len(connections)

    def reject_sends(self, count: int) -> None:
        """Answer the next sends with server-busy."""
        self.namespace.faults.sends_to_reject = count

    def expire_locks(self, queue: str | None = None) -> int:
        """End all locks of a queue, or of all queues, now; returns how many there were."""
        entities = [self.namespace.get(queue)] if queue is not None else self.namespace.entities
        expired = 0
        for entity in entities:
            expired += entity.queue.expire_locks()
            entity.pump()
        return expired
