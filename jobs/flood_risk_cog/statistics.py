"""Depth and area of a flood."""

import math
import re
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from jobs.flood_risk_cog.area import pixel_areas
from jobs.flood_risk_cog.units import metres_of

RETURN_PERIOD_TAG = "RETURN_PERIOD"
# Neither the begin nor the end of a number with a fraction: 2.5yr, 2p5yr, rp2.5.
_BEGIN, _END = r"(?<!\d)(?<!\d[.,p])", r"(?!\d|[.,]\d)"
_ALONE = r"(?<![a-z0-9])"
# "2050_year" is a calendar's.
_NO_CALENDAR = r"(?!(?:19\d\d|20\d\d|2100)(?!\d))"
# "10y20" and "x10y" are places of tiles, and so is "10y" beside a column.
_BY_Y = rf"{_BEGIN}(?<![a-z]){_NO_CALENDAR}(\d{{1,6}})y(?![a-z0-9])"
_COLUMN = re.compile(r"(?<![a-z0-9])x[_-]?\d|\dx(?![a-z0-9])", re.IGNORECASE)
# The surest spelling first: a lone "T" is the weakest sign.
RETURN_PERIODS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_ALONE}(?:rp|return[ _-]?period)[ _-]?(\d{{1,6}}){_END}",
        rf"{_BEGIN}1[ _-]?in[ _-]?(\d{{1,6}}){_END}",
        rf"{_BEGIN}{_NO_CALENDAR}(\d{{1,6}})[ _-]?(?:yr|year)s?(?![a-z])",
        # Germany's, Austria's and Switzerland's.
        rf"{_ALONE}hq[ _-]?(\d{{1,6}}){_END}",
        _BY_Y,
        # Less may be a quarter of a year (Q3) or a share of values (Q95).
        rf"{_ALONE}q[_-]?{_NO_CALENDAR}([1-9]\d{{2,5}})(?![a-z]){_END}",
        # "T32TQM" is a satellite's tile, "t012" a step in time.
        rf"{_ALONE}t{_NO_CALENDAR}([1-9]\d{{0,5}})(?![a-z]){_END}",
    )
)
_TAGGED = re.compile(r"(?:1[ _-]?in[ _-]?)?(\d{1,6}(?:[.,]\d+)?)\s*(?:$|[_-]?y)", re.IGNORECASE)


def return_period(name: str, tags: dict[str, str]) -> int | None:
    """Years between floods, from the tag RETURN_PERIOD or the file's name, such as rp100, 1in100, 100yr, HQ100, 100y.

    None where the tag has a part of a year, which is none of the name's either, and where the surest spelling in a text
    names several periods.
    """
    tagged = tags.get(RETURN_PERIOD_TAG, "").strip()
    found = _TAGGED.match(tagged)
    if found and "," in found[1]:
        # A fraction for some, thousands for others.
        return None
    with suppress(ValueError):
        if (years := float(found[1] if found else tagged)) >= 1:
            return int(years) if years.is_integer() else None
    for text in (tagged, PurePosixPath(name).stem):
        if periods := _surest_periods(text):
            return (periods.pop() or None) if len(periods) == 1 else None
    return None


def _surest_periods(text: str) -> set[int]:
    for pattern in RETURN_PERIODS:
        if pattern.pattern == _BY_Y and _COLUMN.search(text):
            continue
        if found := pattern.findall(text):
            return {int(each) for each in found}
    return set()


class FloodMeter:
    """Depths and area of the pixels of band 1 that are under water, told window by window.

    Depths are in metres where the raster says a unit of length, else in the raster's own (`unit` says which); scale and
    offset are applied. A pixel is under water where its depth is over zero.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self._areas = pixel_areas(dataset)
        self._scale, self._offset = dataset.scales[0], dataset.offsets[0]
        unit = dataset.units[0] or None
        metres = metres_of(unit)
        self._unit = "m" if metres is not None else unit
        if metres is not None:
            self._scale, self._offset = self._scale * metres, self._offset * metres
        self._period = return_period(name, dataset.tags())
        self._valid = self._flooded = 0
        self._total = self._area = 0.0
        self._low, self._high = math.inf, -math.inf

    def see(self, window: Any, values: Any, valid: Any) -> None:
        """Take in a window of band 1."""
        with np.errstate(over="ignore"):
            self._see(window, values, valid)

    def _see(self, window: Any, values: Any, valid: Any) -> None:
        usable = valid & np.isfinite(values) if values.dtype.kind == "f" else valid
        self._valid += int(np.count_nonzero(usable))
        is_plain = self._scale == 1 and self._offset == 0
        depths = values if is_plain else values.astype("float64") * self._scale + self._offset
        wet = usable & (depths > 0)
        if not (count := int(np.count_nonzero(wet))):
            return
        under = depths[wet]
        self._flooded += count
        self._total += float(under.sum(dtype="float64"))
        self._low, self._high = min(self._low, float(under.min())), max(self._high, float(under.max()))
        self._area += self._areas.total(wet, window.row_off, window.col_off)

    def result(self) -> dict[str, Any]:
        flooded = self._flooded
        return {
            "valid_pixels": self._valid,
            "flooded_pixels": flooded,
            "min_depth": _known(self._low),
            "mean_depth": _known(self._total / flooded) if flooded else None,
            "max_depth": _known(self._high),
            "unit": self._unit,
            "flooded_area_km2": self._area / 1e6,
            "area_method": self._areas.method,
            "return_period": self._period,
        }


def _known(value: float) -> float | None:
    """None for what no number holds: the sum of depths, or a depth times its scale, may be beyond all."""
    return value if math.isfinite(value) else None
