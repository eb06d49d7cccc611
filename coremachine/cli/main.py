"""The `coremachine` command."""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence

import typer

from coremachine.cli import control, insight, jobs
from coremachine.cli.db import db
from coremachine.cli.demo import demo
from coremachine.cli.errors import CliError, Exit
from coremachine.cli.proof import verify
from coremachine.cli.render import visible_lines
from coremachine.cli.servicebus import servicebus
from coremachine.cli.up import up

app = typer.Typer(
    name="coremachine",
    help="Run jobs of sequential stages and parallel tasks. Exit codes: 0 ok, 1 the job failed or was cancelled, now "
    "or before (nothing was run), 2 usage, 3 not found, 4 conflict, 5 timeout, 6 no server, 130 Ctrl-C in a wait.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(up)
app.command()(servicebus)
app.command()(demo)
app.command()(jobs.submit)
app.command()(jobs.status)
app.command()(jobs.result)
app.command("list")(jobs.list_jobs)
app.command()(jobs.watch)
app.command()(jobs.tasks)
app.command()(jobs.task)
app.command()(verify)
app.command()(jobs.events)
app.command()(control.cancel)
app.command()(control.pause)
app.command()(control.resume)
app.command()(control.rerun)
app.command()(control.runs)
app.command("job-types")(jobs.job_types)
app.command()(insight.explain)
app.command()(insight.failures)
app.add_typer(insight.dead, name="dead")
app.add_typer(db, name="db")


def _end_after(error: OSError) -> int:
    """A disk that is full, a reader that has gone: what is left in the buffer is not tried again at the very end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno != errno.EPIPE:
        with contextlib.suppress(OSError):
            typer.secho(visible_lines(f"cannot go on: {error}"), err=True, fg=typer.colors.RED)
    return int(Exit.FAILED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    try:
        try:
            app(args=None if arguments is None else list(arguments), prog_name="coremachine")
        finally:
            sys.stdout.flush()
    except CliError as error:
        typer.secho(visible_lines(str(error)), err=True, fg=typer.colors.RED)
        return int(error.exit_code)
    except OSError as error:
        return _end_after(error)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0
