"""Where a raster lies, in longitude and latitude as GeoJSON (RFC 7946) wants it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyproj

from jobs.flood_risk_cog.ground import Grid, Ground, ground_of

# Straight on the raster's grid, edges are curved in longitude and latitude.
POINTS_PER_SIDE = 11
# About a centimetre.
DECIMALS = 7
TURN, HALF_TURN, POLE = 360.0, 180.0, 90.0
POLES = (POLE, -POLE)
# Points along a side of a raster of which a part is off the globe, and how often the way to the part's end is halved.
POINTS_ACROSS, HALVINGS = 65, 24
# Points along each side, where the outermost places of a raster mostly are.
POINTS_ALONG = 257
# In pixels: nearer than that to a pole, a longitude means nothing.
AT_POLE = 1e-3
# In degrees: to about a metre.
SNAPPED = 1e-5
OFF_GLOBE = "it lies where its coordinate system has no longitude and latitude; assign the right one (gdal_edit -a_srs)"

Ring = list[tuple[float, float]]


class NoFootprint(ValueError):
    """No part of the raster has a longitude and latitude."""


def union(boxes: Any) -> list[float]:
    """The smallest box around others; its west is larger than its east where it crosses the antimeridian."""
    if not len(boxes):
        return [-HALF_TURN, -POLE, HALF_TURN, POLE]
    begins, souths, ends, norths = np.asarray(boxes, float).T
    south, north = float(souths.min()), float(norths.max())
    order = np.argsort(begins)
    begins, ends = begins[order], (ends + TURN * (ends < begins))[order]
    # The widest gap on the circle is what the box leaves out.
    reached = np.maximum.accumulate(ends)
    gaps = np.append(begins[1:] - reached[:-1], begins[0] + TURN - reached[-1])
    widest = gaps.size - 1 if gaps[-1] >= gaps.max() else int(gaps.argmax())
    gap, east = float(gaps[widest]), float(reached[widest])
    west, east = (float(begins[0]), east) if widest == gaps.size - 1 else (float(begins[widest + 1]), east + TURN)
    if gap <= SNAPPED:
        return [-HALF_TURN, south, HALF_TURN, north]
    return [west, south, east - TURN * (east > HALF_TURN), north]


@dataclass(frozen=True)
class Footprint:
    """A polygon, or two of them where it crosses the antimeridian; then the box's west is larger than its east."""

    geometry: dict[str, Any]
    bbox: list[float]


def footprint_of(dataset: Any) -> Footprint:
    """Of an open raster with a coordinate system: around its edge, or where a part is off the globe around the rest.

    It is shared with others and not to be changed.

    Raises:
        NoFootprint: No part of it has a longitude and latitude.
    """
    try:
        return _footprint(Grid.of(dataset))
    except pyproj.exceptions.ProjError as error:
        raise NoFootprint(f"{OFF_GLOBE} ({error})") from error


# A conversion asks for that of its source, of its plan and of its result, which often lie on one grid.
@lru_cache(maxsize=16)
def _footprint(grid: Grid) -> Footprint:
    if (seen := _Seen.of(grid)) is not None:
        return _around_valid_part(ground_of(grid), seen)
    return _around_edge(ground_of(grid), grid.width, grid.height)


def between_latitudes(footprint: Footprint, south: float, north: float) -> Footprint:
    """The part of a footprint between two latitudes, where a coordinate system ends there."""

    def cut(coordinates: Any) -> Any:
        if isinstance(coordinates[0], list):
            return [cut(each) for each in coordinates]
        return [coordinates[0], min(max(coordinates[1], south), north)]

    west, low, east, high = footprint.bbox
    shape = {**footprint.geometry, "coordinates": cut(footprint.geometry["coordinates"])}
    return Footprint(shape, [*cut([west, low]), *cut([east, high])])


def is_partly_off_globe(dataset: Any) -> bool:
    """Whether some of an open raster's grid has no longitude and latitude, as the corners of a world in Mollweide."""
    return _Seen.of(Grid.of(dataset)) is not None


def end_of_globe(dataset: Any) -> Ground | None:
    """The ground of an open raster of which a part is off the globe; None for any other one."""
    return ground_of(dataset) if is_partly_off_globe(dataset) else None


def places_on_globe(dataset: Any) -> tuple[Any, Any]:
    """Columns and rows of points all over an open raster: along its edge, at poles, where a part off it begins.

    They are shared with others and not to be changed.
    """
    return _places_on_globe(Grid.of(dataset))


