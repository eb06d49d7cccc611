"""Commands that act on a job: cancel, pause, resume, adjust, rerun."""

import re
from typing import Annotated, Any

import typer
from rich.markup import escape

from core.models.control import DEFAULT_CANCEL_GRACE_SECONDS
from core.models.status import JobPriority
from coremachine.cli.client import ApiClient, Json, choose_server
from coremachine.cli.errors import UsageProblem
from coremachine.cli.jobs import expect_stage, follow_to_end
from coremachine.cli.options import (
    JobArgument,
    Output,
    OutputOption,
    StrictOption,
    TimeoutOption,
    UrlOption,
    wants_json,
)
from coremachine.cli.parameters import gather_parameters
from coremachine.cli.render import (
    console,
    count_text,
    duration_text,
    print_json,
    print_rows,
    say,
    seconds_between,
    status_markup,
)

_GRACE_HELP = f"Seconds that tasks which run get to stop; 0: none. Default: {DEFAULT_CANCEL_GRACE_SECONDS:g}."
ReasonOption = Annotated[
    str | None, typer.Option("--reason", help="Kept in the job's timeline, and in the audit log: `coremachine audit`.")
]
# Where there is no job, or none any more.
AuditReasonOption = Annotated[str | None, typer.Option("--reason", help="Kept in the audit log: `coremachine audit`.")]


