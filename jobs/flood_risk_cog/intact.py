"""Damage that GDAL reads over: blocks that differ from their own checksum, and errors that it reports and goes on.

libtiff stops to decompress DEFLATE when a block is full. Damage that makes the rest of a block longer is values then.
"""

import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.flood_risk_cog.facts import DamagedRaster
from jobs.flood_risk_cog.tiff import full_size_directories

# Adobe's number of it, and the older one.
_DEFLATE = {8, 32946}
_PIECE = 1 << 20
_GDAL = "rasterio._err"
# rasterio's words for an error that came with a result, and libjpeg's for data that it made up.
_UNRAISED, _MADE_UP = "GDAL signalled an error", "Corrupt JPEG data"


def check_blocks(path: str) -> None:
    """Compare each DEFLATE block of a local TIFF, and of its masks, with the checksum that is stored with it.

    Where there is no such file, there is nothing to compare.

    Raises:
        DamagedRaster: One has other bytes than its writer compressed.
    """
    if not Path(path).is_file():
        return
    with Path(path).open("rb") as file:
        for directory in full_size_directories(path):
            if directory.compression not in _DEFLATE:
                continue
            for number, (offset, size) in enumerate(zip(directory.offsets, directory.sizes, strict=False), start=1):
                if not offset or not size:
                    # Sparse: there is nothing.
                    continue
                file.seek(int(offset))
                try:
                    _inflate(file.read(int(size)))
                except zlib.error as error:
                    raise DamagedRaster(f"block {number} of {directory.offsets.size}", str(error)) from error


def _inflate(content: bytes) -> None:
    inflater = zlib.decompressobj()
    while content and not inflater.eof:
        inflater.decompress(content, _PIECE)
        # What is missing at the end GDAL reports.
        content = inflater.unconsumed_tail


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