@lru_cache(maxsize=16)
def _places_on_globe(grid: Grid) -> tuple[Any, Any]:
    ground, width, height = ground_of(grid), grid.width, grid.height
    columns, rows = np.meshgrid(np.linspace(0, width, POINTS_ACROSS), np.linspace(0, height, POINTS_ACROSS))
    is_there = ground.is_on_globe(columns, rows)
    across, down = np.linspace(0, width, POINTS_ALONG), np.linspace(0, height, POINTS_ALONG)
    edges = [(across, 0 * across), (across, 0 * across + height), (0 * down, down), (0 * down + width, down)]
    at_edge = ground.is_on_globe(*(every := tuple(np.concatenate(each) for each in zip(*edges, strict=True))))
    found = [(columns[is_there], rows[is_there]), (every[0][at_edge], every[1][at_edge])]
    poles = [at for at in _poles(ground).values() if _depth_inside(at, width, height) >= 0]
    found += [(np.array([column]), np.array([row])) for column, row in poles]
    for begin, end in _neighbours():
        for here, there in ((begin, end), (end, begin)):
            ends = is_there[here] & ~is_there[there]
            inner = (columns[here][ends], rows[here][ends])
            found.append(_last_on_globe(ground, inner, (columns[there][ends], rows[there][ends])))
    every_column, every_row = (np.concatenate(each) for each in zip(*found, strict=True))
    return every_column, every_row


def _poles(ground: Ground) -> dict[float, tuple[float, float]]:
    """Columns and rows of those that are points of the grid's plane."""
    return {latitude: at for latitude in POLES if (at := ground.pole(latitude)) is not None}


def _around_edge(ground: Ground, width: int, height: int) -> Footprint:
    poles = _poles(ground)
    lon, lat = _edge(ground, width, height, list(poles.values()))
    inside = [latitude for latitude, at in poles.items() if _depth_inside(at, width, height) > AT_POLE]
    if len(inside) == len(POLES):
        # No ring of longitudes and latitudes is around both.
        return _around_valid_part(ground, _Seen.whole(width, height))
    if inside:
        return _around_pole(lon, lat, inside[0])
    lon = np.unwrap(lon, period=TURN)
    west, east, south, north = float(lon.min()), float(lon.max()), float(lat.min()), float(lat.max())
    # The ring passes a little beside a pole that is on the edge.
    touched = [latitude for latitude, at in poles.items() if abs(_depth_inside(at, width, height)) <= AT_POLE]
    south, north = min(south, *touched, POLE), max(north, *touched, -POLE)
    if east - west >= TURN - 1e-9:
        return _made([_box(-HALF_TURN, south, HALF_TURN, north)], [-HALF_TURN, south, HALF_TURN, north])
    shift = -TURN * math.floor((west + HALF_TURN + SNAPPED) / TURN)
    ring = [(max(float(x) + shift, -HALF_TURN), float(y)) for x, y in zip(lon, lat, strict=True)]
    west, east = max(west + shift, -HALF_TURN), east + shift
    if east <= HALF_TURN + 1e-9:
        return _made([ring], [west, south, min(east, HALF_TURN), north])
    left = _clipped(ring, keep_below=True)
    right = [(x - TURN, y) for x, y in _clipped(ring, keep_below=False)]
    return _made([left, right], [west, south, east - TURN, north])


def _edge(ground: Ground, width: int, height: int, poles: list[tuple[float, float]]) -> tuple[Any, Any]:
    """Longitudes and latitudes along its edge, back to where it began."""
    # Where the edge passes a pole, longitudes change fastest: the nearest point is one of those taken.
    every = _points(width, height, poles, _along(width, poles, 0, POINTS_ALONG), _along(height, poles, 1, POINTS_ALONG))
    lon, lat = ground.lon_lat(*every.T)
    lon = np.unwrap(lon, period=TURN)
    # A few points draw it, with the outermost ones.
    outermost = every[[lon.argmin(), lon.argmax(), lat.argmin(), lat.argmax()]].tolist()
    # Beside a pole they are made anew.
    marks = [*poles, *(each for each in outermost if all(math.dist(each, pole) > 1 for pole in poles))]
    across, down = _along(width, marks, 0, POINTS_PER_SIDE), _along(height, marks, 1, POINTS_PER_SIDE)
    return ground.lon_lat(*_points(width, height, poles, across, down).T)


