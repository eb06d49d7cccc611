"""Places on a map that the server draws: their outlines over land and a graticule, and where on Earth that is."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jobs.views import Outline

# Pixels of the drawing; the page scales it.
WIDTH, LEAST_HEIGHT, MOST_HEIGHT = 960.0, 240.0, 480.0
# The map of the Earth beside it has two pixels for a degree.
GLOBE_SCALE = 0.75
# Others are drawn without their names.
MOST_NAMED = 500
_MARGIN = 0.12
_LEAST_DEGREES = 0.002
_STEPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60)
_MOST_LINES = 6
_TURN = 360.0

Ring = Sequence[Sequence[float]]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Shape:
    """Of one outline. `name` is empty where it is for several."""

    name: str
    group: int
    path: str


@dataclass(frozen=True)
class Line:
    """Of the graticule: a share of the width or the height, and what it is called."""

    at: float
    label: str


@dataclass(frozen=True)
class OutlineMap:
    """What a template draws, in pixels.

    Args:
        land, globe_land: Paths of the land on the map, and on the one of the whole Earth.
        marker: Where the map is on the Earth: x, y, width and height.
        groups: Names for the legend, by number.
    """

    width: float
    height: float
    land: str
    meridians: Sequence[Line]
    parallels: Sequence[Line]
    shapes: Sequence[Shape]
    groups: Sequence[str]
    globe_land: str
    marker: Box


def draw_map(outlines: Sequence[Outline]) -> OutlineMap | None:
    """None where there is no outline to draw."""
    rings = [[_shifted(ring, shift) for ring in outline.rings] for outline, shift in _with_shifts(outlines)]
    box = _box_of(point for several in rings for ring in several for point in ring)
    if box is None:
        return None
    place = _Projection(box)
    groups = list(dict.fromkeys(outline.group for outline in outlines))
    return OutlineMap(
        width=WIDTH,
        height=place.height,
        land="".join(_land_within(place)),
        meridians=[Line(place.x(at), _degrees(at, "EW")) for at in _lines(place.west, place.east)],
        parallels=[Line(place.y(at), _degrees(at, "NS")) for at in _lines(place.south, place.north)],
        shapes=list(_shapes(outlines, rings, groups, place)),
        groups=[group for group in groups if group],
        globe_land=_globe(),
        marker=_marker(place),
    )


class _Projection:
    """Degrees to pixels, true to scale in the middle of the map."""

    def __init__(self, box: Box) -> None:
        west, south, east, north = box
        middle = (south + north) / 2
        squeeze = max(0.05, math.cos(math.radians(middle)))
        width = max(east - west, _LEAST_DEGREES) * (1 + 2 * _MARGIN)
        height = max(north - south, _LEAST_DEGREES) * (1 + 2 * _MARGIN)
        # As wide as it is, or wider where the places are high.
        width = max(width, height * WIDTH / MOST_HEIGHT / squeeze)
        height = max(height, width * squeeze * LEAST_HEIGHT / WIDTH)
        self._per_x = WIDTH / width
        self._per_y = self._per_x / squeeze
        self.west, self.east = (west + east - width) / 2, (west + east + width) / 2
        self.south, self.north = middle - height / 2, middle + height / 2
        self.height = round(height * self._per_y, 1)

    def x(self, longitude: float) -> float:
        return round((longitude - self.west) * self._per_x, 1)

    def y(self, latitude: float) -> float:
        return round((self.north - latitude) * self._per_y, 1)

    def path(self, ring: Ring) -> str:
        """Points that fall on the one before are left out."""
        points: list[tuple[float, float]] = []
        for longitude, latitude, *_ in ring:
            point = self.x(longitude), self.y(latitude)
            if not points or points[-1] != point:
                points.append(point)
        return _path(points)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) + "Z"


def _with_shifts(outlines: Sequence[Outline]) -> Iterator[tuple[Outline, float]]:
    """West of the antimeridian counts on where the places are closer together so."""
    wests = [min(point[0] for ring in outline.rings for point in ring) for outline in outlines if outline.rings]
    span = max(wests, default=0.0) - min(wests, default=0.0)
    turned = [west % _TURN for west in wests]
    is_turned = span > _TURN / 2 and max(turned) - min(turned) < span
    for outline in outlines:
        west = min((point[0] for ring in outline.rings for point in ring), default=0.0)
        yield outline, west % _TURN - west if is_turned else 0.0


def _shifted(ring: Ring, degrees: float) -> Ring:
    return [(point[0] + degrees, point[1]) for point in ring] if degrees else ring


def _box_of(points: Iterable[Sequence[float]]) -> Box | None:
    found = list(points)
    if not found:
        return None
    longitudes, latitudes = [point[0] for point in found], [point[1] for point in found]
    return min(longitudes), min(latitudes), max(longitudes), max(latitudes)


def _shapes(
    outlines: Sequence[Outline], rings: Sequence[Sequence[Ring]], groups: Sequence[str], place: _Projection
) -> Iterator[Shape]:
    rest: dict[int, list[str]] = {}
    for number, (outline, several) in enumerate(zip(outlines, rings, strict=True)):
        group = groups.index(outline.group)
        path = "".join(place.path(ring) for ring in several)
        if number < MOST_NAMED:
            yield Shape(outline.name, group, path)
        else:
            rest.setdefault(group, []).append(path)
    for group, paths in rest.items():
        yield Shape("", group, "".join(paths))


def _lines(begin: float, end: float) -> list[float]:
    step = next((step for step in _STEPS if (end - begin) / step <= _MOST_LINES), _STEPS[-1])
    first = math.ceil(begin / step)
    return [round(number * step, 4) for number in range(first, math.floor(end / step) + 1)]


def _degrees(at: float, sides: str) -> str:
    positive, negative = sides[0], sides[1]
    if positive == "E":
        at = (at + _TURN / 2) % _TURN - _TURN / 2
    side = positive if at > 0 else negative if at < 0 else ""
    return f"{abs(at):g}°{side}"


def _land_within(place: _Projection) -> Iterator[str]:
    for ring in _land():
        for shift in (-_TURN, 0.0, _TURN):
            longitudes = [point[0] + shift for point in ring]
            latitudes = [point[1] for point in ring]
            is_beside = max(longitudes) < place.west or min(longitudes) > place.east
            if not is_beside and max(latitudes) >= place.south and min(latitudes) <= place.north:
                yield place.path(_shifted(ring, shift))


@lru_cache(maxsize=1)
def _land() -> list[list[tuple[float, float]]]:
    rings: list[list[float]] = json.loads((Path(__file__).parent / "land.json").read_text(encoding="utf-8"))
    return [list(zip(ring[::2], ring[1::2], strict=True)) for ring in rings]


@lru_cache(maxsize=1)
def _globe() -> str:
    return "".join(_path([_on_globe(*point) for point in ring]) for ring in _land())


def _on_globe(longitude: float, latitude: float) -> tuple[float, float]:
    return round((longitude + _TURN / 2) * GLOBE_SCALE, 1), round((_TURN / 4 - latitude) * GLOBE_SCALE, 1)


def _marker(place: _Projection) -> Box:
    """At least large enough to be seen."""
    west = (place.west + _TURN / 2) % _TURN - _TURN / 2
    x, y = _on_globe(west, place.north)
    width, height = (place.east - place.west) * GLOBE_SCALE, (place.north - place.south) * GLOBE_SCALE
    least = 6.0
    return (
        round(x - max(0.0, least - width) / 2, 1),
        round(y - max(0.0, least - height) / 2, 1),
        round(max(least, width), 1),
        round(max(least, height), 1),
    )
