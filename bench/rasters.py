"""Rasters to COGs: the flood risk job's conversion beside `gdal_translate -of COG` and `rio cogeo create`.

    python -m bench.rasters [--repeats 3] [--only striped,tiled] [--side 8000] [--files 200]

Contenders take turns on each layout, each in new processes. Ours verifies what it wrote in the same time. A folder of
rasters is converted by two workers of each.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
OPTIONS = ["COMPRESS=DEFLATE", "PREDICTOR=YES", "BLOCKSIZE=512"]
TILES = {"tiled": True, "blockxsize": 256, "blockysize": 256}
# Bands, part of the side, and how they are stored.
LAYOUTS: dict[str, tuple[int, float, dict[str, Any]]] = {
    "tiled": (1, 1, TILES),
    "striped": (1, 1, {"blockysize": 1}),
    "one strip": (1, 1, {"blockysize": 0}),
    "4 bands, by pixel": (4, 0.5, {**TILES, "interleave": "pixel"}),
    "4 bands, by band": (4, 0.5, {"interleave": "band"}),
    "60 bands, by pixel": (60, 0.125, {"interleave": "pixel"}),
    "60 bands, by band": (60, 0.125, {"interleave": "band"}),
    "sparse": (1, 3.75, {**TILES, "sparse_ok": True}),
}

Contender = Callable[[Path, Path], tuple[float, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, default=8000)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    wanted = asked.only.split(",") if asked.only else [*LAYOUTS, "folder"]
    contenders = found_contenders()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        print(f"| raster | {' | '.join(contenders)} |\n|---|{'---|' * len(contenders)}")
        for name in (each for each in LAYOUTS if each in wanted):
            source = make_layout(folder / "layout.tif", name, asked.side)
            print(row(name, measure(contenders, source, folder, asked.repeats)), flush=True)
        if "folder" in wanted:
            sources = make_folder(folder / "many", asked.files)
            results = {each: [convert_folder(run, sources, folder)] for each, run in contenders.items()}
            print(row(f"{asked.files} rasters, {WORKERS} workers", results))


def found_contenders() -> dict[str, Contender]:
    found: dict[str, Contender] = {"CoreMachine, verified": convert_ours}
    if shutil.which("gdal_translate"):
        found["gdal_translate"] = convert_gdal
    else:
        print("gdal_translate is not installed (apt-get install gdal-bin): it is left out")
    found["rio cogeo"] = convert_rio
    return found


def row(name: str, results: dict[str, list[tuple[float, int]]]) -> str:
    cells = [
        f"{median(seconds for seconds, _ in runs):.1f} s, {max(size for _, size in runs) / 2**20:.0f} MB"
        for runs in results.values()
    ]
    return f"| {name} | {' | '.join(cells)} |"


def measure(
    contenders: dict[str, Contender], source: Path, folder: Path, repeats: int
) -> dict[str, list[tuple[float, int]]]:
    results: dict[str, list[tuple[float, int]]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            with tempfile.TemporaryDirectory(dir=folder) as output:
                results[name].append(run(source, Path(output)))
    return results


def convert_folder(run: Contender, sources: list[Path], folder: Path) -> tuple[float, int]:
    with tempfile.TemporaryDirectory(dir=folder) as output:
        began = time.perf_counter()
        if run is convert_ours:
            parts = [sources[number::WORKERS] for number in range(WORKERS)]
            with ThreadPoolExecutor(WORKERS) as pool:
                sizes = list(pool.map(lambda part: convert_ours_all(part, Path(output))[1], parts))
        else:
            with ThreadPoolExecutor(WORKERS) as pool:
                sizes = [size for _, size in pool.map(lambda source: run(source, Path(output)), sources)]
        return time.perf_counter() - began, max(sizes)


def convert_ours(source: Path, output: Path) -> tuple[float, int]:
    return convert_ours_all([source], output)


def convert_ours_all(sources: list[Path], output: Path) -> tuple[float, int]:
    """A worker's process, that converts one after the other."""
    command = [sys.executable, "-m", "jobs.flood_risk_cog.serve"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}
    began = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert process.stdin is not None  # noqa: S101 - both are pipes
    for source in sources:
        for answer in conversation(process, {"path": str(source), "output": str(output)}):
            if "failure" in answer:
                raise RuntimeError(answer["failure"]["message"])
    seconds = time.perf_counter() - began
    process.stdin.close()
    return seconds, peak_of(process)


