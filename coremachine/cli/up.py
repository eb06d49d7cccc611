"""`coremachine up`: the whole stack on this machine."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from core.project_file import ProjectFileError, read_project_settings
from core.safety.credentials import redact
from coremachine.cli.client import ApiClient, Server
from coremachine.cli.errors import CliError, Exit
from coremachine.cli.render import console
from coremachine.local.app_fleet import ONE_APP, LocalApp, find_unread_queues, read_apps
from coremachine.local.app_folder import BUILT_IN_APP, HalfAnApp, expect_whole_app, find_app
from coremachine.local.source_watch import SourceWatch
from coremachine.local.stack_file import USUAL_DATA, StackError
from coremachine.local.stop_signals import stop_signals_interrupt

if TYPE_CHECKING:
    from coremachine.local.stack import LocalStack

_MOST_NAMES = 5

_APP_DIR_HELP = (
    "Holds function_app.py. Default: this folder, or the nearest above it that does; elsewhere the job types that come "
    "with CoreMachine."
)
_PORT_HELP = "0 = any free port. Default: {}, or any free one while that is in use."
_APPS_HELP = (
    "Several apps, each in a host of its own: platform,worker:raster,worker:tasks. A worker without queues reads all; "
    "queues are joined by +. Default: one app of the mode that its settings name."
)


def up(
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help=f"HTTP. {_PORT_HELP.format(7071)}")
    ] = None,
    amqp_port: Annotated[
        int | None, typer.Option("--amqp-port", min=0, max=65535, help=f"Broker. {_PORT_HELP.format(5672)}")
    ] = None,
    admin_port: Annotated[
        int | None, typer.Option("--admin-port", min=0, max=65535, help=f"Broker's HTTP. {_PORT_HELP.format(5300)}")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Worker processes.")] = 2,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of the database, the logs and stack.json. Default: .coremachine there."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop the data of earlier runs first.")] = False,
    reload: Annotated[bool, typer.Option("--reload", help="Start the workers anew when a .py file is saved.")] = False,
    app_dir: Annotated[Path | None, typer.Option("--app-dir", help=_APP_DIR_HELP)] = None,
    apps: Annotated[str | None, typer.Option("--apps", help=_APPS_HELP)] = None,
    database_url: Annotated[
        str | None, typer.Option("--database-url", help="Use this PostgreSQL instead of starting one.")
    ] = None,
) -> None:
    """Start PostgreSQL, the Service Bus broker and the Functions host here; Ctrl-C ends them all.

    Other commands find the stack in the folder of its app, and below it.

    For example:

        coremachine up

        coremachine up --reload

        coremachine up --apps platform,worker:raster,worker:tasks

        coremachine up --port 8000 --data /tmp/stack --fresh
    """
    log_to_stderr(logging.WARNING)
    show = console()
    found = find_app(Path.cwd()) if app_dir is None else None
    home = found or Path.cwd()
    try:
        with stop_signals_interrupt():
            from coremachine.local.stack import LocalStack  # noqa: PLC0415 - other commands start faster without

            if app_dir is None and found is None:
                expect_whole_app(home)
            settings = {**read_project_settings(app_dir or home), **os.environ}
            if app_dir is None and found is None and not settings.get("COREMACHINE_JOBS"):
                show.print(f"[dim]no app in {escape(str(home))} or above it: the job types of CoreMachine[/dim]")
            chosen = read_apps(apps, settings) if apps is not None else ONE_APP
            stack = LocalStack(
                data or home / USUAL_DATA,
                http_port=port,
                amqp_port=amqp_port,
                admin_port=admin_port,
                workers=workers,
                fresh=fresh,
                app_dir=app_dir or found or BUILT_IN_APP,
                database_url=database_url,
                on_step=lambda step: show.print(f"[dim]{escape(step)}[/dim]"),
                home=home,
                apps=chosen,
            )
            with stack:
                with contextlib.suppress(KeyboardInterrupt):
                    show_stack(stack, chosen, settings)
                    show.print("Ctrl-C ends it.")
                    sys.stdout.flush()
                    reload_on_change(stack, app_dir or home) if reload else stack.wait()
                show.print("[dim]stopping[/dim]")
    except (StackError, ProjectFileError, HalfAnApp) as error:
        raise StackCannotStart(str(error)) from error
    except KeyboardInterrupt:
        # That is how it ends, ready or not; `stopping` was said where something ran.
        raise typer.Exit(Exit.OK) from None


def show_stack(stack: "LocalStack", apps: Sequence[LocalApp], settings: Mapping[str, str]) -> None:
    """Whether it can work, and where each part of it is."""
    info = stack.info
    show_state(info.url, began="started")
    show_apps(apps, settings)
    show = console()
    show.print(f"dashboard {info.url}/api/ui", soft_wrap=True, highlight=False)
    show.print(f"database {escape(redact(info.database_url))}", soft_wrap=True, highlight=False)
    show.print(f"broker   {info.admin_url}/queues   logs {escape(str(info.data_dir))}/logs", soft_wrap=True)


def show_state(url: str, *, began: str) -> None:
    """Whether the app can work, with its job types or with what is missing.

    Args:
        began: What an app that is not ready has done at least.
    """
    show = console()
    with ApiClient(Server(url)) as client:
        problems, job_types = client.look_whether_ready()
    state = f"[bold yellow]{began}[/bold yellow]" if problems else "[bold green]ready[/bold green]"
    show.print(f"{state} {url}/api/docs", soft_wrap=True)
    if job_types:
        show.print(escape(job_types), soft_wrap=True, highlight=False)
    for problem in problems:
        show.print(f"[yellow]not ready[/yellow] {escape(problem)}", soft_wrap=True, highlight=False)


def show_apps(apps: Sequence[LocalApp], settings: Mapping[str, str]) -> None:
    """What each app of several reads, and the queues that are left over."""
    if len(apps) == 1:
        return
    show = console()
    for app in apps:
        reads = [*(["jobs"] if app.serves_http else []), *(app.queues or ([] if app.mode == "platform" else ["all"]))]
        show.print(f"{app.name} reads {', '.join(reads)}", highlight=False)
    for queue in find_unread_queues(apps, settings):
        show.print(f"[yellow]no app reads the queue {escape(queue)}[/yellow]: its tasks wait", highlight=False)


def reload_on_change(stack: "LocalStack", folder: Path) -> None:
    """Until Ctrl-C: start the workers anew for each change of a source file, and show what they loaded."""
    show = console()
    watch = SourceWatch(folder)
    while True:
        stack.prepare_reload()
        names = [str(path) for path in watch.wait_for_change()]
        began = time.monotonic()
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        show.print(f"[dim]changed: {escape(', '.join(names[:_MOST_NAMES]))}{more}[/dim]", soft_wrap=True)
        try:
            stack.reload()
            show.print(f"[dim]workers started anew in {time.monotonic() - began:.1f} s[/dim]", highlight=False)
            show_state(stack.info.url, began="reloaded")
        except (StackError, CliError) as error:
            is_gone = isinstance(error, CliError) and error.exit_code == Exit.UNREACHABLE
            reason = "the workers end while they load the app; its log has how and why" if is_gone else str(error)
            show.print(f"[red]not loaded[/red] {escape(reason)}", soft_wrap=True, highlight=False)
        sys.stdout.flush()


def log_to_stderr(level: int) -> None:
    """The level is the handler's: the stack lets more records pass, for its file."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    line = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(handlers=[handler], format=line, datefmt="%H:%M:%S %Z", force=True)


class StackCannotStart(CliError):
    """With the reason and what to do."""
