"""What the flood risk job's tasks do. Raster libraries are imported when a task runs, not when the app starts."""

import base64
import dataclasses
import functools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from core.basics.first_imports import IMPORTS
from core.context import TaskContext
from core.errors import PermanentTaskError, TaskCancelled
from core.fan_in import load_fan_in_results
from core.models.context import FailedTask
from jobs.flood_risk_cog.process import PROCESSES, ConversionEnded
from jobs.flood_risk_cog.scratch import (
    ScratchOwner,
    remove_scratch,
    remove_scratch_of_job,
    sweep_scratch,
    written_bytes,
)
from jobs.registry import Handler

# A result is a row; the summary file and the task rows hold the rest.
MOST_REASONS = 20
LONGEST_REASON = 500
COGS, ITEMS = "cogs", "items"
INSPECTED_AT_ONCE = 50
# Percent done when a step begins, and how much the step is; reading and writing take most of the time.
CONVERT_STEPS = {
    "download": (2, 8),
    "read": (10, 15),
    "warp": (25, 20),
    "write": (45, 35),
    "validate": (80, 2),
    "verify": (82, 12),
    "reuse": (90, 10),
    "store": (95, 5),
}
CATALOG_STEPS = {"describe": (5, 45), "draw": (50, 45), "store": (95, 5)}

# What the write of a raster of 8000 x 8000 depths may come to.
USUAL_BYTES = 128 << 20

HandlerBody = Callable[[dict[str, Any], TaskContext], dict[str, Any]]


class RasterExtraMissing(PermanentTaskError):
    """This worker was installed without what the job needs."""

    def __init__(self, error: ImportError) -> None:
        super().__init__(
            f"{error}; the flood risk job needs the raster libraries: pip install 'coremachine[raster]' "
            "(and 'coremachine[azure-storage]' for abfs:// URLs) where the raster queue is served"
        )


