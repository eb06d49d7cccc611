"""An API whose one job is a flood risk job with results in a folder."""

from pathlib import Path
from typing import Any

from core.models import JobRecord
from core.models.view import JobDetail
from jobs.all_jobs import build_registry
from jobs.flood_risk_cog.catalog import build_catalog
from jobs.flood_risk_cog.convert import convert_raster
from tests.unit.triggers.fakes import DETAIL, JOB_ID, FakeServices


def make_results(rasters: list[Path], output: Path, title: str = "Flood depths", **options: Any) -> dict[str, Any]:
    """Convert rasters and write their catalog; the job's result."""
    items = [convert_raster(str(path), str(output / "cogs"), **options) for path in rasters]
    return build_catalog(items, [], str(output), collection_id="floods", title=title)


class PreviewServices(FakeServices):
    """Fake services with one job, JOB_ID."""

    def __init__(self, result: dict[str, Any] | None, *, job_type: str = "flood_risk_cog", run: int = 1) -> None:
        super().__init__(registry=build_registry(["jobs", "tasks", "raster"]))
        self.result, self.job_type, self.run = result, job_type, run

    def get_job_detail(self, job_id):
        detail = super().get_job_detail(job_id)
        fields = {name: value for name, value in DETAIL.items() if name != "stages"}
        status = "completed" if self.result is not None else "processing"
        changed = {"job_type": self.job_type, "status": status, "result": self.result, "run": self.run}
        record = JobRecord.model_validate({**fields, "definition": {}, **changed})
        return JobDetail(record, detail.stages)


PREVIEW = f"/api/jobs/{JOB_ID}/preview"
