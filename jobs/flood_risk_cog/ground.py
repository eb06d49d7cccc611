"""Which points of a raster's grid lie on the globe, and at which longitude and latitude."""

import math
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj

# Projections are inverted to about a millimetre; this much of a coordinate is allowed beside a pixel.
ROUNDING = 1e-7
# Longitudes and latitudes at which a cylindrical projection is known.
_PROBED_LONGITUDES, _PROBED_LATITUDES = np.arange(-180.0, 180.0, 30.0), (0.0, 30.0, 60.0)
_TURN, _POLE = 360.0, 90.0
# How often the way to a seam is halved.
HALVINGS = 50
EARTH_METRES = 6_371_000.0
# Methods that weigh neighbours, more of them where pixels of the result are larger.
OF_KERNELS = {"bilinear", "cubic", "cubic_spline", "lanczos"}
# Pixels of a source along one of the result: up to here, the four around each place are all pixels of the source.
ABOUT_AS_LARGE = 1.5


@dataclass(frozen=True)
class Ground:
    """The grid of an open raster, beside the globe.

    A projection covers a part of its plane. PROJ gives some points outside of that part a longitude that is wrapped
    around the globe: a point counts only where its longitude and latitude lead back to it.
    """

    transform: Any
    is_geographic: bool
    # From the grid's system to longitude and latitude on its own datum, and on that of GeoJSON.
    own: Any
    world: Any
    # Of a cylindrical projection: how far a turn is along x. Its grid may go on beyond the antimeridian.
    turn: float

    def xy(self, columns: Any, rows: Any) -> tuple[Any, Any]:
        """Coordinates of columns and rows, which count from the raster's first corner."""
        place = self.transform
        return place.c + place.a * np.asarray(columns, float), place.f + place.e * np.asarray(rows, float)

    def is_on_globe(self, columns: Any, rows: Any) -> Any:
        """Which of these points have a place on the globe, as booleans."""
        x, y = self.xy(columns, rows)
        lon, lat = self.own.transform(x, y)
        return self.leads_back(x, y, lon, lat)

    def is_on_globe_in(self, window: Any) -> Any:
        """Which pixels of a window have their middle on the globe, as booleans (rows, columns)."""
        columns, rows = np.arange(window.width) + window.col_off, np.arange(window.height) + window.row_off
        return self.is_on_globe(*np.meshgrid(columns + 0.5, rows + 0.5))

    def leads_back(self, x: Any, y: Any, lon: Any, lat: Any) -> Any:
        """Which longitudes and latitudes, on the grid's own datum, are places of these coordinates, as booleans."""
        if self.is_geographic:
            return np.isfinite(lon) & np.isfinite(lat)
        back_x, back_y = self.own.transform(lon, lat, direction="INVERSE")
        with np.errstate(invalid="ignore"):
            away = np.abs(back_x - x)
            near_x = away <= np.maximum(abs(self.transform.a), ROUNDING * np.abs(x)) + self.turn
            near_y = np.abs(back_y - y) <= np.maximum(abs(self.transform.e), ROUNDING * np.abs(y))
        return near_x & near_y & np.isfinite(away)

    def lon_lat(self, columns: Any, rows: Any) -> tuple[Any, Any]:
        """Degrees of points that are on the globe."""
        lon, lat = self.world.transform(*self.xy(columns, rows))
        # Outermost pixels whose centres lie on the poles exist.
        return np.asarray(lon), np.clip(lat, -_POLE, _POLE)

    def pole(self, latitude: float) -> tuple[float, float] | None:
        """Column and row of a pole; None where it is no single point of the grid's plane."""
        if self.is_geographic:
            return None
        x, y = self.world.transform(np.array([0.0, 120.0, 240.0]), np.full(3, latitude), direction="INVERSE")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return None
        columns, rows = (x - self.transform.c) / self.transform.a, (y - self.transform.f) / self.transform.e
        nearly = 1e-3 + ROUNDING * max(np.abs(columns).max(), np.abs(rows).max())
        if max(np.ptp(columns), np.ptp(rows)) > nearly:
            return None
        return float(columns[0]), float(rows[0])


def ground_of(dataset: Any) -> Ground:
    """Of an open raster with a coordinate system, north up, or of its grid."""
    is_geographic = bool(dataset.crs.is_geographic)
    own, world, turn = _KEPT.systems(dataset.crs.wkt, is_geographic)
    return Ground(dataset.transform, is_geographic, own, world, turn)


