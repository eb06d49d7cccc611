"""Commands about schedules: jobs that are submitted by the clock."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from coremachine.cli.client import ApiClient, Json, choose_server
from coremachine.cli.completion import complete_job_type
from coremachine.cli.control import AuditReasonOption
from coremachine.cli.insight import show_findings
from coremachine.cli.options import LimitOption, OutputOption, UrlOption, wants_json
from coremachine.cli.parameters import gather_parameters
from coremachine.cli.render import console, local_time, print_fields, print_json, print_rows, say
from coremachine.cli.times import own_time, read_time

schedules = typer.Typer(help="Jobs that are submitted by the clock.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
CountOption = Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="How many times.")]
_SHOWN_TICKS = 10
_TICK_COLUMNS = ["tick_at", "until_at", "status", "job_id", "why"]


@schedules.command("list")
def list_schedules(
    job_type: Annotated[
        str | None, typer.Option("--type", help="Of this job type only.", autocompletion=complete_job_type)
    ] = None,
    paused: Annotated[bool | None, typer.Option("--paused/--not-paused", help="Only paused ones, or others.")] = None,
    limit: LimitOption = 100,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """List schedules by name, each with its next tick.

    For example: coremachine schedules list --paused
    """
    with ApiClient(choose_server(url)) as client:
        found = client.list_schedules(job_type=job_type, paused=paused, limit=limit)
    if wants_json(output):
        print_json({"value": found})
        return
    columns = ["name", "job_type", "cron", "time_zone", "next_tick_at", "state"]
    print_rows([{**_row(each), "state": _state_of(each)} for each in found], columns, empty="No schedules.")


@schedules.command()
def show(
    name: NameArgument,
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most that many ticks.")] = _SHOWN_TICKS,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Show a schedule and what became of its latest ticks.

    For example: coremachine schedules show nightly
    """
    with ApiClient(choose_server(url)) as client:
        found = client.get_schedule(name)
        ticks = client.list_ticks(name, limit=limit) if limit else []
    if wants_json(output):
        print_json({**found, "ticks": ticks})
        return
    print_fields(_row(found), without={"paused"})
    print_rows(map(_tick_row, ticks), _TICK_COLUMNS, empty="No ticks yet.")


