"""Commands for many jobs, for deleting and keeping them, and for who did what."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.markup import escape

from core.models.audit import AuditAction
from core.models.bulk import AS_WISHED, MOST_JOBS_AT_ONCE, BulkAction
from coremachine.cli.client import ApiClient, Json, choose_server
from coremachine.cli.control import AuditReasonOption, ReasonOption
from coremachine.cli.errors import CliError, Exit, UsageProblem
from coremachine.cli.options import (
    CorrelationOption,
    ErrorOption,
    JobArgument,
    LimitOption,
    OutputOption,
    SinceOption,
    TagOption,
    UntilOption,
    UrlOption,
    wants_json,
)
from coremachine.cli.render import SHORT_ID, console, count_text, print_json, print_rows, say, visible
from coremachine.cli.times import read_time

YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask. Needed where nobody can be asked.")]


def bulk(
    action: Annotated[BulkAction, typer.Argument(metavar="ACTION", help="retry: what failed. rerun: everything.")],
    status: Annotated[list[str] | None, typer.Option("--status", help="Repeatable: any of them.")] = None,
    job_type: Annotated[list[str] | None, typer.Option("--type", help="Repeatable: any of them.")] = None,
    tag: TagOption = None,
    error: ErrorOption = None,
    correlation_id: CorrelationOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All jobs, where no other option chooses them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show how many, and the first of them.")] = False,
    reason: ReasonOption = None,
    yes: YesOption = False,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Cancel, pause, resume, retry, rerun or delete many jobs: first counted, then confirmed.

    Only jobs that the action can be done to count. If more match than were counted, nothing is done. Exit code 1 if a
    job refused it.

    For example:

        coremachine bulk cancel --type flood_risk_cog --dry-run

        coremachine bulk retry --status failed --since 2026-03-01T06:00 --reason "disk was full" --yes

        coremachine bulk delete --tag team=geo --until 2026-01-01
    """
    wanted = {
        "status": status or None,
        "job_type": job_type or None,
        "tags": _tags_of(tag or []) or None,
        "error": error,
        "correlation_id": correlation_id,
        "created_after": read_time("--since", since),
        "created_before": read_time("--until", until),
    }
    chosen = {name: value for name, value in wanted.items() if value is not None}
    if bool(chosen) == everything:
        found = "both" if everything else "neither"
        raise UsageProblem(f"expected an option that chooses jobs, or --all, found {found}")
    body = {"action": action.value, "filter": chosen, **({} if reason is None else {"reason": reason})}
    with ApiClient(choose_server(url)) as client:
        counted = client.act_on_many(body)
        if dry_run or not counted["matched"]:
            _show_count(counted, as_json=wants_json(output))
            return
        if not yes:
            _ask(action, counted)
        show = print_json if wants_json(output) else _show_report
        report = _act(client, body, counted["matched"], show)
    show(report)
    refused = [each for each in report["value"] if each["outcome"] not in AS_WISHED]
    raise typer.Exit(Exit.FAILED if refused else Exit.OK)


def _tags_of(texts: list[str]) -> Json:
    """`team=geo` is a tag with its value, `team` one with any value."""
    return {name: value if equals else None for name, equals, value in (text.partition("=") for text in texts)}


def _act(client: ApiClient, body: Json, count: int, show: Callable[[Json], None]) -> Json:
    """Request by request, each of at most a thousand jobs, until all that were counted are done.

    Raises:
        CliError: A request failed; what those before it did is shown.
    """
    report: Json = {"action": body["action"], "matched": count, "value": []}
    cursor: str | None = None
    while count > 0:
        asked = {**body, "confirm": count, "limit": min(count, MOST_JOBS_AT_ONCE)}
        try:
            answer = client.act_on_many(asked | ({} if cursor is None else {"cursor": cursor}))
        except CliError:
            if report["value"]:
                show(report)
            raise
        report["value"] += answer["value"]
        count, cursor = answer["remaining"], answer.get("next_cursor")
        if cursor is None:
            break
    return report


def _ask(action: BulkAction, counted: Json) -> None:
    if not sys.stdin.isatty():
        raise UsageProblem(f"expected --yes, since nobody can be asked, found none; {_matches(counted)}")
    _show_count(counted, as_json=False)
    typer.confirm(f"{action.value} {count_text(counted['matched'], 'job')}?", abort=True)


