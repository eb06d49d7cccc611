"""A grid of our own for a reprojection: GDAL's would span the whole globe, or reach to where Mercator has no end.

Longitudes go on beyond the seam of the target's coordinate system, at 181 degrees for example.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from jobs.flood_risk_cog.footprint import places_on_globe
from jobs.flood_risk_cog.ground import Around, Grid, Ground, around, ground_of, places, same_datum, sides

# Mercator has no poles: maps in it end there.
MERCATOR_ENDS = 85.06
# Corners of the source's pixels along a side at which its place is looked up: steps must be shorter than half a turn.
POINTS = 65
HALF_TURN = 180.0
# Of a turn: rounding.
NEARLY = 1e-9
# Of a pixel: a rounded digit adds no row or column, and a source's edge is not farther outside of its grid.
ROUNDED = 1e-3
# Of a pixel of the source along its side: GDAL's choice is finer where a projection stretches a part very much, and
# coarser along a side where that part is pressed together, as degrees of longitude are around a pole.
FINEST, COARSEST = 0.4, 2.5
# By how much a grid that has all of a source may be larger than GDAL's: beyond it, a projection has no end.
MOST_LARGER = 4

# Of a turn: what is between places that are looked up, all around the globe, is less.
GAP = 0.05
# Which part of a side of GDAL's grid may be empty at one end.
EMPTY = 0.1

# Along the longer side of a raster.
FEW = 4
FIRST_TO_4326 = "reproject it to EPSG:4326 first (target_crs), and submit that"
TOO_FEW = "GDAL finds none for that few pixels of its own: divide them first (gdal_translate -outsize 64 64)"


@dataclass(frozen=True)
class TargetGrid:
    """Pixels of a reprojected raster."""

    transform: Affine
    width: int
    height: int


def own_grid(dataset: Any, crs: Any) -> TargetGrid | None:
    """Around an open raster; None where the grid that GDAL would choose is right, or none can be made."""
    system, ground = around(crs), ground_of(dataset)
    if _is_beyond_its_seam(dataset) and counted_from_its_middle(dataset, crs) is None:
        return None
    if not system.turn or any(_is_inside(dataset, ground.pole(latitude)) for latitude in (90.0, -90.0)):
        return None
    columns, rows = np.meshgrid(np.linspace(0, dataset.width, POINTS), np.linspace(0, dataset.height, POINTS))
    x, y, lost = _placed(dataset, crs, system, ground, columns, rows)
    if is_whole := bool(np.isfinite(x).all() and np.isfinite(y).all()):
        x = np.unwrap(np.unwrap(x, axis=0, period=system.turn), axis=1, period=system.turn)
        every_x, every_y = x, y
    else:
        every_x, every_y, _ = _placed(dataset, crs, system, ground, *places_on_globe(dataset))
        if not (np.isfinite(every_x).all() and np.isfinite(every_y).all()):
            return None
        if (begin := _after_widest_gap(every_x, system.turn)) is None:
            return None
        off_globe = ~(ground.is_on_globe(columns, rows) & np.isfinite(x) & np.isfinite(y))
        x[off_globe] = y[off_globe] = np.nan
        x, every_x = (begin + (each - begin) % system.turn for each in (x, every_x))
    west, east = float(every_x.min()), float(every_x.max())
    shift = system.turn * math.ceil(((west + east) / 2 - system.middle) / system.turn - 0.5 - NEARLY)
    west, east = west - shift, east - shift
    is_world = east - west >= system.turn * (1 - NEARLY)
    reach = max(system.middle - west, east - system.middle)
    crosses = not is_world and reach > system.turn * (0.5 + NEARLY)
    if not (crosses or (lost and is_whole)) or east - west > system.turn * (1 + NEARLY):
        return None
    side = _pixel(dataset, x, y)
    return _grid(west, east, every_y, (side, side), is_world=is_world)


def _after_widest_gap(x: Any, turn: float) -> float | None:
    """The x at which places begin that are not all around the globe; None where they are."""
    ordered = np.sort(x % turn)
    gaps = np.diff(ordered, append=ordered[0] + turn)
    widest = int(gaps.argmax())
    return float(ordered[(widest + 1) % ordered.size]) if gaps[widest] > GAP * turn else None


@dataclass(frozen=True)
class LookedUp:
    """GDAL's own grid around a raster, and where the raster lies on it: from its first column and row, in pixels.

    `is_scaled`: with larger pixels than GDAL's, which would be many times as many as the raster's, or shorter ones.
    """

    transform: Affine
    width: int
    height: int
    left: float
    top: float
    right: float
    bottom: float
    is_scaled: bool = False


def looked_up(dataset: Any, crs: Any) -> LookedUp | None:
    """Where places all over an open raster, and along its edge, lie in the target; None where that is not known."""
    if _is_beyond_its_seam(dataset) and counted_from_its_middle(dataset, crs) is None:
        return None
    try:
        chosen = chosen_grid(dataset, crs)
    except (RasterioError, CPLE_BaseError):
        # The warp reports it.
        return None
    transform, width, height = chosen.transform, chosen.width, chosen.height
    if is_no_grid(transform):
        return None
    ground, system = ground_of(dataset), around(crs)
    at = places_on_globe(dataset)
    x, y = places(dataset.crs, crs, *ground.xy(*at))
    if not system.has_poles:
        lon, lat = ground.lon_lat(*at)
        beyond = np.abs(lat) > MERCATOR_ENDS
        ends = np.clip(lat[beyond], -MERCATOR_ENDS, MERCATOR_ENDS)
        x[beyond], y[beyond] = places(CRS.from_user_input("OGC:CRS84"), crs, lon[beyond], ends)
    # A pixel beyond the edge of a grid of the world is its edge, and not the other end.
    x = system.into(transform.c - transform.a, transform.c + transform.a * (width + 1), x)
    known = np.isfinite(x) & np.isfinite(y) & math.isfinite(sum(transform))
    if not (known.any() and width and height):
        return None
    columns, rows = ~transform @ (x[known], y[known])
    left, top, right, bottom = map(float, (columns.min(), rows.min(), columns.max(), rows.max()))
    across, down = _shares(dataset, crs, transform, (right - left) * (bottom - top))
    if is_scaled := (across, down) != (1, 1):
        transform @= Affine.scale(1 / across, 1 / down)
        width, height = math.ceil(width * across), math.ceil(height * down)
        left, right, top, bottom = left * across, right * across, top * down, bottom * down
    return LookedUp(transform, width, height, left, top, right, bottom, is_scaled)


def chosen_grid(dataset: Any, crs: Any) -> TargetGrid:
    """GDAL's own grid around an open raster, which follows from where that lies.

    Raises:
        RasterioError, CPLE_BaseError: GDAL finds none.
    """
    kept = _kept_choice(Grid.of(dataset), crs.wkt)
    if not kept:
        with WarpedVRT(dataset, crs=crs) as chosen:
            kept.append(TargetGrid(chosen.transform, chosen.width, chosen.height))
    return kept[0]


@lru_cache(maxsize=16)
def _kept_choice(_grid: Grid, _target: str) -> list[TargetGrid]:
    """Empty until there is one: GDAL is asked with the raster itself, which is not kept."""
    return []


def _shares(dataset: Any, crs: Any, transform: Any, pixels: float) -> tuple[float, float]:
    """By how much the two sides of a pixel of a grid are divided; `pixels` is how many of the grid a raster takes.

    A side that is much longer than the source's pixels is made as long as one of them, or as short as there may be
    more pixels.
    """
    found = sides(dataset, crs, transform)
    if found.mean < FINEST:
        return found.mean, found.mean
    across, down = (each if COARSEST < each < math.inf else 1.0 for each in (found.across, found.down))
    too_many = pixels * across * down / max(pixels, MOST_LARGER * dataset.width * dataset.height)
    if too_many > 1:
        each = too_many if min(across, down) == 1 else math.sqrt(too_many)
        across, down = max(across / each, 1.0), max(down / each, 1.0)
    return across, down


def is_no_grid(transform: Affine) -> bool:
    """Whether a grid of GDAL's has pixels without a size, as it chooses for worlds of one or two pixels."""
    return not math.isfinite(sum(transform)) or bool(transform.is_degenerate)


