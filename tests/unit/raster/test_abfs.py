"""Sources and outputs on Azure Blob Storage: the real adlfs and Azure SDK against azurite, Microsoft's emulator."""

import json
import os
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
import rasterio

from jobs.all_jobs import build_registry
from jobs.flood_risk_cog import handlers
from jobs.flood_risk_cog.convert import convert_raster
from tests.unit.raster.made import pixels_of, write_raster

REGISTRY = build_registry(["tasks", "raster"])
ROOT = Path(__file__).resolve().parents[3]
NODE = ROOT / ".node" / "node_modules" / ".bin"
AZURITE = shutil.which("azurite-blob", path=f"{NODE}{os.pathsep}{os.environ['PATH']}")
# The emulator's own account, the same everywhere and no secret.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
pytestmark = [
    pytest.mark.usefixtures("closed_stores"),
    pytest.mark.skipif(AZURITE is None, reason="azurite is not installed (make test-programs)"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def endpoint(serve_program, free_port, tmp_path_factory):
    command = [str(AZURITE), "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--blobHost", "127.0.0.1"]
    serve_program(
        [*command, "--blobPort", str(free_port), "--location", str(tmp_path_factory.mktemp("azurite"))], free_port
    )
    return f"http://127.0.0.1:{free_port}/{ACCOUNT}"


@pytest.fixture
def container(endpoint, tmp_path, monkeypatch):
    """A container with rasters, one of them with a mask beside it; conversions' own processes find it, too."""
    connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"
    options = {"connection_string": connection}
    monkeypatch.setitem(fsspec.config.conf, "abfs", options)
    monkeypatch.setenv("FSSPEC_ABFS", json.dumps(options))
    # Those that wait have the environment of their start.
    handlers.PROCESSES.end()
    store = fsspec.filesystem("abfs")
    store.mkdir("floods")
    folder = tmp_path / "local"
    folder.mkdir()
    write_raster(folder / "a.tif", pixels_of("float32"), "msk")
    write_raster(folder / "b.tif", pixels_of("int16", "nodata"), "nodata")
    for file in folder.iterdir():
        store.put_file(str(file), f"floods/in/{file.name}")
    yield "abfs://floods"
    store.rm("floods", recursive=True)


def test_the_whole_job_runs_from_container_to_container(container, run_job, tmp_path):
    parameters = {"source": f"{container}/in", "output": f"{container}/out"}
    run = run_job(REGISTRY, "flood_risk_cog", parameters)
    assert (run.status, run.summary["converted"], run.summary["reused"]) == ("completed", 2, 0)
    assert run_job(REGISTRY, "flood_risk_cog", parameters).summary["reused"] == 2
    store = fsspec.filesystem("abfs")
    store.get_file("floods/out/cogs/a.tif", str(tmp_path / "cog.tif"))
    with rasterio.open(tmp_path / "local" / "a.tif") as source, rasterio.open(tmp_path / "cog.tif") as cog:
        assert np.array_equal(cog.read(), source.read())
        assert np.array_equal(cog.read_masks(1), source.read_masks(1))
    names = {name.rsplit("/", 1)[-1] for name in store.find("floods/out")}
    assert {"a.proof.json", "collection.json", "verification.json", ".coremachine-output.json"} <= names


def test_a_changed_blob_is_converted_anew(container, tmp_path):
    first = convert_raster(f"{container}/in/b.tif", str(tmp_path / "out"))
    assert convert_raster(f"{container}/in/b.tif", str(tmp_path / "out"))["reused"] is True
    path = write_raster(tmp_path / "b.tif", pixels_of("int16", "nodata", seed=1), "nodata")
    fsspec.filesystem("abfs").put_file(str(path), "floods/in/b.tif", overwrite=True)
    again = convert_raster(f"{container}/in/b.tif", str(tmp_path / "out"))
    assert (again["reused"], again["checksum"] == first["checksum"]) == (False, False)
