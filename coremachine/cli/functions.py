"""`coremachine functions start`: the local Functions host for any app of the v2 model."""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from coremachine.cli.errors import CliError, Exit
from coremachine.cli.render import console
from coremachine.cli.up import stop_signals_interrupt
from coremachine.local.app_folder import find_app
from coremachine.local.source_watch import SourceWatch

if TYPE_CHECKING:
    from coremachine.local.host.supervisor import HostSupervisor

functions = typer.Typer(no_args_is_help=True, help="Run any Azure Functions app (Python, v2 model) on this machine.")

_READY_SECONDS = 120.0
_RELOAD_GRACE_SECONDS = 1.0
_APP_DIR_HELP = "Holds function_app.py and host.json. Default: this folder, or the nearest above it that does."


class AppCannotRun(CliError):
    """The host cannot start, or the app cannot be loaded; with the reason and what to do."""


class NoApp(CliError):
    """The folder has no app, with what to do."""

    exit_code = Exit.NOT_FOUND


@functions.callback()
def _group() -> None:
    """A group, although there is one command in it."""


@functions.command()
def start(
    app_dir: Annotated[Path | None, typer.Option("--app-dir", help=_APP_DIR_HELP)] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", "-p", min=0, max=65535, help="0 = any free port. Default: local.settings.json, 7071."),
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", help="Default: local.settings.json, 127.0.0.1 (this machine alone).")
    ] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Load the app anew when a .py file is saved.")] = False,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=64, envvar="FUNCTIONS_WORKER_PROCESS_COUNT", help="Processes.")
    ] = 1,
    enable_auth: Annotated[bool, typer.Option("--enable-auth", help="Ask for function keys, as Azure does.")] = False,
    cors: Annotated[
        str, typer.Option("--cors", help="Origins of web pages that may send requests, with commas; * = all.")
    ] = "",
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Keeps the times of timers between runs.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log at debug level.")] = False,
) -> None:
    """Run the functions of an app here, without Core Tools; Ctrl-C ends it.

    Any app of the v2 model with HTTP, Service Bus, storage and timer triggers. Its packages must be in this
    environment.

    For example:

        coremachine functions start

        coremachine functions start --reload --port 7072

        coremachine functions start --app-dir orders --enable-auth
    """
    from coremachine.local.host.errors import HostError  # noqa: PLC0415 - other commands start faster without
    from coremachine.local.host.local_settings import read_local_settings  # noqa: PLC0415
    from coremachine.local.host.logs import configure_logging  # noqa: PLC0415
    from coremachine.local.host.supervisor import HostSupervisor  # noqa: PLC0415

    configure_logging("host", "DEBUG" if verbose else "WARNING")
    logging.getLogger("coremachine.local.host.supervisor").setLevel("DEBUG" if verbose else "WARNING")
    folder = _folder(app_dir)
    try:
        local = read_local_settings(folder)
        supervisor = HostSupervisor(
            folder,
            host=address or local.address or "127.0.0.1",
            port=(local.port or 7071) if port is None else port,
            workers=workers,
            enable_auth=enable_auth,
            log_level="debug" if verbose else None,
            state_dir=state_dir,
            cors_origins=tuple(origin.strip().rstrip("/") for origin in cors.split(",") if origin.strip()),
        )
        with stop_signals_interrupt(), contextlib.suppress(KeyboardInterrupt), supervisor:
            _serve(supervisor, folder if reload else None)
    except HostError as error:
        raise AppCannotRun(str(error)) from error


def _folder(app_dir: Path | None) -> Path:
    """The app's folder; one with a host.json will do, since loading it reports best what is missing."""
    found = app_dir or find_app(Path.cwd()) or Path.cwd()
    if not (found / "host.json").is_file():
        raise NoApp(
            f"expected host.json and function_app.py in {found.resolve()} or in a folder above it, found no host.json: "
            "go to the app's folder, or name it with --app-dir"
        )
    return found


def _serve(supervisor: "HostSupervisor", watched: Path | None) -> None:
    """Until Ctrl-C. An app that cannot be loaded ends it, unless a saved file may still correct it."""
    from coremachine.local.host.errors import HostError  # noqa: PLC0415 - loaded by now

    watch = SourceWatch(watched) if watched is not None else None
    try:
        supervisor.wait_ready(_READY_SECONDS)
        show_app(supervisor)
    except HostError as error:
        if watch is None:
            raise
        _show_problem(error)
    if watch is None:
        threading.Event().wait()
        return
    for _ in _changes(watch):
        supervisor.replace_workers(_RELOAD_GRACE_SECONDS)
        try:
            supervisor.wait_ready(_READY_SECONDS)
            show_app(supervisor)
        except HostError as error:
            _show_problem(error)


def _changes(watch: SourceWatch) -> Iterator[None]:
    while True:
        names = ", ".join(str(path) for path in watch.wait_for_change())
        console().print(f"[dim]changed: {escape(names)}[/dim]", soft_wrap=True)
        yield


def _show_problem(error: Exception) -> None:
    text = f"[red]not loaded[/red] {escape(str(error))}; requests get 503 until a file is saved"
    console().print(text, soft_wrap=True, highlight=False)
    sys.stdout.flush()


def show_app(supervisor: "HostSupervisor") -> None:
    """The functions and their addresses, as Core Tools shows them; then keys, and what does not run."""
    show = console()
    app = supervisor.app
    assert app is not None  # noqa: S101 - a worker is ready
    show.print("\nFunctions:\n", highlight=False)
    for function in app.functions:
        if function.path:
            methods = ",".join(function.methods) or "all methods"
            text = f"[green]{escape(function.name)}[/green]: \\[{methods}] {escape(supervisor.url + function.path)}"
        else:
            text = f"[green]{escape(function.name)}[/green]: {function.trigger} {escape(function.detail)}"
        show.print(f"        {text}\n", soft_wrap=True, highlight=False)
    if not app.functions:
        show.print("        none: no function of this app can run\n", highlight=False)
    for name in app.disabled:
        show.print(f"[dim]disabled {escape(name)}[/dim]", soft_wrap=True, highlight=False)
    for problem in app.errors:
        show.print(f"[red]not run[/red] {escape(problem)}", soft_wrap=True, highlight=False)
    if supervisor.keys is not None:
        show.print(f"master key {supervisor.keys.master}\nhost key   {supervisor.keys.host}", highlight=False)
    show.print(f"[dim]process {os.getpid()}; Ctrl-C ends it[/dim]", highlight=False)
    sys.stdout.flush()
