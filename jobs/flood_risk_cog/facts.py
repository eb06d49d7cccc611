"""What the pixels of a raster say, read from end to end; the same for any layout of the same values.

`valid` means what GDAL's mask bands mean: a mask or an alpha band goes before nodata; NaN without nodata is a value.
"""

import hashlib
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

# Values are compared in squares of this side, so that neither tiles nor strips decide about the order.
CELL = 512
MOST_WINDOW_BYTES = 16 << 20
# A classification has few values; a photograph or a hill shade has most of the 256.
MOST_CLASSES = 32
# Bytes of whole numbers that double precision holds, in which rasterio has nodata.
MOST_EXACT_INTEGER = 4
# Relative: twice as far as GDAL looks, which takes the precision of 32 bits for floats of 64 bits, too.
NEARLY_EQUAL = 8 * float(np.finfo("float32").eps)

# As `stage` calls it.
_STAGED = re.compile(r"(?:/\S*/)?source\.tiff?:\s*")

Seen = Callable[[Window, Any, Any], None]
SeenBands = Callable[[Window, list[int], Any, Any], None]
Report = Callable[[float], None]
# By row, column and band of a cell: CRC-32 of its values, and of which are valid. They find each change of up to four
# bytes in a row, and overlook one in four thousand million of others; SHA-256 takes four times as long.
Cells = dict[tuple[int, int, int], tuple[int, int]]


class DamagedRaster(ValueError):
    """Some of its blocks cannot be read; `where` names the rows."""

    def __init__(self, where: str, cause: str) -> None:
        super().__init__(f"its data is damaged in {where} ({cause}); get a fresh copy")


@dataclass
class BandFacts:
    """One band: `low` and `high` are of its valid and finite values, None where there are none."""

    valid: int = 0
    low: float | None = None
    high: float | None = None
    # At most MOST_CLASSES values, None once there are more or where they are no whole numbers.
    classes: set[int] | None = field(default_factory=set)
    has_nan: bool = False
    has_infinity: bool = False

    def see(self, values: Any, valid: Any) -> None:
        count = int(np.count_nonzero(valid))
        self.valid += count
        whole = values.dtype.kind in "iu"
        if not count:
            return
        known = values if count == values.size else values[valid]
        if not whole:
            self.classes = None
            low, high = known.min(), known.max()
            if not (np.isfinite(low) and np.isfinite(high)):
                self.has_nan = self.has_nan or bool(np.isnan(known).any())
                self.has_infinity = self.has_infinity or bool(np.isinf(known).any())
                known = known[np.isfinite(known)]
                if not known.size:
                    return
                low, high = known.min(), known.max()
        else:
            low, high = known.min(), known.max()
            self._count_classes(known, low, high)
        self.low = low.item() if self.low is None else min(self.low, low.item())
        self.high = high.item() if self.high is None else max(self.high, high.item())

    def _count_classes(self, known: Any, low: Any, high: Any) -> None:
        if self.classes is None:
            return
        if low == high:
            self.classes.add(low.item())
        elif not self.classes or not np.isin(known, np.fromiter(self.classes, known.dtype)).all():
            # A part first: measurements have many values in any part.
            part = known.ravel()[: 1 << 12]
            self.classes.update(np.unique(part).tolist())
            if len(self.classes) <= MOST_CLASSES:
                self.classes.update(np.unique(known).tolist())
        if len(self.classes) > MOST_CLASSES:
            self.classes = None


@dataclass
class Facts:
    """A whole raster. `checksum` is of all valid values and of which are valid, whatever the file's layout."""

    bands: list[BandFacts]
    checksum: str

    @property
    def valid_pixels(self) -> list[int]:
        return [band.valid for band in self.bands]

    @property
    def classes(self) -> set[int] | None:
        return self.bands[0].classes if len(self.bands) == 1 else None


