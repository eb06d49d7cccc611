"""`coremachine demo`: rasters to Cloud Optimized GeoTIFFs on a stack of its own, then a look at what came out."""

import logging
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from core.models import JobStatus, TaskStatus
from coremachine.cli.client import ApiClient, Json, Server
from coremachine.cli.errors import CliError, Exit, TimeIsUp
from coremachine.cli.progress import JobProgress
from coremachine.cli.render import console, error_text, status_markup
from coremachine.cli.up import log_to_stderr
from coremachine.extras import how_to_install
from coremachine.local.stack_file import StackError
from coremachine.local.stop_signals import stop_signals_interrupt

JOB_TYPE = "flood_risk_cog"
CONVERT_TASK = "flood_risk_convert"
_DATA = Path(".coremachine/demo")
_LONGEST_REMARK = 60
_MOST_TASKS = 1_000_000


class DemoFailed(CliError):
    """With the reason."""


@dataclass
class Outcome:
    """What came out: a row for each raster, and what is wrong."""

    rows: list[Json] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def converted(self) -> list[Json]:
        return [row for row in self.rows if row["path"]]

    @property
    def failed(self) -> list[Json]:
        return [row for row in self.rows if not row["path"]]


def demo(
    rasters: Annotated[
        Path | None, typer.Option(envvar="RASTERS", help="Folder of your own rasters. Default: 12 made-up ones.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder for the results. Default: flood-outputs, with the name of your folder."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Worker processes.")] = 2,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds for the job.")] = 3600.0,
) -> None:
    """Run a real job from end to end: flood depth rasters to Cloud Optimized GeoTIFFs, with catalog and summary.

    It starts PostgreSQL, a Service Bus broker and a Functions host on free ports, submits the job over HTTP, checks
    every file that it wrote, and ends everything. Exit code 0 only if all of that went well, and 1 otherwise: with a
    folder of your own also if a raster could not be converted.

    For example:

        coremachine demo

        coremachine demo --rasters ./my-rasters --output ./floods
    """
    log_to_stderr(logging.ERROR)
    try:
        with stop_signals_interrupt():
            folder = (output or default_output(rasters)).expanduser().resolve()
            outcome = run_demo(rasters, folder, workers=workers, timeout_seconds=timeout)
            if rasters is not None and outcome.failed:
                outcome.problems.append(f"{len(outcome.failed)} of {len(outcome.rows)} rasters were not converted")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    for problem in outcome.problems:
        typer.secho(problem, err=True, fg=typer.colors.RED)
    raise typer.Exit(Exit.FAILED if outcome.problems else Exit.OK)


def default_output(rasters: Path | None) -> Path:
    """A folder belongs to the job that wrote it, so each folder of rasters has its own."""
    return Path("flood-outputs" if rasters is None else f"flood-outputs-{rasters.expanduser().resolve().name}")


def run_demo(rasters: Path | None, output: Path, *, workers: int, timeout_seconds: float) -> Outcome:
    """Start the stack, run the job, judge what it wrote, stop the stack.

    Raises:
        DemoFailed: It could not be run to its end.
        TimeIsUp: The job took too long.
    """
    from coremachine.local.stack import LocalStack  # noqa: PLC0415 - other commands start faster without

    show = console()
    source = prepare_source(rasters)
    show.print(escape(f"source {source}\noutput {output}"), highlight=False, soft_wrap=True)
    stack = LocalStack(
        _DATA,
        http_port=0,
        amqp_port=0,
        admin_port=0,
        workers=workers,
        fresh=True,
        on_step=lambda step: show.print(f"[dim]{escape(step)}[/dim]"),
    )
    try:
        with stack, ApiClient(Server(stack.url)) as client:
            show.print(f"[dim]submitting {JOB_TYPE} to {stack.url}/api[/dim]", highlight=False)
            submitted = client.submit(JOB_TYPE, {"source": str(source), "output": str(output)})
            with JobProgress(sys.stdout) as progress:
                job = client.follow_job(submitted["job_id"], progress.show, timeout_seconds, progress.say)
            tasks = client.list_tasks(job["job_id"], limit=_MOST_TASKS)
            outcome = judge(job, tasks)
            report(job, outcome)
            show.print("[dim]stopping[/dim]")
    except StackError as error:
        raise DemoFailed(str(error)) from error
    except TimeIsUp as error:
        logs = stack.data_dir / "logs"
        raise TimeIsUp(f"The job had not ended after {timeout_seconds:g} s and was given up; see {logs}") from error
    if outcome.problems:
        outcome.problems.append(f"The logs are in {stack.data_dir / 'logs'}")
    return outcome


