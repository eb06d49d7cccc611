"""Everything on one machine: PostgreSQL, the broker and the Functions host, started and ended together."""

import contextlib
import itertools
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, Self

import psycopg

from core.project_file import ProjectFileError, read_project_settings
from coremachine.local.app_fleet import ONE_APP, AppFleet, LocalApp, name_app, state_folder
from coremachine.local.app_folder import BUILT_IN_APP, HalfAnApp, expect_app
from coremachine.local.app_modules import MODULES, WARM_UP
from coremachine.local.broker_process import BrokerProcess
from coremachine.local.concurrency import concurrency_settings
from coremachine.local.host.errors import HostError
from coremachine.local.host.local_settings import app_environment
from coremachine.local.host.logs import line_formatter
from coremachine.local.host.supervisor import HostSupervisor
from coremachine.local.ports import ADDRESS, choose_port
from coremachine.local.postgres import LocalPostgres, PostgresError, remove_data
from coremachine.local.queue_config import queue_names, write_config
from coremachine.local.restart_log import RestartLog
from coremachine.local.stack_file import StackError, StackInfo, StackLock, remove_stack_file, shown_in
from coremachine.local.webhook_settings import webhook_settings
from infrastructure.base import RepositoryError
from infrastructure.connections import UNREADABLE, connection_settings
from infrastructure.migrations import Migrator
from infrastructure.postgresql import create_pool

log = logging.getLogger(__name__)

_READY_SECONDS = 120.0
_RELOAD_GRACE_SECONDS = 0.3
_BACK_OFF_SECONDS = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
_LARGEST_LOG_BYTES = 10 * 1024 * 1024


class _Part(Protocol):
    """A process that is started again when it dies."""

    def start(self) -> str: ...
    def stop(self) -> None: ...
    def wait(self) -> int | None: ...


