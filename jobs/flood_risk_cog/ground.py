"""Which points of a raster's grid lie on the globe, and at which longitude and latitude."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj

# Projections are inverted to about a millimetre; this much of a coordinate is allowed beside a pixel.
ROUNDING = 1e-7
# Longitudes and latitudes at which a cylindrical projection is known.
_PROBED_LONGITUDES, _PROBED_LATITUDES = np.arange(-180.0, 180.0, 30.0), (0.0, 30.0, 60.0)
_TURN, _POLE = 360.0, 90.0


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
    """Of an open raster with a coordinate system, north up."""
    crs = pyproj.CRS.from_wkt(dataset.crs.to_wkt())
    own = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    world = pyproj.Transformer.from_crs(crs, pyproj.CRS.from_user_input("OGC:CRS84"), always_xy=True)
    is_geographic = bool(dataset.crs.is_geographic)
    return Ground(dataset.transform, is_geographic, own, world, 0.0 if is_geographic else _turn_of(world))


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
