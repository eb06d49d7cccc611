"""The grid of web maps: Web Mercator in squares, each zoom twice as fine as the one before (WebMercatorQuad)."""

import math
from dataclasses import dataclass
from typing import Any

from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import calculate_default_transform

from jobs.flood_risk_cog.target_grid import FEW, ROUNDED, TOO_FEW, LookedUp, is_no_grid, looked_up

WEB_MERCATOR = "EPSG:3857"
# Half of the square world, in metres; it ends at 85.06 degrees.
HALF_WORLD = math.pi * 6378137.0
MOST_ZOOM = 30


@dataclass(frozen=True)
class WebGrid:
    """Whole tiles of one zoom around a raster: pixels of tiles of `tile_size` there are pixels of the grid."""

    transform: Affine
    width: int
    height: int
    zoom: int


def web_grid(dataset: Any, tile_size: int) -> WebGrid:
    """Around an open raster, at the zoom whose pixels are nearest to its own.

    Raises:
        ValueError: It has no part in the square world.
    """
    mercator = CRS.from_user_input(WEB_MERCATOR)
    transform, width, height = calculate_default_transform(
        dataset.crs, mercator, dataset.width, dataset.height, *dataset.bounds
    )
    if not all(map(math.isfinite, transform)):
        raise ValueError("GDAL finds no place there for its edge; choose a target_crs in the place of web_optimized")
    place = looked_up(dataset, mercator)
    if (
        place is None
        and max(dataset.width, dataset.height) <= FEW
        and (is_no_grid(transform) or not (width and height))
    ):
        raise ValueError(f"it would have no pixels; {TOO_FEW}")
    found = place or LookedUp(transform, width, height, 0, 0, width, height)
    transform = found.transform
    # Its pixels are squares, and those of the raster may be none.
    side = math.sqrt(abs(transform.determinant))
    zoom = round(math.log2(2 * HALF_WORLD / (tile_size * side)))
    zoom = min(max(zoom, 0), MOST_ZOOM)
    tile = 2 * HALF_WORLD / 2**zoom
    left, top = transform @ (found.left, found.top)
    right, bottom = transform @ (found.right, found.bottom)
    if max(-HALF_WORLD - left, right - HALF_WORLD) > transform.a:
        raise ValueError(
            "it lies across the antimeridian or beyond it, where web maps end; "
            "set target_crs to EPSG:3857 in the place of web_optimized"
        )
    # Where an edge lies on a tile's, a rounded digit must not take in the next one.
    rounded = ROUNDED / tile_size
    columns = _tiles((left + HALF_WORLD) / tile, (right + HALF_WORLD) / tile, 2**zoom, rounded)
    rows = _tiles((HALF_WORLD - top) / tile, (HALF_WORLD - bottom) / tile, 2**zoom, rounded)
    pixel = tile / tile_size
    corner = Affine(pixel, 0, columns.start * tile - HALF_WORLD, 0, -pixel, HALF_WORLD - rows.start * tile)
    return WebGrid(corner, len(columns) * tile_size, len(rows) * tile_size, zoom)


def _tiles(begin: float, end: float, most: int, rounded: float) -> range:
    first, last = max(math.floor(begin + rounded), 0), min(math.ceil(end - rounded), most)
    if last <= first:
        raise ValueError("it lies outside of the square world of web maps, which ends at 85 degrees")
    return range(first, last)
