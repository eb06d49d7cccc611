"""What a TIFF has in its directories and GDAL does not pass on: its text of nodata, and where its blocks are."""

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_SUBFILE, _WIDTH, _HEIGHT, _COMPRESSION, _PREDICTOR, _NODATA = 254, 256, 257, 259, 317, 42113
_OFFSETS, _SIZES = (273, 324), (279, 325)
_SAMPLES, _ROWS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT = 277, 278, 284, 322, 323
# Of _PLANAR: each band is stored by itself.
_BY_BAND = 2
_ORIENTATION, _EXTRA_SAMPLES, _TOP_LEFT, _MULTIPLIED = 274, 338, 1, 1
# Of the coordinate system: four numbers each, of which the first is the key.
_KEYS, _KEY_OF_EPOCH = 34735, 5120
# In words, as one of what a result has lost.
EPOCH = "the epoch of its coordinates"
# How pixels are stored and where they lie: a COG has its own.
_OF_LAYOUT = {
    *(_SUBFILE, 255, _WIDTH, _HEIGHT, 258, _COMPRESSION, 262, 266, 277, 278, 284, 292, 293, _PREDICTOR, 320, 322, 323),
    *(*_OFFSETS, *_SIZES, _EXTRA_SAMPLES, 339, 347, *range(512, 522), 530, 531, 532, 32995, 32996, 32997, 32998),
    *(33550, 33920, 33922, 34264, _KEYS, 34736, 34737, 42112, _NODATA, 50674),
}
_NAMES = {
    269: "DocumentName",
    270: "ImageDescription",
    271: "Make",
    272: "Model",
    _ORIENTATION: "Orientation",
    285: "PageName",
    297: "PageNumber",
    305: "Software",
    306: "DateTime",
    315: "Artist",
    316: "HostComputer",
    330: "SubIFDs",
    700: "XMP",
    33432: "Copyright",
    33723: "IPTC",
    34377: "Photoshop",
    34665: "Exif",
    34675: "ICC profile",
    34853: "GPS",
    37724: "ImageSourceData",
}
# 17 is signed: libtiff reads it in the place of 16, as some writers have it.
_TYPES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 17: "u8", 18: "u8"}
# Of an overview, a page, a mask.
_IS_MASK = 4
_MOST_DIRECTORIES = 1000
# What is called .tif by mistake, and what to do: how it begins.
_CONVERT, _UNPACK = "convert it (gdal_translate)", "unpack it first"
_OTHERS = (
    (b"version https://git-lfs", "a pointer of Git LFS, of a file that was not fetched; fetch it (git lfs pull)"),
    (b"\x1f\x8b", f"a file of gzip; {_UNPACK}"),
    (b"PK\x03\x04", f"a zip file; {_UNPACK}"),
    (b"\x89PNG", f"a PNG; {_CONVERT}"),
    (b"\xff\xd8\xff", f"a JPEG; {_CONVERT}"),
    (b"\0\0\0\x0cjP", f"a JPEG 2000; {_CONVERT}"),
    (b"\xff\x4f\xff\x51", f"a JPEG 2000; {_CONVERT}"),
    (b"\x89HDF", f"an HDF5 or netCDF file; {_CONVERT}"),
    (b"CDF", f"a netCDF file; {_CONVERT}"),
    (b"EHFA_HEADER_TAG", f"an ERDAS Imagine file; {_CONVERT}"),
    (b"SQLite format 3", f"a GeoPackage or other SQLite file; {_CONVERT}"),
    (b"GRIB", f"a GRIB file; {_CONVERT}"),
)
_WEB_PAGES = (b"<!doctype html", b"<html")


@dataclass(frozen=True)
class Directory:
    """One image of a TIFF.

    Args:
        place: Where it begins, in bytes.
        width, height: In pixels.
        subfile, compression, predictor: Numbers of the TIFF's own.
        order: Of its bytes, as numpy has it.
        offsets, sizes: Of its blocks, in bytes; none of either where it is sparse as a whole.
        blocks: How many it has by its size.
        planes: 1, or as many as bands where each is stored by itself.
        nodata: None where it has none.
        tags: Numbers of all that it has.
        orientation: Of its rows, 1 for the usual one.
        is_multiplied: Whether its colours are multiplied by its alpha.
        has_epoch: Whether its coordinates are of a time.
    """

    place: int
    width: int
    height: int
    subfile: int
    compression: int
    predictor: int
    order: str
    is_tiled: bool
    offsets: Any
    sizes: Any
    blocks: int
    planes: int
    nodata: str | None
    tags: frozenset[int]
    orientation: int
    is_multiplied: bool
    has_epoch: bool


def what_it_is(path: str) -> str | None:
    """What a local file that cannot be opened is, with what to do, in words; None for a TIFF and what is not known."""
    try:
        with Path(path).open("rb") as file:
            begin = file.read(64)
    except OSError:
        return None
    if not begin:
        return "an empty file; get a fresh copy"
    if begin.lstrip().lower().startswith(_WEB_PAGES):
        return "a web page, as a server sends in the place of a file; get a fresh copy"
    return next((words for start, words in _OTHERS if begin.startswith(start)), None)


def directories(path: str, *, tables: bool = True) -> list[Directory]:
    """All images of a local TIFF in the order of its chain; empty where there is no TIFF.

    Args:
        tables: Whether to read where blocks are: of millions of blocks that takes much memory.
    """
    with Path(path).open("rb") as file:
        return list(_directories(file, tables=tables))