class LocalStack:
    """PostgreSQL, the broker and the host, for one app. Use it as a context manager.

    None of its processes outlives the one that runs it, whatever ends that one.

    Args:
        data_dir: Holds `postgres/`, `logs/`, `host/` (what the timers missed) and, while it runs, `stack.json`.
        http_port: 0 takes any free port. None is 7071, or any free one while that is in use. The two that
            follow are as this one, with 5672 and 5300.
        workers: Worker processes of the host.
        fresh: Drop what earlier runs left in data_dir (only what the stack made itself).
        app_dir: Holds function_app.py and host.json; by default an app of the job types that come with CoreMachine,
            whose workers take relative paths from the present folder.
        environment: Further app settings for the workers; they win over the stack's.
        database_url: A PostgreSQL to use instead of starting one.
        broker_config: Another `Config.json` than the broker's own.
        on_step: Called with what is done next, for people who wait.
        home: A folder whose commands find this stack, wherever its data are.
        apps: Those of the stack, the one with HTTP first; `read_apps` makes them of a text. By default one app.
    """

    def __init__(
        self,
        data_dir: Path = Path(".coremachine"),
        *,
        http_port: int | None = None,
        amqp_port: int | None = None,
        admin_port: int | None = None,
        workers: int = 2,
        fresh: bool = False,
        app_dir: Path = BUILT_IN_APP,
        environment: Mapping[str, str] | None = None,
        database_url: str | None = None,
        broker_config: Path | None = None,
        on_step: Callable[[str], None] = lambda _step: None,
        home: Path | None = None,
        apps: Sequence[LocalApp] = ONE_APP,
    ) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self._asked_ports = {"--port": http_port, "--amqp-port": amqp_port, "--admin-port": admin_port}
        # What they are while it runs; 0: the system gives one.
        self._ports: dict[str, int] = {}
        self._workers = workers
        self._fresh = fresh
        self._app_dir = app_dir.resolve()
        # In Azure the two are the same folder.
        self._work_dir = Path.cwd() if self._app_dir == BUILT_IN_APP else self._app_dir
        self._home = home
        self._apps = tuple(apps)
        self._environment = dict(environment or {})
        self._database_url = database_url
        self._broker_config = broker_config
        self._on_step = on_step
        self._resources = contextlib.ExitStack()
        self._stopping = threading.Event()
        # Held while a part is started again or stopped, so that none comes back after the end.
        self._restarting = threading.Lock()
        self.postgres: LocalPostgres | None = None
        self.broker: BrokerProcess | None = None
        # That of the app with HTTP, and those of all.
        self.host: HostSupervisor | None = None
        self.fleet: AppFleet | None = None
        self._info: StackInfo | None = None

    @property
    def info(self) -> StackInfo:
        """How to reach it, once it runs."""
        if self._info is None:
            raise RuntimeError("expected a running stack, found one that is not started")
        return self._info

    @property
    def url(self) -> str:
        """The host's address, without a slash at the end; the API is below `/api`."""
        return self.info.url

    def start(self) -> None:
        """Start all parts; when it returns, the app answers and `stack.json` is there.

        Raises:
            StackError: A part cannot be started; those that were are stopped again.
        """
        with contextlib.ExitStack() as started:
            try:
                self._start(started)
            except KeyboardInterrupt:
                self._on_step("stopping")
                raise
            except (PostgresError, HostError, RepositoryError, ProjectFileError, HalfAnApp) as error:
                raise StackError(str(error)) from error
            except PermissionError as error:
                raise StackError(
                    f"expected to write to {self.data_dir}, found: {error}; was it made by another user (root)? "
                    "Choose another folder with --data or remove that one"
                ) from error
            self._resources = started.pop_all()

    def stop(self) -> None:
        """End the host first (running invocations get their grace period), then the broker, then PostgreSQL."""
        self._resources.close()
        self._info = None

    def wait(self) -> None:
        """Wait for a signal or another exception."""
        threading.Event().wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, started: contextlib.ExitStack) -> None:
        environment = self._read_environment()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        started.enter_context(StackLock(self.data_dir))
        remove_stack_file(self.data_dir)
        self._stopping.clear()
        self._ports = {option: choose_port(option, asked, self._on_step) for option, asked in self._asked_ports.items()}
        if self._fresh:
            self._drop_data()
        logs = self._prepare_logs()
        started.enter_context(_log_to_file(logs / "host.log"))
        if self._database_url is not None:
            _expect_readable(self._database_url)
        database_url = self._database_url or self._start_postgres(started, logs)
        self._on_step("applying migrations")
        migrate(database_url, environment.get("COREMACHINE_SCHEMA") or "app")
        broker = self._start_broker(started, logs, environment)
        settings = {
            "COREMACHINE_DATABASE_URL": database_url,
            "COREMACHINE_DATABASE_AUTH": "password",
            "ServiceBusConnection": broker.connection_string,
            # What a shell for Azure may have set: an empty one counts as not set.
            "ServiceBusConnection__fullyQualifiedNamespace": "",
            "ServiceBusConnection__clientId": "",
            **webhook_settings(self.data_dir, environment),
            **self._environment,
        }
        host = self._start_hosts(started, logs, settings)
        self._info = self._describe(host, broker, settings)
        self._info.write()
        started.callback(remove_stack_file, self.data_dir)
        if self._home is not None:
            started.enter_context(shown_in(self._home, self._info))

    def _describe(self, host: HostSupervisor, broker: BrokerProcess, settings: dict[str, str]) -> StackInfo:
        return StackInfo(
            pid=os.getpid(),
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            url=host.url,
            admin_url=broker.admin_url,
            database_url=settings["COREMACHINE_DATABASE_URL"],
            service_bus_connection=settings["ServiceBusConnection"],
            app_dir=str(self._app_dir),
            data_dir=str(self.data_dir),
            workers=self._workers,
            ports={"http": host.port, "amqp": broker.amqp_port, "admin": broker.admin_port},
            environment=settings,
            apps=[app.name for app in self._apps if app.name],
        )

    def reload(self) -> None:
        """Start the workers anew, with the app as it is now; what runs for long goes back to its queue.

        Raises:
            StackError: A worker cannot load the app; saving another version helps.
        """
        assert self.fleet is not None  # noqa: S101 - the stack runs
        try:
            self.fleet.replace_workers(_RELOAD_GRACE_SECONDS, _READY_SECONDS)
        except HostError as error:
            raise StackError(str(error)) from error

    def prepare_reload(self) -> None:
        """Start the processes that the next `reload` will take. They import all but the app ahead of time."""
        assert self.fleet is not None  # noqa: S101 - the stack runs
        self.fleet.fill_spares(MODULES)

    def _read_environment(self) -> dict[str, str]:
        """What the workers will see: the project's own settings, and those that win over them."""
        given = {**os.environ, **self._environment}
        expect_app(self._app_dir, given)
        given = app_environment(self._app_dir, given)
        return {**read_project_settings(self._work_dir), **given}

    def _drop_data(self) -> None:
        if any((self.data_dir / name).exists() for name in ("postgres", "logs", "host")):
            self._on_step("dropping the data of earlier runs")
        remove_data(self.data_dir / "postgres")
        for name in ("logs", "host"):
            shutil.rmtree(self.data_dir / name, ignore_errors=True)

    def _prepare_logs(self) -> Path:
        logs = self.data_dir / "logs"
        logs.mkdir(exist_ok=True)
        for file in logs.glob("*.log"):
            if file.stat().st_size > _LARGEST_LOG_BYTES:
                file.replace(file.with_suffix(".log.1"))
        return logs

    def _start_postgres(self, started: contextlib.ExitStack, logs: Path) -> str:
        self._on_step("starting PostgreSQL")
        self.postgres = LocalPostgres(self.data_dir / "postgres", log_file=logs / "postgres.log")
        url = self.postgres.start()
        self._keep(started, "postgres", self.postgres)
        return url

    def _start_broker(self, started: contextlib.ExitStack, logs: Path, environment: Mapping[str, str]) -> BrokerProcess:
        self._on_step("starting the Service Bus broker")
        broker = BrokerProcess(
            amqp_port=self._ports["--amqp-port"],
            admin_port=self._ports["--admin-port"],
            log_file=logs / "broker.log",
            config=self._broker_config or write_config(self.data_dir / "Config.json", queue_names(environment)),
        )
        broker.start()
        self._keep(started, "broker", broker)
        self.broker = broker
        return broker

    def _start_hosts(self, started: contextlib.ExitStack, logs: Path, settings: Mapping[str, str]) -> HostSupervisor:
        names = ", ".join(app.name for app in self._apps if app.name)
        self._on_step(f"starting the Functions host{f's: {names}' if names else ''}")
        fleet = AppFleet(self._apps, lambda app: self._make_host(app, logs, settings))
        started.callback(fleet.stop)
        fleet.start(_READY_SECONDS)
        self.fleet, self.host = fleet, fleet.hosts[0]
        return self.host

    def _make_host(self, app: LocalApp, logs: Path, settings: Mapping[str, str]) -> HostSupervisor:
        mine = {**settings, **app.settings()}
        return HostSupervisor(
            self._app_dir,
            host=ADDRESS,
            port=self._ports["--port"] if app.serves_http else 0,
            workers=self._workers,
            environment={**self._concurrency(mine), **mine},
            log_file=logs / "host.log",
            state_dir=state_folder(self.data_dir / "host", app),
            work_dir=self._work_dir,
            name=app.name,
            warm_up=WARM_UP,
        )

    def _concurrency(self, settings: Mapping[str, str]) -> dict[str, str]:
        environment = {**self._read_environment(), **settings}
        return concurrency_settings(self._app_dir, environment, workers=self._workers)

    def _keep(self, started: contextlib.ExitStack, name: str, part: _Part) -> None:
        """Start a part again when it dies, until `stop`."""
        keeper = threading.Thread(target=self._restart_when_dead, args=(name, part), name=f"keep-{name}", daemon=True)
        started.callback(keeper.join)
        started.callback(self._end_part, part)
        keeper.start()

    def _end_part(self, part: _Part) -> None:
        self._stopping.set()
        with self._restarting:
            part.stop()

    def _restart_when_dead(self, name: str, part: _Part) -> None:
        told = RestartLog(name)
        while True:
            status = part.wait()
            if self._stopping.is_set():
                return
            told.died(status)
            for attempt in itertools.count():
                if self._stopping.wait(_BACK_OFF_SECONDS[min(attempt, len(_BACK_OFF_SECONDS) - 1)]):
                    return
                with self._restarting:
                    if self._stopping.is_set():
                        return
                    try:
                        part.start()
                    except (StackError, PostgresError, OSError) as error:
                        told.failed(error)
                        continue
                told.back()
                break


def _expect_readable(database_url: str) -> None:
    """Raise StackError without the reader's own words: these may repeat the whole text, and a password with it."""
    try:
        connection_settings(database_url)
    except (psycopg.ProgrammingError, UnicodeEncodeError):
        raise StackError(f"{UNREADABLE}; see --database-url") from None


def migrate(database_url: str, schema: str) -> None:
    """Bring the schema up to date."""
    with create_pool(database_url, max_size=1) as pool:
        Migrator(pool, schema).migrate()


@contextlib.contextmanager
def _log_to_file(path: Path) -> Iterator[None]:
    """The stack's own log records, beside those of its workers."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(line_formatter("stack"))
    handler.addFilter(name_app)
    logger = logging.getLogger("coremachine.local")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
