"""The `coremachine` command."""

import contextlib
import errno
import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from core.basics.version import VERSION
from coremachine.cli import apps, bulk, control, insight, jobs, tasks
from coremachine.cli.db import db
from coremachine.cli.db_grant import grant
from coremachine.cli.demo import demo
from coremachine.cli.errors import CliError, Exit
from coremachine.cli.functions import functions
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


app.command()(up)
app.command()(serve)
app.command()(ui)
app.command()(servicebus)
app.add_typer(functions, name="functions")
app.command()(demo)
app.command()(init)
app.add_typer(new, name="new")
app.command()(jobs.submit)
app.command()(jobs.status)
app.command()(jobs.result)
app.command("list")(jobs.list_jobs)
app.command()(jobs.watch)
app.command()(jobs.tasks)
app.command()(tasks.task)
app.command()(tasks.logs)
app.command("run-task")(run_task)
app.command()(verify)
app.command()(tasks.events)
app.command()(control.cancel)
app.command()(control.pause)
app.command()(control.resume)
app.command()(control.adjust)
app.command()(control.rerun)
app.command()(control.runs)
app.command()(bulk.bulk)
app.command()(bulk.delete)
app.command()(bulk.hold)
app.command()(bulk.release)
app.command()(bulk.audit)
app.command("job-types")(jobs.job_types)
app.command()(insight.explain)
app.command()(insight.failures)
app.command("apps")(apps.list_apps)
app.command("queues")(apps.list_queues)
app.command("profiles")(apps.list_profiles)
app.add_typer(insight.dead, name="dead")
app.add_typer(schedules, name="schedules")
app.add_typer(limits, name="limits")
app.add_typer(webhooks, name="webhooks")
db.command()(grant)
app.add_typer(db, name="db")


def _end_after(error: OSError) -> int:
    """A disk that is full, a reader that has gone: what is left in the buffer is not tried again at the very end."""
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    begin_command()
    try:
        try:
            app(args=None if arguments is None else list(arguments), prog_name="coremachine")
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
