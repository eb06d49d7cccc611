"""Has each pixel of a reprojected raster the value of its own place? By nearest and bilinear that is computed here."""

from typing import Any

import numpy as np

from jobs.flood_risk_cog.ground import same_datum, side_metres
from jobs.flood_risk_cog.neighbours import Span, warp_tolerance

# In pixels of the source: by how much a place may be another one. The warp is given a fifth of that.
SLACK = 0.05
# By how much more between two datums, and up to how many pixels that may be.
DATUM_METRES, MOST_SLACK = 300.0, 0.4
JUDGED = {"nearest", "bilinear"}


def slack_of(before: Any, after: Any) -> float | None:
    """In pixels of the source; None where ways between two datums may be too far apart for its pixels."""
    if same_datum(before.crs, after.crs):
        return SLACK
    slack = SLACK + DATUM_METRES / side_metres(before)
    return slack if slack <= MOST_SLACK else None


def misplaced(known: tuple[Any, Any], at: tuple[Any, Any], found: Any, span: Span, method: str, slack: float) -> Any:
    """Which pixels (bands, rows, columns) have a value that is none of their place, as booleans.

    Args:
        known: Values (bands, rows, columns) of a window of the source, and which are valid.
        at: Row and column of each pixel's centre in that window, with fractions.
        found: The pixels; a place is judged where all that it is made of is valid.
        span: Of what each pixel may be made.
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
    top, left = row - 0.5, column - 0.5
    down, across = top - np.floor(top), left - np.floor(left)
    expected, judged = np.zeros(found.shape), np.ones(found.shape, bool)
    for step_down, share_down in ((0, 1 - down), (1, down)):
        for step_across, share_across in ((0, 1 - across), (1, across)):
            value, is_valid = taken(top + step_down, left + step_across)
            expected += np.where(is_valid, value, 0).astype("float64") * (share_down * share_across)
            judged &= is_valid
    judged &= span.all_valid
    with np.errstate(invalid="ignore", over="ignore"):
        high, low = (np.where(judged, each, 0).astype("float64") for each in (span.high, span.low))
        allowed = 2 * slack * (high - low) + warp_tolerance("16") * np.maximum(np.maximum(np.abs(low), np.abs(high)), 1)
        # Whole numbers are rounded, and one that is nodata is made another one.
        allowed += 1.5 * (found.dtype.kind in "iu")
        return judged & (np.abs(found - expected) > allowed)