def whole_grid(dataset: Any, crs: Any) -> tuple[TargetGrid | None, bool]:
    """GDAL's grid with the rows and columns that it lacks, and whether it lacks more of the source than can be added.

    GDAL looks at the edge of a source, or at 21 by 21 places where a part of that is off the globe: it leaves out all
    beyond 64 degrees of latitude of a satellite's view of the whole disk. And it rounds the size of its grid, by which
    up to half a pixel of any source lies outside. Around a projection's antipode its pixels are far too small: it made
    100 million of a raster of 22,500. The grid is None where GDAL's own is right.
    """
    found = looked_up(dataset, crs)
    if found is None:
        return None, False
    transform, width, height, system = found.transform, found.width, found.height, around(crs)
    left, wider = _reaching(found.left, found.right, width)
    top, higher = _reaching(found.top, found.bottom, height)
    if wider * higher > MOST_LARGER * width * height:
        return None, True
    if system.turn and wider * transform.a > system.turn * (1 + NEARLY):
        # A column more would show the first one again: a turn is divided into whole columns.
        west, north = transform @ (found.left, found.top)
        east, south = transform @ (found.right, found.bottom)
        seam = system.middle - system.turn / 2
        if west >= seam - ROUNDED * transform.a and east <= seam + system.turn + ROUNDED * transform.a:
            west = seam
        return _grid(
            west, west + system.turn, np.array([south, north]), (transform.a, -transform.e), is_world=True
        ), False
    if (left, top, wider, higher) == (0, 0, width, height) and not found.is_scaled:
        return None, False
    return TargetGrid(transform @ Affine.translation(left, top), wider, higher), False


