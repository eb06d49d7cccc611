"""Options that several commands share."""

import sys
from enum import StrEnum
from typing import Annotated

import typer


class Output(StrEnum):
    """How a result is written."""

    TABLE = "table"
    JSON = "json"


UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", help="Server. Default: COREMACHINE_URL, else the stack of this folder, else http://127.0.0.1:7071."
    ),
]
OutputOption = Annotated[
    Output | None, typer.Option("--output", "-o", help="Default: table on a terminal, json elsewhere.")
]
JobArgument = Annotated[str, typer.Argument(help="Job id, or enough of its beginning.", metavar="JOB_ID")]
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
