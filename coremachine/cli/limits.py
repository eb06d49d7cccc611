"""Commands about limits that stages share."""

import difflib
import shlex
from typing import Annotated

import typer

from coremachine.cli.client import ApiClient, Json, choose_server
from coremachine.cli.control import AuditReasonOption
from coremachine.cli.options import LimitOption, OutputOption, UrlOption, wants_json
from coremachine.cli.render import SHORT_ID, print_json, print_rows, say

limits = typer.Typer(
    help="Limits that stages share: how many tasks run at once, or begin in a time.", no_args_is_help=True
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The limit's name.")]
# Beyond that many, whether a limit is known is not asked.
_MOST_KNOWN = 1000
_COLUMNS = ["limit", "at_once", "rate", "held", "reserved", "waiting", "next_at", "chosen", "holders"]


@limits.command("list")
def list_limits(limit: LimitOption = 100, output: OutputOption = None, url: UrlOption = None) -> None:
    """List limits by name: how many tasks hold places, who they are, and how many stages wait.

    For example: coremachine limits list
    """
    with ApiClient(choose_server(url)) as client:
        found = client.list_limits(limit=limit)
    if wants_json(output):
        print_json({"value": found})
        return
    print_rows(map(_row, found), _COLUMNS, empty="No stage needs a limit now.")


@limits.command("set")
def set_limit(
    name: NameArgument,
    at_once: Annotated[
        int | None, typer.Option("--at-once", min=0, help="How many tasks may run at a time; 0 lets none begin.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", help="How many may begin in a time: 100/min, 10/s, 5/30s, 1000/day.")
    ] = None,
    reason: AuditReasonOption = None,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Choose a limit's numbers for all jobs that name it, from now on. What is left out is not limited.

    For example: coremachine limits set tiles-api --at-once 4 --rate 100/min --reason "the new contract"
    """
    with ApiClient(choose_server(url)) as client:
        # A limit is known as soon as a stage needed it, or somebody chose its numbers.
        known = [each["name"] for each in client.list_limits(limit=_MOST_KNOWN)]
        answer = client.put_limit(name, {"at_once": at_once, "rate": rate, "reason": reason})
    if name not in known and len(known) < _MOST_KNOWN:
        near = "".join(f" (did you mean {each}?)" for each in difflib.get_close_matches(name, known, n=1))
        say(
            f"no stage has needed a limit {name!r} lately{near}; the numbers wait for one that does, unless you forget "
            f"them: coremachine limits forget {shlex.quote(name)}"
        )
    if wants_json(output):
        print_json(answer)
        return
    print_rows([_row(answer)], _COLUMNS, empty="")


@limits.command()
def forget(name: NameArgument, output: OutputOption = None, url: UrlOption = None) -> None:
    """Leave a limit's numbers to the stages that declare it, as before somebody chose others.

    For example: coremachine limits forget tiles-api
    """
    with ApiClient(choose_server(url)) as client:
        answer = client.forget_limit(name)
    if wants_json(output):
        print_json(answer)
        return
    typer.echo(f"{answer['name']}: the numbers are those that stages declare")


def _row(found: Json) -> Json:
    holders = ", ".join(
        f"{each['job_id'][:SHORT_ID]} stage {each['stage']} ({each['count']})" for each in found["holders"]
    )
    return {
        **found,
        "limit": found["name"],
        "chosen": (found["edited_by"] or "by an operator") if found["is_edited"] else "",
        "holders": holders,
    }
