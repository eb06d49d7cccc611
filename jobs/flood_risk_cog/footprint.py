"""Where a raster lies, in longitude and latitude as GeoJSON (RFC 7946) wants it."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyproj

# Straight on the raster's grid, edges are curved in longitude and latitude.
POINTS_PER_SIDE = 11
# About a centimetre.
DECIMALS = 7
TURN, HALF_TURN, POLE = 360.0, 180.0, 90.0

Ring = list[tuple[float, float]]


class NoFootprint(ValueError):
    """The raster's edge has no longitude and latitude."""


def union(boxes: list[list[float]]) -> list[float]:
    """The smallest box around others; its west is larger than its east where it crosses the antimeridian."""
    if not boxes:
        return [-HALF_TURN, -POLE, HALF_TURN, POLE]
    south, north = min(box[1] for box in boxes), max(box[3] for box in boxes)
    spans = sorted((box[0], box[2] + TURN * (box[2] < box[0])) for box in boxes)
    # The widest gap on the circle is what the box leaves out.
    reached, gap, west, east = spans[0][1], 0.0, spans[0][0], spans[0][1]
    for begin, end in spans[1:]:
        if begin - reached > gap:
            gap, west, east = begin - reached, begin, reached + TURN
        reached = max(reached, end)
    last = spans[0][0] + TURN - reached
    if last >= gap:
        west, east = spans[0][0], reached
        gap = last
    if gap <= 0:
        return [-HALF_TURN, south, HALF_TURN, north]
    return [west, south, east - TURN * (east > HALF_TURN), north]


@dataclass(frozen=True)
class Footprint:
    """A polygon, or two of them where it crosses the antimeridian; then the box's west is larger than its east."""

    geometry: dict[str, Any]
    bbox: list[float]


def footprint_of(dataset: Any) -> Footprint:
    """Of an open raster with a coordinate system.

    Raises:
        NoFootprint: A point of its edge cannot be located.
    """
    lon, lat = _edge(dataset)
    lon = np.unwrap(lon, period=TURN)
    winding = round((lon[-1] - lon[0]) / TURN)
    if winding:
        return _around_pole(lon, lat)
    west, east, south, north = float(lon.min()), float(lon.max()), float(lat.min()), float(lat.max())
    if east - west >= TURN - 1e-9:
        return _made([_box(-HALF_TURN, south, HALF_TURN, north)], [-HALF_TURN, south, HALF_TURN, north])
    shift = -TURN * math.floor((west + HALF_TURN) / TURN)
    ring = [(float(x) + shift, float(y)) for x, y in zip(lon, lat, strict=True)]
    west, east = west + shift, east + shift
    if east <= HALF_TURN + 1e-9:
        return _made([ring], [west, south, min(east, HALF_TURN), north])
    left = _clipped(ring, keep_below=True)
    right = [(x - TURN, y) for x, y in _clipped(ring, keep_below=False)]
    return _made([left, right], [west, south, east - TURN, north])


def _edge(dataset: Any) -> tuple[Any, Any]:
    """Longitudes and latitudes along its edge, back to where it began."""
    across, down = np.linspace(0, dataset.width, POINTS_PER_SIDE), np.linspace(0, dataset.height, POINTS_PER_SIDE)
    columns = np.concatenate([across, np.full(down.size - 1, dataset.width), across[-2::-1], np.zeros(down.size - 1)])
    rows = np.concatenate([np.zeros(across.size), down[1:], np.full(across.size - 1, dataset.height), down[-2::-1]])
    transform = dataset.transform
    x, y = transform.c + transform.a * columns, transform.f + transform.e * rows
    to_degrees = pyproj.Transformer.from_crs(
        pyproj.CRS.from_wkt(dataset.crs.to_wkt()), pyproj.CRS.from_user_input("OGC:CRS84"), always_xy=True
    )
    lon, lat = to_degrees.transform(x, y)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise NoFootprint("its edge lies where its coordinate system has no longitude and latitude")
    # Outermost pixels whose centres lie on the poles exist.
    return lon, np.clip(lat, -POLE, POLE)


def _around_pole(lon: Any, lat: Any) -> Footprint:
    """The edge goes once around a pole: the polygon is closed along it."""
    pole = POLE if lat.mean() > 0 else -POLE
    order = np.argsort((lon[:-1] + HALF_TURN) % TURN)
    ring = [(float((lon[i] + HALF_TURN) % TURN - HALF_TURN), float(lat[i])) for i in order]
    first, last = ring[0], ring[-1]
    # Where it meets the antimeridian, on the way from the last point to the first.
    gap = first[0] + TURN - last[0]
    edge = last[1] + (first[1] - last[1]) * ((HALF_TURN - last[0]) / gap if gap else 0)
    ring = [(-HALF_TURN, edge), *ring, (HALF_TURN, edge), (HALF_TURN, pole), (-HALF_TURN, pole), (-HALF_TURN, edge)]
    return _made([ring], [-HALF_TURN, min(float(lat.min()), pole), HALF_TURN, max(float(lat.max()), pole)])


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
