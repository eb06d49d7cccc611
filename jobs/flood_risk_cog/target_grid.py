"""A grid of our own for a reprojection: GDAL's would span the whole globe, or reach to where Mercator has no end.

Longitudes go on beyond the seam of the target's coordinate system, at 181 degrees for example.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from jobs.flood_risk_cog.footprint import places_on_globe
from jobs.flood_risk_cog.ground import Around, Ground, around, coarseness, ground_of, places, same_datum

# Mercator has no poles: maps in it end there.
MERCATOR_ENDS = 85.06
# Corners of the source's pixels along a side at which its place is looked up: steps must be shorter than half a turn.
POINTS = 65
HALF_TURN = 180.0
# Of a turn: rounding.
NEARLY = 1e-9
# Of a pixel: a rounded digit adds no row or column, and a source's edge is not farther outside of its grid.
ROUNDED = 1e-3
# Of a pixel of the source along its side: GDAL's choice is finer where a projection stretches a part very much.
FINEST = 0.4
# By how much a grid that has all of a source may be larger than GDAL's: beyond it, a projection has no end.
MOST_LARGER = 4

# Along the longer side of a raster.
FEW = 4
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
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    x = np.unwrap(np.unwrap(x, axis=0, period=system.turn), axis=1, period=system.turn)
    west, east = float(x.min()), float(x.max())
    shift = system.turn * math.ceil(((west + east) / 2 - system.middle) / system.turn - 0.5 - NEARLY)
    west, east = west - shift, east - shift
    is_world = east - west >= system.turn * (1 - NEARLY)
    reach = max(system.middle - west, east - system.middle)
    crosses = not is_world and reach > system.turn * (0.5 + NEARLY)
    if not (crosses or lost) or east - west > system.turn * (1 + NEARLY):
        return None
    return _grid(west, east, y, _pixel(dataset, x, y), is_world=is_world)


@dataclass(frozen=True)
class LookedUp:
    """GDAL's own grid around a raster, and where the raster lies on it: from its first column and row, in pixels.

    `is_scaled`: with larger pixels than GDAL's, which would be many times as many as the raster's.
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
        with WarpedVRT(dataset, crs=crs) as chosen:
            transform, width, height = chosen.transform, chosen.width, chosen.height
    except (RasterioError, CPLE_BaseError):
        # The warp reports it.
        return None
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
    if is_scaled := (share := coarseness(dataset, crs, transform)) < FINEST:
        transform @= Affine.scale(1 / share)
        width, height = math.ceil(width * share), math.ceil(height * share)
    columns, rows = ~transform @ (x[known], y[known])
    left, top, right, bottom = map(float, (columns.min(), rows.min(), columns.max(), rows.max()))
    return LookedUp(transform, width, height, left, top, right, bottom, is_scaled)


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
        return _grid(west, west + system.turn, np.array([south, north]), transform.a, is_world=True), False
    if (left, top, wider, higher) == (0, 0, width, height) and not found.is_scaled:
        return None, False
    return TargetGrid(transform @ Affine.translation(left, top), wider, higher), False


def _reaching(begin: float, end: float, size: int) -> tuple[float, int]:
    """Where a side begins and how many pixels it has from there; as GDAL's where that reaches from begin to end."""
    if begin >= -ROUNDED:
        return 0.0, max(size, math.ceil(end - ROUNDED))
    return begin, math.ceil(end - begin - ROUNDED)


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


def _grid(west: float, east: float, y: Any, pixel: float, *, is_world: bool) -> TargetGrid:
    south, north = float(y.min()), float(y.max())
    if is_world:
        # A column more would show the first one again.
        width = max(1, round((east - west) / pixel))
        pixel = (east - west) / width
    else:
        width = max(1, math.ceil((east - west) / pixel - ROUNDED))
    height = max(1, math.ceil((north - south) / pixel - ROUNDED))
    return TargetGrid(Affine(pixel, 0, west, 0, -pixel, north), width, height)


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
