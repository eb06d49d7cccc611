"""One worker process: loads the app, serves HTTP on the inherited socket, pumps queues, and fires timers if appointed.

Started by the supervisor as `python -m coremachine.local.host.worker_process FD [MODULE ...]`, FD being this end of
their socket pair, and the modules what a spare worker imports before its options come.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import uvloop

from coremachine.local.host.access import AccessKeys
from coremachine.local.host.admin import AdminApi
from coremachine.local.host.broken_app import serve_broken
from coremachine.local.host.cors import CorsPolicy
from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.errors import AppLoadError, HostError
from coremachine.local.host.forks import keep_from_children
from coremachine.local.host.functions import AppIndex, TimerTrigger
from coremachine.local.host.http import HttpApp, build_routes
from coremachine.local.host.index_summary import summary_of
from coremachine.local.host.indexing import index_app
from coremachine.local.host.invoker import Invoker, PortableInvoker
from coremachine.local.host.key_store import KeyStore
from coremachine.local.host.logs import configure_logging, set_levels
from coremachine.local.host.long_import import reporting_long_import
from coremachine.local.host.ncrontab import local_zone
from coremachine.local.host.protocol import (
    ALIVE_SECONDS,
    EXIT_BROKEN,
    EXIT_FUNCTION_TIMEOUT,
    EXIT_LOAD_FAILED,
    EXIT_NOT_SPARE,
    Channel,
    WorkerOptions,
)
from coremachine.local.host.pump import Pump
from coremachine.local.host.pumps import build_pumps
from coremachine.local.host.self_check import self_check
from coremachine.local.host.sending import OutputSender, StorageSource
from coremachine.local.host.server import FINISH_SECONDS, HttpServer, make_server
from coremachine.local.host.settings import HostSettings, HttpOptions, read_host_settings, share_of
from coremachine.local.host.storage import Storage
from coremachine.local.host.timer import TimerGroup, TimerRunner, TimerStatusStore
from coremachine.local.host.worker_starter import import_ahead

log = logging.getLogger(__name__)

# What triggers get to hand messages back once their invocations have been given up.
_ABANDON_SECONDS = 3.0
# How long a blocked event loop is waited for.
_LOOP_SECONDS = 2.0
# What a broken worker gets beyond the grace period.
_LAST_SECONDS = 10.0


class Worker:
    """The parts of one worker and the order in which they start and stop."""

    def __init__(self, options: WorkerOptions, channel: Channel, settings: HostSettings, index: AppIndex) -> None:
        self._options = options
        self._app_handler = _app_handler()
        self._channel = channel
        self._settings = settings
        self._index = index
        self._loop = asyncio.get_running_loop()
        self._stop_requested = asyncio.Event()
        self._grace_seconds = options.grace_seconds
        self._is_broken = False
        self._storage = Storage(os.environ, is_base64=settings.storage_queues.is_base64)
        self._sender = OutputSender(os.environ, self._storage)
        self._invoker: Invoker = PortableInvoker(self._loop, os.environ, self._sender, StorageSource(self._storage))
        self._dispatcher = Dispatcher(self._invoker, timeout_seconds=settings.function_timeout_seconds)
        self._pumps = build_pumps(
            index,
            self._dispatcher,
            settings,
            self._storage,
            os.environ,
            workers=options.workers,
            worker=options.index,
        )
        self._timers = self._build_timers()

    async def run(self, messages: Iterator[dict[str, Any]]) -> None:
        """Serve until the supervisor sends stop, then let what is in flight finish within the grace period."""
        self_check.begin(self._give_up)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)
        threading.Thread(target=self._obey, args=(messages,), name="control", daemon=True).start()
        with socket.socket(fileno=self._options.listener_fd) as listener:
            keep_from_children(listener)
            server = self._build_server(listener)
            serving = asyncio.create_task(server.serve(sockets=[]))
            if self._settings.function_timeout_seconds is not None:
                watch = partial(self._watch_timeouts, server, serving)
                threading.Thread(target=watch, name="watchdog", daemon=True).start()
            for pump in self._pumps:
                pump.start()
            await self._stop_requested.wait()
            await self._shut_down(server, serving)
        if self._is_broken:
            exit_now(EXIT_BROKEN)  # without closing the loop, which opens sockets for that

    def _on_signal(self, number: int) -> None:
        # A handler may send it to this process; Ctrl-C is for the supervisor, which decides.
        if number == signal.SIGTERM:
            self._stop_requested.set()

    def _give_up(self, reason: str, may_finish: bool) -> None:  # noqa: FBT001 - as `SelfCheck` calls it
        """This worker is broken: end, so that another takes its place."""
        if self._stop_requested.is_set():
            return
        _tell_end(f"worker_broken pid={os.getpid()}: {reason}; another worker takes its place")
        if not may_finish:
            os._exit(EXIT_BROKEN)
        self._is_broken = True
        # A daemon: should the orderly end fail as well, it ends the process.
        last = threading.Timer(self._grace_seconds + _LAST_SECONDS, os._exit, (EXIT_BROKEN,))
        last.daemon = True
        last.start()
        self._loop.call_soon_threadsafe(self._stop_requested.set)

    def _obey(self, messages: Iterator[dict[str, Any]]) -> None:
        try:
            self._obey_each(messages)
        except Exception as error:  # noqa: BLE001 - a function may have replaced `json` in this process
            self._give_up(f"it does not understand the host: {error!r}", may_finish=False)
        self._loop.call_soon_threadsafe(self._stop_requested.set)

    def _obey_each(self, messages: Iterator[dict[str, Any]]) -> None:
        for message in messages:
            if message["command"] == "lead_timers":
                lead = partial(self._timers.lead, is_host_start=message["is_host_start"])
                self._loop.call_soon_threadsafe(lead)
            elif message["command"] == "leave_timers":
                self._loop.call_soon_threadsafe(self._timers.leave)
            elif message["command"] == "stop":
                self._grace_seconds = message.get("grace_seconds", self._grace_seconds)
                break

    def _watch_timeouts(self, server: HttpServer, serving: asyncio.Task[None]) -> None:
        """A thread, because a function that blocks the event loop must be found as well."""
        while (call := self._dispatcher.overdue()) is None:
            time.sleep(self._dispatcher.seconds_to_overdue())
        name = call.function.name
        log.critical("function_timeout function=%s id=%s; this worker ends now", name, call.invocation_id)
        self._channel.send({"event": "function_timeout", "function": name})
        # First no new connections, which then wait for the next worker; then an answer for those that are here.
        self._on_loop(server.stop_listening())
        _hand_back(self._dispatcher, self._pumps, f"function {name!r} overran functionTimeout in the same worker")
        self._on_loop(server.finish(serving))
        exit_now(EXIT_FUNCTION_TIMEOUT)

    def _on_loop(self, step: Coroutine[Any, Any, None]) -> None:
        try:
            asyncio.run_coroutine_threadsafe(step, self._loop).result(_LOOP_SECONDS)
        except TimeoutError:
            log.warning("event_loop_blocked: a function holds it; going on without it")

    async def _shut_down(self, server: HttpServer, serving: asyncio.Task[None]) -> None:
        self._channel.send({"event": "stopping"})
        log.info("worker_stopping in_flight=%d", self._dispatcher.in_flight)
        deadline = time.monotonic() + self._grace_seconds
        for pump in self._pumps:
            pump.stop()
        server.end()
        ending = self._tell_app()
        await self._timers.stop()
        joined = await asyncio.to_thread(_join, self._pumps, self._grace_seconds)
        drained = await asyncio.to_thread(self._dispatcher.drain, max(0.0, deadline - time.monotonic()))
        if not (joined and drained):
            log.warning("grace_period_over in_flight=%d: giving them up", self._dispatcher.in_flight)
            await asyncio.to_thread(_hand_back, self._dispatcher, self._pumps, "the host is shutting down")
        await server.finish(serving)
        self._invoker.close()
        self._sender.close()
        for thread in ending:
            await asyncio.to_thread(thread.join, max(FINISH_SECONDS, deadline - time.monotonic()))
        log.info("worker_stopped")
        # Its lifespan task is cancelled with the loop, and it would report that with a traceback.
        logging.getLogger("azure.functions.AsgiMiddleware").setLevel(logging.CRITICAL)

    def _tell_app(self) -> list[threading.Thread]:
        """Call the app's own SIGTERM handler; what it leaves running in threads, for which an orderly exit waits."""
        if self._app_handler is None:
            return []
        before = set(threading.enumerate())
        try:
            self._app_handler(signal.SIGTERM, None)
        except Exception:
            log.exception("app_signal_handler_failed")
        return [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]

    def _build_server(self, listener: socket.socket) -> HttpServer:
        options = self._options
        keys = _key_store(options)
        http = self._settings.http
        app = HttpApp(
            build_routes(self._index.functions.values(), http.route_prefix),
            self._dispatcher,
            HttpOptions(
                route_prefix=http.route_prefix,
                max_concurrent_requests=self._share(http.max_concurrent_requests),
                max_outstanding_requests=self._share(http.max_outstanding_requests),
            ),
            keys=keys,
            admin=AdminApi(self._index, self._dispatcher, self._storage, keys),
        )
        cors = CorsPolicy(tuple(options.cors_origins), options.cors_credentials)
        return make_server(app, listener, cors, grace_seconds=options.grace_seconds, on_started=self._say_ready)

    def _say_ready(self) -> None:
        prefix = self._settings.http.route_prefix
        self._channel.send({"event": "ready", "app": summary_of(self._index, prefix).to_message()})
        self._say_alive()

    def _say_alive(self) -> None:
        self._loop.call_later(ALIVE_SECONDS, self._say_alive)
        try:
            self._channel.send({"event": "alive"})
        except Exception as error:  # noqa: BLE001 - a function may have replaced `json` in this process
            self_check.failed("signs of life", error)
        else:
            self_check.succeeded("signs of life")
        self_check.look()

    def _share(self, limit: int | None) -> int | None:
        return None if limit is None else share_of(limit, self._options.workers, self._options.index)

    def _build_timers(self) -> TimerGroup:
        store = TimerStatusStore(Path(self._options.state_dir) / "timers")
        zone = local_zone(os.environ)
        return TimerGroup(
            [
                (
                    function.name,
                    TimerRunner(
                        function,
                        function.trigger,
                        self._dispatcher,
                        store,
                        zone,
                        on_failing=partial(self._channel.send, {"event": "timer_failing", "function": function.name}),
                    ),
                )
                for function in self._index.functions.values()
                if isinstance(function.trigger, TimerTrigger)
            ]
        )