@schedules.command("set")
def set_schedule(
    name: NameArgument,
    job_type: Annotated[
        str, typer.Argument(metavar="JOB_TYPE", help="See `coremachine job-types`.", autocompletion=complete_job_type)
    ],
    cron: Annotated[str, typer.Option("--cron", help="Minute, hour, day of month, month, day of week: '30 2 * * *'.")],
    zone: Annotated[str, typer.Option("--zone", help="IANA time zone, such as Europe/Berlin.")] = "UTC",
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", metavar="NAME=VALUE", help="Parameter; may hold {tick} or {tick:%Y-%m-%d}. Repeatable."
        ),
    ] = None,
    params_file: Annotated[
        Path | None, typer.Option("--params-file", help="JSON file of parameters; '-' is standard input.")
    ] = None,
    catch_up: Annotated[
        str | None, typer.Option("--catch-up", help="Ticks missed in an outage: skip, latest (default) or all.")
    ] = None,
    overlap: Annotated[
        str | None, typer.Option("--overlap", help="While a job of it is open: skip (default), wait or allow.")
    ] = None,
    starts: Annotated[str | None, typer.Option("--starts", metavar="TIME", help="ISO 8601; no tick before it.")] = None,
    ends: Annotated[str | None, typer.Option("--ends", metavar="TIME", help="ISO 8601; no tick after it.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="A text for people.")] = None,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Write a schedule, or replace the one of this name. A pause stays.

    For example:

        coremachine schedules set nightly hello_world --cron "30 2 * * *" --zone Europe/Berlin -p n=3

        coremachine schedules set daily report --cron "0 6 * * 1-5" -p day={tick:%Y-%m-%d} --overlap wait
    """
    body = {
        "job_type": job_type,
        "cron": cron,
        "time_zone": zone,
        "catch_up": catch_up,
        "overlap": overlap,
        "starts_at": read_time("--starts", starts),
        "ends_at": read_time("--ends", ends),
        "description": description,
    }
    with ApiClient(choose_server(url)) as client:
        parameters, warnings = gather_parameters(client, job_type, param or [], params_file)
        for warning in warnings:
            say(warning)
        answer = client.put_schedule(name, {**body, "parameters": parameters})
    for note in answer.get("notes") or []:
        say(note)
    _print_answer(answer, output)


@schedules.command()
def pause(
    name: NameArgument, reason: AuditReasonOption = None, output: OutputOption = None, url: UrlOption = None
) -> None:
    """Submit nothing at its ticks until it is resumed; its jobs go on.

    For example: coremachine schedules pause nightly --reason "disk is full"
    """
    with ApiClient(choose_server(url)) as client:
        answer = client.act_on_schedule(name, "pause", reason)
    _print_answer(answer, output)


@schedules.command()
def resume(
    name: NameArgument, reason: AuditReasonOption = None, output: OutputOption = None, url: UrlOption = None
) -> None:
    """Go on with the next tick; those that passed are skipped.

    For example: coremachine schedules resume nightly
    """
    with ApiClient(choose_server(url)) as client:
        answer = client.act_on_schedule(name, "resume", reason)
    _print_answer(answer, output)


@schedules.command()
def run(name: NameArgument, output: OutputOption = None, url: UrlOption = None) -> None:
    """Submit a job now, as if a tick were due. Exit code 4 if no job could be made.

    For example: coremachine schedules run nightly
    """
    with ApiClient(choose_server(url)) as client:
        tick = client.run_schedule(name)
    if wants_json(output):
        print_json(tick)
    elif tick.get("job_id"):
        console().print(escape(str(tick["job_id"])), soft_wrap=True)
    else:
        console().print(escape(f"{tick.get('status')}: {_why(tick)}"), soft_wrap=True)


@schedules.command()
def delete(name: NameArgument, output: OutputOption = None, url: UrlOption = None) -> None:
    """Delete a schedule and what is known of its ticks; its jobs stay.

    For example: coremachine schedules delete nightly
    """
    with ApiClient(choose_server(url)) as client:
        answer = client.delete_schedule(name)
    if wants_json(output):
        print_json(answer)
    else:
        console().print(escape(f"{name} is deleted"), soft_wrap=True)


@schedules.command("next")
def next_times(name: NameArgument, count: CountOption = 5, output: OutputOption = None, url: UrlOption = None) -> None:
    """Show the next times of a schedule, on the clock of its zone.

    For example: coremachine schedules next nightly -n 10
    """
    with ApiClient(choose_server(url)) as client:
        found = client.list_next_ticks(name, count)
    if wants_json(output):
        print_json({"value": found})
        return
    for moment in found:
        console().print(escape(own_time(str(moment))), highlight=False)
    if not found:
        console().print("It has no tick any more.")


@schedules.command()
def explain(name: NameArgument, output: OutputOption = None, url: UrlOption = None) -> None:
    """Say why a schedule submits nothing, and what would help.

    For example: coremachine schedules explain nightly
    """
    with ApiClient(choose_server(url)) as client:
        answer = client.explain_schedule(name)
    if wants_json(output):
        print_json(answer)
    else:
        show_findings(answer["findings"])


def _print_answer(answer: Json, output: Any) -> None:
    if wants_json(output):
        print_json(answer)
        return
    following = answer.get("next_tick_at")
    after = f", next tick {local_time(following)}" if following and not answer.get("paused") else ""
    console().print(f"{escape(str(answer['name']))} {_state_of(answer)}{after}", soft_wrap=True, highlight=False)


def _row(schedule: Json) -> Json:
    """A paused one has no next tick: the one that is kept in its row may be long over."""
    return {**schedule, "next_tick_at": None} if schedule.get("paused") else schedule


def _tick_row(tick: Json) -> Json:
    return {**tick, "why": _why(tick), "job_id": str(tick.get("job_id") or "")}


def _why(tick: Json) -> str:
    manual = "run now" if tick.get("manual") else None
    return ": ".join(str(part) for part in (manual, tick.get("reason"), tick.get("detail")) if part)


def _state_of(schedule: Json) -> str:
    if schedule.get("paused"):
        return "paused"
    return "active" if schedule.get("next_tick_at") else "ended"
