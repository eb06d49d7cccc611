"""Pixels whose corners are far apart on a raster: at the end of the globe, over the raster's own seam, at a pole.

GDAL's methods that take areas look at all that lies between the corners: at whole rows, or the globe's other side.
"""

from typing import Any

import numpy as np
from rasterio.windows import Window

from jobs.flood_risk_cog.footprint import footprint_of
from jobs.flood_risk_cog.ground import around, ground_of, places

# A sum is none of these: the value of one place is no sum.
OF_AREAS = {"average", "mode", "min", "max", "med", "q1", "q3", "rms"}
# Places along a side of a window that are looked up first.
FEW = 17
# Which part of a turn, or else of the raster, is far.
FAR = 0.25
# In degrees: of narrower rasters that lie elsewhere no pixel is torn.
WIDE, NEAR_POLE = 60.0, 89.0


def may_be_torn(dataset: Any) -> bool:
    """Whether an open raster lies where a pixel of another grid may be torn."""
    west, south, east, north = footprint_of(dataset).bbox
    return bool(west > east or east - west > WIDE or max(-south, north) > NEAR_POLE)


def torn_pixels(dataset: Any, warped: Any, window: Window) -> Any:
    """Which pixels of a window of a reprojected raster are torn on its source, as booleans (rows, columns); or None."""
    few = (np.linspace(0, window.height, FEW), np.linspace(0, window.width, FEW))
    if not _are_far(dataset, warped, window, *few).any():
        return None
    found = _are_far(dataset, warped, window, np.arange(window.height + 1), np.arange(window.width + 1))
    return found if found.any() else None


def _are_far(dataset: Any, warped: Any, window: Window, rows: Any, columns: Any) -> Any:
    """Whether the corners of each cell between rows and columns are far from each other, or off the globe."""
    at = np.meshgrid(columns + window.col_off, rows + window.row_off)
    is_there = ground_of(warped).is_on_globe(*at)
    x, y = places(warped.crs, dataset.crs, *(warped.transform @ tuple(each.ravel() for each in at)))
    system, (west, east) = around(dataset.crs), sorted(dataset.bounds[0::2])
    x = system.into(west, east, x).reshape(is_there.shape)
    is_there = is_there & np.isfinite(x) & np.isfinite(y.reshape(is_there.shape))
    x = np.where(is_there, x, np.nan)
    corners = np.stack([x[:-1, :-1], x[:-1, 1:], x[1:, :-1], x[1:, 1:]])
    with np.errstate(invalid="ignore"):
        # A corner without a place is NaN, and so is what is compared with it.
        return ~(corners.max(axis=0) - corners.min(axis=0) <= FAR * (system.turn or east - west))