def _app_handler() -> Callable[[int, FrameType | None], object] | None:
    """What the app set for SIGTERM when it was loaded. The worker takes the signal over, and calls it when it ends."""
    handler = signal.getsignal(signal.SIGTERM)
    return handler if callable(handler) and not isinstance(handler, signal.Handlers) else None


def _join(pumps: Sequence[Pump], timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    joined = [pump.join(max(0.0, deadline - time.monotonic())) for pump in pumps]  # each one, also after a False
    return all(joined)


def _hand_back(dispatcher: Dispatcher, pumps: Sequence[Pump], reason: str) -> None:
    """Give up all invocations, so that their messages are abandoned now and not when their locks end."""
    for pump in pumps:
        pump.stop()
    for pump in pumps:
        pump.quiesce(_ABANDON_SECONDS)
    dispatcher.abort_all(reason)
    _join(pumps, _ABANDON_SECONDS)


def _tell_end(text: str) -> None:
    """Log it, although what logs may be what is broken."""
    try:
        log.critical("%s", text)
    except Exception:  # noqa: BLE001 - whatever is broken
        os.write(2, f"{text}\n".encode(errors="replace"))


def exit_now(status: int) -> NoReturn:
    """End the process without waiting for function threads, which nothing can stop."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # The app may have closed it; with an exception here, the function's threads would keep the process.
        with contextlib.suppress(ValueError, OSError, AttributeError):
            stream.flush()
    os._exit(status)


def _load(options: WorkerOptions, channel: Channel) -> tuple[HostSettings, AppIndex]:
    app_dir = Path(options.app_dir)
    settings = read_host_settings(app_dir, os.environ)
    set_levels(options.log_level, settings.log_levels)
    started = time.monotonic()
    with reporting_long_import(app_dir, options.load_seconds, channel):
        index = index_app(app_dir, os.environ, only=settings.functions, retry=settings.retry)
    log.info(
        "app_indexed functions=%s disabled=%s seconds=%.2f",
        ",".join(index.functions) or "none",
        ",".join(index.disabled) or "none",
        time.monotonic() - started,
    )
    for warning in index.warnings:
        log.warning("%s", warning)
    for error in index.errors:
        log.error("%s", error)
    return settings, index


def warm_up(function: str) -> None:
    """Call `module:function` of the app. Where that fails, its first messages meet the error again."""
    module, _, name = function.partition(":")
    started = time.monotonic()
    try:
        getattr(importlib.import_module(module), name)()
    except Exception as error:  # noqa: BLE001 - it is the app's
        log.warning("worker_not_warmed function=%s: %r", function, error)
        return
    log.info("worker_warmed function=%s seconds=%.2f", function, time.monotonic() - started)


async def _run(options: WorkerOptions, channel: Channel, messages: Iterator[dict[str, Any]]) -> int:
    try:
        if options.broken is not None:
            raise AppLoadError(options.broken)
        settings, index = _load(options, channel)
        if options.warm_up is not None:
            warm_up(options.warm_up)
        worker = Worker(options, channel, settings, index)
    except (HostError, ValueError) as exc:
        # The traceback is the app's own; that of the host adds nothing to the message.
        log.error("app_cannot_be_loaded worker=%d: %s", options.index, exc, exc_info=exc.__cause__)  # noqa: TRY400
        failed = {"event": "failed", "error": str(exc)}
        await serve_broken(str(exc), options, messages, on_started=partial(channel.send, failed))
        return 0
    await worker.run(messages)
    return 0


def _import_ahead(modules: Sequence[str], channel: socket.socket) -> None:
    """End this process if what it would have is the user's to change."""

    def is_wanted() -> bool:
        return bool(select.select([channel], [], [], 0)[0])

    if modules and (own := import_ahead(modules, is_wanted, Path.cwd())):
        sys.stderr.write(f"spare worker: {own[0]} is in this folder, and may be changed; it is not imported ahead\n")
        exit_now(EXIT_NOT_SPARE)


def run() -> NoReturn:
    """The process's whole life. To be called without a collection of garbage, which begins when all is imported."""
    end = socket.socket(fileno=int(sys.argv[1]))
    keep_from_children(end)
    _import_ahead(sys.argv[2:], end)
    gc.enable()
    gc.freeze()
    channel = Channel(end)
    messages = channel.messages()  # one reader: a stop that arrives together with the options must not get lost
    first = next(messages, None)
    if first is None:
        exit_now(EXIT_LOAD_FAILED)
    options = WorkerOptions(**first)
    configure_logging(f"worker {options.index}", options.log_level)
    exit_now(uvloop.run(_run(options, channel, messages)))


def _key_store(options: WorkerOptions) -> KeyStore | None:
    if not options.master_key or not options.host_key or not options.keys_dir:
        return None
    return KeyStore(Path(options.keys_dir), AccessKeys(options.master_key, options.host_key))
