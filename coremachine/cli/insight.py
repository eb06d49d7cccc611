"""Commands about jobs that do not move and about failures, over the HTTP API."""

from collections.abc import Iterable
from itertools import zip_longest
from typing import Annotated, Any

import typer
from rich.text import Text

from coremachine.cli.client import ApiClient, Json, choose_server
from coremachine.cli.completion import complete_job_id, complete_job_type
from coremachine.cli.errors import Exit, UsageProblem
from coremachine.cli.options import LimitOption, OutputOption, UrlOption, wants_json
from coremachine.cli.overview import find_troubles
from coremachine.cli.render import (
    SHORT_ID,
    console,
    error_text,
    print_fields,
    print_json,
    print_rows,
    say,
    status_markup,
)
from coremachine.cli.times import with_local_times

_SEVERITIES = {"error": ("✗", "red"), "warning": ("!", "yellow"), "info": ("·", "cyan")}

dead = typer.Typer(help="Messages that their queue gave up: list them, send them again.", no_args_is_help=True)

AnyJobArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="JOB_ID",
        help="Job id, or enough of its beginning. Default: all jobs.",
        autocompletion=complete_job_id,
    ),
]
FingerprintOption = Annotated[str | None, typer.Option("--fingerprint", help="Of a group of errors.")]
QueueOption = Annotated[str | None, typer.Option("--queue", help="Logical name, as `queues` shows it: jobs, tasks.")]
JobOption = Annotated[str | None, typer.Option("--job", help="Job id, or enough of its beginning.")]


