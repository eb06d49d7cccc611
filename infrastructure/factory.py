"""Makes what the app works with, once a process: the one place where settings become objects."""

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, cast

from core.basics.shared_look import NoAnswer, SharedLook
from core.basics.version import VERSION
from core.models.app import AppProfile
from core.ports import JobCatalog
from core.safety.safe_log import safe_logger
from infrastructure.apps import AppRepository
from infrastructure.audit import AuditRepository
from infrastructure.base import ConnectionsInUse, DatabaseSilent, RepositoryError
from infrastructure.dashboard import DashboardQueries
from infrastructure.dead_letters import DeadLetterRepository
from infrastructure.entra import EntraTokens, default_credential
from infrastructure.failures import FailureQueries
from infrastructure.insight import InsightQueries
from infrastructure.janitor_store import JanitorRepository
from infrastructure.jobs_tasks import JobRepository, StageCompletionRepository, TaskRepository
from infrastructure.limits import LimitRepository
from infrastructure.migrations import Migrator, SchemaStatus
from infrastructure.postgresql import Pool, create_pool
from infrastructure.queries import JobNotFound, JobQueries
from infrastructure.queue_probe import QueueProbe
from infrastructure.results import ResultRepository
from infrastructure.retention import RetentionRepository
from infrastructure.schedules import ScheduleRepository
from infrastructure.service_bus import ServiceBusRepository, connect_with_identity, connect_with_string
from infrastructure.settings import AppMode, DatabaseAuth, Settings
from infrastructure.stand_in import LeaseStandIn
from infrastructure.telemetry.start import let_observer_read
from infrastructure.webhooks import WebhookRepository

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusClient

    from core.machine import CoreMachine
    from core.operating.dead_letters import DeadLetters
    from core.operating.fleet_watch import Presence
    from core.operating.janitor import Janitor, JanitorTimings
    from core.orchestration_manager import OrchestrationManager
    from core.scheduling.schedules import Schedules
    from core.scheduling.ticker import ScheduleTicker
    from core.state_manager import StateManager
    from core.webhooks.sender import WebhookSender
    from core.webhooks.signing import WebhookSecrets
    from core.webhooks.webhooks import Webhooks

# Who asks whether the database is there wants to hear soon that it is not.
_PROBE_SECONDS = 3.0
log = safe_logger(__name__)
# A probe of the database waits no longer for its answer: its caller has a limit, too.
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Repositories:
    """One of each, on one pool."""

    jobs: JobRepository
    tasks: TaskRepository
    stages: StageCompletionRepository
    results: ResultRepository
    janitor: JanitorRepository
    service_bus: ServiceBusRepository
    queries: JobQueries
    retention: RetentionRepository
    dead_letters: DeadLetterRepository
    failures: FailureQueries
    insight: InsightQueries
    dashboard: DashboardQueries
    schedules: ScheduleRepository
    audit: AuditRepository
    apps: AppRepository
    limits: LimitRepository
    webhooks: WebhookRepository