def _points(width: int, height: int, poles: list[tuple[float, float]], across: Any, down: Any) -> Any:
    """Columns and rows around the edge, back to where it began."""
    columns = np.concatenate([across, np.full(down.size - 1, width), across[-2::-1], np.zeros(down.size - 1)])
    rows = np.concatenate([np.zeros(across.size), down[1:], np.full(across.size - 1, height), down[-2::-1]])
    at_pole = np.zeros(columns.size, bool)
    for column, row in poles:
        at_pole |= np.hypot(columns - column, rows - row) <= AT_POLE
    if not at_pole.any():
        return np.column_stack([columns, rows])
    # The ring begins beside a pole, not on it.
    first = int(np.argmin(at_pole))
    columns, rows, at_pole = (np.roll(each[:-1], -first) for each in (columns, rows, at_pole))
    points: Ring = []
    for index in range(columns.size):
        point = (float(columns[index]), float(rows[index]))
        if not at_pole[index]:
            points.append(point)
            continue
        # A pole has every longitude: those at which the edge arrives, at which the raster begins, and at which it
        # goes on. All three are taken a little beside it.
        following = (index + 1) % columns.size
        towards = (
            (columns[index - 1], rows[index - 1]),
            (width / 2, height / 2),
            (columns[following], rows[following]),
        )
        points += [_beside(point, each) for each in towards]
    points.append(points[0])
    return np.array(points)


def _along(length: int, marks: Sequence[Sequence[float]], axis: int, points: int) -> Any:
    inner = [mark[axis] for mark in marks if AT_POLE < mark[axis] < length - AT_POLE]
    return np.unique(np.concatenate([np.linspace(0, length, points), inner]))


def _beside(point: tuple[float, float], towards: tuple[float, float]) -> tuple[float, float]:
    share = 2 * AT_POLE / max(math.dist(point, towards), 2 * AT_POLE)
    return point[0] + share * (towards[0] - point[0]), point[1] + share * (towards[1] - point[1])


def _depth_inside(at: tuple[float, float], width: float, height: float) -> float:
    """Pixels from a point to the nearest edge; negative outside."""
    return min(at[0], width - at[0], at[1], height - at[1])


def _around_pole(lon: Any, lat: Any, pole: float) -> Footprint:
    """The edge goes once around a pole: the polygon is closed along it."""
    order = np.argsort((lon[:-1] + HALF_TURN) % TURN)
    ring = [(float((lon[i] + HALF_TURN) % TURN - HALF_TURN), float(lat[i])) for i in order]
    first, last = ring[0], ring[-1]
    # Where it meets the antimeridian, on the way from the last point to the first.
    gap = first[0] + TURN - last[0]
    edge = last[1] + (first[1] - last[1]) * ((HALF_TURN - last[0]) / gap if gap else 0)
    ring = [(-HALF_TURN, edge), *ring, (HALF_TURN, edge), (HALF_TURN, pole), (-HALF_TURN, pole), (-HALF_TURN, edge)]
    return _made([ring], [-HALF_TURN, min(float(lat.min()), pole), HALF_TURN, max(float(lat.max()), pole)])


@dataclass(frozen=True)
class _Seen:
    """Points all over a raster, with those of them that are on the globe."""

    columns: Any
    rows: Any
    is_there: Any

    @classmethod
    def whole(cls, width: int, height: int) -> "_Seen":
        columns, rows = np.meshgrid(np.linspace(0, width, POINTS_ACROSS), np.linspace(0, height, POINTS_ACROSS))
        return cls(columns, rows, np.ones(columns.shape, bool))

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, grid: Grid) -> "_Seen | None":
        """None where the whole raster is on the globe."""
        every = cls.whole(grid.width, grid.height)
        is_there = ground_of(grid).is_on_globe(every.columns, every.rows)
        if not is_there.any():
            raise NoFootprint(OFF_GLOBE)
        return None if is_there.all() else cls(every.columns, every.rows, is_there)


