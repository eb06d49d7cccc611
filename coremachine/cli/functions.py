"""`coremachine functions start`: the local Functions host for any app of the v2 model."""

from pathlib import Path
from typing import Annotated

import typer

from coremachine.cli.errors import CliError, Exit

functions = typer.Typer(no_args_is_help=True, help="Run any Azure Functions app (Python, v2 model) on this machine.")

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
    # Other commands start faster without.
    from coremachine.local.host.errors import HostError, NoAppError  # noqa: PLC0415
    from coremachine.local.host.foreground import StartOptions, run_in_foreground  # noqa: PLC0415

    options = StartOptions(
        app_dir=app_dir,
        port=port,
        address=address,
        reload=reload,
        workers=workers,
        enable_auth=enable_auth,
        cors=cors,
        state_dir=state_dir,
        verbose=verbose,
    )
    try:
        run_in_foreground(options)
    except NoAppError as error:
        raise NoApp(str(error)) from error
    except HostError as error:
        raise AppCannotRun(str(error)) from error
