"""Damage that GDAL reads over: blocks that differ from their own checksum, and errors that it reports and goes on.

libtiff stops to decompress DEFLATE when a block is full. Damage that makes the rest of a block longer is values then.
"""

import logging
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jobs.flood_risk_cog.facts import DamagedRaster
from jobs.flood_risk_cog.tiff import Directory, directories, full_size_directories

# Adobe's number of it, and the older one.
_DEFLATE = {8, 32946}
_PIECE = 1 << 20
# Bytes of Adler-32, at the end of a block.
_CHECKSUM = 4
_GDAL = "rasterio._err"
# rasterio's words for an error that came with a result, and libjpeg's for data that it made up.
_UNRAISED, _MADE_UP = "GDAL signalled an error", "Corrupt JPEG data"


class BlockCheck:
    """Compares each DEFLATE block of a local TIFF, and of its masks, with the checksum that is stored with it.

    The values that GDAL read have this checksum, where they are stored as they are: `see` compares them. All other
    blocks `finish` decompresses once more.
    """

    def __init__(self, dataset: Any, path: str) -> None:
        self._path = path
        self._directories = full_size_directories(path)
        # The checksum of the values of a block, by its number.
        self._found: dict[int, int] = {}
        self._layout = _Layout.of(dataset, self._directories[0]) if self._directories else None
        # Of blocks of which the upper rows were seen: how many, and their checksum.
        self._begun: dict[int, tuple[int, int]] = {}

    def see(self, window: Any, numbers: list[int], values: Any, valid: Any) -> None:
        """Take in values (bands, rows, columns) of a window; windows go down."""
        del valid
        if self._layout is None:
            return
        for number, first_row, is_last, part in self._layout.parts(window, numbers, values):
            row, before = self._begun.pop(number, (0, 1))
            if row != first_row:
                continue
            found = zlib.adler32(part, before)
            if is_last:
                self._found[number] = found
            else:
                self._begun[number] = (first_row + len(part), found)

    def finish(self) -> None:
        """After all windows.

        Raises:
            DamagedRaster: A block has other bytes than its writer compressed.
        """
        with Path(self._path).open("rb") as file:
            for directory in self._directories:
                _check_directory(file, directory, self._found if directory is self._directories[0] else {})


def check_blocks(path: str) -> None:
    """As `BlockCheck`, of a TIFF whose values were not read; where there is no such file, there is nothing to compare.

    Raises:
        DamagedRaster: A block has other bytes than its writer compressed.
    """
    if not Path(path).is_file():
        return
    with Path(path).open("rb") as file:
        for directory in full_size_directories(path):
            _check_directory(file, directory, {})


def check_every_block(path: str) -> None:
    """As `check_blocks`, with overviews and their masks."""
    with Path(path).open("rb") as file:
        for directory in directories(path):
            _check_directory(file, directory, {})


def _check_directory(file: BinaryIO, directory: Directory, found: dict[int, int]) -> None:
    """Of blocks whose values do not have the checksum (`found`, by number from 0), it is that of what they hold."""
    _check_table(directory)
    if directory.compression not in _DEFLATE:
        return
    # A table may be longer than the image.
    table = zip(directory.offsets[: directory.blocks], directory.sizes, strict=False)
    for number, (offset, size) in enumerate(table):
        # Sparse: there is nothing.
        if not offset or not size:
            continue
        file.seek(int(offset) + int(size) - _CHECKSUM)
        if found.get(number) == int.from_bytes(file.read(_CHECKSUM), "big"):
            continue
        file.seek(int(offset))
        try:
            _inflate(file.read(int(size)))
        except zlib.error as error:
            raise DamagedRaster(f"block {number + 1} of {directory.offsets.size}", str(error)) from error


def _check_table(directory: Directory) -> None:
    """Libtiff takes what a table of blocks lacks for 0: GDAL makes up zeros, or takes the file's header for values."""
    # Of a single strip, or one per band, libtiff finds out the size.
    known = [len(directory.offsets), *([len(directory.sizes)] if directory.blocks > directory.planes else [])]
    if max(known) > 0 and min(known) < directory.blocks:
        raise DamagedRaster("its table of blocks", f"{min(known)} of {directory.blocks} are there")
    there = min(directory.blocks, len(directory.offsets), len(directory.sizes))
    lost = np.flatnonzero((directory.offsets[:there] == 0) & (directory.sizes[:there] > 0))
    if lost.size:
        raise DamagedRaster("its table of blocks", f"block {lost[0] + 1} of {directory.blocks} has no place")


