"""Options that several commands share."""

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from coremachine.cli.completion import complete_job_id


class Output(StrEnum):
    """How a result is written."""

    TABLE = "table"
    JSON = "json"


class _Errors:
    """Whether the running command was asked for JSON: then its error is JSON too."""

    are_json = False


class _Given:
    """Options before the name of the command."""

    profile: str | None = None


def begin_command() -> None:
    _Errors.are_json = False
    _Given.profile = None


def note_profile(name: str | None) -> None:
    """For the rest of this command."""
    _Given.profile = name


def chosen_profile() -> str | None:
    """The option, else COREMACHINE_PROFILE."""
    return _Given.profile or os.environ.get("COREMACHINE_PROFILE") or None


def errors_are_json() -> bool:
    """Not where JSON is the default alone: people read what a pipe leaves on their terminal."""
    return _Errors.are_json


def _note_output(output: Output | None) -> Output | None:
    _Errors.are_json = output is Output.JSON
    return output


UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Server. Default: the profile, else COREMACHINE_URL, else the stack of this folder, else http://127.0.0.1:7071.",
    ),
]
OutputOption = Annotated[
    Output | None,
    typer.Option(
        "--output", "-o", callback=_note_output, help="Default: table on a terminal, json elsewhere. json: errors too."
    ),
]
JobArgument = Annotated[
    str,
    typer.Argument(help="Job id, or enough of its beginning.", metavar="JOB_ID", autocompletion=complete_job_id),
]
TagOption = Annotated[
    list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="To find jobs by. Repeatable: all of them.")
]
ErrorOption = Annotated[
    str | None, typer.Option("--error", help="A part of the type or text of the job's error, in any case.")
]
CorrelationOption = Annotated[str | None, typer.Option("--correlation-id", help="Jobs with this correlation id.")]
SinceOption = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Submitted then or later.")]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Submitted before it.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="At most that many.")]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", min=0, help="Seconds to wait, then exit code 5. Default: without end.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Exit code 1 also for a job that completed with errors: a task of it failed.")
]


def wants_json(output: Output | None) -> bool:
    """JSON where it was asked for, and where nobody is looking."""
    return output is Output.JSON if output is not None else not sys.stdout.isatty()
