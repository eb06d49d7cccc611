"""Between which values a pixel must lie that was made of others: of its neighbours in a window of the original."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from jobs.flood_risk_cog.facts import validity

# Methods whose results lie between the values that they are made of.
BETWEEN = {"nearest", "bilinear", "average", "mode", "max", "min", "med", "q1", "q3"}
# The root of the mean of squares lies between the magnitudes of the values.
OF_SQUARES = "rms"
# By how much others go beyond these at most, in parts of the difference between lowest and highest. Weights of the
# first two are partly negative, by up to 0.3 and 0.5 of it; where levels are made one of the other, by more.
OVERSHOOT = {"cubic": 1.0, "lanczos": 1.5, "cubic_spline": 0.1, "gauss": 0.1}
# Bands are made alike; more of them would only take longer.
MOST_BANDS = 4
# Rounding of the type's own precision.
TOLERANCE = 1e-6
# GDAL's weights of neighbours do not add up to one exactly. Floats of 16 bits are rounded when they are written.
WARP_TOLERANCE = 1e-4
WARP_TOLERANCE_OF_16_BITS = 1e-3


@dataclass(frozen=True)
class Span:
    """Of what each pixel (bands, rows, columns) may be made: lowest and highest value, if any and if all is valid."""

    low: Any
    high: Any
    any_valid: Any
    all_valid: Any


def read_known(dataset: Any, numbers: list[int], window: Window) -> tuple[Any, Any]:
    """Values (bands, rows, columns) and which are valid and finite."""
    values = dataset.read(numbers, window=window)
    valid = validity(dataset, numbers, window, values)
    return values, valid & np.isfinite(values) if values.dtype.kind == "f" else valid


def warp_tolerance(nbits: str | None) -> float:
    """Of a raster that was reprojected, in parts of its values; `nbits` is its NBITS."""
    return WARP_TOLERANCE_OF_16_BITS if nbits == "16" else WARP_TOLERANCE


def not_faint(dataset: Any, window: Window, least: float) -> Any:
    """Which pixels (rows, columns) have an alpha of at least this; True without such a bound."""
    alpha = alpha_of(dataset)
    return dataset.read(alpha, window=window) >= least if alpha and least else True


def block_span(values: Any, valid: Any, rows: Any, columns: Any) -> Span:
    """The span of rectangles: `rows` and `columns` are their (begin, end) in the window, as integers."""
    return Span(
        _reduce(np.minimum, np.where(valid, values, np.inf), rows, columns),
        _reduce(np.maximum, np.where(valid, values, -np.inf), rows, columns),
        _reduce(np.logical_or, valid, rows, columns),
        _reduce(np.logical_and, valid, rows, columns),
    )


def _reduce(function: Any, values: Any, rows: Any, columns: Any) -> Any:
    for axis, ranges in ((1, rows), (2, columns)):
        pairs = np.column_stack(ranges).ravel()
        # `reduceat` takes no end behind the last one.
        padded = np.concatenate([values, np.take(values, [-1], axis=axis)], axis=axis)
        values = np.take(function.reduceat(padded, pairs, axis=axis), range(0, len(pairs), 2), axis=axis)
    return values


def disagreements(found: Any, valid: Any, span: Span, method: str, tolerance: float = TOLERANCE) -> list[str]:
    """What is wrong with pixels of these values and validity, in words and with a number each."""
    if _is_plainly_right(found, valid, span, method):
        return []
    return [
        f"{int(wrong.sum())} pixels {what}"
        for what, wrong in _wrong(found, valid, span, method, tolerance).items()
        if wrong.any()
    ]


def first_disagreement(found: Any, valid: Any, span: Span, method: str) -> tuple[int, int]:
    """Row and column of the first pixel with which anything is wrong."""
    wrong = np.logical_or.reduce(list(_wrong(found, valid, span, method, TOLERANCE).values())).any(axis=0)
    row, column = np.argwhere(wrong)[0].tolist()
    return row, column


def _is_plainly_right(found: Any, valid: Any, span: Span, method: str) -> bool:
    """Whether all is valid and within its bounds, without any tolerance: so it mostly is."""
    if method not in BETWEEN or not (valid.all() and np.all(span.any_valid)):
        return False
    return bool((found >= span.low).all() and (found <= span.high).all())


def _wrong(found: Any, valid: Any, span: Span, method: str, tolerance: float) -> dict[str, Any]:
    wrong = {
        "valid where nothing of the original is": valid & ~span.any_valid,
        "not valid where all of the original is": ~valid & span.all_valid,
    }
    if method in BETWEEN or method == OF_SQUARES:
        low, high = span.low.astype("float64"), span.high.astype("float64")
        if method == OF_SQUARES:
            low, high = np.maximum(np.maximum(low, -high), 0), np.maximum(high, -low)
        slack = tolerance * np.maximum(np.maximum(np.abs(low), np.abs(high)), 1)
        judged = valid & span.any_valid
        with np.errstate(invalid="ignore", over="ignore"):
            outside = (found < low - slack) | (found > high + slack)
        wrong["with a value that nothing around it in the original has"] = judged & outside
    elif method in OVERSHOOT:
        low, high = span.low.astype("float64"), span.high.astype("float64")
        with np.errstate(invalid="ignore", over="ignore"):
            slack = OVERSHOOT[method] * (high - low) + tolerance * np.maximum(np.maximum(np.abs(low), np.abs(high)), 1)
            # Whole numbers are rounded. Beside what is not valid, weights do not add up to much.
            slack += found.dtype.kind in "iu"
            outside = (found < low - slack) | (found > high + slack)
        wrong["with a value far from all around it in the original"] = valid & span.all_valid & outside
    return wrong


def sample_windows(width: int, height: int, side: int, most: int) -> Iterator[Window]:
    """Squares spread evenly over a raster; all of it when `most` are enough."""
    across, down = math.ceil(width / side), math.ceil(height / side)
    for index in np.unique(np.linspace(0, across * down - 1, min(most, across * down)).astype(int)).tolist():
        left, top = index % across * side, index // across * side
        yield Window(left, top, min(side, width - left), min(side, height - top))


def bands_to_look_at(dataset: Any) -> list[int]:
    """Some of its bands, without alpha: that one is read as validity."""
    return [n for n in dataset.indexes if dataset.colorinterp[n - 1].name != "alpha"][:MOST_BANDS]


def alpha_of(dataset: Any) -> int | None:
    """The number of its alpha band."""
    is_alpha = [each is ColorInterp.alpha for each in dataset.colorinterp]
    return is_alpha.index(True) + 1 if any(is_alpha) else None
