"""Cloud Optimized GeoTIFFs of all rasters in a folder, and one index of where they are."""

import json
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import rasterio
from pydantic import BaseModel, Field
from rasterio.warp import transform_bounds
from rio_cogeo.cogeo import cog_translate, cog_validate
from rio_cogeo.profiles import cog_profiles

from coremachine import FanInResults, Job, PermanentTaskError, Stage, TaskContext, handler


class Parameters(BaseModel):
    source: Path
    target: Path
    taken_on: date = Field(description="the day that the rasters show; the index has it")


class RasterCogs(Job):
    job_type = "raster_cogs"
    description = "Cloud Optimized GeoTIFFs and an index of them"
    parameters_schema = Parameters
    stages: ClassVar = [
        Stage("raster_names"),
        Stage(
            "raster_cog",
            over="rasters",
            name_from="name",
            tasks_per_message=1,  # each may need much memory
            task_timeout_seconds=3600,
            retry={"max_attempts": 3, "never": ["rasterio.errors.RasterioIOError"]},
            failure={"on_failure": "tolerate", "max_failed_percent": 5},
        ),
        Stage("raster_index", "fan_in"),
    ]


class Raster(BaseModel):
    name: str
    megabytes: float


@handler("raster_names")
def list_rasters(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    wanted = Parameters(**context.job_parameters)
    wanted.target.mkdir(parents=True, exist_ok=True)
    found = sorted(wanted.source.glob("*.tif"))
    if not found:
        raise PermanentTaskError(f"expected rasters (*.tif) in {wanted.source}, found none")
    return {"rasters": [{"name": path.name, "megabytes": path.stat().st_size / 1e6} for path in found]}


@handler("raster_cog")
def convert(raster: Raster, context: TaskContext) -> dict[str, Any]:
    wanted = Parameters(**context.job_parameters)
    target, unfinished = wanted.target / raster.name, wanted.target / f".{context.lease_id}.tif"
    context.progress(0, f"{raster.megabytes:.1f} MB")
    profile: dict[str, Any] = cog_profiles.get("deflate")  # type: ignore[no-untyped-call]
    cog_translate(wanted.source / raster.name, unfinished, profile, in_memory=False, quiet=True)
    is_valid, errors, _ = cog_validate(unfinished)
    if not is_valid:
        raise PermanentTaskError(f"expected a valid COG of {raster.name}, found {errors}")
    unfinished.replace(target)
    with rasterio.open(target) as dataset:
        bounds = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    return {"bounds": [round(value, 6) for value in bounds]}


@handler("raster_index")
def index(rasters: FanInResults, context: TaskContext) -> dict[str, Any]:
    wanted = Parameters(**context.job_parameters)
    features = [
        {"name": raster.name, "bounds": raster.result["bounds"], "taken_on": wanted.taken_on.isoformat()}
        for raster in rasters.results()
    ]
    (wanted.target / "index.json").write_text(json.dumps(features, indent=2), encoding="utf-8")
    return {"converted": len(features), "unreadable": [raster.name for raster in rasters.failures()]}
