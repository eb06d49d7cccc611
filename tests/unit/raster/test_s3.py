"""Sources and outputs on S3: the real s3fs and botocore against a server on loopback."""

import json
import sys

import fsspec
import numpy as np
import pytest
import rasterio

from jobs.all_jobs import build_registry
from jobs.flood_risk_cog import convert, handlers
from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.inventory import list_rasters
from tests.unit.raster.made import SIDE, pixels_of, write_raster

REGISTRY = build_registry(["tasks", "raster"])
# What its libraries leave open or have deprecated is not ours.
pytestmark = [
    pytest.mark.usefixtures("closed_stores"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def endpoint(serve_program, free_port):
    serve_program([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(free_port)], free_port)
    return f"http://127.0.0.1:{free_port}"


@pytest.fixture
def bucket(endpoint, tmp_path, monkeypatch):
    """An S3 bucket with rasters, one of them with a mask beside it; conversions' own processes find it, too."""
    options = {"endpoint_url": endpoint, "key": "k", "secret": "s", "client_kwargs": {"region_name": "eu-west-1"}}
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    monkeypatch.setenv("FSSPEC_S3", json.dumps(options))
    # Those that wait have the environment of their start.
    handlers.PROCESSES.end()
    fsspec.filesystem("s3").clear_instance_cache()
    store = fsspec.filesystem("s3")
    name = f"floods-{tmp_path.name.replace('_', '-')[:40]}"
    store.mkdir(name)
    folder = tmp_path / "local"
    folder.mkdir()
    write_raster(folder / "a.tif", pixels_of("float32"), "msk")
    write_raster(folder / "b.tif", pixels_of("int16", "nodata"), "nodata")
    for file in folder.iterdir():
        store.put_file(str(file), f"{name}/in/{file.name}")
        store.put_file(str(file), f"{name}/in/deep/er/{file.name}")
    store.pipe_file(f"{name}/in/.hidden.tif", b"x")
    yield f"s3://{name}"
    store.rm(name, recursive=True)


def test_rasters_are_listed_with_what_belongs_to_them(bucket):
    listing = list_rasters(f"{bucket}/in")
    assert [(file["name"], file["sidecars"]) for file in listing.rasters] == [("a.tif", ["a.tif.msk"]), ("b.tif", [])]
    assert [each["name"] for each in listing.ignored] == [".hidden.tif", "deep"]
    names = [file["name"] for file in list_rasters(f"{bucket}/in", recursive=True).rasters]
    assert names == ["a.tif", "b.tif", "deep/er/a.tif", "deep/er/b.tif"]
    assert [file["name"] for file in list_rasters(f"{bucket}/in/*a.tif").rasters] == ["a.tif"]


def test_a_raster_is_read_with_its_mask_and_its_result_written_and_reused(bucket, tmp_path, monkeypatch):
    result = convert_raster(f"{bucket}/in/a.tif", f"{bucket}/out/cogs")
    with monkeypatch.context() as patch:
        # The store's entity tag is enough: nothing is read.
        patch.setattr(convert, "checksum_of", lambda _path: pytest.fail("the whole COG was read"))
        assert convert_raster(f"{bucket}/in/a.tif", f"{bucket}/out/cogs")["reused"] is True
    fsspec.filesystem("s3").pipe_file(result["path"], b"another file")
    assert convert_raster(f"{bucket}/in/a.tif", f"{bucket}/out/cogs")["reused"] is False
    fsspec.filesystem("s3").get_file(result["path"], str(tmp_path / "cog.tif"))
    with rasterio.open(tmp_path / "local" / "a.tif") as source, rasterio.open(tmp_path / "cog.tif") as cog:
        assert np.array_equal(cog.read(), source.read())
        assert np.array_equal(cog.read_masks(1), source.read_masks(1))
    fsspec.filesystem("s3").rm_file(f"{bucket}/in/a.tif.msk")
    again = convert_raster(f"{bucket}/in/a.tif", f"{bucket}/out/cogs")
    assert (again["reused"], again["verification"]["valid_pixels"]["cog"]) == (False, [SIDE * SIDE])


def test_the_whole_job_runs_from_bucket_to_bucket(bucket, run_job):
    parameters = {"source": f"{bucket}/in", "output": f"{bucket}/out", "recursive": True}
    run = run_job(REGISTRY, "flood_risk_cog", parameters)
    assert (run.status, run.summary["converted"]) == ("completed", 4)
    names = {name.rsplit("/", 1)[-1] for name in fsspec.filesystem("s3").find(f"{bucket}/out")}
    assert {"a.tif", "deep__er__a.tif", "a.proof.json", "collection.json", ".coremachine-output.json"} <= names
