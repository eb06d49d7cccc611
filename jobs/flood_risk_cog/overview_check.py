"""Are a COG's overviews there, and made of its own pixels?"""

import math
from typing import Any

import numpy as np
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from jobs.flood_risk_cog.neighbours import bands_to_look_at, block_span, disagreements, read_known, sample_windows
from jobs.flood_risk_cog.source import open_raster

SIDE = 128
MOST_WINDOWS = 16
# Pixels of the full size along a sample.
MOST_BELOW = 1024
# How far a method looks beyond a pixel's own square, in pixels of the overview.
_REACH = {"bilinear": 1, "cubic": 2, "cubic_spline": 2, "lanczos": 3, "gauss": 2}


def find_overview_problems(cog: str, tile_size: int, method: str) -> list[str]:
    """Compare samples of every level with the full size: each pixel with those that it was made of."""
    with open_raster(cog) as base:
        width, height = base.width, base.height
        for level in range(len(base.overviews(1))):
            with open_raster(cog, overview_level=level) as overview:
                width, height = overview.width, overview.height
                factor = math.ceil(max(base.width / width, base.height / height))
                side, most = max(1, min(SIDE, MOST_BELOW // factor)), max(1, MOST_WINDOWS >> level)
                for window in sample_windows(width, height, side, most):
                    if wrong := _compare(base, overview, window, method):
                        place = f"overview {level + 1} at column {window.col_off}, row {window.row_off}"
                        return [f"{place}: found {', '.join(wrong)}"]
    if max(width, height) > tile_size:
        return [f"expected overviews down to one tile of {tile_size}, found {width} x {height} as the smallest"]
    return []


def _compare(base: Any, overview: Any, window: Window, method: str) -> list[str]:
    numbers = bands_to_look_at(base)
    reach = _REACH.get(method, 0)
    rows = _below(window.row_off, window.height, base.height / overview.height, base.height, reach)
    columns = _below(window.col_off, window.width, base.width / overview.width, base.width, reach)
    top, left = rows[0].min(), columns[0].min()
    below = Window(left, top, columns[1].max() - left, rows[1].max() - top)
    values, valid = read_known(base, numbers, below)
    span = block_span(values, valid, [each - top for each in rows], [each - left for each in columns])
    found, found_valid = read_known(overview, numbers, window)
    if overview.nodata is None and base.nodata is not None and not has_mask(base):
        # Of 64-bit numbers, GDAL does not tell it of an overview.
        found_valid = found_valid & (found != base.nodata)
    return disagreements(found, found_valid, span, method)


def has_mask(dataset: Any) -> bool:
    return MaskFlags.per_dataset in dataset.mask_flag_enums[0]


def _below(offset: int, count: int, factor: float, size: int, reach: int) -> tuple[Any, Any]:
    """Begin and end, along one axis of the full size, of what each pixel was made of.

    Levels are made one of the other, and sizes are rounded: each level adds a pixel of the one before.
    """
    places = np.arange(offset, offset + count)
    rounding = max(1, math.ceil(factor) - 1)
    begin = np.floor((places - reach) * factor).astype(int) - rounding
    end = np.ceil((places + 1 + reach) * factor).astype(int) + rounding
    return begin.clip(0, size - 1), end.clip(1, size)
