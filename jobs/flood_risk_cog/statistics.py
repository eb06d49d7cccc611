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
# The surest spelling first: a lone "T" is the weakest sign.
RETURN_PERIODS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?<![a-z0-9])rp[_-]?(\d{1,6})(?!\d)",
        r"(?<!\d)1[_-]?in[_-]?(\d{1,6})(?!\d)",
        # "2050_year" is a calendar's.
        r"(?<!\d)(?!(?:19\d\d|20\d\d|2100)(?!\d))(\d{1,6})[_-]?(?:yr|year)s?(?![a-z])",
        # "T32TQM" is a satellite's tile.
        r"(?<![a-z0-9])t(\d{1,6})(?![a-z0-9])",
    )
)


def return_period(name: str, tags: dict[str, str]) -> int | None:
    """Years between floods, from the tag RETURN_PERIOD or the file's name (rp100, 100yr, 1in100, T100).

    None where the tag has a part of a year: it is none of the name's, either.
    """
    tagged = tags.get(RETURN_PERIOD_TAG, "")
    with suppress(ValueError):
        if (years := float(tagged)) >= 1:
            return int(years) if years.is_integer() else None
    if found := re.search(r"^\s*(?:1\s*in\s*)?(\d{1,6})(?:\.0*)?\s*(?:$|y)", tagged, re.IGNORECASE):
        return int(found[1]) or None
    stem = PurePosixPath(name).stem
    for text in (tagged, stem):
        for pattern in RETURN_PERIODS:
            if found := pattern.search(text):
                return int(found[1]) or None
    return None


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