def explain(
    job_id: AnyJobArgument = None,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Say why a job does not move, and what would help; without a job, what does not move or failed within a day.

    Without a job it also names jobs that wait for limits, and those of a day that completed with errors.

    For example:

        coremachine explain

        coremachine explain 3f2a9c
    """
    with ApiClient(choose_server(url)) as client:
        found = {"findings": find_troubles(client)} if job_id is None else client.explain(client.resolve_job_id(job_id))
    if wants_json(output):
        print_json(found)
    elif job_id is not None:
        _show_explanation(found)
    elif found["findings"]:
        show_findings(found["findings"])
    else:
        say("Every job moves, none waits for a limit, and none failed or had failed tasks within a day.")


def _show_explanation(answer: Json) -> None:
    show = console()
    head = f"{answer['job_id'][:SHORT_ID]} {status_markup(answer['status'])} · stage {answer['stage']}"
    run = f" · run {answer['run']}" if answer["run"] > 1 else ""
    show.print(f"{head}/{answer['total_stages']}{run}", highlight=False)
    show_findings(answer["findings"])


def show_findings(findings: Iterable[Json]) -> None:
    """One line for each, with its advice below; the same advice for several in a row is shown once, below the last."""
    show = console()
    found = list(findings)
    for finding, after in zip_longest(found, found[1:]):
        sign, colour = _SEVERITIES.get(finding["severity"], ("·", "default"))
        show.print(Text.assemble((f"{sign} ", colour), with_local_times(finding["message"])), soft_wrap=True)
        if finding.get("advice") and (after is None or after.get("advice") != finding["advice"]):
            show.print(Text(f"  → {with_local_times(finding['advice'])}", style="dim"), soft_wrap=True)


def failures(
    job_id: AnyJobArgument = None,
    job_type: Annotated[
        str | None, typer.Option("--type", help="Jobs of this type only.", autocompletion=complete_job_type)
    ] = None,
    fingerprint: FingerprintOption = None,
    each: Annotated[bool, typer.Option("--each", help="One line per task instead of one per group.")] = False,
    limit: LimitOption = 50,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Show failed tasks, grouped by what went wrong; with a fingerprint, the tasks of that group.

    For example:

        coremachine failures

        coremachine failures 3f2a9c --fingerprint 0b6ad8b4f3a91c22
    """
    with ApiClient(choose_server(url)) as client:
        where: dict[str, Any] = {"job_id": job_id and client.resolve_job_id(job_id), "job_type": job_type}
        is_grouped = fingerprint is None and not each
        if is_grouped:
            found = client.group_failures(**where, limit=limit)
        else:
            found = client.list_failures(**where, fingerprint=fingerprint, limit=limit)
    if wants_json(output):
        print_json({"value": found})
    elif is_grouped:
        rows = [{**group, "error": _error_of(group), "job_types": ", ".join(group["job_types"])} for group in found]
        print_rows(rows, ["count", "fingerprint", "job_types", "stages", "last_at", "error"], empty="No failed tasks.")
        for group in found:
            _show_example(group)
    else:
        rows = [{**task, "name": task["name"] or task["task_id"], "error": error_text(task["error"])} for task in found]
        columns = ["job_id", "stage", "name", "attempt", "finished_at", "fingerprint", "error"]
        print_rows(rows, columns, empty="No failed tasks.")
    if job_id and found:
        say(f"To run them again: coremachine rerun {job_id} --failed")


@dead.command("list")
def list_dead(
    queue: QueueOption = None,
    job: JobOption = None,
    fingerprint: FingerprintOption = None,
    group: Annotated[bool, typer.Option("--group", help="One line for all that died of the same.")] = False,
    resolved: Annotated[bool, typer.Option("--all", help="Also those that were dealt with.")] = False,
    limit: LimitOption = 50,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """List dead messages, the newest first.

    For example: coremachine dead list --queue tasks --group
    """
    if group and fingerprint:
        raise UsageProblem("--group: expected no --fingerprint with it, found one; leave one of them out")
    with ApiClient(choose_server(url)) as client:
        where: dict[str, Any] = {"queue": queue, "job_id": job and client.resolve_job_id(job)}
        where |= {"resolved": "all" if resolved else None}
        if group:
            found = client.group_dead_letters(**where, limit=limit)
        else:
            found = client.list_dead_letters(**where, fingerprint=fingerprint, limit=limit)
    if wants_json(output):
        print_json({"value": found})
        return
    rows = [{**item, "why": _reason_of(item), "id": item.get("dead_letter_id")} for item in found]
    if group:
        rows = [{**row, "queues": ", ".join(row["queues"])} for row in rows]
        print_rows(rows, ["count", "fingerprint", "queues", "last_at", "why"], empty="No dead messages.")
        return
    columns = ["id", "queue", "kind", "job_id", "stage", "received_at", "resolution", "why"]
    print_rows(rows, columns if resolved else [c for c in columns if c != "resolution"], empty="No dead messages.")


@dead.command("show")
def show_dead(
    dead_letter_id: Annotated[
        int, typer.Argument(metavar="ID", min=1, help="Number of the dead message, as `dead list` shows it.")
    ],
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Show one dead message with its body.

    For example: coremachine dead show 12
    """
    with ApiClient(choose_server(url)) as client:
        found = client.get_dead_letter(dead_letter_id)
    if wants_json(output):
        print_json(found)
        return
    print_fields(found, without={"body"})
    console().print(Text(found["body"]), soft_wrap=True)


# Outcomes of a redrive that leave a message dead.
_UNSENT = ("not_sent", "unreadable", "incomplete")


@dead.command()
def redrive(
    ids: Annotated[list[int] | None, typer.Argument(metavar="ID", min=1, help="See `dead list`.")] = None,
    queue: QueueOption = None,
    job: JobOption = None,
    fingerprint: FingerprintOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent; send nothing.")] = False,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Send dead messages again: these ones, or all that fit. Exit code 1 if one could not be sent.

    For example:

        coremachine dead redrive 12 13

        coremachine dead redrive --queue jobs --dry-run
    """
    if not (ids or queue or job or fingerprint):
        raise UsageProblem(
            "expected ids or --queue, --job, --fingerprint, found none; `coremachine dead list` has them"
        )
    with ApiClient(choose_server(url)) as client:
        request: Json = {"dry_run": dry_run}
        given = {"ids": ids, "queue": queue, "fingerprint": fingerprint, "job_id": job and client.resolve_job_id(job)}
        answer = client.redrive(request | {name: value for name, value in given.items() if value})
    if wants_json(output):
        print_json(answer)
    else:
        rows = [{**item, "id": item["dead_letter_id"]} for item in answer["value"]]
        print_rows(rows, ["id", "queue", "job_id", "outcome", "detail"], empty="No dead message fits.")
    if answer["remaining"]:
        say(f"{answer['remaining']} more fit; run it again for them.")
    absent = sorted(set(ids or ()) - {item["dead_letter_id"] for item in answer["value"]})
    if absent and not answer["remaining"]:
        say(f"no such dead message: {', '.join(map(str, absent))}; see `dead list`")
    if absent or any(answer["counts"].get(outcome) for outcome in _UNSENT):
        raise typer.Exit(Exit.FAILED)


def _show_example(group: Json) -> None:
    """Where to look next: the latest task of a group, with its log lines and traceback."""
    for example in (group.get("examples") or [])[:1]:
        command = f"coremachine task {example['job_id'][:SHORT_ID]} {example['task_id']}"
        console().print(Text(f"{group['fingerprint']}: {command}", style="dim"), soft_wrap=True)


def _error_of(group: Json) -> str:
    return error_text({"type": group["error_type"], "message": group["message"]})


def _reason_of(item: Json) -> str:
    return ": ".join(part for part in (item.get("reason"), item.get("description")) if part)