@dataclass(frozen=True)
class Grid:
    """Where a raster lies, without its pixels. Grids are equal where all that can be computed of them is.

    A raster that is placed by control points alone, without a transform, is refused before. What one conversion asks
    for several times is kept by it, and found by the next raster on the same grid: those of several return periods
    mostly have one.
    """

    wkt: str
    transform: Any
    width: int
    height: int
    crs: Any = field(compare=False, repr=False)

    @classmethod
    def of(cls, dataset: Any) -> "Grid":
        """Of an open raster with a coordinate system."""
        return cls(dataset.crs.wkt, dataset.transform, dataset.width, dataset.height, dataset.crs)


class _Kept(threading.local):
    """Of each thread, as PROJ's transformers are: the rasters of a folder mostly have one coordinate system."""

    def __init__(self) -> None:
        self.systems = lru_cache(maxsize=16)(_systems)


def _systems(wkt: str, is_geographic: bool) -> tuple[pyproj.Transformer, pyproj.Transformer, float]:  # noqa: FBT001 - a key
    crs = pyproj.CRS.from_wkt(wkt)
    own = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    world = pyproj.Transformer.from_crs(crs, pyproj.CRS.from_user_input("OGC:CRS84"), always_xy=True)
    return own, world, 0.0 if is_geographic else _turn_of(world)


_KEPT = _Kept()


def _turn_of(world: Any) -> float:
    """How far a turn is along x, where x depends on the longitude alone; else 0."""
    lon, lat = np.meshgrid(_PROBED_LONGITUDES, _PROBED_LATITUDES)
    x, _ = world.transform(lon, lat, direction="INVERSE")
    if not np.isfinite(x).all():
        return 0.0
    width = float(np.ptp(x))
    if np.ptp(x, axis=0).max() > ROUNDING * width:
        return 0.0
    return width * _TURN / float(np.ptp(_PROBED_LONGITUDES))


@dataclass(frozen=True)
class Around:
    """How x of a coordinate system goes around the globe.

    Args:
        turn: The length of a turn along x; 0 where x does not depend on the longitude alone.
        middle: The x in the middle of the system's own turn; at half a turn from it is its seam.
        has_poles: Whether a pole has a y: Mercator has none.
    """

    turn: float
    middle: float = 0.0
    has_poles: bool = True

    def into(self, west: float, east: float, xs: Any) -> Any:
        """The same places with x as a grid from `west` to `east` counts it, which may go on beyond the seam.

        Places outside of the grid are counted as its neighbours: x goes on at its edges.
        """
        if not self.turn:
            return xs
        with np.errstate(invalid="ignore"):
            turns = np.round(((west + east) / 2 - xs) / self.turn)
            stays = ((xs >= west) & (xs <= east)) | ~np.isfinite(turns)
            return np.where(stays, xs, xs + self.turn * turns)


def around(crs: Any) -> Around:
    """Of a geographic or projected coordinate system of rasterio's."""
    return _around(crs.wkt, bool(crs.is_geographic))


@lru_cache(maxsize=64)
def _around(wkt: str, is_geographic: bool) -> Around:  # noqa: FBT001 - a key of the cache
    if is_geographic:
        return Around(2 * np.pi / float(pyproj.CRS.from_wkt(wkt).axis_info[0].unit_conversion_factor))
    _, world, turn = _KEPT.systems(wkt, is_geographic)
    if not turn:
        return Around(0.0)
    _, pole = world.transform(0.0, _POLE, direction="INVERSE")
    return Around(turn, _middle_of(world), has_poles=bool(abs(pole) < turn))


def _middle_of(world: Any) -> float:
    """The x in the middle of a cylindrical projection: between those on both sides of its seam."""

    def x_of(longitudes: Any) -> Any:
        return world.transform(longitudes, np.zeros(longitudes.size), direction="INVERSE")[0]

    longitudes = np.linspace(-_TURN / 2, _TURN / 2, 13)
    x = x_of(longitudes)
    if (falls := np.flatnonzero(np.diff(x) < 0)).size:
        # Between these two is the seam.
        ends = longitudes[falls[0] : falls[0] + 2]
        for _ in range(HALVINGS):
            middle = ends.mean(keepdims=True)
            ends = np.append(middle, ends[1]) if x_of(middle)[0] >= x[falls[0]] else np.append(ends[0], middle)
        x = x_of(ends)
    return float(x.max() + x.min()) / 2


def places(one: Any, other: Any, xs: Any, ys: Any) -> tuple[Any, Any]:
    """Points of one coordinate system of rasterio's in another; infinite where that has no place for them."""
    x, y = _between(one.wkt, other.wkt).transform(np.asarray(xs, float), np.asarray(ys, float))
    return np.asarray(x), np.asarray(y)


