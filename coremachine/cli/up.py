"""`coremachine up`: the whole stack on this machine."""

import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from coremachine.cli.client import ApiClient
from coremachine.cli.errors import CliError, Exit
from coremachine.cli.project import find_app
from coremachine.cli.render import console
from coremachine.local.stack_file import StackError

_APP_DIR_HELP = (
    "Holds function_app.py. Default: this folder, or the nearest above it that does; elsewhere the job types that come "
    "with CoreMachine."
)
DataOption = Annotated[Path, typer.Option("--data", help="Folder of the database, the logs and stack.json.")]


def up(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="HTTP; 0 = any free port.")] = 7071,
    amqp_port: Annotated[int, typer.Option("--amqp-port", min=0, max=65535, help="Broker; 0 = any.")] = 5672,
    admin_port: Annotated[int, typer.Option("--admin-port", min=0, max=65535, help="Broker's HTTP; 0 = any.")] = 5300,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Worker processes.")] = 2,
    data: DataOption = Path(".coremachine"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop the data of earlier runs first.")] = False,
    app_dir: Annotated[Path | None, typer.Option("--app-dir", help=_APP_DIR_HELP)] = None,
    database_url: Annotated[
        str | None, typer.Option("--database-url", help="Use this PostgreSQL instead of starting one.")
    ] = None,
) -> None:
    """Start PostgreSQL, the Service Bus broker and the Functions host here; Ctrl-C ends them all.

    For example:

        coremachine up

        coremachine up --port 0 --amqp-port 0 --admin-port 0 --data /tmp/stack --fresh
    """
    from coremachine.local.stack import BUILT_IN_APP, LocalStack  # noqa: PLC0415 - other commands start faster without

    log_to_stderr(logging.WARNING)
    show = console()
    try:
        with stop_signals_interrupt():
            stack = LocalStack(
                data,
                http_port=port,
                amqp_port=amqp_port,
                admin_port=admin_port,
                workers=workers,
                fresh=fresh,
                app_dir=app_dir or find_app(Path.cwd()) or BUILT_IN_APP,
                database_url=database_url,
                on_step=lambda step: show.print(f"[dim]{step}[/dim]"),
            )
            with stack:
                info = stack.info
                with ApiClient(info.url) as client:
                    problems = client.find_readiness_problems()
                state = "[bold yellow]started[/bold yellow]" if problems else "[bold green]ready[/bold green]"
                show.print(f"{state} {info.url}/api/docs", soft_wrap=True)
                show.print(f"database {info.database_url}", soft_wrap=True, highlight=False)
                show.print(f"broker   {info.admin_url}/queues   logs {info.data_dir}/logs", soft_wrap=True)
                for problem in problems:
                    show.print(f"[yellow]not ready[/yellow] {escape(problem)}", soft_wrap=True)
                with contextlib.suppress(KeyboardInterrupt):
                    show.print("Ctrl-C ends it.")
                    sys.stdout.flush()
                    stack.wait()
                show.print("[dim]stopping[/dim]")
    except StackError as error:
        raise StackCannotStart(str(error)) from error
    except KeyboardInterrupt:
        raise typer.Exit(Exit.FAILED) from None


def log_to_stderr(level: int) -> None:
    """The level is the handler's: the stack lets more records pass, for its file."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    logging.basicConfig(handlers=[handler], format="%(asctime)s %(levelname)s %(message)s", force=True)


class StackCannotStart(CliError):
    """With the reason and what to do."""


@contextlib.contextmanager
def stop_signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP act as Ctrl-C: a KeyboardInterrupt in the main thread."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    # A shell starts background jobs with SIGINT ignored; kill -INT must work there too.
    before_int = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before_int)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
