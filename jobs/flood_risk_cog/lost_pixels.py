"""Is every part of a source in its reprojected raster? Looked at from the source, where the other way sees no hole."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.windows import Window

from jobs.flood_risk_cog.ground import Ground, around, ground_of, places_in, side_metres
from jobs.flood_risk_cog.neighbours import bands_to_look_at, not_faint, read_known, sample_windows
from jobs.flood_risk_cog.target_grid import MERCATOR_ENDS

SIDE = 256
MOST_WINDOWS = 8
TILE = 512
# Pixels of the source along one of the result: so far must all be valid around a pixel that is judged.
MOST_REACH = 24
# From a place to the outer edges of the pixels around its own.
OUT = 1.5
# Which share of the pixels that are looked at may be lost between two datums: of small ones, and of larger ones.
MOST_LOST, MOST_LOST_OF_COARSE, COARSE_METRES = 0.5, 0.02, 2000.0
# And of those where the globe ends on one of the grids: what is a pixel on one is a sliver on the other.
MOST_AT_END = 0.001


@dataclass(frozen=True)
class LostPixels:
    """In words: why the result is refused, or what of its source it does not have; None for nothing."""

    problem: str | None = None
    note: str | None = None


def find_lost_pixels(
    before: Any, after: Any, *, is_judged: bool, hidden: float | None = None, least_alpha: float = 0.0
) -> LostPixels:
    """What valid pixels of the source the result does not have.

    Args:
        is_judged: Whether places are certain to a pixel; else only a loss of many is found.
        hidden: A value that is not valid in the result, whatever it was in the source.
        least_alpha: Pixels with less of it may be left out.
    """
    judged, lost, at_end, where, ground, end = 0, 0, 0, "", ground_of(before), ground_of(after)
    for window in sample_windows(before.width, before.height, SIDE, MOST_WINDOWS):
        values, valid = read_known(before, bands_to_look_at(before)[:1], window)
        if hidden is not None:
            valid = valid & (values != hidden)
        valid = valid & not_faint(before, window, least_alpha)
        columns, rows = np.meshgrid(np.arange(window.width) + window.col_off, np.arange(window.height) + window.row_off)
        row, column = places_in(before, after.crs, after.transform, rows + 0.5, columns + 0.5, after.width)
        inner = _inner(valid[0], _reach(row, column)) & ~_beyond_mercator(before, after, rows, columns)
        gone = inner.copy()
        gone[inner] = ~_is_valid_around(after, row[inner], column[inner])
        judged += int(inner.sum())
        if not gone.any():
            continue
        # Off the globe there is nothing to lose.
        gone[gone] = ground.is_on_globe(columns[gone] + 0.5, rows[gone] + 0.5)
        if is_judged:
            is_at_end = gone.copy()
            is_at_end[gone] = ~(
                _is_within_globe(ground, columns[gone] + 0.5, rows[gone] + 0.5)
                & _is_within_globe(end, column[gone], row[gone])
            )
            at_end += int(is_at_end.sum())
            gone &= ~is_at_end
        lost += int(gone.sum())
        if gone.any() and not where:
            first = np.argwhere(gone)[0]
            where = f"column {first[1] + window.col_off}, row {first[0] + window.row_off}"
    of_all = f"of {judged} valid pixels of the source"
    if lost > (0 if is_judged else judged * _most_lost(before)):
        return LostPixels(problem=f"reprojected: {lost} {of_all} have no place in it, first {where}")
    words = f"{at_end} {of_all} that were looked at have no place, as they lie where the globe ends on a grid"
    if at_end > judged * MOST_AT_END:
        return LostPixels(problem=f"reprojected: {words}")
    return LostPixels(note=words if at_end else None)


def _is_within_globe(ground: Ground, columns: Any, rows: Any) -> Any:
    """Whether 3 x 3 pixels around each place are wholly on the globe."""
    steps = (-OUT, 0.0, OUT)
    around_each = [ground.is_on_globe(columns + across, rows + down) for across in steps for down in steps]
    return np.logical_and.reduce(around_each)


def _most_lost(before: Any) -> float:
    """Ways between datums are at most some hundred metres apart: of small pixels that may be many."""
    return MOST_LOST_OF_COARSE if side_metres(before) >= COARSE_METRES else MOST_LOST


def _reach(row: Any, column: Any) -> int:
    """How many pixels of the source one of the result covers at most, in its longer direction."""
    with np.errstate(invalid="ignore"):
        steps = [[np.diff(each, axis=axis) for axis in (0, 1)] for each in (row, column)]
    middles = np.array([[_middle(step) for step in pair] for pair in steps])
    least = float(np.linalg.svd(middles, compute_uv=False)[-1])
    return min(math.ceil(1 / least) + 1, MOST_REACH) if least > 1 / MOST_REACH else MOST_REACH


def _middle(steps: Any) -> float:
    finite = steps[np.isfinite(steps)]
    return float(np.median(finite)) if finite.size else 0.0


def _inner(valid: Any, reach: int) -> Any:
    """Pixels around which all is valid; at the window's edge that is not known."""
    return _of_squares(np.logical_and, valid, reach)


def _of_squares(function: Any, values: Any, reach: int) -> Any:
    """Of the square around each boolean (rows, columns), up to `reach` pixels beside it; false beyond the edge."""
    for axis in (0, 1):
        padded = np.pad(values, [(reach, reach) if each == axis else (0, 0) for each in (0, 1)])
        size, result = values.shape[axis], values.copy()
        for first in range(2 * reach + 1):
            part = slice(first, first + size)
            function(result, padded[part] if axis == 0 else padded[:, part], out=result)
        values = result
    return values


def _beyond_mercator(before: Any, after: Any, rows: Any, columns: Any) -> Any:
    if around(after.crs).has_poles:
        return np.zeros(rows.shape, bool)
    _, latitudes = ground_of(before).lon_lat(columns + 0.5, rows + 0.5)
    return np.abs(latitudes) > MERCATOR_ENDS - 0.1


def _is_valid_around(after: Any, rows: Any, columns: Any) -> Any:
    """Whether any of 3 x 3 pixels around each place is valid; those without a place are not."""
    result = np.zeros(rows.shape, bool)
    known = np.isfinite(rows) & np.isfinite(columns)
    known &= (rows >= -1) & (rows < after.height + 1) & (columns >= -1) & (columns < after.width + 1)
    at = np.flatnonzero(known)
    row = np.floor(rows[at]).astype(int).clip(0, after.height - 1)
    column = np.floor(columns[at]).astype(int).clip(0, after.width - 1)
    across = math.ceil(after.width / TILE)
    tiles = row // TILE * across + column // TILE
    # One number of each: pairs would be sorted by comparing them byte by byte.
    for tile in np.unique(tiles).tolist():
        here = tiles == tile
        top, left = divmod(tile, across)
        begin_row, begin_column = max(top * TILE - 1, 0), max(left * TILE - 1, 0)
        window = Window(
            begin_column,
            begin_row,
            min((left + 1) * TILE + 1, after.width) - begin_column,
            min((top + 1) * TILE + 1, after.height) - begin_row,
        )
        _, valid = read_known(after, bands_to_look_at(after)[:1], window)
        is_beside = _of_squares(np.logical_or, valid[0], 1)
        result[at[here]] = is_beside[row[here] - begin_row, column[here] - begin_column]
    return result
