"""Where GDAL's warp could take a bent row of pixels for a straight one.

To be quick, it compares the middle of a row with the line between its ends, and divides the row where they are apart.
A row that bends one way before its middle and the other way after it passes for a line, whatever the tolerance is.
"""

from typing import Any

import numpy as np
from rasterio.windows import Window

from jobs.flood_risk_cog.ground import places

# Places that are looked up along a row, and rows of a window.
POINTS, LINES = 17, 5
# In pixels of the source: what GDAL's test may not see, and the tolerance that it is given.
MOST_BENT, TOLERANCE = 0.01, 0.01
# Steps between places in half a row.
_HALF = (POINTS - 1) // 2


def has_bent_rows(dataset: Any, crs: Any, grid: Any, window: Window) -> bool:
    """Whether a row of a window of a grid, or a part of one, could pass GDAL's test and be bent on an open raster.

    Where the middle is on the line, the rest is as far from it as the curvature changes from the middle to the ends:
    by no more than the third derivative times the cube of half a row.
    """
    columns = np.linspace(window.col_off, window.col_off + window.width, POINTS)
    rows = np.linspace(window.row_off, window.row_off + window.height, LINES)
    x, y = places(crs, dataset.crs, *(grid @ tuple(each.ravel() for each in np.meshgrid(columns, rows))))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return True
    found = np.stack(~dataset.transform @ (x, y)).reshape(2, LINES, POINTS)
    return bool(np.abs(np.diff(found, 3, axis=2)).max() * _HALF**3 > MOST_BENT)
