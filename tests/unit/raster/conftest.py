import gc
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from jobs.flood_risk_cog.samples import generate_samples

REMOTE = ("http", "https", "s3", "abfs")

UTM_PLACE = Affine(10, 0, 600_000, 0, -10, 3_300_000)


# Not of the package, which this folder is none of: it would last until the end of the session, for all its tests.
@pytest.fixture(scope="module", autouse=True)
def own_temporary_folder(tmp_path_factory):
    """Scratch folders of one task are one another's leftovers, and the tests in other processes have the same tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("scratch")))
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture(scope="session")
def flood_samples(tmp_path_factory):
    """Four sample rasters, which no test changes: making them takes half a second."""
    return generate_samples(tmp_path_factory.mktemp("samples"), count=4)


@pytest.fixture
def make_raster(tmp_path):
    """Write pixels (bands, rows, columns) to a GeoTIFF in the source folder; keywords go to rasterio."""

    def make(name="a.tif", pixels=None, *, descriptions=(), tags=None, colormap=None, **profile) -> str:
        if pixels is None:
            pixels = np.linspace(0, 4, 530 * 520, dtype="float32").reshape(1, 530, 520)
        folder: Path = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        bands, rows, columns = pixels.shape
        options = {"crs": "EPSG:32614", "transform": UTM_PLACE, **profile}
        with rasterio.open(
            folder / name,
            "w",
            driver="GTiff",
            width=columns,
            height=rows,
            count=bands,
            dtype=pixels.dtype.name,
            **options,
        ) as dataset:
            dataset.write(pixels)
            for index, description in enumerate(descriptions, start=1):
                dataset.set_band_description(index, description)
            dataset.update_tags(**(tags or {}))
            if colormap:
                dataset.write_colormap(1, colormap)
        return str(folder / name)

    return make


@pytest.fixture
def closed_stores():
    """What libraries of remote stores leave open is collected here, and not in the midst of another test."""
    yield
    for protocol in REMOTE:
        fsspec.get_filesystem_class(protocol).clear_instance_cache()
    gc.collect()


@pytest.fixture(scope="module")
def serve_program(tmp_path_factory):
    """Starts a server as a program: `serve_program(command, port)`; it answers on that port of loopback then."""
    processes = []

    def start(command: list[str], port: int) -> None:
        log = tmp_path_factory.mktemp("server") / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        processes.append(process)
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < until, log.read_text()
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)

    yield start
    for process in processes:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]
