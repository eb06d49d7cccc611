"""The `coremachine` command."""

import contextlib
import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
import typer.main

from core.basics.version import VERSION
from coremachine.cli import apps, bulk, control, insight, jobs, tasks
from coremachine.cli.db import db
from coremachine.cli.db_grant import grant
from coremachine.cli.demo import demo
from coremachine.cli.errors import CliError, Exit
from coremachine.cli.functions import functions
from coremachine.cli.help_text import HelpfulCommand, HelpfulGroup, make_helpful
from coremachine.cli.limits import limits
from coremachine.cli.options import begin_command, errors_are_json, note_profile
from coremachine.cli.proof import verify
from coremachine.cli.render import visible_lines
from coremachine.cli.run_task import run_task
from coremachine.cli.scaffold import init, new
from coremachine.cli.schedules import schedules
from coremachine.cli.serve import serve
from coremachine.cli.servicebus import servicebus
from coremachine.cli.times import choose_zone
from coremachine.cli.ui import ui
from coremachine.cli.up import up
from coremachine.cli.webhooks import webhooks

app = typer.Typer(
    name="coremachine",
    cls=HelpfulGroup,
    help="Run jobs of sequential stages and parallel tasks. Exit codes: 0 ok, 1 the job failed or was cancelled, now "
    "or before (nothing was run), 2 usage, 3 not found, 4 conflict, 5 timeout, 6 no server, 130 Ctrl-C in a wait.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"coremachine {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="NAME", help="Server by name: see profiles. Default: COREMACHINE_PROFILE."),
    ] = None,
    utc: Annotated[
        bool,
        typer.Option("--utc", envvar="COREMACHINE_UTC", help="Times in UTC, in and out. Default: this machine's zone."),
    ] = False,
) -> None:
    del version
    note_profile(profile)
    choose_zone(is_utc=utc)


db.command()(grant)

# The groups of `coremachine --help`, each with its commands in their order.
_GROUPS: dict[str, dict[str, Callable[..., object] | typer.Typer]] = {
    "Your project": {"init": init, "new": new, "up": up, "ui": ui, "demo": demo},
    "Jobs": {
        "job-types": jobs.job_types,
        "submit": jobs.submit,
        "watch": jobs.watch,
        "list": jobs.list_jobs,
        "status": jobs.status,
        "result": jobs.result,
        "tasks": jobs.tasks,
        "task": tasks.task,
        "runs": control.runs,
        "verify": verify,
        "cancel": control.cancel,
        "pause": control.pause,
        "resume": control.resume,
        "adjust": control.adjust,
        "rerun": control.rerun,
    },
    "What went wrong": {
        "explain": insight.explain,
        "failures": insight.failures,
        "logs": tasks.logs,
        "events": tasks.events,
        "run-task": run_task,
    },
    "Many jobs": {
        "bulk": bulk.bulk,
        "delete": bulk.delete,
        "hold": bulk.hold,
        "release": bulk.release,
        "audit": bulk.audit,
        "schedules": schedules,
        "limits": limits,
    },
    "Operation": {
        "apps": apps.list_apps,
        "queues": apps.list_queues,
        "dead": insight.dead,
        "webhooks": webhooks,
        "profiles": apps.list_profiles,
        "db": db,
    },
    "Single parts": {"serve": serve, "servicebus": servicebus, "functions": functions},
}
for _group, _commands in _GROUPS.items():
    for _name, _command in _commands.items():
        if isinstance(_command, typer.Typer):
            make_helpful(_command)
            app.add_typer(_command, name=_name, cls=HelpfulGroup, rich_help_panel=_group)
        else:
            app.command(_name, cls=HelpfulCommand, rich_help_panel=_group)(_command)


def _end_after(error: OSError) -> int:
    """A disk that is full, a reader that has gone: what is left in the buffer is not retried at the very end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno != errno.EPIPE:
        with contextlib.suppress(OSError):
            typer.secho(visible_lines(f"cannot go on: {error}"), err=True, fg=typer.colors.RED)
    return int(Exit.FAILED)


def _show_error(error: CliError) -> None:
    if errors_are_json():
        typer.echo(visible_lines(json.dumps(error.to_json(), indent=2, ensure_ascii=False)), err=True)
    else:
        typer.secho(visible_lines(str(error)), err=True, fg=typer.colors.RED)


@functools.cache
def find_command() -> Any:
    """The command with all that are below it; making them takes 60 ms, so that a process does it once."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    begin_command()
    try:
        try:
            find_command()(args=None if arguments is None else list(arguments), prog_name="coremachine")
        finally:
            sys.stdout.flush()
    except CliError as error:
        _show_error(error)
        return int(error.exit_code)
    except OSError as error:
        return _end_after(error)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0
