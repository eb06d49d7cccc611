"""The host as a command: it shows the functions, loads the app anew when a file is saved, and ends with Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from coremachine.local.app_folder import find_app
from coremachine.local.host.errors import HostError, NoAppError
from coremachine.local.host.local_settings import read_local_settings
from coremachine.local.host.logs import configure_logging, printable
from coremachine.local.host.supervisor import HostSupervisor
from coremachine.local.source_watch import SourceWatch
from coremachine.local.stop_signals import stop_signals_interrupt

_READY_SECONDS = 120.0
_RELOAD_GRACE_SECONDS = 1.0
_COLOURS = {"green": 32, "red": 31, "dim": 2}


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """What the options of the command say; None where local.settings.json, or else the usual value, decides.

    Attributes:
        app_dir: Holds function_app.py and host.json; None for this folder or the nearest above it that does.
        port: 0 for any free one; usually 7071.
        address: To listen on; usually 127.0.0.1.
        cors: Origins of web pages, with commas; * for all.
    """

    app_dir: Path | None = None
    port: int | None = None
    address: str | None = None
    reload: bool = False
    workers: int = 1
    enable_auth: bool = False
    cors: str = ""
    state_dir: Path | None = None
    verbose: bool = False


def run_in_foreground(options: StartOptions) -> None:
    """Run the functions of an app until Ctrl-C.

    Raises:
        NoAppError: There is no app where it was looked for.
        HostError: The host cannot start, or the app cannot be loaded.
    """
    level = "DEBUG" if options.verbose else "WARNING"
    configure_logging("host", level)
    logging.getLogger(HostSupervisor.__module__).setLevel(level)
    folder = _folder(options.app_dir)
    local = read_local_settings(folder)
    supervisor = HostSupervisor(
        folder,
        host=options.address or local.address or "127.0.0.1",
        port=(local.port or 7071) if options.port is None else options.port,
        workers=options.workers,
        enable_auth=options.enable_auth,
        log_level="debug" if options.verbose else None,
        state_dir=options.state_dir,
        cors_origins=tuple(origin.strip().rstrip("/") for origin in options.cors.split(",") if origin.strip()),
    )
    with stop_signals_interrupt(), contextlib.suppress(KeyboardInterrupt), supervisor:
        _serve(supervisor, folder if options.reload else None)


def _folder(app_dir: Path | None) -> Path:
    """The app's folder; one with a host.json will do, since loading it reports best what is missing."""
    found = app_dir or find_app(Path.cwd()) or Path.cwd()
    if not (found / "host.json").is_file():
        raise NoAppError(found.resolve())
    return found


def _serve(supervisor: HostSupervisor, watched: Path | None) -> None:
    """Until Ctrl-C. An app that cannot be loaded ends it, unless a saved file may still correct it."""
    watch = SourceWatch(watched) if watched is not None else None
    try:
        _show_when_ready(supervisor)
    except HostError as error:
        if watch is None:
            raise
        _show_problem(error)
    if watch is None:
        threading.Event().wait()
        return
    while True:
        names = ", ".join(str(path) for path in watch.wait_for_change())
        _say(_painted(f"changed: {names}", "dim"))
        supervisor.replace_workers(_RELOAD_GRACE_SECONDS)
        try:
            _show_when_ready(supervisor)
        except HostError as error:
            _show_problem(error)


def _show_when_ready(supervisor: HostSupervisor) -> None:
    supervisor.wait_ready(_READY_SECONDS)
    show_app(supervisor)


def _show_problem(error: Exception) -> None:
    _say(f"{_painted('not loaded', 'red')} {_readable(str(error))}; requests get 503 until a file is saved")


def show_app(supervisor: HostSupervisor) -> None:
    """The functions and their addresses, as Core Tools shows them; then keys, and what does not run."""
    app = supervisor.app
    assert app is not None  # noqa: S101 - a worker is ready
    lines = ["", "Functions:", ""]
    for function in app.functions:
        where = f"{function.trigger} {function.detail}"
        if function.path:
            where = f"[{','.join(function.methods) or 'all methods'}] {supervisor.url}{function.path}"
        lines += [f"        {_painted(function.name, 'green')}: {printable(where)}", ""]
    if not app.functions:
        lines += ["        none: no function of this app can run", ""]
    lines += [_painted(f"disabled {name}", "dim") for name in app.disabled]
    lines += [f"{_painted('not run', 'red')} {_readable(problem)}" for problem in app.errors]
    if supervisor.keys is not None:
        lines += [f"master key {supervisor.keys.master}", f"host key   {supervisor.keys.host}"]
    lines.append(_painted(f"process {os.getpid()}; Ctrl-C ends it", "dim"))
    _say("\n".join(lines))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _readable(text: str) -> str:
    return "\n".join(printable(line.expandtabs()) for line in text.split("\n"))


def _painted(text: str, colour: str) -> str:
    """Text of an app in a colour, where people read it."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return printable(text)
    return f"\x1b[{_COLOURS[colour]}m{printable(text)}\x1b[0m"
