"""Commands about jobs, over the HTTP API."""

import json
import re
import sys
from pathlib import Path
from textwrap import shorten
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from core.models import JobStatus, TaskStatus
from core.models.control import IfEnded
from core.models.job_filter import JobSort
from core.models.status import JobPriority
from coremachine.cli.batch import submit_lines
from coremachine.cli.client import ApiClient, Json, choose_server, is_terminal
from coremachine.cli.completion import complete_job_type
from coremachine.cli.draft import show_draft
from coremachine.cli.errors import Exit, NoResult, UsageProblem
from coremachine.cli.options import (
    CorrelationOption,
    ErrorOption,
    JobArgument,
    LimitOption,
    Output,
    OutputOption,
    SinceOption,
    StrictOption,
    TagOption,
    TimeoutOption,
    UntilOption,
    UrlOption,
    wants_json,
)
from coremachine.cli.parameters import gather_parameters
from coremachine.cli.progress import JobProgress, render_job
from coremachine.cli.render import (
    SHORT_ID,
    cell,
    console,
    duration_text,
    error_text,
    has_no_width,
    local_time,
    print_json,
    print_rows,
    print_whole,
    say,
    seconds_of_run,
    status_markup,
    visible,
)
from coremachine.cli.times import read_time
from coremachine.cli.watching import Watching

_UNSUCCESSFUL = {JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.CANCELLING}
_WITH_FAILURES = {JobStatus.FAILED, JobStatus.COMPLETED_WITH_ERRORS}
_INTERRUPTED = 130
_WHY_CHARACTERS = 100