def _around_valid_part(ground: Ground, seen: _Seen) -> Footprint:
    """The box around all that is on the globe: the part's own edge is a curve without a simple form."""
    spans: list[Any] = []
    for begin, end in _neighbours():
        one, other = ((seen.columns[part], seen.rows[part], seen.is_there[part]) for part in (begin, end))
        both = one[2] & other[2]
        spans.append(_spans(ground, (one[0][both], one[1][both]), (other[0][both], other[1][both])))
        for here, there in ((one, other), (other, one)):
            ends = here[2] & ~there[2]
            inner, outer = (here[0][ends], here[1][ends]), (there[0][ends], there[1][ends])
            spans.append(_spans(ground, inner, _last_on_globe(ground, inner, outer)))
    # A raster may show one point of the globe alone.
    lon, lat = ground.lon_lat(seen.columns[seen.is_there], seen.rows[seen.is_there])
    spans.append(_boxes(lon, lat, lon, lat))
    west, south, east, north = union(np.concatenate(spans))
    width, height = float(seen.columns.max()), float(seen.rows.max())
    for latitude in POLES:
        if (at := ground.pole(latitude)) is not None and _depth_inside(at, width, height) >= 0:
            south, north = min(south, latitude), max(north, latitude)
    # The last point before the antimeridian may be a rounded digit beyond it.
    if west > east and west >= HALF_TURN - SNAPPED:
        west = -HALF_TURN
    elif west > east and east <= SNAPPED - HALF_TURN:
        east = HALF_TURN
    if west <= east:
        return _made([_box(west, south, east, north)], [west, south, east, north])
    halves = [_box(west, south, HALF_TURN, north), _box(-HALF_TURN, south, east, north)]
    return _made(halves, [west, south, east, north])


def _neighbours() -> Iterator[tuple[Any, Any]]:
    every, first, last = slice(None), slice(None, -1), slice(1, None)
    yield (every, first), (every, last)
    yield (first, every), (last, every)


def _last_on_globe(ground: Ground, inner: Any, outer: Any) -> Any:
    """Between points on the globe and points off it: the last that are on it."""
    if not inner[0].size:
        # Most rasters are on the globe wholly.
        return inner
    for _ in range(HALVINGS):
        middle = tuple((one + other) / 2 for one, other in zip(inner, outer, strict=True))
        is_there = ground.is_on_globe(*middle)
        inner = tuple(np.where(is_there, new, old) for new, old in zip(middle, inner, strict=True))
        outer = tuple(np.where(is_there, old, new) for new, old in zip(middle, outer, strict=True))
    return inner


def _spans(ground: Ground, begin: Any, end: Any) -> Any:
    """The box of each pair of points, the short way around the globe."""
    (lon, lat), (to_lon, to_lat) = ground.lon_lat(*begin), ground.lon_lat(*end)
    step = (to_lon - lon + HALF_TURN) % TURN - HALF_TURN
    west, east = np.minimum(lon, lon + step), np.maximum(lon, lon + step)
    south, north = np.minimum(lat, to_lat), np.maximum(lat, to_lat)
    return _boxes(west, south, east, north)


def _boxes(west: Any, south: Any, east: Any, north: Any) -> Any:
    """With longitudes from -180 to 180, one in each row.

    Raises:
        OverflowError: One is infinite.
    """
    if np.isinf(west).any() or np.isinf(east).any():
        raise OverflowError("expected longitudes of places on the globe, found infinity")
    west, east = (
        np.where(np.abs(lon) > HALF_TURN, lon - TURN * np.floor((lon + HALF_TURN) / TURN), lon) for lon in (west, east)
    )
    return np.column_stack([west, south, east, north])


def _clipped(ring: Ring, *, keep_below: bool) -> Ring:
    """The part of a ring on one side of 180 degrees (Sutherland and Hodgman)."""
    kept: Ring = []
    for (x1, y1), (x2, y2) in pairwise(ring):
        in1, in2 = ((x <= HALF_TURN) == keep_below for x in (x1, x2))
        if in1:
            kept.append((x1, y1))
        if in1 != in2:
            kept.append((HALF_TURN, y1 + (y2 - y1) * (HALF_TURN - x1) / (x2 - x1)))
    return [*kept, kept[0]]


def _box(west: float, south: float, east: float, north: float) -> Ring:
    return [(west, south), (east, south), (east, north), (west, north), (west, south)]


def _made(rings: list[Ring], bbox: list[float]) -> Footprint:
    polygons = [[_counterclockwise([(round(x, DECIMALS), round(y, DECIMALS)) for x, y in ring])] for ring in rings]
    coordinates: Any = [[[list(point) for point in ring] for ring in polygon] for polygon in polygons]
    geometry = (
        {"type": "Polygon", "coordinates": coordinates[0]}
        if len(polygons) == 1
        else {"type": "MultiPolygon", "coordinates": coordinates}
    )
    return Footprint(geometry, [round(value, DECIMALS) for value in bbox])


def _counterclockwise(ring: Ring) -> Ring:
    area = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairwise(ring))
    return ring if area >= 0 else ring[::-1]
