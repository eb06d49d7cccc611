"""The composition for the triggers: made once, at the first request or message, and shared by all threads."""

import functools
import logging
import sys
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.authors.intact import intact
from core.basics.first_imports import IMPORTS, keep_imported
from core.basics.outage import outage
from core.errors import StoreBusy, StoreShort, StoreUnavailable
from core.isolation.function import process_pool
from core.machine import CoreMachine
from core.operating.bulk import BulkControl
from core.operating.dead_letters import DeadLetters
from core.operating.janitor import Janitor
from core.safety.kept_logger import why_silent
from core.safety.safe_log import safe_logger
from infrastructure.base import DatabaseSilent, DatabaseUnsuitable, RepositoryError
from triggers.ports import Check, JobsNotLoaded, Missing, ServicesNotReady

if TYPE_CHECKING:
    from core.models.insight import Finding
    from core.models.view import EventPosition, JobSummary
    from core.operating.brief_reason import BriefReason
    from core.operating.fleet_watch import Presence
    from core.scheduling.schedules import Schedules
    from core.webhooks.webhooks import Webhooks
    from infrastructure.apps import AppRepository
    from infrastructure.audit import AuditRepository
    from infrastructure.dashboard import DashboardQueries
    from infrastructure.dead_letters import DeadLetterRepository
    from infrastructure.factory import RepositoryFactory
    from infrastructure.failures import FailureQueries
    from infrastructure.insight import InsightQueries
    from infrastructure.limits import LimitRepository
    from infrastructure.queries import JobQueries
    from infrastructure.queue_probe import QueueProbe
    from infrastructure.schedules import ScheduleRepository
    from infrastructure.settings import Settings
    from infrastructure.webhooks import WebhookRepository
    from jobs.registry import Registry

log = safe_logger(__name__)


@dataclass(frozen=True)
class Services:
    """All that triggers use. Nothing is connected before it is needed."""

    settings: "Settings"
    registry: "Registry"
    factory: "RepositoryFactory"
    machine: CoreMachine
    janitor: Janitor
    queries: "JobQueries"
    dead_letters: DeadLetters
    dead_letter_queries: "DeadLetterRepository"
    failures: "FailureQueries"
    insight: "InsightQueries"
    dashboard: "DashboardQueries"
    queue_probe: "QueueProbe"
    schedules: "Schedules"
    schedule_queries: "ScheduleRepository"
    bulk: BulkControl
    audit: "AuditRepository"
    apps: "AppRepository"
    limits: "LimitRepository"
    presence: "Presence"
    webhooks: "Webhooks"
    webhook_queries: "WebhookRepository"

    @property
    def queue_names(self) -> Mapping[str, str]:
        """Real names of the queues by logical names, the jobs queue first."""
        return self.settings.queue_names

    def find_job_status(self, job_id: str) -> str | None:
        """The job's status; None for an unknown job."""
        return self.queries.find_job_status(job_id)

    def find_job_type(self, job_id: str) -> str | None:
        """The job's type; None for an unknown job."""
        return self.queries.find_job_type(job_id)

    def find_ended_jobs(self, job_ids: Collection[str]) -> Collection[str]:
        """Those of them that have ended, or are not there."""
        return self.queries.find_ended_jobs(job_ids)

    def find_jobs_with_events(self, positions: Collection["EventPosition"]) -> Collection["EventPosition"]:
        """Those after which something happened."""
        return self.queries.find_jobs_with_events(positions)

    def check_readiness(self) -> Sequence[Check]:
        """What the app needs, and what was found. Looks at the database and, now and then, at the queues."""
        names = ", ".join(self.registry.job_types)
        return [
            self.check_database(),
            self._check_service_bus(),
            Check("registry", ok=True, detail=f"job types {names}"),
            Check("slots", ok=True, detail=f"tasks at once in each process: {self.settings.slots}"),
        ]

    def find_missing_queues(self) -> Mapping[str, str]:
        """The configured queues that are not there, by logical name, with what to do."""
        self.queue_probe.refresh()
        return dict(self.factory.create_repositories().service_bus.missing_queues)

    def find_postponed_messages(self) -> Sequence["Finding"]:
        """Messages that this process postponed lately, since its release does not know what they name."""
        return self.machine.postponed_messages.find()

    def find_reasons(self, jobs: Sequence["JobSummary"]) -> Mapping[str, "BriefReason"]:
        """Why each of them waits or failed, by job id; of one that goes on there is nothing."""
        from triggers.job_reasons import reasons_of  # noqa: PLC0415 - for those who ask, not at a cold start

        return reasons_of(self.dashboard.briefs.read_briefs(jobs), self.apps.read_fleet, self.dashboard.read_open_tasks)

    def find_unnamed_queues(self, queues: Iterable[str]) -> tuple[str, ...]:
        """Those logical names that this app's settings do not have; another release may."""
        return tuple(queue for queue in queues if queue not in self.settings.queue_names)

    def _check_service_bus(self) -> Check:
        """A broker that does not answer makes no app unready: what is submitted is written down, and sent later."""
        missing = self.find_missing_queues()
        if missing:
            return Check("service_bus", ok=False, detail="; ".join(sorted(missing.values())))
        return Check("service_bus", ok=True, detail=f"queues {', '.join(self.settings.queue_names.values())}")

    def check_database(self) -> Check:
        """Whether the database is reached, migrated and takes writes, and if not, what to do."""
        try:
            status = self.factory.schema_status()
        except DatabaseUnsuitable as error:
            log.warning("database_not_ready", extra={"reason": str(error)})
            return Check("database", ok=False, detail=error.reason)
        except StoreUnavailable as error:
            # The reason goes to the log alone: it may name hosts and users.
            outage.note(str(error))
            return Check("database", ok=False, detail=f"{_what_is_wrong(error)}; the log has the reason")
        except RepositoryError as error:
            log.warning("database_not_ready", extra={"reason": str(error)})
            return Check("database", ok=False, detail=str(error))
        outage.end()
        refused = status.refuses_writes or status.foreign.why_not_ready
        if refused is not None:
            log.warning("database_not_ready", extra={"reason": refused})
            return Check("database", ok=False, detail=refused)
        found = f"schema version {status.database_version}, this release has {status.code_version}"
        if (triggers := status.foreign.why_doubtful) is not None:
            found = f"{found}; {triggers}"
            _tell_triggers(triggers)
        if (locked := status.foreign.what_is_locked) is not None:
            found = f"{found}; {locked}"
        if status.is_current:
            return Check("database", ok=True, detail=found)
        return Check("database", ok=False, detail=f"{found}; run `coremachine db migrate`")


