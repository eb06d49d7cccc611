"""Starts the worker processes, replaces those that die, appoints the one that fires timers, stops them all.

Signals are the caller's business: it calls `stop()`. Only processes started here are ever signalled.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import selectors
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from coremachine.local.host.access import AccessKeys
from coremachine.local.host.errors import HostStartError
from coremachine.local.host.local_settings import LocalSettings, read_local_settings
from coremachine.local.host.protocol import EXIT_FUNCTION_TIMEOUT, Channel, WorkerOptions
from coremachine.local.host.settings import HostSettings, read_host_settings
from coremachine.local.host.summary import AppSummary
from coremachine.local.host.worker_slot import WorkerSlot, end_process
from coremachine.local.host.worker_starter import WorkerStarter
from coremachine.local.web_guard import is_loopback_address

log = logging.getLogger(__name__)

MASTER_KEY_SETTING, HOST_KEY_SETTING = "LOCAL_HOST_MASTER_KEY", "LOCAL_HOST_FUNCTION_KEY"
# How often it looks at what shows no event: a worker that ends while its child holds its channel open.
_LOOK_SECONDS = 1.0
# The same while something is to end, or to start.
_SOON_SECONDS = 0.05
_WAKE_BYTES = 4096
_BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# A worker that lived this long was well: its death starts the back-off anew.
_HEALTHY_SECONDS = 20.0
# What a worker gets beyond the grace period, and beyond its announcement of a function timeout, before it is killed.
_KILL_AFTER_SECONDS = 10.0
# When the supervisor could not see to its workers, such as where the system has no process left for a new one.
_AGAIN_SECONDS = 1.0
# What a worker that is to be replaced gets beyond its grace period, before it is killed.
_REPLACE_SECONDS = 2.0
# Less than what the commands wait for, so that they report the reason. Azure ends a worker after two minutes.
LOAD_SECONDS = 90.0
# What an interpreter and the host itself need to start, on a busy machine too.
_START_SECONDS = 30.0
# A worker that sends nothing for this time is blocked: it sends a sign of life each second.
_BLOCKED_SECONDS = 5.0


class HostSupervisor:
    """A Functions host for one app directory.

    Args:
        app_dir: Holds function_app.py and host.json.
        port: 0 takes a free one; `port` has its number as soon as `start` has returned.
        environment: App settings, added to this process's environment (which loses where both have a name).
        enable_auth: Ask for keys, as in Azure; otherwise everything is allowed, as under `func start`.
        log_level: A name of the logging module; host.json's default level counts when it is None.
        log_file: Receives the output of all workers; otherwise it goes to stderr.
        state_dir: Keeps what timers missed across runs of the host; otherwise it is forgotten at the end.
        cors_origins: Pages of these origins may send requests, beside those that local.settings.json names.
        reads_local_settings: Whether local.settings.json counts, which is for a developer's machine.
        load_seconds: What the import of the app may take; a process that takes longer is ended, and requests get 503.
        work_dir: The workers' own folder, from which they take relative paths; app_dir by default, as in Azure.
        name: Of the app, where there are several: the supervisor's thread has it.
        warm_up: `module:function` of the app, which makes it ready to run. A worker that replaces one that died calls
            it before it receives: what it received meanwhile would wait for the app's imports.
    """

    def __init__(
        self,
        app_dir: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 7071,
        workers: int = 2,
        environment: Mapping[str, str] | None = None,
        enable_auth: bool = False,
        log_level: str | None = "info",
        log_file: Path | None = None,
        state_dir: Path | None = None,
        work_dir: Path | None = None,
        grace_seconds: float = 10.0,
        load_seconds: float = LOAD_SECONDS,
        name: str = "",
        cors_origins: tuple[str, ...] = (),
        reads_local_settings: bool = True,
        warm_up: str | None = None,
    ) -> None:
        self._app_dir = app_dir.resolve()
        self._work_dir = (work_dir or app_dir).resolve()
        self._address = (host, port)
        self._local = read_local_settings(self._app_dir) if reads_local_settings else LocalSettings()
        self._environment = {**self._local.values, **os.environ, **(environment or {})}
        # As in Azure, an app sees how many processes share what host.json gives to all of them.
        self._environment["FUNCTIONS_WORKER_PROCESS_COUNT"] = str(workers)
        self._settings: HostSettings = read_host_settings(self._app_dir, self._environment)
        self._log_level = (log_level or self._settings.log_level).upper()
        self._log_file = log_file
        self._state_dir = state_dir
        self._grace_seconds = grace_seconds
        self._load_seconds = load_seconds
        self._thread_name = f"host-supervisor {name}".strip()
        self._cors_origins = cors_origins
        self._warm_up = warm_up
        self.keys = self._read_keys() if enable_auth else None
        self._keys_dir: Path | None = None
        self._slots = [WorkerSlot(index, name) for index in range(workers)]
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._stopping = threading.Event()
        self._resources = contextlib.ExitStack()
        self._starter: WorkerStarter | None = None
        self._monitor: threading.Thread | None = None
        self._leader: int | None = None
        self._timers_started = False
        # What the last worker that was ready has loaded.
        self.app: AppSummary | None = None
        # Workers that are ending, each with the time when it is killed.
        self._replaced: list[tuple[subprocess.Popen[bytes], Channel, float]] = []

    @property
    def port(self) -> int:
        """The port that the host listens on."""
        return self._address[1]

    @property
    def url(self) -> str:
        """Scheme, address and port, without a slash at the end."""
        host = self._address[0]
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def is_ready(self) -> bool:
        """Whether every worker has loaded the app and serves it now."""
        with self._lock:
            return all(slot.is_ready and slot.process is not None for slot in self._slots)

    @property
    def worker_pids(self) -> list[int]:
        """The processes that live now."""
        with self._lock:
            return [slot.process.pid for slot in self._slots if slot.process and slot.process.poll() is None]

    def start(self) -> None:
        """Bind the port and start the workers; requests wait in the socket's backlog until one is ready.

        Raises:
            HostStartError: the address cannot be bound.
        """
        for warning in (*self._settings.warnings, *self._local.warnings):
            log.warning("%s", warning)
        listener = self._listen()
        self._listener_fd = listener.fileno()
        self._resources.callback(listener.close)
        self._address = listener.getsockname()[:2]
        output = None if self._log_file is None else self._resources.enter_context(self._log_file.open("ab"))
        # The monitor reads the one, others write to the other.
        self._waking, self._waker = socket.socketpair()
        for end in (self._waking, self._waker):
            end.setblocking(False)
            self._resources.callback(end.close)
        self._starter = WorkerStarter(listener, self._environment, self._work_dir, output)
        self._resources.callback(self._starter.close)
        if self._state_dir is None:
            self._state_dir = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="functions-host-")))
        if self.keys is not None:
            self._keys_dir = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="functions-host-")))
        if not is_loopback_address(self._address[0]):
            log.warning(
                "host_open_to_network address=%s keys=%s: requests of web pages are refused, but not names that "
                "resolve to this machine, and without --enable-auth any client that reaches it may run every function",
                self._address[0],
                "asked for" if self.keys else "not asked for",
            )
        log.info("host_listening url=%s workers=%d app_dir=%s", self.url, len(self._slots), self._app_dir)
        with self._lock:
            for slot in self._slots:
                self._spawn(slot)
        self._monitor = threading.Thread(target=self._watch, name=self._thread_name, daemon=True)
        self._monitor.start()

    def _listen(self) -> socket.socket:
        try:
            family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
            return socket.create_server(self._address, family=family, backlog=2048)
        except OSError as exc:
            raise HostStartError(
                f"cannot listen on {self.url}: {exc}; choose another port, or 0 for a free one"
            ) from exc

    def wait_ready(self, timeout_seconds: float) -> None:
        """Wait until every worker has loaded the app and serves HTTP.

        Raises:
            HostStartError: a worker cannot load the app, or the time is up.
        """

        def settled() -> bool:
            return all(slot.is_ready or slot.error for slot in self._slots)

        with self._changed:
            in_time = self._changed.wait_for(settled, timeout_seconds)
            errors = sorted({slot.error for slot in self._slots if slot.error})
            if errors:
                raise HostStartError(f"the app in {self._app_dir} cannot be run: {'; '.join(errors)}")
            if not in_time:
                waiting = [slot.index for slot in self._slots if not slot.is_ready]
                raise HostStartError(f"workers {waiting} were not ready within {timeout_seconds} s: see the log")

    def replace_workers(self, grace_seconds: float) -> None:
        """Start all workers anew, which then load the app as it is now. Returns at once; `wait_ready` waits for them.

        The old ones end beside them.

        Args:
            grace_seconds: What running invocations get; those that take longer are given up.
        """
        with self._changed:
            for slot in self._slots:
                slot.failures, slot.error, slot.is_ready, slot.restart_at = 0, None, False, 0.0
                slot.deaths_at_load = 0
                if slot.process is not None and slot.channel is not None:
                    slot.channel.send({"command": "stop", "grace_seconds": grace_seconds})
                    kill_at = time.monotonic() + grace_seconds + _REPLACE_SECONDS
                    self._replaced.append((slot.process, slot.channel, kill_at))
                    log.info("worker_replaced worker=%s pid=%d", slot.label, slot.process.pid)
                    slot.process = slot.channel = None
            self._leader = None
        self._wake()

    def fill_spares(self, modules: Sequence[str]) -> None:
        """Start the processes that `replace_workers` will take, one for each worker.

        Args:
            modules: What they import ahead of time: nothing that belongs to the app and may change.
        """
        with self._lock:
            assert self._starter is not None  # noqa: S101 - start() has made it
            self._starter.fill_spares(len(self._slots), modules)

    def stop(self) -> None:
        """Stop all workers: in-flight invocations get the grace period, then the processes are ended."""
        self._stopping.set()
        if self._monitor is not None:
            self._wake()
            self._monitor.join()
            self._monitor = None
        for slot in self._slots:
            if slot.channel is not None:
                slot.channel.send({"command": "stop"})
        deadline = time.monotonic() + self._grace_seconds + _KILL_AFTER_SECONDS
        for slot in self._slots:
            if slot.process is not None:
                end_process(slot.process, max(0.1, deadline - time.monotonic()))
                slot.process = None
            if slot.channel is not None:
                slot.channel.close()
                slot.channel = None
        for process, channel, _ in self._replaced:
            end_process(process, _REPLACE_SECONDS)
            channel.close()
        self._resources.close()
        log.info("host_stopped")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _read_keys(self) -> AccessKeys:
        return AccessKeys(
            master=self._environment.get(MASTER_KEY_SETTING) or secrets.token_urlsafe(32),
            host=self._environment.get(HOST_KEY_SETTING) or secrets.token_urlsafe(32),
        )

    def _spawn(self, slot: WorkerSlot) -> None:
        assert self._starter is not None  # noqa: S101 - start() has made it
        slot.process, slot.channel = self._starter.start()
        slot.is_ready, slot.heard_at = False, None
        if slot.broken is None:
            slot.error = None
        slot.is_blocked = slot.is_stopping = slot.has_ended = False
        slot.started_at, slot.restart_at, slot.kill_at = time.monotonic(), None, None
        slot.channel.send(self._options(slot).to_message())
        log.info("worker_started worker=%s pid=%d", slot.label, slot.process.pid)

    def _options(self, slot: WorkerSlot) -> WorkerOptions:
        return WorkerOptions(
            app_dir=str(self._app_dir),
            index=slot.index,
            workers=len(self._slots),
            listener_fd=self._listener_fd,
            log_level=self._log_level,
            grace_seconds=self._grace_seconds,
            state_dir=str(self._state_dir),
            load_seconds=self._load_seconds,
            master_key=self.keys.master if self.keys else None,
            host_key=self.keys.host if self.keys else None,
            keys_dir=str(self._keys_dir) if self._keys_dir else None,
            cors_origins=(*self._local.cors_origins, *self._cors_origins),
            cors_credentials=self._local.cors_credentials,
            broken=slot.broken,
            warm_up=self._warm_up if slot.failures else None,
        )

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self._watch_once()
            except Exception:
                log.exception("workers_not_watched: looking again in %.0f s", _AGAIN_SECONDS)
                self._stopping.wait(_AGAIN_SECONDS)

    def _watch_once(self) -> None:
        """Wait for what is next, and see to it."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._waking, selectors.EVENT_READ)
            for slot in self._slots:
                if slot.channel is not None:
                    selector.register(slot.channel, selectors.EVENT_READ, slot)
            events = selector.select(self._seconds_to_look())
        with self._changed:
            for key, _ in events:
                if key.data is None:
                    self._waking.recv(_WAKE_BYTES)
                elif key.fileobj is key.data.channel:  # else replaced meanwhile
                    self._read(key.data)
            self._end_replaced(time.monotonic())
            for slot in self._slots:
                self._look_after(slot, is_quiet=not any(key.data is slot for key, _ in events))
            self._changed.notify_all()

    def _wake(self) -> None:
        """Let the monitor look now."""
        with contextlib.suppress(BlockingIOError):  # full: it is woken already
            self._waker.send(b"w")

    def _seconds_to_look(self) -> float:
        """When something is due that no event shows."""
        if self._replaced or any(slot.has_ended for slot in self._slots):
            return _SOON_SECONDS
        due = [at - time.monotonic() for slot in self._slots if (at := slot.due_at) is not None]
        return max(0.0, min([_LOOK_SECONDS, *due]))

    def _end_replaced(self, now: float) -> None:
        """Forget the workers that have ended, and kill those that take too long."""
        for worker in list(self._replaced):
            process, channel, kill_at = worker
            if process.poll() is not None:
                channel.close()
                self._replaced.remove(worker)
            elif now > kill_at:
                process.kill()

    def _read(self, slot: WorkerSlot) -> None:
        assert slot.channel is not None  # noqa: S101 - only slots with a channel are selected
        try:
            messages = slot.channel.receive()
            for message in messages or ():
                self._on_event(slot, message)
        except Exception as error:  # noqa: BLE001 - a function may have replaced `json` in its worker
            self._on_nonsense(slot, error)
            return
        if messages is None:
            self._on_death(slot)

    def _on_nonsense(self, slot: WorkerSlot, error: Exception) -> None:
        """Its own code writes what it sends; a function that changed it may have changed anything else there."""
        if slot.kill_at is not None:
            return
        assert slot.process is not None  # noqa: S101 - it has sent something
        log.error(
            "worker_not_understood worker=%s pid=%d error=%r: a function has changed modules that the host needs, such "
            "as json; another worker takes its place",
            slot.label,
            slot.process.pid,
            error,
        )
        slot.process.terminate()
        slot.kill_at = time.monotonic() + self._grace_seconds

    def _on_event(self, slot: WorkerSlot, message: dict[str, Any]) -> None:
        match message["event"]:
            case "ready":
                slot.is_ready, slot.deaths_at_load = True, 0
                self.app = AppSummary.from_message(message["app"])
                log.info("worker_ready worker=%s seconds=%.2f", slot.label, time.monotonic() - slot.started_at)
                self._appoint_leader()
            case "alive":
                self._hear(slot)
            case "failed":
                slot.error = message["error"]
                log.error("app_cannot_be_loaded worker=%s; requests are answered with the reason", slot.label)
            case "still_loading":
                self._give_up_loading(slot, message["place"])
            case "timer_failing":
                self._pass_timers_on(slot, message["function"])
            case "stopping":
                slot.is_stopping = True
                self._appoint_leader()
            case "function_timeout":
                log.error("function_timeout worker=%s function=%s", slot.label, message["function"])
                slot.kill_at = time.monotonic() + _KILL_AFTER_SECONDS

    def _give_up_loading(self, slot: WorkerSlot, place: str) -> None:
        slot.give_up_loading(
            f"its import did not end within {self._load_seconds:g} s: it was at {place}. What waits for a network or "
            "computes for long belongs into a function"
        )
        log.error("app_loads_too_long worker=%s place=%s; requests are answered with the reason", slot.label, place)

    def _on_death(self, slot: WorkerSlot) -> None:
        assert slot.process is not None  # noqa: S101 - it had a channel
        assert slot.channel is not None  # noqa: S101 - its end was read just now
        slot.channel.close()
        slot.channel = None
        status = end_process(slot.process, 1.0)
        if status == EXIT_FUNCTION_TIMEOUT or time.monotonic() - slot.started_at > _HEALTHY_SECONDS:
            slot.failures = 0
        delay = 0.0 if status == EXIT_FUNCTION_TIMEOUT else _BACK_OFF_SECONDS[min(slot.failures, 6)]
        slot.failures += 1
        if not slot.is_ready:
            slot.count_death_at_load(status)
        slot.process, slot.is_ready = None, False
        slot.restart_at = time.monotonic() + delay
        log.error("worker_died worker=%s exit_status=%d; restarting in %.1f s", slot.label, status, delay)
        if self._leader == slot.index:
            self._leader = None
            self._appoint_leader()

    def _look_after(self, slot: WorkerSlot, *, is_quiet: bool) -> None:
        now = time.monotonic()
        if slot.process is not None and slot.kill_at is not None and now > slot.kill_at:
            slot.kill_at = None
            slot.process.kill()
        if slot.process is not None and slot.process.poll() is not None:
            # Usually the end of the channel shows it. A child of the worker may hold the channel open: then the exit
            # status shows it, when all events have been read.
            if slot.has_ended and is_quiet:
                self._on_death(slot)
            slot.has_ended = True
        if slot.process is None and slot.restart_at is not None and now >= slot.restart_at:
            self._spawn(slot)
        if slot.is_loading_too_long(now, self._load_seconds + _START_SECONDS):
            self._give_up_loading(slot, "a place that it cannot report, since something holds its interpreter")
        if slot.silence(now) > _BLOCKED_SECONDS:
            self._on_silence(slot, slot.silence(now))

    def _hear(self, slot: WorkerSlot) -> None:
        slot.heard_at = time.monotonic()
        if slot.is_blocked:
            slot.is_blocked = False
            log.log(slot.level(slot.heard_at), "worker_at_work_again worker=%s", slot.label)
            self._appoint_leader()

    def _on_silence(self, slot: WorkerSlot, seconds: float) -> None:
        """A function holds its interpreter or its event loop. It may do so until functionTimeout is over."""
        assert slot.process is not None  # noqa: S101 - otherwise nothing is expected of it
        if not slot.is_blocked:
            slot.is_blocked = True
            place = (slot.label, slot.process.pid, seconds)
            log.log(slot.level(time.monotonic()), "worker_blocked worker=%s pid=%d seconds=%.0f", *place)
            self._appoint_leader()
        limit = self._settings.function_timeout_seconds
        if limit is not None and seconds > limit + _KILL_AFTER_SECONDS and slot.kill_at is None:
            log.error("worker_blocked worker=%s: it does not end itself after functionTimeout; killing it", slot.label)
            slot.kill_at = 0.0

    def _pass_timers_on(self, slot: WorkerSlot, function: str) -> None:
        """A function may have broken its process for all others: the next worker fires the timers, if there is one."""
        if self._leader != slot.index:
            return
        others = self._slots[slot.index + 1 :] + self._slots[: slot.index]
        for other in others:
            if other.may_lead and other.send({"command": "lead_timers", "is_host_start": False}):
                self._leader = other.index
                slot.send({"command": "leave_timers"})
                log.info("timers_passed_on worker=%s function=%s to=%s", slot.label, function, other.label)
                return

    def _appoint_leader(self) -> None:
        """One worker fires the timers, one that is blocked or ends as long as no other can.

        `run_on_startup` counts for the first one only: the host starts once.
        """
        leader = None if self._leader is None else self._slots[self._leader]
        if leader is not None and not (leader.is_blocked or leader.is_stopping):
            return
        for slot in self._slots:
            if slot.may_lead:
                sent = slot.send({"command": "lead_timers", "is_host_start": not self._timers_started})
                if sent:
                    self._leader, self._timers_started = slot.index, True
                    if leader is not None:
                        leader.send({"command": "leave_timers"})  # read when it is no longer blocked
                    return
