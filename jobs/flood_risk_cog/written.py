"""Checksums of a reprojected raster's values as they are made, for comparison with those that its COG has."""

import zlib
from typing import Any

import numpy as np
from rasterio.windows import Window

from jobs.flood_risk_cog.facts import CELL


class ValueChecksums:
    """Takes in windows, which go down; each band of each cell has its checksum.

    Args:
        has_mask: Whether what a mask hides counts as 0: it is no value, and encoders need not keep it.
    """

    def __init__(self, *, has_mask: bool) -> None:
        self._has_mask = has_mask
        self._cells: dict[tuple[int, int, int], int] = {}

    def see(self, window: Window, numbers: list[int], values: Any, valid: Any) -> None:
        """Take in values and validity (bands, rows, columns) of some bands of a window."""
        if values.dtype.kind == "f":
            # NaN has many patterns of bits, and lerc keeps one.
            is_nan = np.isnan(values)
            if is_nan.any():
                values = np.where(is_nan, values.dtype.type(np.nan), values)
        if self._has_mask and not valid.all():
            values = np.where(valid, values, values.dtype.type(0))
        for index, number in enumerate(numbers):
            for column in range(0, window.width, CELL):
                place = (window.row_off // CELL, (window.col_off + column) // CELL, number)
                part = np.ascontiguousarray(values[index, :, column : column + CELL])
                self._cells[place] = zlib.crc32(part.data, self._cells.get(place, 0))

    def difference(self, found: "ValueChecksums") -> str | None:
        """What differs from those that were found, in words."""
        wrong = [place for place, value in self._cells.items() if found._cells.get(place) != value]  # noqa: SLF001 - of its own class
        if not wrong:
            return None
        row, column, number = min(wrong)
        return (
            f"reprojected, at column {column * CELL}, row {row * CELL} of band {number}: expected the values that were "
            f"made, found others in {len(wrong)} of {len(self._cells)} parts"
        )
