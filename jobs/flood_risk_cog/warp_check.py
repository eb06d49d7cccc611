"""Is a reprojected raster made of its source? Looked at pixel by pixel in samples, without GDAL's warper."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rasterio.windows import Window

from jobs.flood_risk_cog.footprint import end_of_globe
from jobs.flood_risk_cog.ground import OF_KERNELS, Ground, around, kernel_scales, places, same_datum, sides
from jobs.flood_risk_cog.lost_pixels import find_lost_pixels
from jobs.flood_risk_cog.neighbours import (
    Span,
    alpha_of,
    bands_to_look_at,
    disagreements,
    not_faint,
    read_known,
    sample_windows,
    warp_tolerance,
)
from jobs.flood_risk_cog.place_check import JUDGED, misplaced, slack_of, step_of
from jobs.flood_risk_cog.plan import LEAST_ALPHA, ConversionPlan
from jobs.flood_risk_cog.target_grid import COARSEST

# Of windows, in pixels; those that cannot be compared are divided down to the smaller one.
SIDE, LEAST_SIDE = 256, 32
MOST_WINDOWS = 8
BINS = 32
# A method looks so far, in pixels of the source, or of the result where those are larger.
_REACH = {"bilinear": 1, "cubic": 2, "cubic_spline": 2, "lanczos": 3}
# Beyond it, a window lies over a seam such as the antimeridian.
MOST_REACH = 24
MOST_SOURCE_PIXELS = 4 << 20


@dataclass
class WarpCheck:
    """What samples of a reprojected raster say.

    Its values are compared with those of the source at the same places, so that a projection that stretches some parts
    changes no weights: the histogram of the whole source would differ from a faultless result.
    """

    compared: int = 0
    skipped: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    before: Any = field(default_factory=lambda: np.zeros(BINS))
    after: Any = field(default_factory=lambda: np.zeros(BINS))

    @property
    def histogram_distance(self) -> float | None:
        """From 0, the same values as often, to 1, none in common."""
        if not self.before.sum() or not self.after.sum():
            return None
        return float(np.abs(self.before / self.before.sum() - self.after / self.after.sum()).sum() / 2)


def check_warp(before: Any, after: Any, plan: ConversionPlan, low: float | None, high: float | None) -> WarpCheck:
    """Args: low, high: Of the source's first band."""
    check = WarpCheck()
    is_judged, slack, method = same_datum(before.crs, after.crs), slack_of(before, after), plan.warp_resampling
    if method in OF_KERNELS and alpha_of(after):
        # They are weighed by it.
        slack = None
    scales = kernel_scales(before, after.crs, after.transform)
    end = end_of_globe(after)
    windows = list(sample_windows(after.width, after.height, SIDE, MOST_WINDOWS))
    while windows:
        window = windows.pop(0)
        rows, columns = _places(before, after, window, end)
        reach = _reach_of(rows, columns, plan.warp_resampling)
        inside = _source_window(before, rows, columns, reach)
        if reach > MOST_REACH or inside is None or inside.width * inside.height > MOST_SOURCE_PIXELS:
            # At a pole or a seam a few of its pixels are far from each other in the source.
            if inside is not None and max(window.width, window.height) > LEAST_SIDE:
                windows[:0] = _quarters(window)
            else:
                check.skipped += window.width * window.height
            continue
        check.compared += window.width * window.height
        span, nearest = _span(before, inside, rows, columns, reach, plan)
        found, valid = read_known(after, bands_to_look_at(after), window)
        _count(check, nearest, found[0][valid[0]], low, high)
        wrong = disagreements(found, valid, span, plan.warp_resampling, warp_tolerance(plan.nbits))
        if alpha := alpha_of(after):
            wrong += _wrong_alpha(before, after, alpha, inside, window, (rows, columns), reach, plan)
        wrong = wrong if is_judged else []
        if slack is not None and method in JUDGED and inside.width and inside.height:
            at = (rows - inside.row_off, columns - inside.col_off)
            away = _misplaced(_known(before, inside, plan), at, (found, valid), span, method, slack, scales)
            wrong += [f"{away} pixels with the value of another place"] if away else []
        if wrong and not check.problems:
            place = f"column {window.col_off}, row {window.row_off}"
            check.problems.append(
                f"reprojected, at {place}: found {', '.join(wrong)}; choose another target_crs or resampling"
            )
    _add_what_is_lost(check, before, after, plan, is_judged=is_judged, has_values=low is not None)
    return check


