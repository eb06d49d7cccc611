"""Map tiles of COGs, drawn when they are asked for: Web Mercator, 256 pixels, the deepest water on top.

This runs in a child process (`process`): what a file makes GDAL do ends no other work, and it can be ended.
"""

import base64
import io
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
from PIL import Image
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from jobs.flood_risk_cog.depth_grid import depths_of_band
from jobs.flood_risk_cog.ground import around
from jobs.flood_risk_cog.panels import DEEP
from jobs.flood_risk_cog.quicklook import GROUND, SHALLOW
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.units import metres_of

SIDE = 256
# One read is of at most as many pixels along a side: about twice the tile's, whatever the raster's size is.
MOST_SIDE = 512
# What GDAL may have to decode for it; a COG's overviews keep it far below.
MOST_PIXELS = 4 << 20
DRY_OPACITY = 120
TURN = 360.0

Pixels = tuple[Any, Any]


class NotForTiles(ValueError):
    """A raster that would have to be read almost whole for one tile."""


def draw_tile(paths: Sequence[str], zoom: int, column: int, row: int, deepest: float) -> dict[str, Any]:
    """One tile of several COGs as a PNG.

    Args:
        deepest: The depth of the darkest colour.

    Returns:
        `png` in base64, and as `problems` why which file is missing in it.
    """
    depths, problems = depths_of(paths, zoom, column, row)
    pixels = np.zeros((SIDE, SIDE, 4), dtype="uint8")
    known = np.isfinite(depths)
    wet = known & (depths > 0)
    pixels[known] = (*GROUND, DRY_OPACITY)
    share = np.clip(depths[wet] / deepest, 0, 1)[:, None] if deepest > 0 else np.zeros((int(wet.sum()), 1))
    shallow, deep = np.array(SHALLOW), np.array(DEEP)
    pixels[wet, :3] = np.rint(shallow + (deep - shallow) * share)
    pixels[wet, 3] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=3)
    return {"png": base64.b64encode(file.getvalue()).decode(), "problems": problems}


def depths_of(paths: Sequence[str], zoom: int, column: int, row: int) -> tuple[Any, list[str]]:
    """The depths in a tile (rows, columns), NaN where no raster knows one; and what could not be read."""
    depths = np.full((SIDE, SIDE), np.nan)
    longitudes, latitudes = centres_of(zoom, column, row)
    problems = []
    for path in paths:
        try:
            with open_raster(path) as dataset:
                np.fmax(depths, sample(dataset, longitudes, latitudes), out=depths)
        except (RasterioError, CPLE_BaseError, pyproj.exceptions.ProjError, ValueError, OSError) as error:
            problems.append(str(error)[:300])
    return depths, problems


def values_at(paths: Sequence[str], longitude: float, latitude: float) -> dict[str, Any]:
    """What each COG has at a place: `value` None where it is not known there, or the raster could not be read."""
    values = []
    for path in paths:
        try:
            with open_raster(path) as dataset:
                found = float(sample(dataset, np.array([[longitude]]), np.array([[latitude]]))[0, 0])
                unit = dataset.units[0] or None
                is_length = metres_of(unit) is not None
                values.append({"value": found if math.isfinite(found) else None, "unit": "m" if is_length else unit})
        except (RasterioError, CPLE_BaseError, pyproj.exceptions.ProjError, ValueError, OSError):
            values.append({"value": None, "unit": None})
    return {"values": values}


def centres_of(zoom: int, column: int, row: int) -> Pixels:
    """Longitudes and latitudes of a tile's pixels' centres, (rows, columns) each."""
    pixels = SIDE * 2**zoom
    across = (column * SIDE + np.arange(SIDE) + 0.5) / pixels
    down = (row * SIDE + np.arange(SIDE) + 0.5) / pixels
    latitudes = np.degrees(np.arctan(np.sinh(math.pi * (1 - 2 * down))))
    rows, columns = np.meshgrid(latitudes, across * TURN - TURN / 2, indexing="ij")
    return columns, rows


def sample(dataset: Any, longitudes: Any, latitudes: Any) -> Any:
    """Values of band 1 at places, with scale, offset and unit applied; NaN where it has none."""
    x, y = _from_degrees(dataset.crs.to_wkt()).transform(longitudes, latitudes)
    x = _turned(dataset, x)
    found = np.full(x.shape, np.nan)
    columns, rows = ~dataset.transform @ (x, y)
    inside = np.isfinite(columns) & np.isfinite(rows)
    inside &= (columns >= 0) & (rows >= 0) & (columns < dataset.width) & (rows < dataset.height)
    if not inside.any():
        return found
    columns, rows = columns[inside].astype("int64"), rows[inside].astype("int64")
    left, top = int(columns.min()), int(rows.min())
    window = Window(left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1)
    values = _read(dataset, window)
    down, across = values.shape
    found[inside] = values[(rows - top) * down // window.height, (columns - left) * across // window.width]
    return found


def _read(dataset: Any, window: Window) -> Any:
    """Band 1 in a window, from the overview that is about as fine as `MOST_SIDE` pixels need."""
    shrink = max(window.width, window.height, MOST_SIDE) / MOST_SIDE
    factor = max((each for each in dataset.overviews(1) if each <= shrink), default=1)
    block = math.prod(dataset.block_shapes[0])
    if window.width * window.height / factor**2 > MOST_PIXELS or block > MOST_PIXELS:
        raise NotForTiles("expected a COG with tiles and overviews, found a file that would be read almost whole")
    shape = (math.ceil(window.height / shrink), math.ceil(window.width / shrink))
    options: dict[str, Any] = {"window": window, "out_shape": shape, "resampling": Resampling.nearest}
    return depths_of_band(dataset, **options)


def _turned(dataset: Any, x: Any) -> Any:
    """The same places with x where the raster has it: a grid may go over the seam of its coordinate system."""
    turn, west = around(dataset.crs).turn, min(dataset.bounds.left, dataset.bounds.right)
    with np.errstate(invalid="ignore"):
        return west + (x - west) % turn if turn else x


@lru_cache(maxsize=64)
def _from_degrees(wkt: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(
        pyproj.CRS.from_user_input("OGC:CRS84"), pyproj.CRS.from_wkt(wkt), always_xy=True
    )
