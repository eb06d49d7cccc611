"""One app outside of Azure Functions, as in a container: the same functions, run by the project's own host.

One process tree: this process supervises the workers, and none of them outlives it. SIGTERM drains: no message is
taken any more, what runs gets the grace period, and the rest goes back to its queue.
"""

import logging
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from core.app_queues import DEFAULT_SWEEP_SCHEDULE
from core.project_file import ProjectFileError, read_project_settings
from coremachine.local.app_folder import BUILT_IN_APP, HalfAnApp, expect_app
from coremachine.local.app_modules import WARM_UP
from coremachine.local.concurrency import concurrency_settings
from coremachine.local.health import HealthServer
from coremachine.local.host.errors import HostError, ScheduleError
from coremachine.local.host.local_settings import FILE as LOCAL_SETTINGS
from coremachine.local.host.logs import FORMAT_SETTING, LOG_FORMATS
from coremachine.local.host.ncrontab import parse_schedule
from coremachine.local.host.supervisor import HOST_KEY_SETTING, HostSupervisor
from coremachine.local.jobs_check import find_jobs_problem
from infrastructure.settings import SettingsError, load_settings
from triggers.app_shape import AppShape, read_shape

log = logging.getLogger(__name__)

KEY_SETTING = "COREMACHINE_FUNCTION_KEY"
_READY_SECONDS = 120.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class CannotServe(RuntimeError):
    """The app cannot be served as it is set up; `problems` has a line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class Serving:
    """What to serve, and where.

    Args:
        address: What HTTP and the probes listen on.
        port: Of the app's HTTP; 0 for any free one, as `health_port`, which is that of the probes.
        workers: Worker processes.
        grace_seconds: What running functions get when the process is asked to end.
    """

    app_dir: Path
    address: str = "127.0.0.1"
    port: int = 8080
    health_port: int = 8081
    workers: int = 1
    grace_seconds: float = 25.0

    @property
    def work_dir(self) -> Path:
        """What relative paths begin at, and where pyproject.toml is looked for."""
        return Path.cwd() if self.app_dir == BUILT_IN_APP else self.app_dir


def check_environment(serving: Serving, environment: Mapping[str, str]) -> dict[str, str]:
    """The settings of the workers, complete.

    Raises:
        CannotServe: A setting cannot be used, or is missing. In Azure such an app serves HTTP to say so; a container
            had better not start.
    """
    try:
        expect_app(serving.app_dir, environment)
        settings = {**read_project_settings(serving.work_dir), **environment}
        load_settings(settings)
        shape = read_shape(settings)
        problems = [
            *shape.problems,
            *_key_problems(shape, settings),
            *_log_problems(settings),
            *_schedule_problems(shape),
        ]
        concurrency = concurrency_settings(
            serving.app_dir, settings, workers=serving.workers, reads_local_settings=False
        )
    except (SettingsError, ProjectFileError) as error:
        raise CannotServe(error.problems) from error
    except (HostError, HalfAnApp) as error:
        raise CannotServe([str(error)]) from error
    if problems:
        raise CannotServe(problems)
    return {
        **settings,
        **concurrency,
        HOST_KEY_SETTING: settings.get(KEY_SETTING) or settings.get(HOST_KEY_SETTING, ""),
    }


def _key_problems(shape: AppShape, settings: Mapping[str, str]) -> list[str]:
    has_key = settings.get(KEY_SETTING) or settings.get(HOST_KEY_SETTING)
    if not shape.serves_http or shape.http_auth == "anonymous" or has_key:
        return []
    expected = "expected the key that requests have to send (COREMACHINE_HTTP_AUTH is function), found none"
    advice = "set it to a long random text, or COREMACHINE_HTTP_AUTH to anonymous behind a proxy that knows its callers"
    return [f"{KEY_SETTING}: {expected}; {advice}"]


def _schedule_problems(shape: AppShape) -> list[str]:
    try:
        parse_schedule(shape.sweep_schedule or DEFAULT_SWEEP_SCHEDULE)
    except ScheduleError as error:
        return [f"COREMACHINE_SWEEP_SCHEDULE: {error}"]
    return []


def _log_problems(settings: Mapping[str, str]) -> list[str]:
    chosen = settings.get(FORMAT_SETTING) or LOG_FORMATS[0]
    if chosen in LOG_FORMATS:
        return []
    return [f"{FORMAT_SETTING}: expected one of {', '.join(LOG_FORMATS)}, found {chosen!r}; fix it or remove it"]


class AppServer:
    """Serves until SIGTERM or SIGINT. Use `run` in the main thread."""

    def __init__(self, serving: Serving, environment: Mapping[str, str]) -> None:
        self._serving = serving
        self._state = "starting"
        self._settings = check_environment(serving, environment)
        self._host = HostSupervisor(
            serving.app_dir,
            host=serving.address,
            port=serving.port,
            workers=serving.workers,
            environment=self._settings,
            enable_auth=True,
            log_level=None,
            work_dir=serving.work_dir,
            grace_seconds=serving.grace_seconds,
            reads_local_settings=False,
            warm_up=WARM_UP,
        )
        if (serving.app_dir / LOCAL_SETTINGS).exists():
            log.warning(
                "local_settings_not_read file=%s: it is for `coremachine up` and Core Tools; here variables count, "
                "as in Azure",
                serving.app_dir / LOCAL_SETTINGS,
            )

    def run(self) -> None:
        """Serve, and drain at the end.

        Raises:
            CannotServe: The app or its jobs cannot be loaded, or a port is in use.
        """
        before = [signal.signal(number, _interrupt_once) for number in _SIGNALS]
        try:
            self._run()
        except KeyboardInterrupt:
            log.info("serve_ended")
        except (HostError, OSError) as error:
            raise CannotServe([str(error)]) from error
        finally:
            for number, handler in zip(_SIGNALS, before, strict=True):
                signal.signal(number, handler)

    def _run(self) -> None:
        with self._probes() as health:
            try:
                self._check_jobs()
                self._host.start()
                self._host.wait_ready(_READY_SECONDS)
                self._state = "ready"
                log.info("serve_ready url=%s health_port=%d pid=%d", self._host.url, health.port, os.getpid())
                threading.Event().wait()
            finally:
                self._state = "draining"
                self._host.stop()

    def _check_jobs(self) -> None:
        """A worker begins to load them with its first message: a new release would seem to be ready without them."""
        problem = find_jobs_problem(self._serving.app_dir, self._serving.work_dir, self._settings, _READY_SECONDS)
        if problem is not None:
            raise CannotServe([problem])

    def _probes(self) -> HealthServer:
        address, port = self._serving.address, self._serving.health_port
        try:
            return HealthServer(address, port, self.look)
        except OSError as error:
            problem = f"cannot listen for probes on {address}, port {port}: {error}"
            raise CannotServe([f"{problem}; choose another --host or --health-port"]) from error

    def look(self) -> str:
        """starting, ready or draining; ready only while every worker serves the app."""
        return "starting" if self._state == "ready" and not self._host.is_ready else self._state


def _interrupt_once(_number: int, _frame: FrameType | None) -> None:
    """The first signal ends the wait; later ones change nothing, since the drain is under way."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    log.info("serve_draining")
    raise KeyboardInterrupt
