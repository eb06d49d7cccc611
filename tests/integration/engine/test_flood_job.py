"""The flood risk job on the real engine: PostgreSQL rows, leases, fan-in from the database."""

import pytest

from core.models.submission import SubmitRequest
from jobs import all_jobs
from jobs.flood_risk_cog.samples import generate_samples

from . import machine_suite
from .machine_suite import Rig


@pytest.fixture
def rig(engine, monkeypatch):
    monkeypatch.setattr(machine_suite, "build_registry", lambda _behave: all_jobs.build_registry(["tasks", "raster"]))
    return Rig(engine)


def test_good_rasters_are_catalogued_and_a_bad_one_is_told(rig, tmp_path):
    generate_samples(tmp_path / "source", count=3)
    (tmp_path / "source" / "bad.tif").write_bytes(b"no raster")
    parameters = {"source": str(tmp_path / "source"), "output": str(tmp_path / "output")}
    submission = rig.machine.submit_job(SubmitRequest("flood_risk_cog", parameters))
    rig.queues.run(rig.machine)

    job = rig.job(submission.job_id)
    assert (job.status, job.error) == ("completed_with_errors", None)
    assert (job.result["converted"], job.result["failed"]) == (3, 1)
    (failure,) = job.result["failures"]
    assert failure["name"] == "bad.tif"
    assert failure["reason"].startswith("it cannot be opened as a GeoTIFF")
    assert (tmp_path / "output" / "collection.json").is_file()
    assert rig.machine.submit_job(SubmitRequest("flood_risk_cog", parameters)).created is False
