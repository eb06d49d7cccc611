"""Rasters to COGs: the flood risk job's conversion beside `gdal_translate -of COG` and `rio cogeo create`.

    python -m bench.rasters [--repeats 3] [--only striped,tiled,folder] [--side 8000] [--files 200] [--megabytes 20]

Contenders take turns on each layout, each in new processes of one thread, with the same compression, predictor, tiles
and overviews. Ours verifies and measures what it wrote in the same time. A folder of rasters is converted by two
workers of each, 40 rasters in a turn: ours keeps its two processes for them, as it does in a job; the others have one
per raster. Processor time is compared first, since other work on the machine changes it least.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from jobs.flood_risk_cog.process import ALLOCATOR

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

# Of the processor time and the time that gdal_translate takes, with the verification in ours.
MOST_RATIO = 1.3
MOST_RESIDENT = 512
# Of the largest layout: itself, a result and what a conversion keeps meanwhile.
ROOM_BYTES = 6 << 30
# Rasters of the folder that a contender converts in its turn. Ours starts its processes anew for each.
TURN = 40
OURS, GDAL = "CoreMachine, verified", "gdal_translate"


@dataclass(frozen=True)
class Run:
    """What one conversion, or one folder of them, took; `peak` is of its largest process, in bytes."""

    seconds: float
    cpu: float
    peak: int


Contender = Callable[[list[Path], Path], Run]
Made = TypeVar("Made")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, default=8000)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    # Parts of names, as some of these have a comma: "60 bands" is both.
    wanted = [name for name in [*LAYOUTS, "folder"] if any(part in name for part in asked.only.split(","))]
    contenders = found_contenders()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if (free := shutil.disk_usage(folder).free) < ROOM_BYTES:
            raise SystemExit(f"expected {ROOM_BYTES >> 30} GB free in {folder.parent}, found {free >> 30}; set TMPDIR")
        print(f"| raster | {' | '.join(contenders)} | CPU, time to gdal_translate (goal {MOST_RATIO}) |")
        print(f"|---|{'---|' * (len(contenders) + 1)}", flush=True)
        peaks = []
        for name in (each for each in LAYOUTS if each in wanted):
            say(f"{name}: making it")
            source = made_apart(make_layout, folder / "layout.tif", name, asked.side)
            results = measure(contenders, source, folder, asked.repeats)
            peaks.append(max(run.peak for run in results[OURS]))
            print(row(name, results), flush=True)
        if "folder" in wanted:
            results = measure_folder(contenders, folder, asked.files, asked.megabytes)
            peaks.append(results[OURS][0].peak)
            print(row(f"{asked.files} rasters of {asked.megabytes} MB, {WORKERS} workers", results))
            print(places(results))
    if peaks:
        print(f"\nMost memory of a conversion: {max(peaks) >> 20} MB (goal: at most {MOST_RESIDENT}).")


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:.1f}  {what}", file=sys.stderr, flush=True)


def found_contenders() -> dict[str, Contender]:
    found: dict[str, Contender] = {OURS: convert_ours}
    if shutil.which("gdal_translate"):
        found[GDAL] = convert_gdal
    else:
        print("gdal_translate is not installed (apt-get install gdal-bin): it is left out")
    found["rio cogeo"] = convert_rio
    return found


def row(name: str, results: dict[str, list[Run]]) -> str:
    cells = [
        f"{median(run.cpu for run in runs):.1f} s CPU, {median(run.seconds for run in runs):.1f} s, "
        f"{max(run.peak for run in runs) >> 20} MB"
        for runs in results.values()
    ]
    return f"| {name} | {' | '.join([*cells, ratios(results)])} |"


def ratios(results: dict[str, list[Run]]) -> str:
    """Of the medians, since contenders take turns and other work on the machine is shared between them."""
    if GDAL not in results:
        return "not known"
    ours, theirs = results[OURS], results[GDAL]
    cpu = median(run.cpu for run in ours) / median(run.cpu for run in theirs)
    seconds = median(run.seconds for run in ours) / median(run.seconds for run in theirs)
    return f"{cpu:.2f}, {seconds:.2f}"


def places(results: dict[str, list[Run]]) -> str:
    by_time = sorted(results, key=lambda name: results[name][0].seconds)
    by_cpu = sorted(results, key=lambda name: results[name][0].cpu)
    return f"\nThe folder, by time: {', '.join(by_time)}; by CPU: {', '.join(by_cpu)} (goal: {OURS} first)."


def measure(contenders: dict[str, Contender], source: Path, folder: Path, repeats: int) -> dict[str, list[Run]]:
    results: dict[str, list[Run]] = {name: [] for name in contenders}
    for number in range(1, repeats + 1):
        for name, run in contenders.items():
            say(f"round {number} of {repeats}: {name}")
            with tempfile.TemporaryDirectory(dir=folder) as output:
                results[name].append(run([source], Path(output)))
    return results


def measure_folder(contenders: dict[str, Contender], folder: Path, files: int, megabytes: int) -> dict[str, list[Run]]:
    """Contenders take turns on parts of the folder: other work on the machine meets each of them."""
    say(f"{files} rasters of {megabytes} MB: making them")
    sources = made_apart(make_folder, folder / "many", files, megabytes)
    parts: dict[str, list[Run]] = {name: [] for name in contenders}
    for begin in range(0, files, TURN):
        for name, run in contenders.items():
            say(f"rasters {begin + 1} to {min(begin + TURN, files)} of {files}: {name}")
            parts[name].append(convert_folder(run, sources[begin : begin + TURN], folder))
    return {name: [whole(runs)] for name, runs in parts.items()}


def whole(runs: list[Run]) -> Run:
    return Run(sum(run.seconds for run in runs), sum(run.cpu for run in runs), max(run.peak for run in runs))


def convert_folder(run: Contender, sources: list[Path], folder: Path) -> Run:
    with tempfile.TemporaryDirectory(dir=folder) as output, ThreadPoolExecutor(WORKERS) as pool:
        began = time.perf_counter()
        # Ours has two processes that are kept, the others' next raster goes to the worker that is free.
        parts = (
            [sources[number::WORKERS] for number in range(WORKERS)] if run is convert_ours else [[s] for s in sources]
        )
        runs = list(pool.map(lambda part: run(part, Path(output)), parts))
        return Run(time.perf_counter() - began, sum(each.cpu for each in runs), max(each.peak for each in runs))


def convert_ours(sources: list[Path], output: Path) -> Run:
    """A worker's process, that converts one after the other."""
    command = [sys.executable, "-m", "jobs.flood_risk_cog.serve"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **ALLOCATOR}
    began = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert process.stdin is not None  # noqa: S101 - both are pipes
    for source in sources:
        for answer in conversation(process, {"path": str(source), "output": str(output)}):
            if "failure" in answer:
                raise RuntimeError(answer["failure"]["message"])
        (output / source.name).unlink()
    seconds = time.perf_counter() - began
    process.stdin.close()
    return run_of(process, seconds)


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