class RepositoryFactory:
    """Makes the repositories at their first use and keeps them. Any thread may ask.

    Nothing is connected before it is needed: the pool connects in the background, Service Bus for the first machine
    that moves jobs, or at the first send.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = RLock()
        self._pool: Pool | None = None
        self._repositories: Repositories | None = None
        self._status_look: SharedLook[SchemaStatus] | None = None
        self._stand_ins: list[LeaseStandIn] = []

    def create_repositories(self) -> Repositories:
        """The same ones each time, until `close`."""
        with self._lock:
            if self._repositories is None:
                self._pool = _make_pool(self.settings)
                self._repositories = _make_repositories(self.settings, self._pool)
                let_observer_read(self._pool, self.settings.schema_name)
            return self._repositories

    def create_machine(self, catalog: JobCatalog) -> "CoreMachine":
        """A machine over these repositories, with a heartbeat thread of its own: an app makes one.

        Where it moves jobs, the connections that announce them begin to open.
        """
        if self.settings.app_mode is not AppMode.WORKER:
            self.create_repositories().service_bus.open_senders()
        owner = _owner_of(self.settings)
        stand_in = LeaseStandIn(self.settings, owner)
        self._stand_ins.append(stand_in)
        return _make_machine(self.settings, self.create_repositories(), catalog, owner, stand_in)

    def create_janitor(self, catalog: JobCatalog, *, timings: "JanitorTimings | None" = None) -> "Janitor":
        """A janitor over these repositories, which also looks whether a queue lost its messages."""
        return _make_janitor(self.settings, self.create_repositories(), catalog, timings)

    def create_schedules(self, catalog: JobCatalog) -> "Schedules":
        """What people do with schedules, over these repositories."""
        from core.scheduling.schedules import Schedules  # noqa: PLC0415 - only apps that answer requests have it

        found = self.create_repositories()
        ticker = _make_ticker(self.settings, found, catalog)
        return Schedules(found.schedules, catalog, ticker, most_bytes=self.settings.max_value_bytes)

    def create_webhooks(self) -> "Webhooks":
        """What people do with webhooks, over these repositories."""
        from core.webhooks.targets import TargetRules, read_networks  # noqa: PLC0415 - as for schedules
        from core.webhooks.webhooks import Webhooks  # noqa: PLC0415

        rules = TargetRules(read_networks(self.settings.webhook_networks))
        return Webhooks(self.create_repositories().webhooks, _make_secrets(self.settings), rules)

    def create_webhook_sender(self) -> "WebhookSender":
        """Sends deliveries to webhooks. An app has one at a time."""
        from core.operating.explain import first_reason  # noqa: PLC0415 - only apps with timers have it
        from core.webhooks.sender import WebhookSender  # noqa: PLC0415
        from core.webhooks.targets import TargetRules, read_networks  # noqa: PLC0415
        from infrastructure.webhook_http import HttpPoster  # noqa: PLC0415

        poster = HttpPoster(TargetRules(read_networks(self.settings.webhook_networks)))
        source = f"urn:coremachine:{self.settings.schema_name}"
        found = self.create_repositories()
        secrets = _make_secrets(self.settings)

        def explain_job(job_id: str) -> dict[str, str] | None:
            try:
                return first_reason(found.insight.get_job_facts(job_id))
            except JobNotFound:
                return None

        return WebhookSender(found.webhooks, poster, secrets, source=source, explain_job=explain_job)

    def create_dead_letters(self) -> "DeadLetters":
        """Writes dead messages down over these repositories, and sends them again."""
        from core.operating.dead_letters import DeadLetters  # noqa: PLC0415 - only apps that move jobs have it

        found = self.create_repositories()
        state = _make_state(found)
        return DeadLetters(found.dead_letters, state, found.service_bus, self.settings.queue_names)

    def create_presence(self, instance: str, *, task_types: tuple[str, ...], job_types: tuple[str, ...]) -> "Presence":
        """Registers this process under its name in leases. An app makes one."""
        from core.operating.fleet_watch import Presence  # noqa: PLC0415 - as for the machine

        settings = self.settings
        profile = AppProfile(
            instance=instance,
            app_name=settings.app_name,
            mode=settings.app_mode.value,
            version=VERSION,
            release=settings.release or None,
            queues=tuple(sorted(settings.read_queues)),
            task_types=task_types,
            job_types=job_types,
            slots=settings.slots,
        )
        return Presence(self.create_repositories().apps, profile)

    def create_queue_probe(self) -> QueueProbe:
        """Keeps `service_bus.missing_queues` up to date where nothing is sent. An app makes one."""
        return QueueProbe(self.create_repositories().service_bus.check_queue, self.settings.queue_names)

    def schema_status(self) -> SchemaStatus:
        """Which migrations of this release the database has.

        Raises:
            StoreUnavailable: It cannot be reached, or does not answer.
            MigrationError: Its schema is none of ours, or was edited.
        """
        with self._lock:
            self.create_repositories()
            if self._status_look is None:
                migrator = Migrator(cast("Pool", self._pool), self.settings.schema_name)
                look = partial(_look_at_schema, migrator, self.create_repositories().insight)
                self._status_look = SharedLook("database-look", look, _ANSWER_SECONDS)
            status = self._status_look
        try:
            return status.ask()
        except NoAnswer as silence:
            reason = (
                f"expected an answer within {_ANSWER_SECONDS:g} s, found none for {silence.seconds:.0f} s; the server, "
                "or a pooler in front of it, takes statements and does not answer: look whether it is paused or stopped"
            )
            raise DatabaseSilent("schema_status", reason) from silence

    def close(self) -> None:
        """Close all connections. Repositories cannot be used afterwards."""
        with self._lock:
            repositories, self._repositories = self._repositories, None
            pool, self._pool = self._pool, None
            self._status_look = None
            stand_ins, self._stand_ins = self._stand_ins, []
        for stand_in in stand_ins:
            stand_in.close()
        if repositories is not None:
            repositories.service_bus.close()
        if pool is not None:
            pool.close()


def _look_at_schema(migrator: Migrator, insight: InsightQueries) -> SchemaStatus:
    """Raises what `Migrator.status` raises; with the session that all connections wait for, if there is one."""
    try:
        return migrator.status(patience_seconds=_PROBE_SECONDS)
    except ConnectionsInUse as busy:
        try:
            holders = insight.find_holders_beside(_PROBE_SECONDS)
        except RepositoryError as error:
            log.info("lock_holders_not_found", extra={"reason": str(error)})
            holders = ()
        if holders:
            busy.held_up_by = "; ".join(f"{holder.text}: {holder.advice}" for holder in holders)
        raise


def _make_pool(settings: Settings) -> Pool:
    tokens = None
    if settings.database_auth is DatabaseAuth.ENTRA:
        tokens = EntraTokens(partial(default_credential, settings.database_client_id))
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
        results=ResultRepository(pool, settings.schema_name),
        janitor=JanitorRepository(pool, settings.schema_name),
        service_bus=ServiceBusRepository(settings.queue_names, _service_bus_connector(settings)),
        queries=JobQueries(pool, settings.schema_name),
        retention=RetentionRepository(pool, settings.schema_name),
        dead_letters=DeadLetterRepository(pool, settings.schema_name),
        failures=FailureQueries(pool, settings.schema_name),
        insight=InsightQueries(pool, settings.schema_name),
        dashboard=DashboardQueries(pool, settings.schema_name),
        schedules=ScheduleRepository(pool, settings.schema_name),
        audit=AuditRepository(pool, settings.schema_name),
        apps=AppRepository(pool, settings.schema_name),
        limits=LimitRepository(pool, settings.schema_name),
        webhooks=WebhookRepository(pool, settings.schema_name),
    )


def _owner_of(settings: Settings) -> str:
    """This process's name in leases. Containers share host names and process ids; the last part is this one's alone."""
    return f"{settings.app_name}:{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def _make_machine(
    settings: Settings, repositories: Repositories, catalog: JobCatalog, owner: str, stand_in: LeaseStandIn
) -> "CoreMachine":
    from core.basics.faults import arm_from_text  # noqa: PLC0415 - an app that only answers queries has no machine
    from core.machine import CoreMachine  # noqa: PLC0415
    from core.running.engine_parts import EngineParts  # noqa: PLC0415
    from core.running.leases import LeaseKeeper  # noqa: PLC0415
    from core.running.task_slots import TaskSlots  # noqa: PLC0415

    arm_from_text(settings.fault)
    state, orchestration = _make_rules(settings, repositories, catalog)
    return CoreMachine(
        EngineParts(
            catalog=catalog,
            state=state,
            orchestration=orchestration,
            results=repositories.results,
            keeper=LeaseKeeper(repositories.tasks, stand_in),
            owner=owner,
            slots=TaskSlots(settings.task_threads),
            unknown_work_patience_seconds=settings.unknown_work_patience_seconds,
        )
    )


def _make_janitor(
    settings: Settings, repositories: Repositories, catalog: JobCatalog, timings: "JanitorTimings | None"
) -> "Janitor":
    from core.operating.fleet_watch import FleetWatch  # noqa: PLC0415 - only apps with timers have one
    from core.operating.janitor import Janitor, JanitorTimings  # noqa: PLC0415

    state, orchestration = _make_rules(settings, repositories, catalog)
    return Janitor(
        repositories.janitor,
        state,
        orchestration,
        queues=settings.task_queues,
        pruner=repositories.retention,
        retention_seconds=settings.retention_days * 86_400 if settings.retention_days else None,
        inspector=repositories.service_bus,
        ticker=_make_ticker(settings, repositories, catalog),
        watch=FleetWatch(repositories.apps),
        timings=timings or JanitorTimings(),
    )


def _make_ticker(settings: Settings, repositories: Repositories, catalog: JobCatalog) -> "ScheduleTicker":
    from core.advancing.submission import Submitter  # noqa: PLC0415 - as for the janitor
    from core.scheduling.ticker import ScheduleTicker  # noqa: PLC0415

    state, orchestration = _make_rules(settings, repositories, catalog)
    return ScheduleTicker(repositories.schedules, Submitter(catalog, state, orchestration))


def _make_secrets(settings: Settings) -> "WebhookSecrets":
    from core.webhooks.signing import WebhookSecrets  # noqa: PLC0415 - as for the sender

    key = settings.webhook_key
    return WebhookSecrets(None if key is None else key.get_secret_value(), os.environ)


def _make_rules(
    settings: Settings, repositories: Repositories, catalog: JobCatalog
) -> tuple["StateManager", "OrchestrationManager"]:
    from core.orchestration_manager import AppRole, OrchestrationManager  # noqa: PLC0415 - as for the machine

    role = AppRole(
        app_name=settings.app_name,
        advances_jobs=settings.app_mode is not AppMode.WORKER,
        served_queues=frozenset(settings.served_queues),
        routes=settings.task_routes,
        most_bytes=settings.max_value_bytes,
    )
    return _make_state(repositories), OrchestrationManager(catalog, repositories.service_bus, role)


def _make_state(repositories: Repositories) -> "StateManager":
    from core.state_manager import StateManager  # noqa: PLC0415 - as for the machine

    return StateManager(repositories.jobs, repositories.tasks, repositories.stages)


def _service_bus_connector(settings: Settings) -> Callable[[], "ServiceBusClient"]:
    if settings.service_bus_connection is not None:
        return partial(connect_with_string, settings.service_bus_connection.get_secret_value())
    if settings.service_bus_namespace is not None:
        return partial(connect_with_identity, settings.service_bus_namespace, settings.service_bus_client_id)
    raise AssertionError("settings name no Service Bus, which load_settings refuses")
