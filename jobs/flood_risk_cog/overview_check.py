"""Are a COG's overviews there, and made of its own pixels?

The full size is read once to be compared with its source; its overviews are compared with the same pixels while they
are in memory. Lowest and highest value of 2 x 2 pixels, and of 2 x 2 of these, bound the pixels of level after level.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from jobs.flood_risk_cog.facts import CELL
from jobs.flood_risk_cog.neighbours import (
    MOST_BANDS,
    Span,
    alpha_of,
    block_span,
    disagreements,
    first_disagreement,
    read_known,
    sample_windows,
)
from jobs.flood_risk_cog.nodata import exact_nodata
from jobs.flood_risk_cog.source import open_raster

# Of all bands; of larger rasters every second, third, ... window is compared, evenly over the whole.
MOST_PIXELS = 64 << 20
# Of higher levels a window has too few pixels: samples of them are compared.
MOST_FACTOR = 64
SIDE = 128
# Pixels of the full size along a sample.
MOST_BELOW = 1024
# How far a method looks from the middle of a pixel, in pixels of the overview.
_RADIUS = {"bilinear": 1.0, "cubic": 2.0, "cubic_spline": 2.0, "lanczos": 3.0, "gauss": 2.0}
# Samples of the first overview; fewer of many bands, whose tiles take long to decode.
MOST_SAMPLES, FEW_SAMPLES = 16, 4
# Windows of large rasters that are compared at least.
LEAST_WINDOWS = 4


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
        self._alpha = alpha_of(base)
        self._hidden = None if has_mask(base) else exact_nodata(base, is_alone=True)
        self._numbers = [number for number in base.indexes if number != self._alpha]
        self._step = _step(base.width, base.height, len(self._numbers))
        self._count = -1
        # Of the window that is seen: squares of 2 x 2 pixels of some of its bands.
        self._seen: list[tuple[list[int], Pyramid]] = []
        # Levels that were compared, and those of which some pixels have bounds in samples alone.
        self._compared: set[int] = set()
        self._open: set[int] = set()
        self._margins: dict[tuple[int, int], Margins] = defaultdict(Margins)
        self._problem: str | None = None

    def see(self, window: Window, numbers: list[int], values: Any, valid: Any) -> None:
        """Take in some bands (bands, rows, columns) of a window of the full size; bands come in their order."""
        if numbers[0] == 1:
            self._count += 1
        if self._problem or self._count % self._step or not self._fits(0, window):
            return
        if self._alpha in numbers:
            wanted = [index for index, number in enumerate(numbers) if number != self._alpha]
            numbers, values, valid = [numbers[index] for index in wanted], values[wanted], valid[wanted]
        if numbers:
            self._seen.append((numbers, Pyramid.of(values, valid).halved()))
        if numbers[-1:] == self._numbers[-1:]:
            # After its last band: tiles of overviews are in GDAL's cache longer than those of the window then.
            seen, self._seen = self._seen, []
            for each in seen:
                self._see(window, *each)

    def _see(self, window: Window, numbers: list[int], pyramid: "Pyramid") -> None:
        for level in range(len(self.overviews)):
            if not self._fits(level, window):
                break
            if level:
                pyramid = pyramid.halved()
            self._compare(level, self.overviews[level], window, numbers, pyramid)

    def _fits(self, level: int, window: Window) -> bool:
        """Whether the window is made of squares of pixels of this level."""
        if level >= len(self.overviews) or (factor := 2 << level) > MOST_FACTOR:
            return False
        return _fits(self._base, self.overviews[level], window, factor)

    def problems(self) -> list[str]:
        """After all windows: what is wrong, in words."""
        smallest = [self._base, *self.overviews][-1]
        for level in range(len(self.overviews)):
            if level in self._open or level not in self._compared:
                most = MOST_SAMPLES if len(self._numbers) <= MOST_BANDS else FEW_SAMPLES
                self._compare_samples(level, self._numbers, max(1, most >> level))
            if self._alpha is not None:
                self._compare_samples(level, [self._alpha], max(1, FEW_SAMPLES >> level))
        if self._problem:
            return [self._problem]
        if max(smallest.width, smallest.height) > self._tile_size:
            size = f"{smallest.width} x {smallest.height}"
            return [f"expected overviews down to one tile of {self._tile_size}, found {size} as the smallest"]
        return []

    def _compare(self, level: int, overview: Any, window: Window, numbers: list[int], pyramid: "Pyramid") -> None:
        down, across = (_reach_of_axis(*axis, level, self._method) for axis in _axes(self._base, overview, window))
        above = left = 0
        if down.is_one_sided or across.is_one_sided:
            pyramid, above, left = self._margins[level, numbers[0]].around(window, pyramid)
        self._compared.add(level)
        if down.is_open(above) or across.is_open(left):
            self._open.add(level)
        _, height, width = pyramid.low.shape
        rows, columns = down.judged(height, above), across.judged(width, left)
        if not (rows and columns):
            return
        there = Window(across.first + columns[0] - left, down.first + rows[0] - above, len(columns), len(rows))
        found, valid = self._read(overview, numbers, there)
        self._judge(level, there, found, valid, pyramid.span(down, across, rows, columns))

    def _compare_samples(self, level: int, numbers: list[int], most: int) -> None:
        base, overview = self._base, self.overviews[level]
        factor = math.ceil(max(base.width / overview.width, base.height / overview.height))
        side, reach = max(1, min(SIDE, MOST_BELOW // factor)), _reach_of(self._method, level)
        for window in sample_windows(overview.width, overview.height, side, most):
            rows = _below(window.row_off, window.height, base.height / overview.height, base.height, reach)
            columns = _below(window.col_off, window.width, base.width / overview.width, base.width, reach)
            top, left = rows[0].min(), columns[0].min()
            below = Window(left, top, columns[1].max() - left, rows[1].max() - top)
            parts = [each - top for each in rows], [each - left for each in columns]
            # A few bands at a time, for the memory.
            for first in range(0, len(numbers), MOST_BANDS):
                some = numbers[first : first + MOST_BANDS]
                span = block_span(*self._read(base, some, below), *parts)
                self._judge(level, window, *self._read(overview, some, window), span)

    def _read(self, overview: Any, numbers: list[int], window: Window) -> tuple[Any, Any]:
        found, valid = read_known(overview, numbers, window)
        if numbers == [alpha_of(self._base)]:
            # It has a value everywhere, whatever is nodata of the others.
            return found, np.ones(found.shape, bool)
        if self._hidden is not None and overview.nodata is None:
            # Of 64-bit numbers, GDAL does not tell it of an overview, nor rasterio what no double holds.
            valid = valid & (found != found.dtype.type(self._hidden))
        return found, valid

    def _judge(self, level: int, window: Window, found: Any, valid: Any, span: Span) -> None:
        if self._problem or not (wrong := disagreements(found, valid, span, self._method)):
            return
        row, column = first_disagreement(found, valid, span, self._method)
        place = f"overview {level + 1} at column {window.col_off + column}, row {window.row_off + row}"
        self._problem = f"{place}: found {', '.join(wrong)}"


def _step(width: int, height: int, bands: int) -> int:
    """Of how many windows one is compared."""
    windows = math.ceil(width / CELL) * math.ceil(height / CELL)
    return max(1, min(math.ceil(width * height * bands / MOST_PIXELS), windows // LEAST_WINDOWS))


def _fits(base: Any, overview: Any, window: Window, factor: int) -> bool:
    """Whether this level's pixels are squares of the factor or nearly so, and the window consists of whole ones."""
    return all(
        count in {size // factor, math.ceil(size / factor)}
        and offset % factor == 0
        and (offset + length == size or length % factor == 0)
        for size, count, offset, length in _axes(base, overview, window)
    )


def _axes(base: Any, overview: Any, window: Window) -> tuple[tuple[int, int, int, int], ...]:
    """Down and across: pixels of the raster and of its overview, and where the window begins and how long it is."""
    return (
        (base.height, overview.height, window.row_off, window.height),
        (base.width, overview.width, window.col_off, window.width),
    )


@dataclass(frozen=True)
class Reach:
    """Of which squares, along one axis of a window, the pixels of a level are made.

    Args:
        before, after: How many squares before and after its own one a pixel may be made of.
        begins, ends: Whether the raster does where the window does.
        first: The pixel of the window's first square.
        count: Pixels of the level.
    """

    before: int
    after: int
    begins: bool
    ends: bool
    first: int
    count: int

    @property
    def is_one_sided(self) -> bool:
        """Whether a pixel is made of its own square and one neighbour: a margin of one square is enough."""
        return self.before + self.after == 1

    def is_open(self, margin: int) -> bool:
        """Whether pixels at an edge of the window have no bounds, where that number of squares before it is known."""
        if self.is_one_sided:
            return not (self.begins or margin)
        return bool((self.before and not self.begins) or (self.after and not self.ends))

    def judged(self, squares: int, margin: int) -> range:
        """Which of the squares, with those of the margin before them, are those of pixels to compare now.

        Where a pixel is made of the square after it, the last one is compared with the next window.
        """
        waits = self.is_one_sided and self.after == 1
        begin = 0 if waits else margin
        end = squares - (waits and not self.ends)
        return range(begin, min(end, self.count - self.first + margin))


def _reach_of(method: str, level: int) -> int:
    """How many squares beyond its own one a pixel is made of; each level adds half of what the one before did."""
    return max(0, math.ceil((_RADIUS.get(method, 0.5) - 0.5) * (2 - 0.5**level)))


def _reach_of_axis(size: int, count: int, offset: int, length: int, level: int, method: str) -> Reach:
    reach, factor = _reach_of(method, level), 2 << level
    # Where a size was rounded up, pixels are a bit narrower than their squares, and begin before them; where it was
    # rounded down, they are wider and end after them.
    before, after = (reach + (count * factor > size), reach + (count * factor < size))
    return Reach(before, after, offset == 0, offset + length >= size, offset // factor, count)


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
        return cls(np.where(valid, values, most), np.where(valid, values, least), valid, valid[:])

    def halved(self) -> "Pyramid":
        all_valid = _halved(np.logical_and, self.all_valid)
        # One array is both where all is valid.
        any_valid = all_valid if self.any_valid is self.all_valid else _halved(np.logical_or, self.any_valid)
        return Pyramid(_halved(np.minimum, self.low), _halved(np.maximum, self.high), any_valid, all_valid)

    def part(self, rows: slice, columns: slice) -> "Pyramid":
        """A copy of some of its squares."""
        place = (slice(None), rows, columns)
        return self._each(lambda values: values[place].copy())

    def joined(self, other: "Pyramid", axis: int) -> "Pyramid":
        """Both, the other one below or to the right."""
        others = iter((other.low, other.high, other.any_valid, other.all_valid))
        return self._each(lambda values: np.concatenate((values, next(others)), axis=axis))

    def _each(self, function: Callable[[Any], Any]) -> "Pyramid":
        return Pyramid(function(self.low), function(self.high), function(self.any_valid), function(self.all_valid))

    def span(self, down: Reach, across: Reach, rows: range, columns: range) -> Span:
        """Of the squares around each of those; beyond these anything may be, beyond the raster nothing is."""
        least, most = _limits(self.low.dtype)
        low, high, any_valid, all_valid = self.low, self.high, self.any_valid, self.all_valid
        for axis, reach in ((1, down), (2, across)):
            if reach.before or reach.after:
                low = _spread(np.minimum, low, axis, reach, most, least)
                high = _spread(np.maximum, high, axis, reach, least, most)
                any_valid = _spread(np.logical_or, any_valid, axis, reach, nothing=False, anything=True)
                all_valid = _spread(np.logical_and, all_valid, axis, reach, nothing=True, anything=False)
        place = (slice(None), slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        return Span(low[place], high[place], any_valid[place], all_valid[place])


class Margins:
    """Of one level: the last squares of the windows that were seen, for those below and to the right of them."""

    def __init__(self) -> None:
        # By the first column of a window: in which row it ended, and its last row of squares.
        self._above: dict[int, tuple[int, Pyramid]] = {}
        # Where the last window ended, and its last column of squares.
        self._left: tuple[tuple[int, int], Pyramid] | None = None

    def around(self, window: Window, pyramid: Pyramid) -> tuple[Pyramid, int, int]:
        """The squares of a window with those above and to the left of it, and how many of these there are."""
        begin, end = (window.row_off, window.col_off), (window.row_off + window.height, window.col_off + window.width)
        row, above = self._above.get(begin[1], (None, pyramid))
        self._above[begin[1]] = (end[0], pyramid.part(slice(-1, None), slice(None)))
        has_above = row == begin[0]
        if has_above:
            pyramid = above.joined(pyramid, axis=1)
        place, left = self._left or (None, pyramid)
        self._left = ((begin[0], end[1]), pyramid.part(slice(None), slice(-1, None)))
        has_left = place == begin
        return left.joined(pyramid, axis=2) if has_left else pyramid, int(has_above), int(has_left)


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