def _misplaced(
    known: tuple[Any, Any],
    at: tuple[Any, Any],
    pixels: tuple[Any, Any],
    span: Span,
    method: str,
    slack: float,
    scales: tuple[float, float],
) -> int:
    """How many of the pixels that are looked at have the value of another place."""
    each = np.s_[..., :: step_of(method, scales)]
    seen = Span(*(part[each] for part in (span.low, span.high, span.any_valid, span.all_valid)))
    found, valid = pixels[0][each], pixels[1][each]
    away = misplaced(known, (at[0][each], at[1][each]), found, seen, method, slack, scales)
    return int((away & valid).sum())


def _add_what_is_lost(
    check: WarpCheck, before: Any, after: Any, plan: ConversionPlan, *, is_judged: bool, has_values: bool
) -> None:
    hidden = plan.nodata if plan.fill_nodata else None
    lost = find_lost_pixels(before, after, is_judged=is_judged, hidden=hidden, least_alpha=least_alpha(plan))
    problem = lost.problem
    check.notes += [*([lost.note] if lost.note else []), *_lost_detail(before, after)]
    if problem is None and not check.compared and has_values:
        problem = "reprojected: expected pixels that can be compared with the source, found none"
    if problem is not None:
        check.problems.append(f"{problem}; choose a target_crs that covers its place")


def _lost_detail(before: Any, after: Any) -> list[str]:
    """In words, how much longer than the source's pixels those of the result are."""
    found = sides(before, after.crs, after.transform)
    if (longest := max(found.across, found.down)) <= COARSEST:
        return []
    return [f"a side of its pixels is as long as {longest:.3g} of the source's: finer detail is not kept"]


def _quarters(window: Window) -> list[Window]:
    wide, high = math.ceil(window.width / 2), math.ceil(window.height / 2)
    return [
        Window(
            left, top, min(wide, window.col_off + window.width - left), min(high, window.row_off + window.height - top)
        )
        for top in range(window.row_off, window.row_off + window.height, high)
        for left in range(window.col_off, window.col_off + window.width, wide)
    ]


def least_alpha(plan: ConversionPlan) -> float:
    """From which alpha on pixels must be there: twice what GDAL's rounding leaves out."""
    return 2 * LEAST_ALPHA * (plan.most_alpha or 0)


def _places(before: Any, after: Any, window: Window, end: Ground | None) -> tuple[Any, Any]:
    """Row and column in the source, with fractions, of the centre of each pixel of the window; infinite for none.

    `end` is the ground of a result that is partly off the globe, where PROJ counts some longitudes on.

    Far outside of the source all places are alike: on a grid around the whole globe, steps between them have no end.
    """
    columns, rows = np.meshgrid(np.arange(window.width) + window.col_off, np.arange(window.height) + window.row_off)
    xs, ys = after.transform @ (columns + 0.5, rows + 0.5)
    x, y = places(after.crs, before.crs, xs.ravel(), ys.ravel())
    x = around(before.crs).into(before.bounds.left, before.bounds.right, x)
    with np.errstate(invalid="ignore"):
        found = ~before.transform @ (x, y)
    far = MOST_REACH + 2
    found_columns, found_rows = (
        np.where(np.isfinite(each), np.clip(each, -far, size + far), each)
        for each, size in zip(found, (before.width, before.height), strict=True)
    )
    found_rows, found_columns = found_rows.reshape(rows.shape), found_columns.reshape(rows.shape)
    if end is not None:
        off_globe = ~end.is_on_globe_in(window)
        found_rows[off_globe] = found_columns[off_globe] = np.inf
    return found_rows, found_columns


def _reach_of(rows: Any, columns: Any, method: str) -> int:
    with np.errstate(invalid="ignore"):
        steps = [np.abs(np.diff(each, axis=axis)) for each in (rows, columns) for axis in (0, 1)]
    scale = max((float(step[np.isfinite(step)].max(initial=1)) for step in steps), default=1)
    return math.ceil(min(_REACH.get(method, 1) * scale, MOST_REACH)) + 1


def _source_window(before: Any, rows: Any, columns: Any, reach: int) -> Window | None:
    """The part of the source that these places look at; empty outside of it, None where no place is known."""
    known = np.isfinite(rows) & np.isfinite(columns)
    if not known.any():
        return None
    top, bottom = (
        int(v) for v in np.clip([rows[known].min() - reach, rows[known].max() + reach + 1], 0, before.height)
    )
    left, right = (
        int(v) for v in np.clip([columns[known].min() - reach, columns[known].max() + reach + 1], 0, before.width)
    )
    return Window(left, top, right - left, bottom - top)


