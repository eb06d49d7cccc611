"""Flood depth rasters to tiled Cloud Optimized GeoTIFFs, with a STAC catalog, a summary and a picture."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from core.models import TaskDefinition
from core.models.context import CompletedTask, JobExecutionContext
from jobs.base import JobBase
from jobs.flood_risk_cog import marker, places  # noqa: F401 - validators
from jobs.mixins import JobBaseMixin

INVENTORY, CONVERT, CATALOG, ACCOUNT = 1, 2, 3, 4
# Storage that throttles wants minutes, not seconds.
WORK = {"lease_seconds": 120, "retry": {"max_attempts": 5, "base_delay_seconds": 10, "max_delay_seconds": 300}}
GO_ON = {"failure": {"on_failure": "continue"}, "tasks_per_message": 1}
RESAMPLING = ["auto", "nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode", "max", "min"]


class FloodRiskCOGJob(JobBaseMixin, JobBase):
    """Every raster of a source becomes a COG; one that cannot is reported and stops none of the others."""

    job_type = "flood_risk_cog"
    description = "flood depth rasters to Cloud Optimized GeoTIFFs, with a STAC catalog and flood statistics"
    view = "jobs.flood_risk_cog.preview:show"
    figure = "jobs.flood_risk_cog.preview:draw_figure"
    stages: ClassVar = [
        {"number": 1, "name": "inventory", "task_type": "flood_risk_inventory", "parallelism": "single", **WORK},
        {"number": 2, "name": "convert", "task_type": "flood_risk_convert", "parallelism": "fan_out", **WORK, **GO_ON},
        {"number": 3, "name": "catalog", "task_type": "flood_risk_catalog", "parallelism": "fan_in", **WORK},
        # Without tasks, unless the catalog or its picture lacks a raster: then the job ends with errors.
        {"number": 4, "name": "account", "task_type": "flood_risk_account", "parallelism": "fan_out", **WORK, **GO_ON},
    ]
    parameters_schema: ClassVar = {
        "source": {
            "type": "str",
            "required": True,
            "min": 1,
            "format": "path",
            "description": "folder, file, pattern (*) or URL of *.tif files",
            "example": "abfs://floods@account.dfs.core.windows.net/depths",
        },
        "recursive": {"type": "bool", "default": False, "description": "rasters in folders inside as well"},
        "output": {
            "type": "str",
            "required": True,
            "min": 1,
            "format": "path",
            "description": "folder or fsspec URL for the COGs, their catalog and summary",
        },
        "target_crs": {
            "type": "str",
            "nullable": True,
            "default": None,
            "description": "reproject to this; null keeps each raster's own",
            "example": "EPSG:4326",
        },
        "web_optimized": {
            "type": "bool",
            "default": False,
            "description": "reproject to EPSG:3857 on the tiles of web maps; instead of target_crs",
        },
        "tile_size": {"type": "int", "default": 512, "allowed": [256, 512], "description": "pixels along a tile"},
        "compression": {"type": "str", "default": "deflate", "allowed": ["deflate", "zstd", "lerc"]},
        "resampling": {
            "type": "str",
            "default": "auto",
            "allowed": RESAMPLING,
            "description": "of warp and overviews; auto: nearest and mode for classes, bilinear and average for depths",
        },
        "kind": {
            "type": "str",
            "default": "auto",
            "allowed": ["auto", "continuous", "classes"],
            "description": "classes are never averaged; auto: a palette's, or few whole numbers without unit",
        },
        "collection_id": {"type": "str", "default": "flood-risk", "pattern": "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"},
        "title": {"type": "str", "default": "Flood risk", "min": 1, "max": 200, "description": "title for people"},
        "stale_results": {
            "type": "str",
            "default": "keep",
            "allowed": ["keep", "move", "remove"],
            "description": "results in the output that no source has any more; move: into its folder stale/",
        },
    }
    parameters_outside_job_id: ClassVar = marker.OUTSIDE_ID
    resource_validators: ClassVar = (
        {"type": "raster_place", "param": "source"},
        {"type": "raster_place", "param": "output", "writes": True},
        {"type": "one_listing_rule", "param": "source"},
        {"type": "named_crs", "param": "target_crs"},
        {"type": "source_exists", "param": "source", "suffixes": (".tif", ".tiff"), "recursive": "recursive"},
        {"type": "folder_writable", "param": "output"},
        {"type": "apart_from_source", "param": "output", "source": "source"},
        {"type": "own_output", "param": "output"},
    )

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: Mapping[str, Any], job_id: str, previous_results: Iterable[CompletedTask]
    ) -> Iterator[TaskDefinition]:
        del job_params, job_id
        if stage == INVENTORY:
            yield TaskDefinition(name="inventory")
        elif stage == CONVERT:
            for inventory in previous_results:
                for raster in inventory.result["rasters"]:
                    parameters = {name: raster[name] for name in ("path", "output", "sidecars") if name in raster}
                    yield TaskDefinition(name=raster["name"], parameters=parameters)
        elif stage == ACCOUNT:
            for catalog in previous_results:
                for lack in catalog.result.get("lacks", ()):
                    yield TaskDefinition(name=lack["name"], parameters={"reason": lack["reason"]})

    @staticmethod
    def finalize_job(context: JobExecutionContext) -> dict[str, Any]:
        converted = next(stage for stage in context.stages if stage.stage == CONVERT)
        (catalog,) = context.results(CATALOG)
        (inventory,) = context.results(INVENTORY)
        return {
            **catalog.result,
            "converted": converted.completed,
            "failed": converted.failed,
            "ignored": inventory.result.get("ignored", 0),
            "ignored_names": inventory.result.get("ignored_names", []),
            "preview": f"/api/jobs/{context.job_id}/preview",
        }