def convert_gdal(sources: list[Path], output: Path) -> Run:
    options = [part for option in [*OPTIONS, "BIGTIFF=IF_SAFER"] for part in ("-co", option)]
    return timed(sources, output, ["gdal_translate", "-q", "-of", "COG", *options])


def convert_rio(sources: list[Path], output: Path) -> Run:
    """As the others: its own choice is overviews by nearest and a thread for each core."""
    rio = str(Path(sys.executable).with_name("rio"))
    options = ["--cog-profile", "deflate", "--blocksize", "512", "--co", "PREDICTOR=3", "--co", "BIGTIFF=IF_SAFER"]
    options += ["--overview-resampling", "average", "--threads", "1"]
    return timed(sources, output, [rio, "cogeo", "create", "--quiet", *options])


def timed(sources: list[Path], output: Path, command: list[str]) -> Run:
    (source,) = sources
    target = output / source.name
    began = time.perf_counter()
    run = run_of(subprocess.Popen([*command, str(source), str(target)]))
    target.unlink()
    return Run(time.perf_counter() - began, run.cpu, run.peak)


def run_of(process: Any, seconds: float = 0.0) -> Run:
    """Wait for a process, and ask the system what it used."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{process.args}: expected exit status 0, found {process.returncode}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, int(usage.ru_maxrss * 1024))


def made_apart(make: Callable[..., Made], *arguments: Any) -> Made:
    """What a function makes, in another process: the system takes this one's memory for the least of its children."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(make, *arguments).result()


def make_layout(path: Path, name: str, side: int) -> Path:
    bands, part, profile = LAYOUTS[name]
    return make_raster(path, bands, int(side * part), profile, is_sparse=name == "sparse")


def make_folder(folder: Path, files: int, megabytes: int) -> list[Path]:
    """Names of one raster: it takes the room of one."""
    folder.mkdir()
    # Such a side makes a megabyte of these values.
    first = make_raster(folder / "0.tif", 1, int(1206 * megabytes**0.5), TILES, is_sparse=False)
    for number in range(1, files):
        (folder / f"{number}.tif").hardlink_to(first)
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
