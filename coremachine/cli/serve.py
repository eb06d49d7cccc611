"""`coremachine serve`: one app outside of Azure Functions, as in a container."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from coremachine.cli.errors import CliError
from coremachine.local.app_folder import BUILT_IN_APP, HalfAnApp, expect_whole_app, find_app


class LogFormat(StrEnum):
    """What a line of the log looks like."""

    TEXT = "text"
    JSON = "json"


class ServeFailed(CliError):
    """With the reason and what to do."""


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 in a container.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="HTTP; 0 = any free port.")] = 8080,
    health_port: Annotated[
        int, typer.Option("--health-port", min=0, max=65535, help="/livez and /readyz, without a key; 0 = any.")
    ] = 8081,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Worker processes.")] = 1,
    grace: Annotated[
        float, typer.Option("--grace", min=0, help="Seconds that running functions get at SIGTERM.")
    ] = 25.0,
    log_format: Annotated[
        LogFormat | None,
        typer.Option("--log-format", help="text, or json: one object per line. Default: COREMACHINE_LOG_FORMAT, text."),
    ] = None,
    app_dir: Annotated[
        Path | None,
        typer.Option("--app-dir", help="Holds function_app.py. Default: as `up`."),
    ] = None,
) -> None:
    """Serve one app with the project's own Functions host: HTTP, Service Bus triggers, timers. SIGTERM drains it.

    The settings are those of the app in Azure. The log goes to standard output. A setting that cannot be used ends it.

    For example: coremachine serve --host 0.0.0.0 --log-format json
    """
    from coremachine.local.host.logs import FORMAT_SETTING, configure_logging  # noqa: PLC0415 - as for `up`
    from coremachine.local.serve import AppServer, CannotServe, Serving  # noqa: PLC0415

    if log_format is not None:
        os.environ[FORMAT_SETTING] = log_format.value
    # The workers' log, too: collectors read one stream.
    sys.stderr.flush()
    os.dup2(sys.stdout.fileno(), sys.stderr.fileno())
    configure_logging("host", "INFO")
    folder = (app_dir or find_app(Path.cwd()) or BUILT_IN_APP).resolve()
    serving = Serving(folder, host, port, health_port, workers, grace)
    try:
        if folder == BUILT_IN_APP:
            expect_whole_app(Path.cwd())
        AppServer(serving, os.environ).run()
    except (CannotServe, HalfAnApp) as error:
        raise ServeFailed(str(error)) from error
