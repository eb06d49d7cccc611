"""Commands that show what tasks did: one task with its attempts, the log of a job, the timeline."""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.text import Text

from coremachine.cli.client import ApiClient, Json, choose_server, is_terminal
from coremachine.cli.errors import ApiError
from coremachine.cli.events import sentence_of
from coremachine.cli.failure_feed import FailureFeed
from coremachine.cli.options import JobArgument, LimitOption, OutputOption, UrlOption, wants_json
from coremachine.cli.render import (
    console,
    duration_text,
    local_time,
    print_json,
    print_json_line,
    print_whole,
    say,
    seconds_between,
    status_markup,
    visible,
    visible_lines,
)
from coremachine.cli.stack_log import StackLog, find_stack_log
from coremachine.cli.trace import without_engine

TaskArgument = Annotated[
    str, typer.Argument(metavar="TASK_ID", help="Its id or its name; see `coremachine tasks JOB_ID`.")
]
RunOption = Annotated[int | None, typer.Option("--run", min=1, help="Default: the job's current run.")]
_POLL_SECONDS = 1.0
_OF_THE_JOB = re.compile(r" (?:job_id|correlation_id|run)=\S+")
_RUN = re.compile(r" run=(\d+)(?= |$)")


def task(
    job_id: JobArgument,
    task_id: TaskArgument,
    run: RunOption = None,
    full: Annotated[bool, typer.Option("--full", help="The traceback with the frames of the engine, too.")] = False,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Show one task whole: parameters, result, times, lease, each attempt, and the last one's log lines and traceback.

    For example: coremachine task 3f2a9c s1-000000 -o json
    """
    with ApiClient(choose_server(url)) as client:
        whole_id = client.resolve_job_id(job_id)
        found = find_task(client, whole_id, task_id, run)
        attempts = _attempts(client, whole_id, found["task_id"], found.get("run"))
    if wants_json(output):
        print_json({**found, "attempts": attempts})
        return
    show_task(found, attempts, console(), full=full)


def find_task(client: ApiClient, job_id: str, text: str, run: int | None = None) -> Json:
    """The task of that id, or of that name in one of the job's stages, the last one first.

    Args:
        run: Default: the job's current one.

    Raises:
        ApiError: None is like that (status 404).
    """
    from core.orchestration_manager import task_id_for  # noqa: PLC0415 - other commands start faster without

    try:
        return client.get_task(job_id, text, run=run)
    except ApiError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        for stage in reversed(client.get_job(job_id).get("stages") or []):
            found = _get_if_there(client, job_id, task_id_for(stage["stage"], 0, text), run)
            if found is not None:
                return found
        raise


def _find_logged_id(client: ApiClient, job_id: str, text: str) -> str:
    """The id of a task whose log is wanted: it may be one that only an earlier run had.

    Raises:
        ApiError: None is like that in any run (status 404).
    """
    last_run = client.get_job(job_id)["run"]
    for run in range(last_run, 1, -1):
        try:
            return str(find_task(client, job_id, text, run)["task_id"])
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
    return str(find_task(client, job_id, text, 1)["task_id"])


def _get_if_there(client: ApiClient, job_id: str, task_id: str, run: int | None) -> Json | None:
    try:
        return client.get_task(job_id, task_id, run=run)
    except ApiError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return None


def _attempts(client: ApiClient, job_id: str, task_id: str, run: int | None) -> list[Json]:
    """The attempts that did not succeed; none from a server that does not list them."""
    try:
        return client.list_logs(job_id, task_id=task_id, run=run, limit=200)
    except ApiError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return []


def show_task(found: Json, attempts: list[Json], show: Console, *, full: bool = False) -> None:
    head = f"[bold]{_text(found.get('name') or found.get('task_id'))}[/bold] {status_markup(str(found.get('status')))}"
    show.print(head, highlight=False, soft_wrap=True)
    for name, value in _facts(found):
        show.print(f"  [dim]{name:<9}[/dim] {value}", highlight=False, soft_wrap=True)
    for name in ("parameters", "result", "progress"):
        if found.get(name):
            show.print(f"[bold]{name}[/bold]")
            print_whole(found[name], depth=1)
    if attempts:
        show.print("[bold]attempts that did not succeed[/bold]")
    for attempt in attempts:
        show.print(Text.assemble("  ", (f"{local_time(attempt['at'])}  ", "dim"), sentence_of(attempt)), soft_wrap=True)
    if found.get("error"):
        _show_error(found["error"], show, full=full)


def _facts(found: Json) -> Iterator[tuple[str, str]]:
    """What people want to know of a task, each with its name."""
    where = [f"stage {found.get('stage')}", str(found.get("task_type")), f"queue {found.get('queue')}"]
    yield "task", f"{_text(found.get('task_id'))} · {_text(' · '.join(where))} · run {found.get('run')}"
    lost = found.get("interruptions") or 0
    yield "attempts", f"{found.get('attempt')}{f', {lost} of them interrupted' if lost else ''}"
    times = [
        f"{word} {local_time(found[name])}"
        for word, name in (("planned", "created_at"), ("began", "started_at"), ("ended", "finished_at"))
        if found.get(name)
    ]
    took = seconds_between(found.get("started_at"), found.get("finished_at"))
    yield "times", " · ".join([*times, f"{duration_text(took)}{'' if found.get('finished_at') else ' so far'}"])
    if found.get("due_at") and not found.get("finished_at"):
        yield "due", local_time(found["due_at"])
    if found.get("lease_owner"):
        until = f" until {local_time(found['lease_expires_at'])}" if found.get("lease_expires_at") else ""
        yield "process" if not until else "lease", f"{_text(found['lease_owner'])}{until}"
    if found.get("timed_out_at"):
        yield "timed out", local_time(found["timed_out_at"])
    if found.get("from_run"):
        yield "ran in", f"run {found['from_run']}"


def _show_error(error: Json, show: Console, *, full: bool) -> None:
    show.print(f"[bold]error[/bold] [dim]of attempt {error.get('attempt')}[/dim]", highlight=False)
    kind = Text(f"  {visible(str(error.get('type')))}: ", style="red")
    show.print(kind.append(visible_lines(str(error.get("message"))), style="default"), soft_wrap=True)
    if error.get("log"):
        show.print("[bold]its last log lines[/bold]")
        show_lines(str(error["log"]), show, "  ")
    if error.get("traceback"):
        show.print("[bold]traceback[/bold]")
        text = visible_lines(str(error["traceback"]).rstrip())
        lines = text if full else without_engine(text)
        code = Syntax("", "pytb", theme="ansi_dark", background_color="default").highlight(lines)
        for line in code.split("\n"):
            show.print(Text("  ").append(line), soft_wrap=True)


def show_lines(log: str, show: Console, indent: str) -> None:
    for line in log.split("\n"):
        at, _, rest = line.partition(" ")
        level = rest.partition(" ")[0]
        style = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow"}.get(level, "default")
        shown = local_time(at) if at.endswith("Z") else visible(at)
        show.print(Text.assemble(indent, (f"{shown} ", "dim"), (visible(rest), style)), soft_wrap=True)


def events(
    job_id: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    limit: LimitOption = 200,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Show a job's timeline: transitions, failures, retries, interruptions, operator actions.

    With --follow and -o json, each event is one line of JSON.

    For example:

        coremachine events 3f2a9c

        coremachine events 3f2a9c --follow
    """
    with ApiClient(choose_server(url)) as client:
        whole_id = client.resolve_job_id(job_id)
        if follow:
            with suppress(KeyboardInterrupt):
                _show_events(client.follow_events(whole_id), as_json=wants_json(output))
            return
        found = client.list_events(whole_id, limit=limit)
    if wants_json(output):
        print_json({"value": found})
    elif found:
        _show_events(found, as_json=False)
    else:
        console().print("No events.")


def _show_events(found: Iterable[Json], *, as_json: bool) -> None:
    """Each as it comes."""
    show = console()
    last_run = 1
    for event in found:
        if as_json:
            print_json_line(event)
            continue
        last_run = _show_run(event.get("run", 1), last_run, show)
        show.print(Text.assemble((f"{local_time(event['at'])}  ", "dim"), sentence_of(event)), soft_wrap=True)


def _show_run(run: int, last_run: int, show: Console) -> int:
    """A heading where another run begins; the run."""
    if run != last_run:
        show.print(f"[bold]run {run}[/bold]")
    return run


def _run_of(item: Json, last_run: int) -> int:
    """That of a line of a log, or of an event. A line of a traceback has none."""
    if "line" not in item:
        return int(item.get("run") or last_run)
    named = _RUN.search(item["line"])
    return int(named[1]) if named else last_run


def logs(
    job_id: JobArgument,
    task_id: Annotated[
        str | None, typer.Option("--task", metavar="TASK_ID", help="Of the task with this id or name.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Show what was logged about a job, by the engine and by its handlers.

    Where the stack runs on this machine, from its log. From any other server, the last lines of each attempt that did
    not succeed, which are in the database; what other attempts logged is in that app's own log (Application Insights).

    For example:

        coremachine logs 3f2a9c -f

        coremachine logs 3f2a9c --task three.txt -o json
    """
    with ApiClient(choose_server(url)) as client:
        whole_id = client.resolve_job_id(job_id)
        if task_id is not None:
            task_id = _find_logged_id(client, whole_id, task_id)
        file = find_stack_log(client.url)
        found = (
            _from_stack(client, whole_id, task_id, file, follow=follow)
            if file is not None
            else _from_server(client, whole_id, task_id, follow=follow)
        )
        with suppress(KeyboardInterrupt):
            _show_logs(found, as_json=wants_json(output))
    if file is None:
        say(
            "These are the attempts that did not succeed. What the others logged is in the app's log; in Application "
            f"Insights: traces | where customDimensions.job_id == '{whole_id}' | order by timestamp"
        )


def _show_logs(found: Iterable[Json], *, as_json: bool) -> None:
    """As they come: with -o json one object per line, so that a program can follow too."""
    show = console()
    last_run = 1
    for item in found:
        if as_json:
            print_json_line(item)
            continue
        last_run = _show_run(_run_of(item, last_run), last_run, show)
        if "line" in item:
            show.print(_stack_line(item["line"]), soft_wrap=True)
        else:
            show.print(Text.assemble((f"{local_time(item['at'])}  ", "dim"), sentence_of(item)), soft_wrap=True)
            if log := (item.get("detail") or {}).get("log"):
                show_lines(log, show, "    ")


def _stack_line(line: str) -> Text:
    """A line of a stack's log with its time as commands show times, without what is the same in all lines of a job."""
    at, space, rest = _OF_THE_JOB.sub("", visible_lines(line)).partition(" ")
    shown = local_time(at, milliseconds=True) if at.endswith("Z") else at
    return Text.assemble((shown, "dim"), space, rest)


def _from_stack(client: ApiClient, job_id: str, task_id: str | None, file: Path, *, follow: bool) -> Iterator[Json]:
    log = StackLog(file, job_id, task_id)
    while True:
        has_ended = not follow or is_terminal(client.get_job(job_id)["status"])
        for line in log.new_lines():
            yield {"line": line}
        if has_ended:
            return
        time.sleep(_POLL_SECONDS)


def _from_server(client: ApiClient, job_id: str, task_id: str | None, *, follow: bool) -> Iterator[Json]:
    feed = FailureFeed(client, job_id, task_id)
    while True:
        has_ended = not follow or is_terminal(client.get_job(job_id)["status"])
        yield from feed.all_new()
        if has_ended:
            return
        time.sleep(_POLL_SECONDS)


def _text(value: Any) -> str:
    return escape(visible(str(value)))