def _inflate(content: bytes) -> None:
    inflater = zlib.decompressobj()
    while not inflater.eof:
        piece = inflater.decompress(content, _PIECE)
        content = inflater.unconsumed_tail
        # GDAL reads over a stream that breaks off.
        if not piece and not content and not inflater.eof:
            raise zlib.error("incomplete or truncated stream")


@dataclass(frozen=True)
class _Layout:
    """Where in the blocks of an image its values are, as they are stored."""

    directory: Directory
    rows: int
    columns: int
    width: int
    height: int
    across: int
    down: int
    bands: int
    by_pixel: bool
    is_tiled: bool
    dtype: Any

    @classmethod
    def of(cls, dataset: Any, directory: Directory) -> "_Layout | None":
        """None where values are not stored as they are."""
        rows, columns = dataset.block_shapes[0]
        is_as_stored = directory.compression in _DEFLATE and directory.predictor == 1
        if not is_as_stored or "NBITS" in dataset.tags(1, ns="IMAGE_STRUCTURE"):
            return None
        return cls(
            directory,
            rows,
            columns,
            dataset.width,
            dataset.height,
            math.ceil(dataset.width / columns),
            math.ceil(dataset.height / rows),
            dataset.count,
            dataset.count > 1 and dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL",
            directory.is_tiled,
            np.dtype(dataset.dtypes[0]).newbyteorder(directory.order),
        )

    def parts(self, window: Any, numbers: list[int], values: Any) -> Iterator[tuple[int, int, bool, Any]]:
        """Parts of blocks in a window: the block's number, the part's first row in it, if it is the last, its bytes."""
        if self.by_pixel and len(numbers) < self.bands:
            return
        last_row, last_column = window.row_off + window.height, window.col_off + window.width
        for y in range(window.row_off // self.rows, math.ceil(last_row / self.rows)):
            # Of a strip the file has the rows of the image, of a tile all.
            end = (y + 1) * self.rows if self.is_tiled else min((y + 1) * self.rows, self.height)
            top, bottom = max(y * self.rows, window.row_off), min(end, last_row)
            # Of the last tiles the image has a part; writers mostly fill the rest with zeros.
            below = end - bottom if bottom == self.height else 0
            last_x = self.across if last_column == self.width else last_column // self.columns
            for x in range(math.ceil(window.col_off / self.columns), last_x):
                if self._is_sparse(y * self.across + x):
                    continue
                left = x * self.columns - window.col_off
                place = (slice(None), slice(top - window.row_off, bottom - window.row_off))
                part = values[(*place, slice(left, left + self.columns))].astype(self.dtype, copy=False)
                if below or part.shape[2] < self.columns:
                    part = np.pad(part, ((0, 0), (0, below), (0, self.columns - part.shape[2])))
                for band, stored in self._as_stored(numbers, part):
                    yield (band * self.down + y) * self.across + x, top - y * self.rows, bottom + below == end, stored

    def _is_sparse(self, number: int) -> bool:
        """Whether there is nothing of all bands at the place of this block of the first one."""
        sizes = self.directory.sizes
        return number < len(sizes) and not sizes[number :: self.across * self.down].any()

    def _as_stored(self, numbers: list[int], part: Any) -> Iterator[tuple[int, Any]]:
        if self.by_pixel:
            yield 0, np.ascontiguousarray(part.transpose(1, 2, 0))
            return
        for number, one in zip(numbers, part, strict=True):
            yield number - 1, np.ascontiguousarray(one)


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.problem: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if self.problem is None and (text.startswith(_UNRAISED) or _MADE_UP in text):
            self.problem = text.rpartition("msg=")[2].strip("'")


@contextmanager
def nothing_made_up() -> Iterator[None]:
    """A block of code in which GDAL reads: what it reports as an error without ending the read, ends the block.

    Raises:
        DamagedRaster: There was such an error.
    """
    log, heard = logging.getLogger(_GDAL), _Heard()
    level, log.level = log.level, logging.INFO
    # A record of the level that is only for this handler goes no further.
    propagates, log.propagate = log.propagate, False
    log.addHandler(heard)
    try:
        yield
    finally:
        log.removeHandler(heard)
        log.setLevel(level)
        log.propagate = propagates
    if heard.problem is not None:
        raise DamagedRaster("some of its blocks", heard.problem)
