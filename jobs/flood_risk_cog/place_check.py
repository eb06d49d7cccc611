"""Has each pixel of a reprojected raster the value of its own place? For nearest and kernels it is computed here."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jobs.flood_risk_cog.ground import same_datum, side_metres
from jobs.flood_risk_cog.neighbours import Span, warp_tolerance

# In pixels of the source: by how much a place may be another one. The warp is given a fifth of that.
SLACK = 0.05
# By how much more between two datums, and up to how many pixels that may be.
DATUM_METRES, MOST_SLACK = 300.0, 0.4
# Pixels of the source around a place that are weighed, of which each pixel is judged; of more, a part of the pixels.
FEW_NEIGHBOURS = 4


def _bilinear(away: Any) -> Any:
    return np.clip(1 - away, 0, None)


def _cubic(away: Any) -> Any:
    near, far = 1.5 * away**3 - 2.5 * away**2 + 1, -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
    return np.where(away <= 1, near, np.where(away < 2, far, 0))  # noqa: PLR2004 - where its parts end


def _cubic_spline(away: Any) -> Any:
    return np.where(away < 1, 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6)


def _lanczos(away: Any) -> Any:
    return np.where(away < 3, np.sinc(away) * np.sinc(away / 3), 0)  # noqa: PLR2004 - its radius


# The weight of a pixel by its distance, how far a kernel reaches, and how steep it is beside bilinear.
KERNELS: dict[str, tuple[Callable[[Any], Any], int, float]] = {
    "bilinear": (_bilinear, 1, 1.0),
    "cubic": (_cubic, 2, 2.0),
    "cubic_spline": (_cubic_spline, 2, 1.0),
    "lanczos": (_lanczos, 3, 4.0),
}
JUDGED = {"nearest", *KERNELS}


def slack_of(before: Any, after: Any) -> float | None:
    """In pixels of the source; None where ways between two datums may be too far apart for its pixels."""
    if same_datum(before.crs, after.crs):
        return SLACK
    slack = SLACK + DATUM_METRES / side_metres(before)
    return slack if slack <= MOST_SLACK else None


def step_of(method: str, scales: tuple[float, float]) -> int:
    """Each how-many-th pixel of a row is judged, so that any method takes about as long as bilinear.

    Of each row: GDAL takes a row from another place, or a part of it.
    """
    if method == "nearest":
        return 1
    neighbours = math.prod(len(_reached(method, scale)) for scale in scales)
    return math.ceil(neighbours / FEW_NEIGHBOURS)


def misplaced(
    known: tuple[Any, Any],
    at: tuple[Any, Any],
    found: Any,
    span: Span,
    method: str,
    slack: float,
    scales: tuple[float, float] = (1.0, 1.0),
) -> Any:
    """Which pixels (bands, rows, columns) have a value that is none of their place, as booleans.

    Args:
        known: Values (bands, rows, columns) of a window of the source, and which are valid.
        at: Row and column of each pixel's centre in that window, with fractions.
        found: The pixels; a place is judged where all that it is made of is valid.
        span: Of what each pixel may be made.
        scales: Of columns and rows, by which kernels are widened.
    """
    margin = ((0, 0), (1, 1), (1, 1))
    values, valid = (np.pad(each, margin) for each in known)
    row, column = (np.where(np.isfinite(each), each, -1.0) + 1 for each in at)

    def taken(rows: Any, columns: Any) -> tuple[Any, Any]:
        down = np.floor(rows).clip(0, values.shape[1] - 1).astype(int)
        across = np.floor(columns).clip(0, values.shape[2] - 1).astype(int)
        return values[:, down, across], valid[:, down, across]

    if method == "nearest":
        ways = [taken(row + down * slack, column + across * slack) for down in (-1, 1) for across in (-1, 1)]
        is_one = np.logical_or.reduce([value == found for value, _ in ways])
        return ~is_one & np.logical_and.reduce([is_valid for _, is_valid in ways])
    total, weights, judged = np.zeros(found.shape), np.zeros(row.shape), np.ones(found.shape, bool)
    for step_down, share_down in _shares(row, method, scales[1]):
        for step_across, share_across in _shares(column, method, scales[0]):
            value, is_valid = taken(row - 0.5 + step_down, column - 0.5 + step_across)
            share = share_down * share_across
            total += np.where(is_valid, value, 0).astype("float64") * share
            weights += share
            judged &= is_valid
    judged &= span.all_valid
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        high, low = (np.where(judged, each, 0).astype("float64") for each in (span.high, span.low))
        allowed = 2 * slack * KERNELS[method][2] * (high - low)
        allowed += warp_tolerance("16") * np.maximum(np.maximum(np.abs(low), np.abs(high)), 1)
        # Whole numbers are rounded, and one that is nodata is made another one.
        allowed += 1.5 * (found.dtype.kind in "iu")
        return judged & (np.abs(found - _within(total / weights, found.dtype)) > allowed)


def _reached(method: str, scale: float) -> range:
    """Steps from the pixel before a place to those that it is made of, along a side."""
    most = math.ceil(KERNELS[method][1] / scale)
    return range(1 - most, most + 1)


def _shares(at: Any, method: str, scale: float) -> Iterator[tuple[int, Any]]:
    after = at - 0.5 - np.floor(at - 0.5)
    for step in _reached(method, scale):
        yield step, KERNELS[method][0](np.abs(step - after) * scale)


def _within(values: Any, dtype: Any) -> Any:
    """Some methods go beyond the values that they are given: whole numbers end with their type."""
    if dtype.kind not in "iu":
        return values
    limits = np.iinfo(dtype)
    return values.clip(limits.min, limits.max)