def _reaching(begin: float, end: float, size: int) -> tuple[float, int]:
    """Where a side begins and how many pixels it has from there; as GDAL's where that reaches from begin to end.

    GDAL's may have all longitudes for a raster that touches a pole: much that would be empty is left away.
    """
    least = EMPTY * size
    first = math.floor(begin - 1) if begin > least else min(begin, 0.0) if begin < -ROUNDED else 0.0
    last = math.ceil(end + 1) if end < size - least else max(size, end)
    return float(first), math.ceil(last - first - ROUNDED)


def _is_inside(dataset: Any, pole: tuple[float, float] | None) -> bool:
    return pole is not None and 0 <= pole[0] <= dataset.width and 0 <= pole[1] <= dataset.height


def _placed(dataset: Any, crs: Any, system: Around, ground: Ground, columns: Any, rows: Any) -> tuple[Any, Any, bool]:
    """Coordinates of pixel corners in the target, those beyond Mercator's end at it, and whether there are any."""
    if system.has_poles:
        x, y = places(dataset.crs, crs, *ground.xy(columns, rows))
        return x, y, False
    lon, lat = ground.lon_lat(columns, rows)
    inside = np.clip(lat, -MERCATOR_ENDS, MERCATOR_ENDS)
    x, y = places(CRS.from_user_input("OGC:CRS84"), crs, lon, inside)
    return x, y, bool((inside != lat).any())


def reaches_beyond(dataset: Any, crs: Any) -> bool:
    """Whether a part of a raster lies beyond the end of a target that has no poles."""
    if around(crs).has_poles:
        return False
    _, latitudes = ground_of(dataset).lon_lat(*places_on_globe(dataset))
    return bool(np.abs(latitudes).max(initial=0) > MERCATOR_ENDS)


def lost_rows(dataset: Any, crs: Any) -> int:
    """How many rows of a raster lie wholly beyond the end of a target that has no poles."""
    if around(crs).has_poles:
        return 0
    columns, rows = np.meshgrid(np.linspace(0, dataset.width, 9), np.arange(dataset.height) + 0.5)
    _, latitudes = ground_of(dataset).lon_lat(columns, rows)
    return int((np.abs(latitudes).min(axis=1) > MERCATOR_ENDS).sum())