def needs_raster_extra(handler: HandlerBody) -> HandlerBody:
    @functools.wraps(handler)
    def checked(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        try:
            return handler(params, context)
        except ImportError as error:
            raise RasterExtraMissing(error) from error

    return checked


@needs_raster_extra
def inventory(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """List the source and open every raster of it.

    One that cannot be opened is kept: its own task says why, when and after how many attempts.
    """
    with IMPORTS.first(f"{__name__}.inventory"):
        from jobs.flood_risk_cog.convert import scratch_parent  # noqa: PLC0415
        from jobs.flood_risk_cog.inventory import list_rasters  # noqa: PLC0415
        from jobs.flood_risk_cog.marker import mark_output  # noqa: PLC0415
        from jobs.flood_risk_cog.places import check_place  # noqa: PLC0415
        from jobs.flood_risk_cog.plan import ConversionOptions  # noqa: PLC0415
        from jobs.flood_risk_cog.remote import without_file_scheme  # noqa: PLC0415
        from jobs.flood_risk_cog.target import blocked_in_words, join  # noqa: PLC0415

    del params
    wanted = context.job_parameters
    context.progress(0, "list")
    # Once here, rather than as the same failure of every raster.
    ConversionOptions(
        wanted["target_crs"],
        wanted["tile_size"],
        wanted["compression"],
        wanted["resampling"],
        wanted.get("kind", "auto"),
        web_optimized=bool(wanted.get("web_optimized")),
    )
    # A submission whose checks came to no end is accepted.
    check_place(wanted["output"], writes=True)
    with blocked_in_words():
        mark_output(without_file_scheme(wanted["output"]), wanted, context.job_id)
    output = wanted["output"]
    folders = (output, join(output, COGS), join(output, ITEMS))
    places = {Path(tempfile.gettempdir()), *map(scratch_parent, folders)}
    # No task of this run has any yet, unless this attempt has lost its lease.
    context.check_cancelled()
    remove_scratch_of_job(places, context.job_id)
    for place in places:
        sweep_scratch(place)
    listing = list_rasters(
        wanted["source"], recursive=bool(wanted.get("recursive")), leave_out=without_file_scheme(wanted["output"])
    )
    files = listing.rasters
    problems = []
    for done, raster in enumerate(inspect_in_children([file["path"] for file in files], context), start=1):
        context.check_cancelled()
        context.progress(100 * done / len(files), f"opened {done} of {len(files)}")
        if raster["problem"]:
            problems.append({"name": raster["name"], "reason": raster["problem"][:LONGEST_REASON]})
    return {
        "rasters": [{name: file[name] for name in ("name", "path", "output", "sidecars")} for file in files],
        "bytes": sum(file["bytes"] for file in files),
        "unreadable": len(problems),
        "problems": problems[:MOST_REASONS],
        "ignored": len(listing.ignored),
        "ignored_names": listing.ignored[:MOST_REASONS],
    }


def inspect_in_children(paths: Sequence[str], context: TaskContext) -> Iterator[dict[str, Any]]:
    """What each raster says of itself, in their order: one that makes GDAL crash costs a child process and no more."""
    for begin in range(0, len(paths), INSPECTED_AT_ONCE):
        some = list(paths[begin : begin + INSPECTED_AT_ONCE])
        try:
            yield from in_child({"work": "inspect", "paths": some}, context)["rasters"]
        except ConversionEnded:
            for path in some:
                yield _inspect_alone(path, context)


def _inspect_alone(path: str, context: TaskContext) -> dict[str, Any]:
    try:
        (found,) = in_child({"work": "inspect", "paths": [path]}, context)["rasters"]
    except ConversionEnded as ended:
        problem = f"opening it ended the process that did (status {ended.status}): it is damaged, or meant to do that"
        return {"name": PurePosixPath(path).name, "path": path, "problem": problem}
    return dict(found)


def in_child(request: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """Work of `serve.WORK` in a child process; a cancel ends it."""
    return PROCESSES.convert(request, lambda _step, _share: None, lambda _step: context.check_cancelled())


@needs_raster_extra
def convert(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """One raster to one COG, or an error that says what is wrong with the raster."""
    with IMPORTS.first(f"{__name__}.convert"):
        from jobs.flood_risk_cog.convert import scratch_parent  # noqa: PLC0415
        from jobs.flood_risk_cog.target import join  # noqa: PLC0415

    wanted = context.job_parameters
    output = join(wanted["output"], COGS)
    owner = owner_of(context)
    places = {scratch_parent(output), Path(tempfile.gettempdir())}
    request = {
        "path": params["path"],
        "output": output,
        "target_crs": wanted["target_crs"],
        "tile_size": wanted["tile_size"],
        "compression": wanted["compression"],
        "resampling": wanted["resampling"],
        # A job of the release before has none.
        "kind": wanted.get("kind", "auto"),
        "web_optimized": wanted.get("web_optimized", False),
        "name": params.get("output"),
        "sidecars": params.get("sidecars"),
        "owner": dataclasses.asdict(owner),
    }
    watch = Watch(context, lambda: written_bytes(places, owner))
    try:
        return PROCESSES.convert(request, watch.report, watch.look)
    except (TaskCancelled, ConversionEnded):
        # Its process was killed and could not clean up.
        remove_scratch(places, owner)
        raise


def owner_of(context: TaskContext) -> ScratchOwner:
    return ScratchOwner(context.job_id, context.task_id, context.attempt)


class Watch:
    """What the worker does while a conversion runs: it reports progress, and heeds a cancel."""

    def __init__(self, context: TaskContext, written: Callable[[], int]) -> None:
        self._context, self._written = context, written
        self._percent = 0.0
        self._before: int | None = None

    def report(self, step: str, share: float) -> None:
        self._context.check_cancelled()
        begin, width = CONVERT_STEPS[step]
        self._percent = max(self._percent, begin + width * share)
        self._context.progress(self._percent, step)

    def look(self, step: str) -> None:
        """GDAL does not tell how far its own writing is: the files that it writes do."""
        self._context.check_cancelled()
        if step != "write":
            return
        written = self._written()
        if self._before is None:
            self._before = written
        # How large they become is not known before: the share comes near one and never says that it is.
        self.report(step, 1 - math.exp(-max(0, written - self._before) / USUAL_BYTES))


@needs_raster_extra
def catalog(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """The STAC collection, the summary and the picture, from the results of all conversions."""
    with IMPORTS.first(f"{__name__}.catalog"):
        from jobs.flood_risk_cog.catalog import build_catalog  # noqa: PLC0415

    def report(step: str, share: float) -> None:
        context.check_cancelled()
        begin, width = CATALOG_STEPS[step]
        context.progress(begin + width * share, step)

    def draw(shapes: list[Any], title: str, deepest: float | None) -> tuple[bytes, list[dict[str, str]]]:
        found = in_child({"work": "draw", "shapes": shapes, "title": title, "deepest": deepest}, context)
        return base64.b64decode(found["png"]), found["missing"]

    loaded = load_fan_in_results(params)
    items = [task.result for task in loaded.results()]
    failed = list(loaded.failures())
    failures = [failure_of(task) for task in failed]
    wanted = context.job_parameters
    written = build_catalog(
        items,
        failures,
        wanted["output"],
        collection_id=wanted["collection_id"],
        title=wanted["title"],
        report=report,
        draw=draw,
        expected=[cog_name_of(task) for task in failed],
        stale_results=wanted.get("stale_results", "keep"),
        owner=owner_of(context),
    )
    stale, kept = written.pop("stale"), written.pop("kept")
    # Converted, but the catalog cannot describe them, or the picture cannot show them.
    left_out, not_drawn = written.pop("left_out"), written.pop("not_drawn")
    failures += left_out
    return {
        **written,
        "by_return_period": written["by_return_period"][:MOST_REASONS],
        "reused": sum(item["reused"] for item in items),
        "failures": failures[:MOST_REASONS],
        "stale": len(stale),
        "stale_names": stale[:MOST_REASONS],
        "kept": len(kept),
        "kept_names": [each["cog"] for each in kept[:MOST_REASONS]],
        "lacks": [*left_out, *not_drawn][:MOST_REASONS],
    }


def account(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """A raster that was converted and is not in the catalog or the picture: the job must not end as if it were."""
    del context
    raise PermanentTaskError(str(params["reason"]))


def cog_name_of(task: FailedTask) -> str:
    """Of the COG that a failed raster would have: an older one may be there, and its source is not gone."""
    return f"{task.parameters.get('output') or PurePosixPath(str(task.parameters['path'])).stem}.tif"


def failure_of(task: FailedTask) -> dict[str, Any]:
    name = task.name or str(task.parameters["path"])
    reason = str(task.error.get("message") or task.error.get("type") or "no reason was recorded")
    return {"name": name, "reason": reason.removeprefix(f"{name}: ")[:LONGEST_REASON]}


HANDLERS = (
    Handler("flood_risk_inventory", inventory, queue="raster"),
    Handler("flood_risk_convert", convert, queue="raster"),
    Handler("flood_risk_catalog", catalog, queue="raster"),
    Handler("flood_risk_account", account, queue="raster"),
)