def full_size_directories(path: str) -> list[Directory]:
    """The first image and its masks, without overviews and their masks; empty where there is no TIFF."""
    found = directories(path)
    return [*found[:1], *(each for each in found[1:] if each.subfile == _IS_MASK)]


def page_of_larger_image(path: str) -> int | None:
    """The number, from 1, of the largest image of a local TIFF that is larger than its first; None for most."""
    found = directories(path, tables=False)
    images = [each for each in found if not each.subfile & _IS_MASK]
    largest = max(images, key=lambda each: each.width * each.height, default=None)
    if largest is None or largest.width * largest.height <= found[0].width * found[0].height:
        return None
    return found.index(largest) + 1


def nodata_text(path: str) -> str | None:
    """The nodata of a local TIFF as it is written in it."""
    found = directories(path, tables=False)
    return found[0].nodata if found else None


def lost_tags(before: str, after: str) -> list[str]:
    """Names of what the first image of a local TIFF has beside its pixels, and that of another one made of it has not.

    GDAL does not pass on what it does not know.
    """
    (one, *_), (two, *_) = (directories(each, tables=False) for each in (before, after))
    found = one.tags - two.tags - _OF_LAYOUT - ({_ORIENTATION} if one.orientation == _TOP_LEFT else set())
    lost = [f"tag {tag} ({_NAMES[tag]})" if tag in _NAMES else f"tag {tag}" for tag in sorted(found)]
    if one.has_epoch and not two.has_epoch:
        lost.append(EPOCH)
    if one.is_multiplied and not two.is_multiplied:
        lost.append("that its colours are multiplied by its alpha")
    return lost


def _directories(file: BinaryIO, *, tables: bool) -> Iterator[Directory]:
    """Of the chain that begins in the header; it ends where the file does, as it does for GDAL."""
    header = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(header[:2])
    if order is None or len(header) < 8:  # noqa: PLR2004 - the shorter header
        return
    is_big = header[2:4] in {b"+\0", b"\0+"}
    pointer = struct.Struct(f"{order}{'Q' if is_big else 'I'}")
    entry = struct.Struct(f"{order}HH{'Q8s' if is_big else 'I4s'}")
    number = struct.Struct(f"{order}{'Q' if is_big else 'H'}")
    (offset,) = pointer.unpack_from(header, 8 if is_big else 4)
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MOST_DIRECTORIES:
        seen.add(offset)
        file.seek(offset)
        if len(count := file.read(number.size)) < number.size:
            return
        size = number.unpack(count)[0] * entry.size
        content = file.read(size + pointer.size)
        if len(content) < size + pointer.size:
            return
        entries = {tag: rest for tag, *rest in entry.iter_unpack(content[:size])}
        yield _directory(file, order, offset, entries, tables=tables)
        (offset,) = pointer.unpack_from(content, size)


def _directory(file: BinaryIO, order: str, place: int, entries: dict[int, list[Any]], *, tables: bool) -> Directory:
    def first(tag: int, default: int) -> int:
        values = _values(file, order, entries.get(tag))
        return int(values[0]) if len(values) else default

    offsets, sizes = (
        next((_values(file, order, entries[tag]) for tag in tags if tables and tag in entries), np.empty(0, "u8"))
        for tags in (_OFFSETS, _SIZES)
    )
    width, height = first(_WIDTH, 0), first(_HEIGHT, 0)
    is_tiled = _OFFSETS[1] in entries
    across = first(_TILE_WIDTH, width) if is_tiled else width
    down = first(_TILE_HEIGHT if is_tiled else _ROWS, height)
    # GDAL opens no raster with such a 0.
    blocks = math.ceil(width / max(across, 1)) * math.ceil(height / max(down, 1))
    planes = first(_SAMPLES, 1) if first(_PLANAR, 1) == _BY_BAND else 1
    text = _values(file, order, entries.get(_NODATA)).tobytes().split(b"\0")[0].decode("latin-1")
    return Directory(
        place=place,
        width=width,
        height=height,
        subfile=first(_SUBFILE, 0),
        compression=first(_COMPRESSION, 1),
        predictor=first(_PREDICTOR, 1),
        order=order,
        is_tiled=is_tiled,
        offsets=offsets,
        sizes=sizes,
        blocks=blocks * planes,
        planes=planes,
        nodata=text or None,
        tags=frozenset(entries),
        orientation=first(_ORIENTATION, _TOP_LEFT),
        has_epoch=_KEY_OF_EPOCH in _values(file, order, entries.get(_KEYS))[::4],
        is_multiplied=_MULTIPLIED in _values(file, order, entries.get(_EXTRA_SAMPLES)),
    )


def _values(file: BinaryIO, order: str, entry: list[Any] | None) -> Any:
    """Numbers or bytes of an entry; as many of them as the file has."""
    if entry is None or entry[0] not in _TYPES:
        return np.empty(0, "u1")
    kind, count, inline = entry
    dtype = np.dtype(order + _TYPES[kind])
    size = count * dtype.itemsize
    if size <= len(inline):
        content = inline[:size]
    else:
        place = int.from_bytes(inline, "little" if order == "<" else "big")
        # Python takes the memory for all that is asked for, and a damaged count may be any.
        rest = max(0, file.seek(0, os.SEEK_END) - place)
        file.seek(place)
        content = file.read(min(size, rest))
    return np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)