def _pixel(dataset: Any, x: Any, y: Any) -> float:
    """A side so that in the middle of all places a pixel covers as much as one of the source."""
    steps = [[np.diff(each, axis=axis)[: POINTS - 1, : POINTS - 1] for each in (x, y)] for axis in (0, 1)]
    area = np.abs(steps[0][0] * steps[1][1] - steps[0][1] * steps[1][0])
    source = (dataset.width / (POINTS - 1)) * (dataset.height / (POINTS - 1))
    return math.sqrt(float(np.median(area[area > 0])) / source)


def _grid(west: float, east: float, y: Any, sides_of_pixel: tuple[float, float], *, is_world: bool) -> TargetGrid:
    south, north = float(y.min()), float(y.max())
    pixel, high = sides_of_pixel
    if is_world:
        # A column more would show the first one again.
        width = max(1, round((east - west) / pixel))
        high *= (east - west) / width / pixel
        pixel = (east - west) / width
    else:
        width = max(1, math.ceil((east - west) / pixel - ROUNDED))
    height = max(1, math.ceil((north - south) / high - ROUNDED))
    return TargetGrid(Affine(pixel, 0, west, 0, -high, north), width, height)


def counted_from_its_middle(dataset: Any, target: Any) -> tuple[CRS, Affine] | None:
    """Coordinate system and grid of a raster in degrees beyond 180 as GDAL's warp can find its pixels.

    The warp takes a target's place back to -180 to 180 degrees, where such a raster would have no pixels. One that
    lies wholly beyond the seam is moved by a turn; one across it gets its own middle as the prime meridian. None for
    any other raster, and for one across the seam whose datum is not the target's: ways between those have names of
    their own.
    """
    if (moved := _moved_by_a_turn(dataset)) is not None:
        return dataset.crs, moved
    is_so = dataset.crs.is_geographic and _is_beyond_its_seam(dataset)
    if not is_so or not same_datum(dataset.crs, target):
        return None
    crs = pyproj.CRS.from_wkt(dataset.crs.to_wkt()).to_json_dict()
    datum = crs.pop("datum", None) or crs.pop("datum_ensemble", None)
    if datum is None or abs(around(dataset.crs).turn - 2 * HALF_TURN) > NEARLY:
        return None
    crs.pop("id", None)
    old = datum.get("prime_meridian", {}).get("longitude", 0.0)
    if not isinstance(old, int | float):
        return None
    middle = (dataset.bounds.left + dataset.bounds.right) / 2
    meridian = {"name": "the middle of the raster", "longitude": old + middle}
    names = {name: datum[name] for name in ("name", "ellipsoid")}
    crs["datum"] = {"type": "GeodeticReferenceFrame", **names, "prime_meridian": meridian}
    shifted = CRS.from_wkt(pyproj.CRS.from_json_dict(crs).to_wkt())
    return shifted, Affine.translation(-middle, 0) @ dataset.transform


def _moved_by_a_turn(dataset: Any) -> Affine | None:
    """The grid of a raster in degrees beyond 180 where whole turns bring all of it to -180 to 180; else None."""
    if not (dataset.crs.is_geographic and _is_beyond_its_seam(dataset)):
        return None
    turn = around(dataset.crs).turn
    west, east = sorted(dataset.bounds[0::2])
    shift = turn * round((west + east) / 2 / turn)
    reach = max(shift - west, east - shift)
    return Affine.translation(-shift, 0) @ dataset.transform if reach <= turn * (0.5 + NEARLY) else None


def is_across_its_seam(dataset: Any, target: Any) -> bool:
    """Whether GDAL's warp would find only a part of a raster in degrees beyond 180 on a grid that it is given."""
    is_beyond = dataset.crs.is_geographic and _is_beyond_its_seam(dataset)
    return bool(is_beyond and counted_from_its_middle(dataset, target) is None)


def _is_beyond_its_seam(dataset: Any) -> bool:
    west, east = sorted(dataset.bounds[0::2])
    system = around(dataset.crs)
    reach = max(system.middle - west, east - system.middle)
    return bool(system.turn and reach > system.turn * (0.5 + NEARLY))