def cancel(
    job_id: JobArgument,
    reason: ReasonOption = None,
    grace: Annotated[
        float | None,
        typer.Option("--grace", min=0, help=_GRACE_HELP),
    ] = None,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Cancel a job; tasks that run are asked to stop. Exit code 4 if it has ended already.

    For example: coremachine cancel 3f2a9c --reason "wrong source folder" --grace 30
    """
    body = {"reason": reason, "cancel_grace_seconds": grace}
    _act("cancel", job_id, body, output, url)


def pause(job_id: JobArgument, reason: ReasonOption = None, output: OutputOption = None, url: UrlOption = None) -> None:
    """Begin no more of a job's tasks; those that run end as they would. Exit code 4 if it has ended already.

    For example: coremachine pause 3f2a9c --reason "disk is full"
    """
    _act("pause", job_id, {"reason": reason}, output, url)


def resume(
    job_id: JobArgument, reason: ReasonOption = None, output: OutputOption = None, url: UrlOption = None
) -> None:
    """Let a paused job go on.

    For example: coremachine resume 3f2a9c
    """
    _act("resume", job_id, {"reason": reason}, output, url)


def adjust(
    job_id: JobArgument,
    priority: Annotated[
        JobPriority | None, typer.Option("--priority", help="Its weight among other jobs from now on.")
    ] = None,
    max_parallel: Annotated[
        str | None,
        typer.Option(
            "--max-parallel", metavar="N", help='How many tasks of its present stage run at a time; "none": any number.'
        ),
    ] = None,
    stage: Annotated[
        int | None,
        typer.Option("--stage", min=1, help="The stage that --max-parallel is for; exit code 4 if it is at another."),
    ] = None,
    reason: ReasonOption = None,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Change how fast a job goes on, while it runs. Exit code 4 if it has ended, or no task waits in line.

    For example:

        coremachine adjust 3f2a9c --priority high --reason "the customer waits"

        coremachine adjust 3f2a9c --max-parallel 4
    """
    body = {"priority": priority, "max_parallel": _read_most(max_parallel), "stage": stage, "reason": reason}
    if priority is None and max_parallel is None:
        raise UsageProblem("expected --priority or --max-parallel, found neither")
    with ApiClient(choose_server(url)) as client:
        answer = client.adjust(client.resolve_job_id(job_id), body)
    if wants_json(output):
        print_json(answer)
        return
    most = answer.get("max_parallel")
    limit = f", max_parallel {most} in stage {answer['stage']}" if most is not None else ""
    console().print(f"{_line(job_id, answer)}, priority {escape(str(answer['priority']))}{limit}", soft_wrap=True)


def _read_most(text: str | None) -> int | str | None:
    if text is None or text == "none":
        return text
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise UsageProblem(f"--max-parallel: expected a number from 1, or none, found {text!r:.50}")
    return int(text)


def rerun(
    job_id: JobArgument,
    failed: Annotated[
        bool, typer.Option("--failed", help="Tasks that did not complete, and the stages after them (the default).")
    ] = False,
    from_stage: Annotated[
        int | None, typer.Option("--from-stage", min=1, metavar="K", help="Stage K and those after it.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything, as the job type is defined now.")] = False,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="Another value than in the last run. Repeatable."),
    ] = None,
    expected_run: Annotated[
        int | None,
        typer.Option(
            "--run", min=1, metavar="N", help="The run that you have seen (default: the present one); else exit code 4."
        ),
    ] = None,
    reason: ReasonOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 1 if the job fails.")] = False,
    strict: StrictOption = False,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Run a job that has ended once more, under the same id. Exit code 4 if it has not ended.

    For example:

        coremachine rerun 3f2a9c --failed --wait

        coremachine rerun 3f2a9c --from-stage 2 --reason "better threshold" -p threshold=0.5
    """
    body = {"reason": reason, **_choose_mode(failed=failed, from_stage=from_stage, everything=everything)}
    with ApiClient(choose_server(url)) as client:
        whole_id = client.resolve_job_id(job_id)
        job = client.get_job(whole_id)
        if from_stage is not None:
            expect_stage(job, "--from-stage", from_stage)
        body["expected_run"] = expected_run or job["run"]
        if param:
            body["parameters"], warnings = gather_parameters(client, job["job_type"], param, None)
            for warning in warnings:
                say(warning)
        answer = client.act(whole_id, "rerun", body)
        if wait:
            follow_to_end(client, whole_id, timeout, output, strict=strict, run=answer.get("run"))
    if wants_json(output):
        print_json(answer)
        return
    fresh = answer.get("fresh_count")
    again = "" if fresh is None else f", {count_text(fresh, 'task')} again"
    kept = f"{count_text(answer.get('kept_count', 0), 'task')} kept{again}"
    line = f"{whole_id} run {answer.get('run')} from stage {answer.get('stage')}, {kept}"
    console().print(f"{line}, {status_markup(str(answer.get('status')))}", soft_wrap=True)


def runs(job_id: JobArgument, output: OutputOption = None, url: UrlOption = None) -> None:
    """List a job's runs, the latest first: each with its parameters and how it ended.

    For example: coremachine runs 3f2a9c
    """
    with ApiClient(choose_server(url)) as client:
        found = client.list_runs(client.resolve_job_id(job_id))
    if wants_json(output):
        print_json({"value": found})
        return
    rows = [
        {**each, "took": duration_text(seconds_between(each["started_at"], each.get("finished_at")))} for each in found
    ]
    print_rows(rows, ["run", "status", "started_at", "finished_at", "took", "parameters"], empty="No runs.")


def _act(action: str, job_id: str, body: dict[str, Any], output: Output | None, url: str | None) -> None:
    with ApiClient(choose_server(url)) as client:
        answer = client.act(client.resolve_job_id(job_id), action, body)
    if wants_json(output):
        print_json(answer)
    else:
        console().print(_line(job_id, answer), soft_wrap=True)


def _line(job_id: str, answer: Json) -> str:
    paused = ", paused" if answer.get("paused") else ""
    unchanged = " (as before)" if answer.get("changed") is False else ""
    return f"{escape(job_id)} {status_markup(str(answer['status']))}{paused}{unchanged}"


def _choose_mode(*, failed: bool, from_stage: int | None, everything: bool) -> dict[str, Any]:
    if failed + everything + (from_stage is not None) > 1:
        raise UsageProblem("rerun: expected one of --failed, --from-stage and --all, found several")
    if from_stage is not None:
        return {"mode": "from_stage", "from_stage": from_stage}
    return {"mode": "all" if everything else "failed"}