def prepare_source(rasters: Path | None) -> Path:
    """The given folder, or a new one with samples.

    Raises:
        DemoFailed: It is no folder, or the raster libraries are missing.
    """
    try:
        from jobs.flood_risk_cog.samples import generate_samples  # noqa: PLC0415 - heavy, and an extra
    except ImportError as error:
        raise DemoFailed(f"{error}; the demo needs the extra `raster`: {how_to_install('raster')}") from error
    if rasters is not None:
        folder = rasters.expanduser().resolve()
        if not folder.is_dir():
            raise DemoFailed(f"--rasters (or RASTERS): expected a folder, found none at {folder}")
        return folder
    folder = (_DATA / "samples").resolve()
    generate_samples(folder)
    return folder


def judge(job: Json, tasks: list[Json]) -> Outcome:
    """Whether the job ended well, and every file it names is a valid Cloud Optimized GeoTIFF."""
    outcome = Outcome()
    good = {JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS}
    if job["status"] not in good:
        outcome.problems.append(
            f"The job ended as {job['status']}: {error_text(job.get('error')) or 'no reason given'}"
        )
    for task in tasks:
        if task["task_type"] == CONVERT_TASK:
            outcome.rows.append(_row_of(task, outcome.problems))
        elif task["status"] == TaskStatus.FAILED and not error_text(task.get("error")):
            outcome.problems.append(f"Task {task['task_id']} failed without a reason")
    if not outcome.converted:
        outcome.problems.append("No output was made")
    return outcome


def _row_of(task: Json, problems: list[str]) -> Json:
    name = task.get("name") or task["task_id"]
    result = task.get("result") or {}
    row: Json = {
        "name": name,
        "status": task["status"],
        "path": None,
        "remark": "",
        "reason": "",
        **(result.get("statistics") or {}),
    }
    if task["status"] == TaskStatus.COMPLETED and result.get("path"):
        row["path"] = result["path"]
        faults = find_cog_faults(result["path"])
        row["remark"] = "not valid" if faults else "valid COG, reused" if result.get("reused") else "valid COG"
        if result.get("kind") == "classes":
            row["remark"] += "; classes, no depths"
        problems += [f"{name}: {fault}" for fault in faults]
        return row
    row["reason"] = error_text(task.get("error"))
    row["remark"] = _short(str((task.get("error") or {}).get("message") or row["reason"]))
    if not row["reason"]:
        problems.append(f"{name}: {task['status']} without an output or a reason")
    return row


def _short(reason: str) -> str:
    """For a cell of the table; the whole reason is below it."""
    line = reason.partition("\n")[0]
    return line if len(line) <= _LONGEST_REMARK else f"{line[: _LONGEST_REMARK - 1].rstrip()}…"


def find_cog_faults(path: str) -> list[str]:
    """What makes the file at this local path no valid Cloud Optimized GeoTIFF."""
    from rasterio.errors import RasterioError  # noqa: PLC0415 - heavy, and an extra
    from rio_cogeo.cogeo import cog_validate  # noqa: PLC0415

    try:
        valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
    except RasterioError as error:
        return [f"expected a Cloud Optimized GeoTIFF at {path}, found: {error}"]
    return [] if valid else [str(item) for item in (*errors, *warnings)] or [f"{path} is not valid"]


def report(job: Json, outcome: Outcome) -> None:
    show = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("raster", overflow="fold")
    table.add_column("status")
    for heading in ("flooded km²", "mean m", "max m"):
        table.add_column(heading, justify="right")
    table.add_column("remark")
    for row in outcome.rows:
        numbers = (_number(row.get(key)) for key in ("flooded_area_km2", "mean_depth", "max_depth"))
        table.add_row(escape(str(row["name"])), status_markup(row["status"]), *numbers, escape(str(row["remark"])))
    show.print(table)
    for row in outcome.rows:
        if row["reason"]:
            show.print(f"{row['name']}: {row['reason']}", style="red", markup=False, highlight=False, soft_wrap=True)
    result = job.get("result") or {}
    ignored = result.get("ignored_names") or []
    for each in ignored:
        show.print(f"ignored {each['name']}: {each['reason']}", markup=False, highlight=False, soft_wrap=True)
    if (result.get("ignored") or 0) > len(ignored):
        show.print(f"ignored: {result['ignored'] - len(ignored)} more files", highlight=False)
    for name in ("collection", "summary", "quicklook"):
        if result.get(name):
            show.print(f"{name:<10} {escape(str(result[name]))}", highlight=False, soft_wrap=True)
    show.print(
        f"{len(outcome.converted)} of {len(outcome.rows)} rasters converted, job {status_markup(job['status'])}",
        highlight=False,
    )


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) and math.isfinite(value) else ""
