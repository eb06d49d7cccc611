"""Several apps on one machine: which ones a text asks for, and their hosts, started and ended together."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from core.app_queues import (
    DEFAULT_TASK_QUEUES,
    TASK_QUEUES_SETTING,
    WORKER_QUEUES_SETTING,
    how_to_add_queue,
    read_task_queues,
)
from coremachine.local.host.logs import SPEAKER_SETTING
from coremachine.local.host.supervisor import HostSupervisor
from coremachine.local.stack_file import StackError

MODE_SETTING, NAME_SETTING = "COREMACHINE_APP_MODE", "COREMACHINE_APP_NAME"
_WITH_HTTP = ("standalone", "platform")
_OPTION = "--apps"
# Threads of a supervisor are named so, with the app's name behind.
_THREAD_NAME = "host-supervisor "


@dataclass(frozen=True)
class LocalApp:
    """One app of the stack.

    Args:
        name: Its COREMACHINE_APP_NAME; empty for the only app, which keeps the name that its settings have.
        mode: Empty for the only app, as the name.
        queues: Logical names of the task queues that it reads; none for all.
    """

    name: str = ""
    mode: str = ""
    queues: tuple[str, ...] = ()

    @property
    def serves_http(self) -> bool:
        return self.mode != "worker"

    def settings(self) -> dict[str, str]:
        """What makes the app this one."""
        if not self.name:
            return {}
        mine = {MODE_SETTING: self.mode, NAME_SETTING: self.name, WORKER_QUEUES_SETTING: ",".join(self.queues)}
        return {**mine, SPEAKER_SETTING: self.name}


ONE_APP = (LocalApp(),)


def read_apps(text: str, environment: Mapping[str, str]) -> tuple[LocalApp, ...]:
    """The apps of `platform,worker:raster,worker:tasks`; queues of one worker are joined by `+`.

    Args:
        environment: Has COREMACHINE_TASK_QUEUES, if the project's queues are not the usual ones.

    Raises:
        StackError: A mode or a queue is not known, or not exactly one app serves HTTP.
    """
    queues, _ = read_task_queues(environment.get(TASK_QUEUES_SETTING) or DEFAULT_TASK_QUEUES)
    apps: list[LocalApp] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        app = _read_app(part, queues)
        same = sum(each.name == app.name or each.name.startswith(f"{app.name}.") for each in apps)
        apps.append(app if not same else LocalApp(f"{app.name}.{same + 1}", app.mode, app.queues))
    with_http = [app.mode for app in apps if app.serves_http]
    if len(with_http) != 1:
        raise StackError(
            f"{_OPTION}: expected one app of mode standalone or platform, found {len(with_http)} in {text!r}; "
            "write for example platform,worker:raster,worker:tasks"
        )
    # The one with HTTP first, since the stack's address is its own.
    return tuple(sorted(apps, key=lambda app: not app.serves_http))


def _read_app(part: str, queues: Mapping[str, str]) -> LocalApp:
    mode, colon, names = part.partition(":")
    mode = mode.strip()
    if mode not in {*_WITH_HTTP, "worker"}:
        raise StackError(f"{_OPTION}: expected standalone, platform or worker, found {mode!r} in {part!r}")
    if colon and mode != "worker":
        raise StackError(f"{_OPTION}: expected queues behind worker only, found {part!r}; remove :{names}")
    read = tuple(name.strip() for name in names.split("+")) if colon else ()
    for name in read:
        if name not in queues:
            advice = f", or {how_to_add_queue(name)}" if name else ""
            raise StackError(
                f"{_OPTION}: {part!r}: expected queues of {', '.join(queues)}, found {name!r}; correct it{advice}"
            )
    if len(set(read)) < len(read):
        raise StackError(f"{_OPTION}: {part!r}: expected each queue once; remove the second")
    return LocalApp("-".join([mode, *read]), mode, read)


def find_unread_queues(apps: Sequence[LocalApp], environment: Mapping[str, str]) -> list[str]:
    """Task queues that no app of the fleet reads: work on them waits."""
    queues, _ = read_task_queues(environment.get(TASK_QUEUES_SETTING) or DEFAULT_TASK_QUEUES)
    read = {name for app in apps if app.mode != "platform" for name in app.queues or queues}
    return [name for name in queues if name not in read]


class AppFleet:
    """The hosts of all apps.

    Args:
        make: Makes the host of an app; nothing runs before `start`.
    """

    def __init__(self, apps: Sequence[LocalApp], make: Callable[[LocalApp], HostSupervisor]) -> None:
        self.apps = tuple(apps)
        self.hosts = [make(app) for app in self.apps]

    def start(self, timeout_seconds: float) -> None:
        """Start all, then wait until each is ready.

        Raises:
            HostError: One cannot be started. `stop` ends the others.
        """
        for host in self.hosts:
            host.start()
        for host in self.hosts:
            host.wait_ready(timeout_seconds)

    def replace_workers(self, grace_seconds: float, timeout_seconds: float) -> None:
        """Start the workers of all anew. Raises as `start`."""
        for host in self.hosts:
            host.replace_workers(grace_seconds)
        for host in self.hosts:
            host.wait_ready(timeout_seconds)

    def fill_spares(self, modules: Sequence[str]) -> None:
        """Have processes ready for `replace_workers`, which have imported the modules."""
        for host in self.hosts:
            host.fill_spares(modules)

    def stop(self) -> None:
        """End all at the same time: their grace periods run beside each other."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            for ended in [pool.submit(host.stop) for host in self.hosts]:
                ended.result()


def state_folder(folder: Path, app: LocalApp) -> Path:
    """Where an app's host keeps what its timers missed."""
    place = folder / app.name if app.name else folder
    place.mkdir(parents=True, exist_ok=True)
    return place


def name_app(record: logging.LogRecord) -> bool:
    """A filter that adds the app to the records of its supervisor's thread."""
    thread = record.threadName or threading.current_thread().name
    if thread.startswith(_THREAD_NAME):
        record.app = thread.removeprefix(_THREAD_NAME)
    return True
