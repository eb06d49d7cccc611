"""How much memory a conversion takes: its bound, the share of GDAL's cache, and what cannot fit."""

import ctypes
import math
import re
import sys
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from core.errors import PermanentTaskError

MEGABYTE = 1 << 20
# Of a conversion's process, Python and libraries included.
MOST_BYTES = 512 * MEGABYTE
# What libraries reserve and never touch counts for the system's bound, and takes no memory.
UNTOUCHED_BYTES = 64 * MEGABYTE
# What is left for blocks beside Python, the libraries and the windows that values are compared in.
MOST_BLOCK_BYTES = 376 * MEGABYTE
LEAST_CACHE = 32 * MEGABYTE
USUAL_CACHE = 96 * MEGABYTE
# Of a source that is kept whole while it is read, its overviews are made and it is written.
MOST_WHOLE = 192 * MEGABYTE
MOST_CHECK_CACHE = 160 * MEGABYTE
# Place and size of a block, as GDAL has them and as they are read here.
BYTES_OF_AN_ENTRY = 32
SMALL_ROW_BYTES = 8 * MEGABYTE
IN_TILES = "write it anew in tiles (gdal_translate -co TILED=YES -co COMPRESS=DEFLATE) and submit that"


_NO_MEMORY = re.compile(r"cannot allocate|out of memory|malloc|bad_alloc|no space for \w+ buffer", re.IGNORECASE)


class TooLittleMemory(PermanentTaskError):
    """The conversion met its bound; every attempt would."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{PurePosixPath(path).name}: expected its conversion to take at most {MOST_BYTES // MEGABYTE} MB of "
            f"memory, found that it needs more; {IN_TILES}"
        )


def limit_memory(most: int) -> None:
    """Have the system refuse this process more; what is mapped from files does not count."""
    if sys.platform == "linux":
        import resource  # noqa: PLC0415 - there is none on Windows

        bound = most + UNTOUCHED_BYTES
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (bound if hard < 0 else min(bound, hard), hard))


def give_back_memory() -> None:
    """Have the allocator return to the system what earlier rasters took."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is a refused allocation."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        # rasterio's name for GDAL's; it is looked up by name because an import may be what there is no memory for.
        if isinstance(error, MemoryError) or type(error).__name__ == "CPLE_OutOfMemoryError":
            return True
        # GDAL says it in words as well, in errors of other kinds.
        if _NO_MEMORY.search(str(error)):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def block_bytes(dataset: Any) -> int:
    """Bytes that one block takes while it is decoded and kept: of all bands where they are stored pixel by pixel."""
    rows, columns = dataset.block_shapes[0]
    one = rows * columns * np.dtype(dataset.dtypes[0]).itemsize
    if dataset.count == 1 or dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") != "PIXEL":
        return int(one)
    # Decoded as they are stored, and then a block a band.
    return int(2 * one * dataset.count)


def problem_with_blocks(dataset: Any) -> str | None:
    """Why the blocks of an open raster cannot be read within the bound, in words; None when they can."""
    if (table := _table_bytes(dataset)) > MOST_BLOCK_BYTES:
        return (
            f"the table of its {table // BYTES_OF_AN_ENTRY} blocks alone needs {table // MEGABYTE} MB of memory, and a "
            f"conversion has {MOST_BLOCK_BYTES // MEGABYTE} MB; divide it into smaller rasters (gdal_retile)"
        )
    needed = block_bytes(dataset) + stored_bytes(dataset)
    if needed <= MOST_BLOCK_BYTES:
        return None
    rows, columns = dataset.block_shapes[0]
    return (
        f"its blocks of {columns} x {rows} pixels need {math.ceil(needed / MEGABYTE)} MB of memory each, and a "
        f"conversion has {MOST_BLOCK_BYTES // MEGABYTE} MB for them; {IN_TILES}"
    )


def _table_bytes(dataset: Any) -> int:
    rows, columns = dataset.block_shapes[0]
    blocks = math.ceil(dataset.height / rows) * math.ceil(dataset.width / columns)
    is_by_pixel = dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
    return int(blocks * (1 if is_by_pixel else dataset.count) * BYTES_OF_AN_ENTRY)


def stored_bytes(dataset: Any) -> int:
    """Bytes of the first block in the file: it is read whole before it is decoded."""
    found = dataset.get_tag_item("BLOCK_SIZE_0_0", "TIFF", bidx=1)
    return int(found) if found else 0


def cache_bytes(dataset: Any, tile_size: int) -> int:
    """GDAL's cache for one conversion: a small source is decoded once.

    Of a larger one, each block is decoded once for a row of the result's tiles.
    """
    if is_kept_whole(dataset, tile_size):
        return max(_whole(dataset), LEAST_CACHE)
    usual = min(max(_row_of_blocks(dataset, tile_size) + _row_of_tiles(dataset, tile_size), LEAST_CACHE), USUAL_CACHE)
    return int(max(usual, block_bytes(dataset)))


def is_kept_whole(dataset: Any, tile_size: int) -> bool:
    """Whether all of the source is in GDAL's cache from its first reader to its last."""
    return _whole(dataset) <= MOST_WHOLE and not is_too_wide(dataset, tile_size)


def _whole(dataset: Any) -> int:
    """Bytes of a source with its mask, and of the overviews that are made of it meanwhile."""
    # By name: this module is imported before rasterio may be.
    mask = any(flag.name == "per_dataset" for flag in dataset.mask_flag_enums[0])
    pixels = _row_of_blocks(dataset, dataset.height) // _pixel_bytes(dataset)
    return pixels * (_pixel_bytes(dataset) + mask) * 11 // 8


def cache_for_check(cog: Any) -> int:
    """GDAL's cache while a COG is compared with its overviews: a row of tiles, or at least one, of each is in use."""
    rows, columns = cog.block_shapes[0]
    tiles = 2 * rows * columns * _pixel_bytes(cog)
    usual = min(max(_row_of_tiles(cog, rows) * 5 // 2, LEAST_CACHE), USUAL_CACHE)
    return int(min(max(usual, tiles + tiles // 8), MOST_CHECK_CACHE))


def is_too_wide(dataset: Any, tile_size: int) -> bool:
    """Whether its strips would be decoded again for each tile of a row: a copy in small tiles comes before the COG."""
    _, columns = dataset.block_shapes[0]
    return bool(columns >= dataset.width and _row_of_blocks(dataset, tile_size) > USUAL_CACHE)


def rows_of_small_tiles(dataset: Any, tile_size: int) -> int:
    """So many that a row of them, in all bands, is no burden; TIFF wants multiples of 16."""
    rows = SMALL_ROW_BYTES // (dataset.width * _pixel_bytes(dataset)) // 16 * 16
    return int(min(max(rows, 16), tile_size))


def _row_of_blocks(dataset: Any, tile_size: int) -> int:
    rows, columns = dataset.block_shapes[0]
    across = math.ceil(dataset.width / columns) * columns
    # Rows of tiles seldom begin where rows of blocks do.
    down = min(math.ceil(tile_size / rows) + (tile_size % rows != 0), math.ceil(dataset.height / rows))
    return int(across * down * rows * _pixel_bytes(dataset))


def _row_of_tiles(dataset: Any, tile_size: int) -> int:
    return int(math.ceil(dataset.width / tile_size) * tile_size * tile_size * _pixel_bytes(dataset))


def _pixel_bytes(dataset: Any) -> int:
    return int(np.dtype(dataset.dtypes[0]).itemsize * dataset.count)
