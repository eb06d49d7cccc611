"""Are a COG's overviews there, and made of its own pixels?

The full size is read once to be compared with its source; its overviews are compared with the same pixels while they
are in memory. Lowest and highest value of 2 x 2 pixels, and of 2 x 2 of these, bound the pixels of level after level.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from jobs.flood_risk_cog.neighbours import (
    Span,
    bands_to_look_at,
    block_span,
    disagreements,
    first_disagreement,
    read_known,
    sample_windows,
)
from jobs.flood_risk_cog.source import open_raster

# Of larger rasters every second, third, ... window is compared, evenly over the whole.
MOST_PIXELS = 64 << 20
# Of higher levels a window has too few pixels: samples of them are compared.
MOST_FACTOR = 64
SIDE = 128
# Pixels of the full size along a sample.
MOST_BELOW = 1024
# How far a method looks beyond a pixel's own square, in pixels of the overview.
_REACH = {"bilinear": 1, "cubic": 2, "cubic_spline": 2, "lanczos": 3, "gauss": 2}


@contextmanager
def overview_check(cog: str, base: Any, tile_size: int, method: str) -> Iterator["OverviewCheck"]:
    """A check whose `see` takes in the windows of an open COG; `cog` is its path."""
    with ExitStack() as stack:
        count = len(base.overviews(1))
        overviews = [
            stack.enter_context(open_raster(cog, sidecars=False, overview_level=level)) for level in range(count)
        ]
        yield OverviewCheck(base, overviews, tile_size, method)


class OverviewCheck:
    """Compares each pixel of overviews with those of the full size that it was made of."""

    def __init__(self, base: Any, overviews: list[Any], tile_size: int, method: str) -> None:
        self._base, self.overviews, self._tile_size, self._method = base, overviews, tile_size, method
        self._numbers = bands_to_look_at(base)
        self._step = max(1, math.ceil(base.width * base.height * len(self._numbers) / MOST_PIXELS))
        self._place: tuple[int, int] | None = None
        self._count = -1
        self._in_samples = set(range(len(overviews)))
        self._problem: str | None = None

    def see(self, window: Window, numbers: list[int], values: Any, valid: Any) -> None:
        """Take in some bands (bands, rows, columns) of a window of the full size."""
        if (window.row_off, window.col_off) != self._place:
            self._place = (window.row_off, window.col_off)
            self._count += 1
        wanted = [index for index, number in enumerate(numbers) if number in self._numbers]
        if self._problem or not wanted or self._count % self._step:
            return
        if len(wanted) < len(numbers):
            values, valid = values[wanted], valid[wanted]
        pyramid = Pyramid.of(values, valid)
        for level, overview in enumerate(self.overviews):
            factor = 2 << level
            if factor > MOST_FACTOR or not _fits(self._base, overview, window, factor):
                break
            pyramid = pyramid.halved()
            if not self._has_open_edges(factor):
                self._in_samples.discard(level)
            self._compare(level, overview, window, [numbers[index] for index in wanted], pyramid)

    def problems(self) -> list[str]:
        """After all windows: what is wrong, in words."""
        smallest = [self._base, *self.overviews][-1]
        for level in sorted(self._in_samples):
            self._compare_samples(level)
        if self._problem:
            return [self._problem]
        if max(smallest.width, smallest.height) > self._tile_size:
            size = f"{smallest.width} x {smallest.height}"
            return [f"expected overviews down to one tile of {self._tile_size}, found {size} as the smallest"]
        return []

    def _has_open_edges(self, factor: int) -> bool:
        """Whether pixels at a window's edge are made of others beyond it: samples are compared as well then."""
        sizes = self._base.height, self._base.width
        return any(
            reach.before or reach.after
            for reach in (_reach_of_axis(size, 0, size, factor, self._method) for size in sizes)
        )

    def _compare(self, level: int, overview: Any, window: Window, numbers: list[int], pyramid: "Pyramid") -> None:
        factor, (_, rows, columns) = 2 << level, pyramid.low.shape
        there = Window(window.col_off // factor, window.row_off // factor, columns, rows)
        span = pyramid.span(
            _reach_of_axis(self._base.height, window.row_off, window.height, factor, self._method),
            _reach_of_axis(self._base.width, window.col_off, window.width, factor, self._method),
        )
        found, valid = self._read(overview, numbers, there)
        self._judge(level, there, found, valid, span)

    def _compare_samples(self, level: int) -> None:
        base, overview = self._base, self.overviews[level]
        factor = math.ceil(max(base.width / overview.width, base.height / overview.height))
        side, most = max(1, min(SIDE, MOST_BELOW // factor)), max(1, 16 >> level)
        for window in sample_windows(overview.width, overview.height, side, most):
            reach = _REACH.get(self._method, 0)
            rows = _below(window.row_off, window.height, base.height / overview.height, base.height, reach)
            columns = _below(window.col_off, window.width, base.width / overview.width, base.width, reach)
            top, left = rows[0].min(), columns[0].min()
            below = Window(left, top, columns[1].max() - left, rows[1].max() - top)
            values, valid = read_known(base, self._numbers, below)
            span = block_span(values, valid, [each - top for each in rows], [each - left for each in columns])
            self._judge(level, window, *self._read(overview, self._numbers, window), span)

    def _read(self, overview: Any, numbers: list[int], window: Window) -> tuple[Any, Any]:
        found, valid = read_known(overview, numbers, window)
        if overview.nodata is None and self._base.nodata is not None and not has_mask(self._base):
            # Of 64-bit numbers, GDAL does not tell it of an overview.
            valid = valid & (found != self._base.nodata)
        return found, valid

    def _judge(self, level: int, window: Window, found: Any, valid: Any, span: Span) -> None:
        if self._problem or not (wrong := disagreements(found, valid, span, self._method)):
            return
        row, column = first_disagreement(found, valid, span, self._method)
        place = f"overview {level + 1} at column {window.col_off + column}, row {window.row_off + row}"
        self._problem = f"{place}: found {', '.join(wrong)}"


def _fits(base: Any, overview: Any, window: Window, factor: int) -> bool:
    """Whether this level's pixels are squares of the factor, and the window consists of whole ones."""
    is_half = (overview.width, overview.height) == (math.ceil(base.width / factor), math.ceil(base.height / factor))
    ends = (window.row_off + window.height, base.height), (window.col_off + window.width, base.width)
    is_whole = all(end == size or end % factor == 0 for end, size in ends)
    return is_half and is_whole and window.row_off % factor == 0 and window.col_off % factor == 0


@dataclass(frozen=True)
class Reach:
    """How many squares before and after its own one a pixel may be made of, and whether there are any beyond."""

    before: int
    after: int
    begins: bool
    ends: bool


def _reach_of_axis(size: int, offset: int, length: int, factor: int, method: str) -> Reach:
    reach = _REACH.get(method, 0)
    # Where a size was rounded up, pixels are a bit narrower than their squares: they begin before them.
    before = reach + (size % factor != 0)
    return Reach(before, reach, begins=offset == 0, ends=offset + length >= size)


@dataclass(frozen=True)
class Pyramid:
    """Of squares of pixels (bands, rows, columns): the lowest and highest valid value, if any and if all is valid."""

    low: Any
    high: Any
    any_valid: Any
    all_valid: Any

    @classmethod
    def of(cls, values: Any, valid: Any) -> "Pyramid":
        if values.dtype.kind == "f":
            valid = valid & np.isfinite(values)
        elif values.dtype.itemsize > 4:  # noqa: PLR2004 - GDAL makes overviews of them in double precision
            values = values.astype("float64")
        if valid.all():
            return cls(values, values, valid, valid)
        least, most = _limits(values.dtype)
        return cls(np.where(valid, values, most), np.where(valid, values, least), valid, valid)

    def halved(self) -> "Pyramid":
        return Pyramid(
            _halved(np.minimum, self.low),
            _halved(np.maximum, self.high),
            _halved(np.logical_or, self.any_valid),
            _halved(np.logical_and, self.all_valid),
        )

    def span(self, rows: Reach, columns: Reach) -> Span:
        """Of the squares around each; beyond the window anything may be, beyond the raster nothing is."""
        least, most = _limits(self.low.dtype)
        low, high, any_valid, all_valid = self.low, self.high, self.any_valid, self.all_valid
        for axis, reach in ((1, rows), (2, columns)):
            if reach.before or reach.after:
                low = _spread(np.minimum, low, axis, reach, most, least)
                high = _spread(np.maximum, high, axis, reach, least, most)
                any_valid = _spread(np.logical_or, any_valid, axis, reach, nothing=False, anything=True)
                all_valid = _spread(np.logical_and, all_valid, axis, reach, nothing=True, anything=False)
        return Span(low, high, any_valid, all_valid)


def _limits(dtype: Any) -> tuple[Any, Any]:
    if dtype.kind == "f":
        return dtype.type(-np.inf), dtype.type(np.inf)
    return dtype.type(np.iinfo(dtype).min), dtype.type(np.iinfo(dtype).max)


def _halved(function: Callable[..., Any], values: Any) -> Any:
    for axis in (1, 2):
        one, two = ((slice(None),) * axis + (slice(first, None, 2),) for first in (0, 1))
        even, odd = values[one], values[two]
        if even.shape == odd.shape:
            values = function(even, odd)
            continue
        # The last one of an odd number stays alone.
        values = even.copy()
        paired = values[(slice(None),) * axis + (slice(odd.shape[axis]),)]
        function(paired, odd, out=paired)
    return values


def _spread(function: Callable[..., Any], values: Any, axis: int, reach: Reach, nothing: Any, anything: Any) -> Any:
    margin = [(0, 0)] * 3
    margin[axis] = (reach.before, reach.after)
    ends = [(nothing, nothing)] * 3
    ends[axis] = (nothing if reach.begins else anything, nothing if reach.ends else anything)
    padded = np.pad(values, margin, constant_values=ends)
    size = values.shape[axis]
    result = values.copy()
    for first in range(reach.before + reach.after + 1):
        function(result, padded[(slice(None),) * axis + (slice(first, first + size),)], out=result)
    return result


def has_mask(dataset: Any) -> bool:
    return MaskFlags.per_dataset in dataset.mask_flag_enums[0]


def _below(offset: int, count: int, factor: float, size: int, reach: int) -> tuple[Any, Any]:
    """Begin and end, along one axis of the full size, of what each pixel was made of.

    Levels are made one of the other, and sizes are rounded: each level adds a pixel of the one before.
    """
    places = np.arange(offset, offset + count)
    rounding = max(1, math.ceil(factor) - 1)
    begin = np.floor((places - reach) * factor).astype(int) - rounding
    end = np.ceil((places + 1 + reach) * factor).astype(int) + rounding
    return begin.clip(0, size - 1), end.clip(1, size)