def _what_is_wrong(error: StoreUnavailable) -> str:
    if isinstance(error, StoreBusy):
        held_up = f"; {error.held_up_by}" if error.held_up_by else ""
        return f"all {error.connections} connections of this process are in use now{held_up}"
    if isinstance(error, DatabaseSilent):
        return "takes statements, and does not answer now: look whether it, or a pooler in front of it, is paused"
    if isinstance(error, StoreShort):
        return f"answers, and refused a statement now ({error.condition})"
    return "cannot be reached now"


# Each once for the process: a probe asks often.
_told_triggers: set[str] = set()


def _tell_triggers(reason: str) -> None:
    if reason not in _told_triggers:
        _told_triggers.add(reason)
        log.warning("database_has_triggers", extra={"reason": reason})


def load_registry(name: str, queues: Iterable[str]) -> "Registry":
    """The registry of all job types and handlers, from what COREMACHINE_JOBS names.

    Args:
        name: `package`, whose modules are looked through; or `package.module:function`, which makes the registry.
        queues: The logical names of this deployment's task queues.

    Raises:
        JobsNotLoaded: The modules cannot be imported, have no such function or no job class, the function returned
            something else, or the jobs do not fit together.
    """
    from jobs.base import JobDefinitionError  # noqa: PLC0415
    from jobs.loading import ModuleNotLoaded, NoJobs, discover, load_module  # noqa: PLC0415 - as late as its contents
    from jobs.registry import Registry  # noqa: PLC0415

    module_name, colon, function_name = name.partition(":")
    try:
        if not colon:
            return discover(name, queues)
        function = getattr(load_module(module_name), function_name, None)
        registry = None if function is None else function(queues)
    except (ModuleNotLoaded, NoJobs) as error:
        raise JobsNotLoaded(f"COREMACHINE_JOBS={name}: {error}") from error
    except JobDefinitionError as error:
        raise JobsNotLoaded(str(error)) from error
    if function is None:
        raise JobsNotLoaded(
            f"COREMACHINE_JOBS={name}: expected a function {function_name} in {module_name}, found none; fix the name"
        )
    if not isinstance(registry, Registry):
        raise JobsNotLoaded(
            f"COREMACHINE_JOBS: expected {name} to return a jobs.registry.Registry, found {type(registry).__name__}"
        )
    return registry


