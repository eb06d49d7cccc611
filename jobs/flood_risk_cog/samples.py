"""Made-up flood depth rasters to try the job on."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_bounds
from rasterio.warp import transform as transform_points

# Metres of water over the river's bank, by return period in years.
STAGES = {10: 1.5, 50: 2.6, 100: 3.4, 500: 5.0}
NODATA = -9999.0
PIXEL_METRES = 10.0
UTM = "EPSG:32614"
ORIGIN = (620_000.0, 3_350_000.0)


def generate_samples(folder: Path | str, count: int = 12, seed: int = 0) -> list[Path]:
    """Write `count` rasters: tiles by return periods, every other one in degrees; the same seed, the same pixels."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    periods = list(STAGES)
    written = []
    for index in range(count):
        tile, period = index // len(periods), periods[index % len(periods)]
        if period == periods[0]:
            terrain = terrain_of(tile, seed)
        path = folder / f"flood_depth_tile{tile:02d}_rp{period}.tif"
        write_depths(path, depth_over(terrain, STAGES[period]), tile, period, degrees=bool(index % 2))
        written.append(path)
    return written


def terrain_of(tile: int, seed: int) -> Any:
    """Metres over the river's bank: a valley around a winding river, with smooth hills."""
    random = np.random.default_rng([seed, tile])
    rows, columns = (int(side) for side in random.integers(600, 901, size=2))
    y, x = np.linspace(0, 1, rows)[:, None], np.linspace(0, 1, columns)[None, :]
    river = 0.5 + 0.18 * np.sin(2 * np.pi * (1.3 * y + random.random()))
    terrain = np.abs(x - river) * 25 - 0.4
    for cells, height in ((4, 2.0), (12, 0.8), (40, 0.25)):
        terrain = terrain + height * smooth_noise(random, cells, rows, columns)
    return terrain


def smooth_noise(random: Any, cells: int, rows: int, columns: int) -> Any:
    grid = random.random((cells + 1, cells + 1))
    across = np.array([np.interp(np.linspace(0, cells, columns), np.arange(cells + 1), line) for line in grid])
    position = np.linspace(0, cells, rows)
    lower = np.minimum(position.astype(int), cells - 1)
    part = (position - lower)[:, None]
    return across[lower] * (1 - part) + across[lower + 1] * part


def depth_over(terrain: Any, stage: float) -> Any:
    depth = np.clip(stage - terrain, 0, None).astype("float32")
    # The model's domain ends on the hills: beyond it nothing is known.
    depth[terrain > np.quantile(terrain, 0.95)] = NODATA
    return depth


def write_depths(path: Path, depth: Any, tile: int, period: int, *, degrees: bool) -> None:
    rows, columns = depth.shape
    left, top = ORIGIN[0] + tile * 900 * PIXEL_METRES, ORIGIN[1]
    right, bottom = left + columns * PIXEL_METRES, top - rows * PIXEL_METRES
    if degrees:
        (left, right), (top, bottom) = transform_points(UTM, "EPSG:4326", [left, right], [top, bottom])[:2]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=columns,
        height=rows,
        count=1,
        dtype="float32",
        crs="EPSG:4326" if degrees else UTM,
        transform=from_bounds(left, bottom, right, top, columns, rows),
        nodata=NODATA,
        compress="deflate",
        predictor=3,
    ) as dataset:
        dataset.write(depth, 1)
        dataset.units = ("m",)
        dataset.set_band_description(1, "flood depth (m)")
        dataset.update_tags(RETURN_PERIOD=str(period), DATETIME="2024-05-01T00:00:00Z")