def read_facts(
    dataset: Any, *, seen: Seen | None = None, seen_bands: SeenBands | None = None, report: Report | None = None
) -> Facts:
    """Read every block once.

    Args:
        seen: Called with window, values and validity of band 1 (rows, columns), window by window.
        seen_bands: Called with window, numbers, values and validity of some bands (bands, rows, columns) at a time.
        report: Called with the part that is read, 0 to 1.

    Raises:
        DamagedRaster: A block cannot be read.
    """
    bands = [BandFacts() for _ in range(dataset.count)]
    cells: Cells = {}
    whole = hashlib.sha256()
    for window, numbers, values, valid in read_pieces(dataset, report):
        if cells and window.row_off // CELL != next(iter(cells))[0]:
            # Windows go down: that row of cells is complete.
            _add_checksums(whole, cells)
        for index, number in enumerate(numbers):
            bands[number - 1].see(values[index], valid[index])
        has_nan = any(bands[number - 1].has_nan for number in numbers)
        _add_to_cells(cells, window, numbers, _one_nan(values) if has_nan else values, valid)
        if seen is not None and numbers[0] == 1:
            seen(window, values[0], valid[0])
        if seen_bands is not None:
            seen_bands(window, numbers, values, valid)
    _add_checksums(whole, cells)
    return Facts(bands, whole.hexdigest())