_lock = threading.Lock()
_services: Services | None = None


def get_services() -> Services:
    """The process's services; made by the first who asks, while others wait.

    Raises:
        ServicesNotReady: The app cannot work as it is set up. Asked again, it tries again.
    """
    global _services  # noqa: PLW0603 - one for the process, which the Functions host calls from many threads
    if _services is None:
        with _lock:
            if _services is None:
                _services = _make()
                intact.take_picture()
                keep_imported()
    return _services


def get_api_services() -> Services:
    """The same for HTTP: where the jobs cannot be loaded, what reads the database works without them.

    Raises:
        ServicesNotReady: The settings cannot be used.
    """
    try:
        return get_services()
    except JobsNotLoaded as error:
        return _make_readers(str(error))


@functools.cache
def _make_readers(reason: str) -> Services:
    from infrastructure.factory import RepositoryFactory  # noqa: PLC0415 - `_make` has imported it
    from infrastructure.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    factory = RepositoryFactory(settings)
    missing: Any = Missing(reason)
    names = ("registry", "machine", "janitor", "schedules", "bulk", "presence")
    return Services(settings=settings, factory=factory, **_make_readers_of(factory), **dict.fromkeys(names, missing))


def _make_readers_of(factory: "RepositoryFactory") -> dict[str, Any]:
    """The parts that need no job type."""
    repositories = factory.create_repositories()
    return {
        "queries": repositories.queries,
        "dead_letters": factory.create_dead_letters(),
        "dead_letter_queries": repositories.dead_letters,
        "failures": repositories.failures,
        "insight": repositories.insight,
        "dashboard": repositories.dashboard,
        "queue_probe": factory.create_queue_probe(),
        "schedule_queries": repositories.schedules,
        "audit": repositories.audit,
        "apps": repositories.apps,
        "limits": repositories.limits,
        "webhooks": factory.create_webhooks(),
        "webhook_queries": repositories.webhooks,
    }


def find_services() -> Services | None:
    """The process's services if they have been made."""
    return _services


def _make() -> Services:
    # Imported here: if the import fails, the app still starts and reports the problem.
    try:
        with IMPORTS:
            from infrastructure.factory import RepositoryFactory  # noqa: PLC0415
            from infrastructure.settings import load_settings  # noqa: PLC0415
            from jobs.outside import OUTSIDE  # noqa: PLC0415

        settings = load_settings()
        registry = load_registry(settings.jobs, settings.task_queues)
        _tell_unused_routes(settings, registry)
        _tell_silence()
        if settings.task_processes:
            process_pool().configure(settings.task_processes)
        OUTSIDE.configure(threads=settings.check_threads, seconds=settings.check_seconds)
        factory = RepositoryFactory(settings)
        readers = _make_readers_of(factory)
        machine = factory.create_machine(registry)
        return Services(
            settings=settings,
            registry=registry,
            factory=factory,
            machine=machine,
            janitor=factory.create_janitor(registry),
            schedules=factory.create_schedules(registry),
            bulk=BulkControl(machine, readers["queries"], readers["audit"]),
            presence=factory.create_presence(
                machine.owner, task_types=registry.task_types, job_types=registry.job_types
            ),
            **readers,
        )
    except Exception as error:
        log.exception("services_not_ready", extra={"checkpoint": "SERVICES_NOT_READY"})
        if isinstance(error, ServicesNotReady):
            raise
        raise ServicesNotReady(str(error)) from error


def _tell_silence() -> None:
    """A module of the app may have meant other loggers than the engine's; the log itself cannot show that."""
    reason = why_silent(log.name, logging.ERROR)
    if reason is not None and sys.stderr is not None:
        sys.stderr.write(f"coremachine: failures of jobs and tasks do not reach the log: {reason}\n")


def _tell_unused_routes(settings: "Settings", registry: "Registry") -> None:
    """A route for a task type that nothing here names: another app or release may have it, or it is spelled wrong."""
    for task_type in sorted(settings.task_routes.keys() - registry.named_task_types):
        log.warning("task_route_not_used", extra={"task_type": task_type, "queue": settings.task_routes[task_type]})