def submit(
    job_type: Annotated[
        str,
        typer.Argument(
            metavar="JOB_TYPE",
            help="See `coremachine job-types`; none with --from-jsonl.",
            autocompletion=complete_job_type,
        ),
    ] = "",
    param: Annotated[list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="Repeatable.")] = None,
    params_file: Annotated[Path | None, typer.Option(help="A JSON object; - is stdin.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="A new job, even if one of the same parameters is there.")
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="The same key again gives the same job, forced ones too.")
    ] = None,
    if_ended: Annotated[
        IfEnded | None,
        typer.Option(
            "--if-ended",
            help="Where the job of these parameters is there and does not run with them: the job as it is (return, the "
            "default), another run of it (rerun), a new job (force), or exit code 4 (fail).",
        ),
    ] = None,
    tag: TagOption = None,
    start_at: Annotated[
        str | None,
        typer.Option("--start-at", metavar="TIME", help="Not before it; this machine's clock, or with zone."),
    ] = None,
    priority: Annotated[
        JobPriority | None,
        typer.Option("--priority", help="Its weight among other jobs. Default: that of its job type."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Submit nothing; show the tasks that the first stage would have.")
    ] = False,
    from_jsonl: Annotated[
        Path | None,
        typer.Option(
            "--from-jsonl", metavar="FILE", help='Submit each line, such as {"job_type": ..., "parameters": {}}.'
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 1 if the job fails.")] = False,
    strict: StrictOption = False,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Submit a job, or with --from-jsonl many. The same parameters are the same job: submitting twice runs it once.

    Exit code 1 if nothing was run since the job had failed or was cancelled, 4 if a rerun gave it other parameters: its
    result is not of this submission.

    For example:

        coremachine submit hello_world --param n=5 --wait

        coremachine submit flood_risk_cog -p source=./rasters -p output=./floods

        coremachine submit hello_world --params-file parameters.json -o json

        coremachine submit hello_world --if-ended rerun --wait --strict

        coremachine submit hello_world --force

        coremachine submit hello_world --tag team=geo --start-at 2026-03-01T06:00

        coremachine submit --from-jsonl orders.jsonl
    """
    if from_jsonl is not None:
        _refuse_beside_lines(job_type, param or tag or priority, params_file, force or wait or dry_run)
        raise typer.Exit(submit_lines(from_jsonl, output, url))
    if not job_type:
        raise UsageProblem("expected JOB_TYPE or --from-jsonl, found neither; see `coremachine job-types`")
    if force and if_ended not in {None, IfEnded.FORCE}:
        raise UsageProblem(f"expected --force or --if-ended, found --force and --if-ended {if_ended}; leave one out")
    with ApiClient(choose_server(url)) as client:
        parameters, warnings = gather_parameters(client, job_type, param or [], params_file)
        for warning in warnings:
            say(warning)
        if dry_run:
            show_draft(client.draft(job_type, parameters), output)
            return
        answer = client.submit(
            job_type,
            parameters,
            force=force,
            idempotency_key=idempotency_key,
            if_ended=if_ended,
            tags=tag or [],
            start_at=read_time("--start-at", start_at),
            priority=priority,
        )
        if answer.get("advice"):
            say(answer["advice"])
        if wait:
            follow_to_end(client, answer["job_id"], timeout, output, strict=strict, run=answer["run"])
    _print_submission(answer, output)
    # Without a wait: whether what was submitted runs, or has run well.
    raise typer.Exit(_exit_code_of(answer["status"], strict=strict))


def _refuse_beside_lines(job_type: str, texts: object, file: object, flags: object) -> None:
    if job_type or texts or file is not None or flags:
        raise UsageProblem(
            "--from-jsonl: expected it alone, found options of one submission beside it; "
            "each line has its own job_type, parameters, tags, force, start_at and priority"
        )


def status(job_id: JobArgument, output: OutputOption = None, url: UrlOption = None) -> None:
    """Show one job and its stages.

    For example: coremachine status 3f2a9c -o json
    """
    with ApiClient(choose_server(url)) as client:
        print_job(client.get_job(client.resolve_job_id(job_id)), output)


def result(job_id: JobArgument, output: OutputOption = None, url: UrlOption = None) -> None:
    """Show a job's result whole. Exit code 4 if the job has none yet, 1 if it ended without one.

    For example:

        coremachine result 3f2a9c

        coremachine result 3f2a9c -o json | jq .totals
    """
    with ApiClient(choose_server(url)) as client:
        job = client.get_job(client.resolve_job_id(job_id))
    if job.get("result") is None:
        raise _no_result(job)
    if wants_json(output):
        print_json(job["result"])
    else:
        print_whole(job["result"])


def _no_result(job: Json) -> NoResult:
    ended = is_terminal(job["status"])
    why = error_text(job.get("error")) if ended else f"see `coremachine watch {job['job_id'][:SHORT_ID]}`"
    problem = NoResult(f"job {job['job_id'][:SHORT_ID]} is {job['status']} and has no result; {why}".rstrip("; "))
    problem.exit_code = Exit.FAILED if ended else Exit.CONFLICT
    return problem


def list_jobs(
    status: Annotated[str | None, typer.Option("--status", help="For example processing, failed.")] = None,
    job_type: Annotated[
        str | None, typer.Option("--type", help="Jobs of this type only.", autocompletion=complete_job_type)
    ] = None,
    paused: Annotated[
        bool | None, typer.Option("--paused/--not-paused", help="Paused jobs only, or only the others.")
    ] = None,
    tag: TagOption = None,
    error: ErrorOption = None,
    correlation_id: CorrelationOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    sort: Annotated[JobSort | None, typer.Option("--sort", help="Default: the newest first.")] = None,
    limit: LimitOption = 20,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """List jobs, the newest first. What several options ask for counts together.

    For example:

        coremachine list --status failed --type flood_risk_cog --limit 50

        coremachine list --tag team=geo --since 2026-03-01T06:00 --error "no space"
    """
    with ApiClient(choose_server(url)) as client:
        jobs = client.list_jobs(
            status=status,
            job_type=job_type,
            paused=paused,
            tag=tag or None,
            error=error,
            correlation_id=correlation_id,
            created_after=read_time("--since", since),
            created_before=read_time("--until", until),
            sort=sort,
            reasons=True,
            limit=limit,
        )
    if wants_json(output):
        print_json({"value": jobs})
        return
    rows = [
        {
            **job,
            "status": f"{job['status']} (paused)" if job.get("paused_at") else job["status"],
            "stage": f"{job.get('stage')}/{job.get('total_stages')}",
            "took": duration_text(seconds_of_run(job)),
            "why": _why(job),
        }
        for job in jobs
    ]
    columns = ["job_id", "job_type", "status", "stage", "created_at", "took", "why"]
    print_rows(rows, columns, empty="No jobs.", spare=["took", "stage", "created_at"], sentence="why")


def _why(job: Json) -> str | None:
    """Why it waits or failed, as far as a line has room; `explain` has all of it."""
    reason = job.get("reason")
    if reason is None:
        return None
    at = f" · {local_time(reason['at'])}" if reason.get("at") else ""
    text = reason["text"] if has_no_width(sys.stdout) else shorten(reason["text"], _WHY_CHARACTERS, placeholder="…")
    return f"{text}{at}"


def watch(
    job_id: JobArgument,
    strict: StrictOption = False,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Watch a job to its end: a bar for each stage with its pace, failures as they come, and why it waits.

    Exit code 1 if it fails or is cancelled. In a pipe it writes lines.

    A server that is away does not end the wait until --timeout, or for 10 minutes without one; then exit code 5.

    For example: coremachine watch 3f2a9c --timeout 600
    """
    with ApiClient(choose_server(url)) as client:
        follow_to_end(client, client.resolve_job_id(job_id), timeout, output, strict=strict)


def tasks(
    job_id: JobArgument,
    status: Annotated[str | None, typer.Option("--status", help="For example failed, pending_retry.")] = None,
    stage: Annotated[int | None, typer.Option("--stage", min=1, help="Tasks of this stage only.")] = None,
    limit: LimitOption = 100,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """List the tasks of a job.

    For example: coremachine tasks 3f2a9c --status failed
    """
    with ApiClient(choose_server(url)) as client:
        whole_id = client.resolve_job_id(job_id)
        found = client.list_tasks(whole_id, status=status, stage=stage, limit=limit)
        if stage is not None and not found:
            expect_stage(client.get_job(whole_id), "--stage", stage)
    if wants_json(output):
        print_json({"value": found})
        return
    rows = [{**task, "name": task.get("name") or task["task_id"], "remark": _remark(task)} for task in found]
    interruptions = ["interruptions"] if any(task.get("interruptions") for task in found) else []
    columns = ["stage", "name", "task_type", "status", "attempt", *interruptions, "started_at", "remark"]
    print_rows(rows, columns, empty="No tasks.")


def expect_stage(job: Json, option: str, stage: int) -> None:
    """Raises UsageProblem where the job has no such stage."""
    last = job["total_stages"]
    if stage > last:
        stages = "stage 1 alone" if last == 1 else f"stages 1 to {last}"
        raise UsageProblem(f"{option}: expected one of the job's stages, found {stage}; {job['job_type']} has {stages}")


def job_types(output: OutputOption = None, url: UrlOption = None) -> None:
    """List what can be submitted, with the parameters of each: their types and defaults, and which are required.

    For example: coremachine job-types -o json
    """
    with ApiClient(choose_server(url)) as client:
        found = client.list_job_types()
    if wants_json(output):
        print_json({"value": found})
        return
    rows = [{**each, "parameters": _described_parameters(each)} for each in found]
    print_rows(rows, ["job_type", "description", "parameters"], empty="No job types.")


def follow_to_end(
    client: ApiClient,
    job_id: str,
    timeout: float | None,
    output: Output | None,
    *,
    strict: bool = False,
    run: int | None = None,
) -> NoReturn:
    """Show the job until it ends, print it, and exit with its code.

    Args:
        strict: A job that completed with errors is a failure too.
        run: The one that is waited for; another has another result, and exit code 4.
    """
    try:
        if wants_json(output) and not sys.stderr.isatty():
            job = client.wait_for_job(job_id, timeout, say)
        else:
            # The result has the last bars, too.
            with JobProgress(is_kept=wants_json(output)) as progress:
                watching = Watching(client, job_id, progress)
                job = client.follow_job(job_id, watching.show, timeout, progress.say, watching.look)
    except KeyboardInterrupt:
        say(f"The job goes on; see `coremachine watch {job_id[:12]}`, or stop it with `coremachine cancel`.")
        raise typer.Exit(_INTERRUPTED) from None
    print_job(job, output)
    if run is not None and job["run"] != run:
        say(f"While run {run} was waited for, run {job['run']} began; see `coremachine runs {job_id[:12]}`.")
        raise typer.Exit(Exit.CONFLICT)
    raise typer.Exit(_exit_code_of(job["status"], strict=strict))


def _exit_code_of(status: str, *, strict: bool) -> Exit:
    is_failure = status in _UNSUCCESSFUL or (strict and status == JobStatus.COMPLETED_WITH_ERRORS)
    return Exit.FAILED if is_failure else Exit.OK


def _print_submission(answer: Json, output: Output | None) -> None:
    if wants_json(output):
        print_json(answer)
        return
    news = "submitted" if answer.get("created", True) else "already there"
    if answer.get("outcome") == "rerun":
        news = f"submitted again, run {answer['run']}"
    console().print(f"{answer['job_id']} {news}, {status_markup(answer['status'])}", soft_wrap=True)


def print_job(job: Json, output: Output | None) -> None:
    if wants_json(output):
        print_json(job)
        return
    console().print(render_job(job))
    if job.get("trace_id"):
        console().print(f"[bold]trace[/bold] {escape(visible(job['trace_id']))}", highlight=False)
    for name in ("tags", "parameters", "result"):
        if job.get(name):
            text = cell(name, job[name])
            console().print(f"[bold]{name}[/bold] {text}")
            if name == "result" and text.endswith("…"):
                console().print(f"[dim]whole: coremachine result {job['job_id'][:SHORT_ID]}[/dim]")
    if job["status"] in _WITH_FAILURES:
        console().print(f"[dim]why: coremachine failures {job['job_id'][:SHORT_ID]}[/dim]")
    for name, place in places_of(job).items():
        console().print(f"[bold]{escape(name)}[/bold] {escape(visible(place))}", highlight=False, soft_wrap=True)


def places_of(job: Json) -> dict[str, str]:
    """Where a result is: the paths and URLs among its values, those of the API with its host."""
    result = job.get("result")
    if not isinstance(result, dict):
        return {}
    found = {name: value for name, value in result.items() if isinstance(value, str)}
    own = str((job.get("links") or {}).get("self") or "")
    host = own.partition("/api/jobs/")[0]
    return {
        name: f"{host}{value}" if value.startswith("/api/") else value
        for name, value in found.items()
        if value.startswith("/") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value)
    }


def _remark(task: Json) -> str:
    if task.get("held_for") and not TaskStatus.stored(str(task["status"])).is_terminal:
        return f"waits for limit {task['held_for']}"
    if task.get("error"):
        return error_text(task["error"])
    progress = task.get("progress")
    return "" if not progress else ", ".join(f"{name} {value}" for name, value in progress.items())


def _described_parameters(entry: Json) -> str:
    """`source: string (required), n: integer = 5`, of a JSON Schema."""
    schema = entry.get("parameters_schema") or {}
    required = schema.get("required") or ()
    return ", ".join(
        _described(name, each, is_required=name in required) for name, each in (schema.get("properties") or {}).items()
    )


def _described(name: str, parameter: Json, *, is_required: bool) -> str:
    kinds = parameter.get("type") or []
    kind = " or ".join([kinds] if isinstance(kinds, str) else kinds)
    text = f"{name}: {kind}" if kind else name
    if is_required:
        return f"{text} (required)"
    return f"{text} = {json.dumps(parameter['default'], ensure_ascii=False)}" if "default" in parameter else text
