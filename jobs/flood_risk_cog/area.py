"""How much ground a pixel covers, on the ellipsoid of the raster's own coordinate system."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj

from jobs.flood_risk_cog.ground import Grid, ground_of

# Ground per pixel changes slowly: it is computed at so many rows and columns and interpolated between rows.
MOST_ROWS, MOST_COLUMNS = 257, 64
# Larger pixels are divided into parts of this side, at most 64 along a side: their sides are bent on the ground.
PART_METRES, MOST_PARTS, NEAR_MIDDLE = 100_000.0, 64, 0.01


@dataclass(frozen=True)
class PixelAreas:
    """Square metres of a pixel, for some rows and each group of neighbouring columns.

    Args:
        areas: (rows, groups).
        rows: Which rows these are, in order; between two of them the area is interpolated.
        starts: The first column of each group.
        method: In words, for people.
    """

    areas: Any
    rows: Any
    starts: Any
    method: str

    def total(self, wet: Any, first_row: int, first_column: int) -> float:
        """Square metres of the pixels that are true in a window (rows, columns) that begins there."""
        rows, columns = wet.shape
        groups = np.searchsorted(self.starts, np.arange(first_column, first_column + columns), side="right") - 1
        begins = np.flatnonzero(np.diff(groups, prepend=-1))
        counts = np.add.reduceat(wet, begins, axis=1, dtype=np.int32)
        return float((counts * self._of_rows(np.arange(first_row, first_row + rows), groups[begins])).sum())

    def _of_rows(self, rows: Any, groups: Any) -> Any:
        below = np.clip(np.searchsorted(self.rows, rows, side="right") - 1, 0, len(self.rows) - 1)
        above = np.minimum(below + 1, len(self.rows) - 1)
        share = (rows - self.rows[below]) / np.maximum(self.rows[above] - self.rows[below], 1)
        areas = self.areas[:, groups]
        return areas[below] * (1 - share)[:, None] + areas[above] * share[:, None]


def pixel_areas(dataset: Any) -> PixelAreas:
    """Of an open raster with a coordinate system, north up; shared with others on its grid, and not to be changed.

    Geographic ones: each row is a zone of the ellipsoid, in closed form (the integral of the authalic latitude), exact
    for any pixel size. Projected ones: a pixel's sides are taken back to longitude and latitude, so that what the
    projection stretches does not count.
    """
    return _pixel_areas(Grid.of(dataset))


# They take as long as the rest of reading a small raster. One of two million rows in degrees has 32 MB of them.
@lru_cache(maxsize=2)
def _pixel_areas(dataset: Grid) -> PixelAreas:
    crs = pyproj.CRS.from_wkt(dataset.wkt)
    geod = crs.get_geod() or pyproj.Geod(ellps="WGS84")
    semi_major, semi_minor = float(geod.a), float(geod.b)
    transform = dataset.transform
    if dataset.crs.is_geographic:
        radians = float(crs.axis_info[0].unit_conversion_factor)
        edges = np.degrees((transform.f + transform.e * np.arange(dataset.height + 1)) * radians)
        areas = zone_areas(edges, math.degrees(abs(transform.a) * radians), semi_major, semi_minor)
        return PixelAreas(areas[:, None], np.arange(dataset.height), np.zeros(1, int), "zones of the ellipsoid")
    return PixelAreas(*_projected_areas(dataset, crs, semi_major, semi_minor), "geodesic, pixel by pixel")


def zone_areas(latitudes: Any, width: float, semi_major: float, semi_minor: float) -> Any:
    """Square metres of the cells between neighbouring latitudes (degrees), `width` degrees wide."""
    eccentricity = math.sqrt(max(0.0, 1 - (semi_minor / semi_major) ** 2))
    sine = np.sin(np.radians(np.clip(latitudes, -90, 90)))
    zone = 2 * sine
    if eccentricity:
        zone = sine / (1 - (eccentricity * sine) ** 2) + np.arctanh(eccentricity * sine) / eccentricity
    return np.abs(np.diff(zone)) * semi_minor**2 / 2 * math.radians(width)


def _projected_areas(dataset: Grid, crs: Any, semi_major: float, semi_minor: float) -> tuple[Any, Any, Any]:
    transform, height, width = dataset.transform, dataset.height, dataset.width
    rows = np.unique(np.linspace(0, height - 1, min(height, MOST_ROWS)).round().astype(int))
    starts = np.unique(np.linspace(0, width, min(width, MOST_COLUMNS) + 1).astype(int)[:-1])
    ends = np.append(starts[1:], width)
    metres = float(dataset.crs.units_factor[1])
    across, down = (
        min(max(math.ceil(abs(side) * metres / PART_METRES), 1), MOST_PARTS) for side in (transform.a, transform.e)
    )
    middles = ((starts + ends) / 2)[:, None] + (np.arange(across) + 0.5) / across - 0.5
    ground = np.zeros((rows.size, starts.size))
    for part in range(down):
        column, row = np.meshgrid(middles.ravel(), rows + (part + 0.5) / down)
        # Of parts, whose sides may be off the globe, it is taken at their middle.
        share = NEAR_MIDDLE if across * down > 1 else 1.0
        half = transform.a / across / 2 * share, transform.e / down / 2 * share
        areas = _cell_areas(dataset, crs, (column, row), half, (semi_major, semi_minor))
        ground += areas.reshape(rows.size, starts.size, across).sum(axis=2) / share**2
    return ground, rows, starts


def _cell_areas(
    dataset: Grid, crs: Any, at: tuple[Any, Any], half: tuple[float, float], axes: tuple[float, float]
) -> Any:
    """Square metres of cells around columns and rows, 0 off the globe; `half` is a half of their sides on the grid."""
    (column, row), (half_x, half_y), (semi_major, semi_minor) = at, half, axes
    x, y = dataset.transform.c + dataset.transform.a * column, dataset.transform.f + dataset.transform.e * row
    grid = ground_of(dataset)
    to_degrees = grid.own
    east_lon, east_lat = to_degrees.transform(x + half_x, y)
    west_lon, west_lat = to_degrees.transform(x - half_x, y)
    north_lon, north_lat = to_degrees.transform(x, y + half_y)
    south_lon, south_lat = to_degrees.transform(x, y - half_y)
    longitude, latitude = to_degrees.transform(x, y)
    # The unit of that system's angles may be another one than the degree.
    unit = float(crs.geodetic_crs.axis_info[0].unit_conversion_factor)
    turn = 2 * math.pi / unit
    phi = latitude * unit
    squared = 1 - (semi_minor / semi_major) ** 2
    # Parts of a grid may lie where the projection has no ground: longitudes and latitudes are infinite there.
    with np.errstate(invalid="ignore"):
        across = [(east_lon - west_lon + turn / 2) % turn - turn / 2, east_lat - west_lat]
        down = [(north_lon - south_lon + turn / 2) % turn - turn / 2, north_lat - south_lat]
        root = 1 - squared * np.sin(phi) ** 2
        meridian, prime = semi_major * (1 - squared) / root**1.5, semi_major / np.sqrt(root)
        ground = np.abs(across[0] * down[1] - across[1] * down[0]) * unit**2 * meridian * prime * np.cos(phi)
    is_there = np.isfinite(ground) & grid.leads_back(x, y, longitude, latitude)
    return np.where(is_there, ground, 0)
