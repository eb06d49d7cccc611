import json

import numpy as np
import pytest
import rasterio
from raster_cogs import RasterCogs
from rasterio.transform import from_origin
from rio_cogeo.cogeo import cog_validate

from coremachine import ParameterErrors
from coremachine.testing import run_job


@pytest.fixture
def parameters(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(2):
        place = from_origin(10 + number, 60, 0.001, 0.001)
        shape = {"width": 600, "height": 600, "count": 1, "dtype": "float32"}
        with rasterio.open(source / f"r{number}.tif", "w", driver="GTiff", crs=4326, transform=place, **shape) as made:
            made.write(np.full((1, 600, 600), number, "float32"))
    return {"source": str(source), "target": str(tmp_path / "target"), "taken_on": "2026-11-28"}


def test_rasters_become_cogs_with_an_index(parameters, tmp_path):
    result = run_job(RasterCogs, parameters)
    assert result.status == "completed", result.report
    assert result.summary["result"] == {"converted": 2, "unreadable": []}
    index = json.loads((tmp_path / "target" / "index.json").read_text())
    assert index[1] == {"name": "r1.tif", "bounds": [11.0, 59.4, 11.6, 60.0], "taken_on": "2026-11-28"}
    assert cog_validate(tmp_path / "target" / "r0.tif")[0]


def test_a_damaged_raster_fails_the_job_and_is_named(parameters, tmp_path):
    (tmp_path / "source" / "bad.tif").write_bytes(b"no raster")
    result = run_job(RasterCogs, parameters)
    assert result.status == "failed"
    assert [(task.name, task.attempt) for task in result.failures] == [("bad.tif", 1)]


def test_an_empty_folder_is_told(parameters, tmp_path):
    for path in (tmp_path / "source").iterdir():
        path.unlink()
    result = run_job(RasterCogs, parameters)
    assert "expected rasters (*.tif)" in result.error["message"]


def test_a_day_that_is_none_is_refused(parameters):
    with pytest.raises(ParameterErrors, match="taken_on: expected a valid date"):
        run_job(RasterCogs, parameters | {"taken_on": "yesterday"})