def read_pieces(dataset: Any, report: Report | None = None) -> Iterator[tuple[Window, list[int], Any, Any]]:
    """Windows with some of the bands at a time: numbers, values and validity (bands, rows, columns)."""
    total = dataset.width * dataset.height
    pixel_bytes = np.dtype(dataset.dtypes[0]).itemsize + 1
    rows = _rows_at_once(dataset, pixel_bytes)
    together = max(1, min(dataset.count, MOST_WINDOW_BYTES // (rows * min(CELL, dataset.width) * pixel_bytes)))
    done = 0
    for window in windows(dataset.width, dataset.height, pixel_bytes * together, rows):
        for first in range(1, dataset.count + 1, together):
            numbers = list(range(first, min(first + together, dataset.count + 1)))
            try:
                values = dataset.read(numbers, window=window)
                valid = validity(dataset, numbers, window, values)
            except RasterioError as error:
                where = f"rows {window.row_off} to {window.row_off + window.height - 1}"
                raise DamagedRaster(where, cause(error)) from error
            yield window, numbers, values, valid
        done += window.width * window.height
        if report is not None:
            report(done / total)


def _rows_at_once(dataset: Any, pixel_bytes: int) -> int:
    """A cell's rows; of wide strips fewer, so that each is decoded once for its whole width and all bands."""
    _, block_columns = dataset.block_shapes[0]
    if block_columns < dataset.width:
        return CELL
    fitting = MOST_WINDOW_BYTES // (dataset.width * dataset.count * pixel_bytes)
    rows = CELL
    while rows > max(fitting, 1):
        rows //= 2
    # Strips higher than that stay in GDAL's cache while their parts are read.
    return rows


def windows(width: int, height: int, pixel_bytes: int, rows: int = CELL) -> Iterator[Window]:
    """Windows of whole cells or parts of their rows, from left to right and down, of at most MOST_WINDOW_BYTES."""
    columns = max(CELL, MOST_WINDOW_BYTES // (rows * pixel_bytes) // CELL * CELL)
    for row in range(0, height, rows):
        for column in range(0, width, columns):
            yield Window(column, row, min(columns, width - column), min(rows, height - row))


def validity(dataset: Any, numbers: list[int], window: Window, values: Any) -> Any:
    """Which of these values are valid, as booleans (bands, rows, columns)."""
    every = dataset.mask_flag_enums
    flags = [every[number - 1] for number in numbers]
    if all(MaskFlags.all_valid in each for each in flags):
        return _by_alpha(dataset, numbers, window, values)
    if all(MaskFlags.per_dataset in each for each in flags):
        mask = dataset.read_masks(numbers[0], window=window) > 0
        return np.broadcast_to(mask, values.shape)
    valid = _by_nodata(dataset, flags, values)
    if valid is None:
        valid = dataset.read_masks(numbers, window=window) > 0
    if all(MaskFlags.nodata in each for each in flags):
        # GDAL hides by nodata alone where there is an alpha band as well.
        valid &= _by_alpha(dataset, numbers, window, values)
    return valid


def _by_nodata(dataset: Any, flags: list[Any], values: Any) -> Any:
    """As GDAL's mask bands, which read and compare every value again; None where only those know.

    GDAL takes floats for equal that differ after six digits: of values so near to nodata it is asked.
    """
    nodata, dtype = dataset.nodata, values.dtype
    if any(each != [MaskFlags.nodata] for each in flags) or len(set(map(repr, dataset.nodatavals))) > 1:
        return None
    if nodata is None or dtype.kind not in "iuf" or (dtype.kind != "f" and dtype.itemsize > MOST_EXACT_INTEGER):
        return None
    if math.isnan(nodata):
        return ~np.isnan(values) if dtype.kind == "f" else None
    if dtype.kind != "f":
        return values != dtype.type(nodata) if float(nodata).is_integer() else None
    return _by_nodata_of_floats(dtype.type(nodata), values)


def _by_nodata_of_floats(value: Any, values: Any) -> Any:
    far = _endless(value)
    with np.errstate(over="ignore", invalid="ignore"):
        near = values.dtype.type(NEARLY_EQUAL) * abs(value)
        # A window without nodata is decided by its lowest and highest value; not so where it has NaN.
        if far is None and values.size and (values.min() > value + near or values.max() < value - near):
            return np.ones(values.shape, bool)
        valid = values != value
        is_near = (values >= value - near) & (values <= value + near)
        if far is not None:
            is_near |= values <= -far if value < 0 else values >= far
    # Around infinity there is nothing: it is equal to itself alone.
    if math.isinf(value):
        return valid
    return valid if np.count_nonzero(is_near) + np.count_nonzero(valid) == valid.size else None


def _endless(nodata: Any) -> Any:
    """From where on values of its sign are equal to a huge nodata for GDAL: their sum is infinite. Else None."""
    kind = np.finfo(nodata.dtype)
    if math.isinf(nodata) or abs(nodata) < kind.max * kind.eps:
        return None
    return max(kind.max - abs(nodata), kind.max * kind.eps / 4)


def _by_alpha(dataset: Any, numbers: list[int], window: Window, values: Any) -> Any:
    """An alpha band hides pixels whatever its type; GDAL makes masks of those of 8 and 16 unsigned bits only."""
    valid = np.ones(values.shape, bool)
    if ColorInterp.alpha in dataset.colorinterp:
        alpha = dataset.colorinterp.index(ColorInterp.alpha) + 1
        is_shown = dataset.read(alpha, window=window) > 0
        for index, number in enumerate(numbers):
            if number != alpha:
                valid[index] = is_shown
    return valid


def _one_nan(values: Any) -> Any:
    """NaN has many patterns of bits, and lerc keeps one."""
    return np.where(np.isnan(values), values.dtype.type(np.nan), values)


def _add_to_cells(cells: Cells, window: Window, numbers: list[int], values: Any, valid: Any) -> None:
    """Each band of each cell has its checksums, which go on row after row."""
    if valid.all():
        known = values
    else:
        known = np.where(valid, values, values.dtype.type(0)) if valid.any() else np.zeros_like(values)
    row = window.row_off // CELL
    for index, number in enumerate(numbers):
        for column in range(0, window.width, CELL):
            place = (row, (window.col_off + column) // CELL, number)
            part = (index, slice(None), slice(column, column + CELL))
            of_values, of_valid = cells.get(place, (0, 0))
            cells[place] = (
                zlib.crc32(np.ascontiguousarray(known[part]).data, of_values),
                zlib.crc32(np.packbits(valid[part], axis=1).data, of_valid),
            )


def _add_checksums(whole: Any, cells: Cells) -> None:
    for place in sorted(cells):
        whole.update(struct.pack("<II", *cells[place]))
    cells.clear()


def cause(error: BaseException) -> str:
    """The innermost reason: GDAL's own words, without the name of the link that it read."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _STAGED.sub("", str(error))
