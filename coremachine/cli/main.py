"""The `coremachine` command."""

import contextlib
import errno
import functools
import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.main

from core.basics.version import VERSION
from coremachine.cli.commands import GROUPS
from coremachine.cli.errors import CliError, Exit
from coremachine.cli.later import LaterCommand, LaterGroup
from coremachine.cli.options import begin_command, errors_are_json, note_profile
from coremachine.cli.render import visible_lines
from coremachine.cli.times import choose_zone

app = typer.Typer(
    name="coremachine",
    cls=LaterGroup,
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
    """The command; those that are below it are made when they are called."""
    root: Any = typer.main.get_command(app)
    for panel, commands in GROUPS.items():
        for name, (place, summary) in commands.items():
            root.add_command(LaterCommand(name, place, summary, panel))
    return root


@functools.cache
def find_whole_command() -> Any:
    """The command with all that are below it, for those who look at each of them."""
    root: Any = typer.main.get_command(app)
    for later in find_command().commands.values():
        root.add_command(later.loaded)
    return root


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