def conversation(process: Any, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    message = request
    while True:
        process.stdin.write(json.dumps(message).encode() + b"\n")
        process.stdin.flush()
        for line in process.stdout:
            answer = json.loads(line)
            yield answer
            if "step" not in answer:
                return
            if answer["waits"]:
                break
        else:
            raise RuntimeError("the conversion's process ended without an answer")
        message = {"go_on": True}


def convert_gdal(source: Path, output: Path) -> tuple[float, int]:
    options = [part for option in [*OPTIONS, "BIGTIFF=IF_SAFER"] for part in ("-co", option)]
    return timed(["gdal_translate", "-q", "-of", "COG", *options, str(source), str(output / source.name)])


def convert_rio(source: Path, output: Path) -> tuple[float, int]:
    rio = str(Path(sys.executable).with_name("rio"))
    options = ["--cog-profile", "deflate", "--blocksize", "512", "--co", "PREDICTOR=3", "--co", "BIGTIFF=IF_SAFER"]
    return timed([rio, "cogeo", "create", "--quiet", *options, str(source), str(output / source.name)])


def timed(command: list[str]) -> tuple[float, int]:
    began = time.perf_counter()
    process = subprocess.Popen(command)
    peak = peak_of(process)
    return time.perf_counter() - began, peak


def peak_of(process: Any) -> int:
    """Wait for a process; the most memory that it had, in bytes."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{process.args}: expected exit status 0, found {process.returncode}")
    return int(usage.ru_maxrss * 1024)


def make_layout(path: Path, name: str, side: int) -> Path:
    bands, part, profile = LAYOUTS[name]
    return make_raster(path, bands, int(side * part), profile, is_sparse=name == "sparse")


def make_folder(folder: Path, files: int) -> list[Path]:
    """About 20 MB each."""
    folder.mkdir()
    first = make_raster(folder / "0.tif", 1, 4600, TILES, is_sparse=False)
    for number in range(1, files):
        shutil.copy(first, folder / f"{number}.tif")
    return sorted(folder.iterdir())


def make_raster(path: Path, bands: int, side: int, profile: dict[str, Any], *, is_sparse: bool) -> Path:
    shape = {"width": side, "height": side, "count": bands, "dtype": "float32", "nodata": -9999}
    if profile.get("blockysize") == 0:
        profile = {**profile, "blockysize": side}
    place = {"crs": "EPSG:32614", "transform": from_origin(600_000, 3_300_000, 1, 1)}
    options = {"driver": "GTiff", "compress": "deflate", "BIGTIFF": "IF_SAFER", **shape, **place, **profile}
    # All of a strip before it is written.
    with rasterio.Env(GDAL_CACHEMAX=2 << 30), rasterio.open(path, "w", **options) as dataset:
        for row in range(0, side, 4096 if is_sparse else 512):
            rows, columns = min(512, side - row), min(512, side - row) if is_sparse else side
            place_of = Window(row if is_sparse else 0, row, columns, rows)
            values = depths(row, rows, columns)
            for band in range(1, bands + 1):
                dataset.write(values * band, band, window=place_of)
    return path


def depths(first: int, rows: int, columns: int) -> Any:
    """Hills and water, to the centimetre; where it is dry, zero."""
    down, across = np.arange(first, first + rows)[:, None], np.arange(columns)[None]
    noise = np.random.default_rng(first).random((rows, columns)) * 0.3
    return np.maximum(np.round(np.sin(across / 300) * np.cos(down / 400) * 5 + noise, 2), 0).astype("float32")


if __name__ == "__main__":
    main()
