"""Depth and area of a flood, read from its raster block by block."""

import math
import re
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from jobs.flood_risk_cog.source import open_raster, read_windows

SEMI_MAJOR = 6378137.0
FLATTENING = 1 / 298.257223563
WEB_MERCATOR = 3857
RETURN_PERIOD_TAG = "RETURN_PERIOD"
# The surest spelling first: a lone "T" is the weakest sign.
RETURN_PERIODS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?<![a-z0-9])rp[_-]?(\d{1,6})(?!\d)",
        r"(?<!\d)1[_-]?in[_-]?(\d{1,6})(?!\d)",
        r"(?<!\d)(\d{1,6})[_-]?(?:yr|year)s?(?![a-z])",
        r"(?<![a-z0-9])t(\d{1,6})(?!\d)",
    )
)


def return_period(name: str, tags: dict[str, str]) -> int | None:
    """Years between floods, from the tag RETURN_PERIOD or the file's name (rp100, 100yr, 1in100, T100)."""
    tagged = tags.get(RETURN_PERIOD_TAG, "")
    if found := re.search(r"^\s*(?:1\s*in\s*)?(\d{1,6})(?:\.0*)?\s*(?:$|y)", tagged, re.IGNORECASE):
        return int(found[1]) or None
    stem = PurePosixPath(name).stem
    for text in (tagged, stem):
        for pattern in RETURN_PERIODS:
            if found := pattern.search(text):
                return int(found[1]) or None
    return None


def flood_statistics(path: str) -> dict[str, Any]:
    """Depths (in the raster's unit, mean per pixel) and area of the pixels of band 1 that are under water."""
    valid = flooded = 0
    total = area = 0.0
    shallowest, deepest = math.inf, -math.inf
    with open_raster(path) as dataset:
        row_areas = pixel_areas(dataset)
        for window in read_windows(dataset):
            band = dataset.read(1, window=window, masked=True)
            usable = ~np.ma.getmaskarray(band) & np.isfinite(band.data)
            wet = usable & (band.data > 0)
            valid += int(usable.sum())
            wet_per_row = wet.sum(axis=1)
            if not (count := int(wet_per_row.sum())):
                continue
            depths = band.data[wet].astype("float64")
            flooded += count
            total += float(depths.sum())
            shallowest, deepest = min(shallowest, float(depths.min())), max(deepest, float(depths.max()))
            rows = slice(window.row_off, window.row_off + window.height)
            area += float((wet_per_row * row_areas[rows]).sum())
        period = return_period(path, dataset.tags())
    return {
        "valid_pixels": valid,
        "flooded_pixels": flooded,
        "min_depth": shallowest if flooded else None,
        "mean_depth": total / flooded if flooded else None,
        "max_depth": deepest if flooded else None,
        "flooded_area_km2": area / 1e6,
        "return_period": period,
    }


def pixel_areas(dataset: Any) -> Any:
    """Square metres of one pixel in each row.

    In degrees the area shrinks towards the poles: each row is a zone of the WGS 84 ellipsoid, in closed form
    (the authalic latitude's integral), so it is exact for any pixel size. Web Mercator stretches areas too much to
    be measured on its grid (fourfold at 60 degrees), so its rows are taken back to degrees. Other projections are
    taken at their word: pixel size and linear unit.
    """
    transform = dataset.transform
    if dataset.crs is None:
        raise ValueError(f"expected {dataset.name} to have a coordinate system, found none; assign one to measure area")
    edges = transform.f + transform.e * np.arange(dataset.height + 1)
    if dataset.crs.is_geographic:
        return zone_areas(edges, abs(transform.a))
    if dataset.crs.to_epsg() == WEB_MERCATOR:
        latitudes = np.degrees(np.arctan(np.sinh(edges / SEMI_MAJOR)))
        return zone_areas(latitudes, math.degrees(abs(transform.a) / SEMI_MAJOR))
    metres = float(dataset.crs.linear_units_factor[1])
    return np.full(dataset.height, abs(transform.a * transform.e) * metres**2)


def zone_areas(latitudes: Any, width: float) -> Any:
    """Square metres of the cells between neighbouring latitudes, `width` degrees wide, on WGS 84."""
    eccentricity = math.sqrt(FLATTENING * (2 - FLATTENING))
    sine = np.sin(np.radians(np.clip(latitudes, -90, 90)))
    zone = sine / (1 - (eccentricity * sine) ** 2) + np.arctanh(eccentricity * sine) / eccentricity
    semi_minor = SEMI_MAJOR * (1 - FLATTENING)
    return np.abs(np.diff(zone)) * semi_minor**2 / 2 * math.radians(width)