def _span(before: Any, inside: Window, rows: Any, columns: Any, reach: int, plan: ConversionPlan) -> tuple[Span, Any]:
    """The span of each place, and the valid values of the first band at the places themselves."""
    numbers = bands_to_look_at(before)
    shape = (len(numbers), *rows.shape)
    if not inside.width or not inside.height:
        nothing = np.zeros(shape, bool)
        return Span(np.full(shape, np.inf), np.full(shape, -np.inf), nothing, nothing), np.zeros(0)
    values, valid = _known(before, inside, plan)
    margin = ((0, 0), (reach + 1, reach + 1), (reach + 1, reach + 1))
    is_certain = np.pad(valid & not_faint(before, inside, least_alpha(plan)), margin)
    values, valid = np.pad(values, margin), np.pad(valid, margin)
    row, column = _indices(inside, rows, columns, reach, valid.shape)
    low = _spread(np.minimum, np.where(valid, values, np.inf), reach)[:, row, column]
    high = _spread(np.maximum, np.where(valid, values, -np.inf), reach)[:, row, column]
    all_valid = _spread(np.logical_and, is_certain, reach)[:, row, column]
    # The margin is not valid: so a place outside of the source has no values.
    is_known = valid[0, row, column]
    return Span(low, high, np.isfinite(low), all_valid), values[0, row, column][is_known]


def _known(before: Any, inside: Window, plan: ConversionPlan) -> tuple[Any, Any]:
    """Values (bands, rows, columns) of a part of the source, and which the warp takes for valid."""
    values, valid = read_known(before, bands_to_look_at(before), inside)
    return values, valid & (values != plan.nodata) if plan.fill_nodata else valid


def _indices(inside: Window, rows: Any, columns: Any, reach: int, shape: Any) -> tuple[Any, Any]:
    """Of places, in an array (bands, rows, columns) of a window with a margin of the reach and one."""
    with np.errstate(invalid="ignore"):
        row = np.where(np.isfinite(rows), np.floor(rows), -1e9) - inside.row_off + reach + 1
        column = np.where(np.isfinite(columns), np.floor(columns), -1e9) - inside.col_off + reach + 1
    return row.clip(0, shape[1] - 1).astype(int), column.clip(0, shape[2] - 1).astype(int)


def _wrong_alpha(
    before: Any,
    after: Any,
    alpha: int,
    inside: Window,
    window: Window,
    places_there: tuple[Any, Any],
    reach: int,
    plan: ConversionPlan,
) -> list[str]:
    """What is wrong with the alpha band: it has a value everywhere; 0 outside of the source or where it is faint."""
    margin = ((0, 0), (reach + 1, reach + 1), (reach + 1, reach + 1))
    is_empty = not (inside.width and inside.height)
    values = np.pad(np.zeros((1, 0, 0)) if is_empty else before.read([alpha], window=inside), margin)
    row, column = _indices(inside, *places_there, reach, values.shape)
    everywhere = np.ones((1, *row.shape), bool)
    low, high = (_spread(function, values, reach)[:, row, column] for function in (np.minimum, np.maximum))
    low = np.where(low < least_alpha(plan), 0, low)
    span = Span(low, high, everywhere, everywhere)
    wrong = disagreements(
        after.read([alpha], window=window), everywhere, span, plan.warp_resampling, warp_tolerance(plan.nbits)
    )
    return [f"in its alpha band {each}" for each in wrong]


def _spread(function: Any, values: Any, reach: int) -> Any:
    """Each pixel's neighbourhood reduced to one value."""
    for axis in (1, 2):
        result = values.copy()
        size = values.shape[axis]
        for step in range(1, min(reach, size - 1) + 1):
            for one, two in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
                target = (slice(None),) * axis + (one,)
                other = (slice(None),) * axis + (two,)
                function(result[target], values[other], out=result[target])
        values = result
    return values


def _count(check: WarpCheck, before: Any, after: Any, low: float | None, high: float | None) -> None:
    if low is None or high is None:
        return
    span = float(low), float(high)
    width = span[1] - span[0]
    if not np.isfinite((*span, width)).all() or width <= abs(span[0]) * 1e-12:
        # All are the same, or no bins fit between them, or they are farther apart than any number.
        return
    check.before += np.histogram(before.astype("float64"), BINS, span)[0]
    check.after += np.histogram(np.clip(after.astype("float64"), *span), BINS, span)[0]
