"""Is a written file laid out as a COG? The rules of GDAL's `validate_cloud_optimized_geotiff`, with warnings as errors.

They are read from the TIFF's own directories. rio-cogeo has the same rules, and its import is a third of what a
conversion's process needs to start.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from jobs.flood_risk_cog.tiff import Directory, directories

# Of larger images a reader wants overviews.
MOST_WITHOUT_OVERVIEWS = 512
# The header, and what GDAL writes of the layout after it.
MOST_BEFORE_FIRST = 300
_CHANGED = b"KNOWN_INCOMPATIBLE_EDITION=YES"
# Bits of a TIFF's subfile type.
_REDUCED, _MASK = 1, 4


def find_layout_problems(cog: str) -> list[str]:
    """What makes a local TIFF no Cloud Optimized GeoTIFF, in words; empty when it is one."""
    found = directories(cog)
    if not found:
        return ["it is no TIFF"]
    images = [each for each in found if not each.subfile & _MASK]
    masks = [each for each in found if each.subfile & _MASK]
    return [
        *_problems_of_header(cog, found[0]),
        *_problems_of_directories(images),
        *_problems_of_data(images, "image", max(each.place for each in found)),
        *_problems_of_data(masks, "mask", max(each.place for each in found)),
    ]


def _problems_of_header(cog: str, first: Directory) -> Iterator[str]:
    if first.place > MOST_BEFORE_FIRST:
        yield f"expected its first directory within {MOST_BEFORE_FIRST} bytes, found it at byte {first.place}"
    with Path(cog).open("rb") as file:
        if _CHANGED in file.read(first.place):
            yield "it was changed after it was written, and its layout is no longer that of a COG"


def _problems_of_directories(images: Sequence[Directory]) -> Iterator[str]:
    whole, *overviews = images
    if whole.subfile & _REDUCED or any(not each.subfile & _REDUCED for each in overviews):
        yield "expected one image and its overviews, found another order or more images"
    for number, each in enumerate(images):
        if not each.is_tiled:
            yield f"{_name(number)} is not tiled"
    if max(whole.width, whole.height) > MOST_WITHOUT_OVERVIEWS and not overviews:
        yield f"expected overviews of an image of {whole.width} x {whole.height}, found none"
    for number, (larger, smaller) in enumerate(pairwise(images), start=1):
        if smaller.place < larger.place:
            yield f"the directory of {_name(number)} is before that of {_name(number - 1)}"
        if (smaller.width, smaller.height) == (larger.width, larger.height) or (
            smaller.width > larger.width or smaller.height > larger.height
        ):
            yield f"{_name(number)} is not smaller than {_name(number - 1)}"


def _problems_of_data(images: Sequence[Directory], what: str, last_directory: int) -> Iterator[str]:
    """A reader gets the directories first, and then the small overviews."""
    begins = [(number, begin) for number, each in enumerate(images) if (begin := _begin_of(each)) is not None]
    for (number, begin), (smaller, before) in pairwise(begins):
        if begin < before:
            yield f"the data of {_name(number)} ({what}) are before those of {_name(smaller)}"
    if begins and (first := min(begin for _, begin in begins)) < last_directory:
        yield f"expected all directories before the data, found data ({what}) at byte {first}"


def _begin_of(image: Directory) -> int | None:
    """Where its first block is that is not left out for being empty; None when all are."""
    places = image.offsets[np.flatnonzero(image.offsets)[:1]]
    return int(places[0]) if len(places) else None


def _name(number: int) -> str:
    return f"overview {number}" if number else "the full size"