def _show_count(counted: Json, *, as_json: bool) -> None:
    if as_json:
        print_json(counted)
        return
    console().print(f"{_matches(counted)}; nothing was done", highlight=False)
    print_rows(counted.get("sample") or [], ["job_id", "job_type", "status", "created_at"], empty="")


def _matches(counted: Json) -> str:
    return count_text(counted["matched"], "job matches", "jobs match")


def _show_report(report: Json) -> None:
    value = report["value"]
    console().print(f"{report['action']}: {len(value)} of {count_text(report['matched'], 'job')}", highlight=False)
    for each in value:
        if each["outcome"] not in AS_WISHED:
            told = f"{each['job_id'][:SHORT_ID]} {each['outcome']} {each.get('detail') or ''}"
            console().print(escape(visible(told)), soft_wrap=True)


def delete(
    job_id: JobArgument,
    reason: AuditReasonOption = None,
    yes: YesOption = False,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Delete a job that has ended, with its tasks and events. Exit code 4 if it has not ended, or is under a hold.

    For example: coremachine delete 3f2a9c --reason "test data" --yes
    """
    with ApiClient(choose_server(url)) as client:
        whole_id = client.resolve_job_id(job_id)
        if not yes:
            if not sys.stdin.isatty():
                raise UsageProblem("expected --yes, since nobody can be asked, found none")
            typer.confirm(f"delete job {whole_id[:SHORT_ID]}?", abort=True)
        answer = client.delete_job(whole_id, reason)
        while answer.get("outcome") == "deleting":
            answer = client.delete_job(whole_id, reason)
    if wants_json(output):
        print_json(answer)
    else:
        console().print(f"{whole_id[:SHORT_ID]} {escape(visible(str(answer.get('outcome'))))}", highlight=False)


def hold(job_id: JobArgument, reason: ReasonOption = None, output: OutputOption = None, url: UrlOption = None) -> None:
    """Put a job under a legal hold: neither retention nor people delete it.

    For example: coremachine hold 3f2a9c --reason "case 17"
    """
    _hold("hold", job_id, reason, output, url)


def release(
    job_id: JobArgument, reason: ReasonOption = None, output: OutputOption = None, url: UrlOption = None
) -> None:
    """End a job's legal hold.

    For example: coremachine release 3f2a9c --reason "case 17 is closed"
    """
    _hold("release", job_id, reason, output, url)


def _hold(action: str, job_id: str, reason: str | None, output: Any, url: str | None) -> None:
    with ApiClient(choose_server(url)) as client:
        answer = client.act(client.resolve_job_id(job_id), action, {"reason": reason})
    if wants_json(output):
        print_json(answer)
        return
    state = "under a legal hold" if answer.get("hold") else "under no hold"
    unchanged = " (as before)" if answer.get("changed") is False else ""
    console().print(f"{escape(visible(job_id))} {state}{unchanged}", highlight=False)
    kept = answer.get("hold") or {}
    if unchanged and kept and reason and reason != kept.get("reason"):
        of_it = f"keeps its reason {kept['reason']!r}" if kept.get("reason") else "stays without a reason"
        say(f"the hold {of_it}; for another one: coremachine release {job_id}, then hold it again")


def audit(
    job_id: Annotated[
        str | None, typer.Argument(help="One job, by its whole id: it may be gone.", metavar="JOB_ID")
    ] = None,
    actor: Annotated[str | None, typer.Option("--actor", help="What this person or app did.")] = None,
    action: Annotated[AuditAction | None, typer.Option("--action", help="What was done.")] = None,
    limit: LimitOption = 50,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Show who did what to which job, and why, the latest first. It outlives the jobs.

    For example: coremachine audit --action delete
    """
    with ApiClient(choose_server(url)) as client:
        found = client.list_audit(job_id=job_id, actor=actor, action=action, limit=limit)
    if wants_json(output):
        print_json({"value": found})
        return
    print_rows(found, ["at", "action", "job_id", "actor", "reason", "detail"], empty="Nothing was done.")