def places_in(before: Any, after_crs: Any, grid: Any, rows: Any, columns: Any, width: int = 0) -> tuple[Any, Any]:
    """Row and column in another grid, with fractions, of places in a raster; infinite for none.

    Args:
        width: Of the grid, which may go on beyond the seam of its coordinate system.
    """
    x, y = places(before.crs, after_crs, *(before.transform @ (columns.ravel(), rows.ravel())))
    x = around(after_crs).into(grid.c, grid.c + grid.a * width, x)
    with np.errstate(invalid="ignore"):
        found_columns, found_rows = ~grid @ (x, y)
    return found_rows.reshape(rows.shape), found_columns.reshape(rows.shape)


@dataclass(frozen=True)
class Sides:
    """How long pixels of a grid are beside those of a raster, in the middle of nine by nine places.

    Args:
        mean: How many pixels of the raster lie along the side of a square that covers as much as one of the grid.
        across, down: How many lie along the two sides of one of the grid.
        of_column, of_row: How many of the grid lie along the two sides of one of the raster.
    """

    mean: float
    across: float
    down: float
    of_column: float
    of_row: float


# Of a grid without a size, or without a place for the raster.
_NO_SIDES = Sides(math.inf, math.inf, math.inf, 0.0, 0.0)


def sides(before: Any, crs: Any, grid: Any) -> Sides:
    """Of pixels of a grid beside those of an open raster; infinite for a grid without a size."""
    return _NO_SIDES if grid.is_degenerate else _sides(Grid.of(before), crs, grid)


@lru_cache(maxsize=64)
def _sides(before: Grid, crs: Any, grid: Any) -> Sides:
    at = (np.arange(9) + 0.5) / 9
    columns, rows = np.meshgrid(at * before.width, at * before.height)
    here, right, below = (
        np.stack(places_in(before, crs, grid, rows + down, columns + across))
        for down, across in ((0, 0), (0, 0.5), (0.5, 0))
    )
    with np.errstate(invalid="ignore"):
        one, two = (right - here) * 2, (below - here) * 2
        area = np.abs(one[0] * two[1] - one[1] * two[0])
    known = np.isfinite(area) & ground_of(before).is_on_globe(columns, rows)
    if not known.any() or not (middle := float(np.median(area[known]))) > 0:
        return _NO_SIDES
    known &= area > 0
    one, two, area = one[:, known], two[:, known], area[known]
    lengths = (np.hypot(one[0], two[0]) / area, np.hypot(one[1], two[1]) / area, np.hypot(*one), np.hypot(*two))
    return Sides(1 / math.sqrt(middle), *(float(np.median(each)) for each in lengths))


def kernel_scales(before: Any, crs: Any, grid: Any) -> tuple[float, float]:
    """The parts of a pixel of a grid that the sides of one of a raster are long: kernels are widened by them.

    1 along a side of which no more than 1.5 are in one of the grid.
    """
    found = sides(before, crs, grid)
    across, down = (each if 0 < each < 1 / ABOUT_AS_LARGE else 1.0 for each in (found.of_column, found.of_row))
    return across, down


@lru_cache(maxsize=64)
def _between(one: str, other: str) -> pyproj.Transformer:
    systems = pyproj.CRS.from_wkt(one), pyproj.CRS.from_wkt(other)
    if systems[0] == systems[1]:
        # PROJ would change x and y where only the order of their axes differs (EPSG:5041 and EPSG:32661).
        return pyproj.Transformer.from_pipeline("+proj=noop")
    return pyproj.Transformer.from_crs(*systems, always_xy=True)


def side_metres(dataset: Any) -> float:
    """The shorter side of a pixel of an open raster, at the equator where it is in degrees."""
    metres = dataset.crs.units_factor[1] * (EARTH_METRES if dataset.crs.is_geographic else 1.0)
    return float(min(abs(dataset.transform.a), abs(dataset.transform.e)) * metres)


def same_datum(one: Any, two: Any) -> bool:
    """Between datums there are several ways, which differ by metres: places are not certain enough to judge."""
    datum = _datum_of(one.wkt)
    return datum is not None and datum == _datum_of(two.wkt)


@lru_cache(maxsize=64)
def _datum_of(wkt: str) -> str | None:
    try:
        system = pyproj.CRS.from_wkt(wkt).geodetic_crs
    except pyproj.exceptions.CRSError:
        return None
    # In some texts (of WKT 2) a datum is called the ensemble of its own versions.
    return str(system.datum.name).removesuffix(" ensemble") if system and system.datum else None
