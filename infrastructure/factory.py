"""Makes what the app works with, once a process: the one place where settings become objects."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING

from core.ports import ResultStore
from infrastructure.entra import EntraTokens, default_credential
from infrastructure.jobs_tasks import JobRepository, StageCompletionRepository, TaskRepository
from infrastructure.postgresql import Pool, create_pool
from infrastructure.service_bus import ServiceBusRepository, connect_with_identity, connect_with_string
from infrastructure.settings import DatabaseAuth, Settings

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusClient


@dataclass(frozen=True)
class Repositories:
    """One of each, on one pool."""

    jobs: JobRepository
    tasks: TaskRepository
    stages: StageCompletionRepository
    service_bus: ServiceBusRepository
    results: ResultStore | None = None


class RepositoryFactory:
    """Makes the repositories at their first use and keeps them. Any thread may ask.

    Nothing is connected before it is needed: the pool connects in the background, Service Bus at the first send.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = RLock()
        self._pool: Pool | None = None
        self._repositories: Repositories | None = None

    def create_repositories(self) -> Repositories:
        """The same ones each time, until `close`."""
        with self._lock:
            if self._repositories is None:
                self._pool = _make_pool(self.settings)
                self._repositories = _make_repositories(self.settings, self._pool)
            return self._repositories

    def close(self) -> None:
        """Close all connections. Who still holds a repository cannot use it any more."""
        with self._lock:
            repositories, self._repositories = self._repositories, None
            pool, self._pool = self._pool, None
        if repositories is not None:
            repositories.service_bus.close()
        if pool is not None:
            pool.close()


def _make_pool(settings: Settings) -> Pool:
    tokens = None
    if settings.database_auth is DatabaseAuth.ENTRA:
        tokens = EntraTokens(partial(default_credential, settings.service_bus_client_id))
    return create_pool(
        settings.database_url.get_secret_value(),
        password=tokens,
        max_size=settings.pool_size,
        max_lifetime_seconds=settings.connection_max_lifetime_seconds,
    )


def _make_repositories(settings: Settings, pool: Pool) -> Repositories:
    return Repositories(
        jobs=JobRepository(pool, settings.schema_name),
        tasks=TaskRepository(pool, settings.schema_name),
        stages=StageCompletionRepository(pool, settings.schema_name),
        service_bus=ServiceBusRepository(settings.queue_names, _service_bus_connector(settings)),
    )


def _service_bus_connector(settings: Settings) -> Callable[[], "ServiceBusClient"]:
    if settings.service_bus_connection is not None:
        return partial(connect_with_string, settings.service_bus_connection.get_secret_value())
    if settings.service_bus_namespace is not None:
        return partial(connect_with_identity, settings.service_bus_namespace, settings.service_bus_client_id)
    raise AssertionError("settings name no Service Bus, which load_settings refuses")
