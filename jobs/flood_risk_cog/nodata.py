"""The nodata value of a raster as its file has it, where GDAL or rasterio take it for another one."""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jobs.flood_risk_cog.tiff import nodata_text

# GDAL's metadata beside a raster.
AUX = ".aux.xml"
# GDAL's tag of a nodata value per band: a pixel is hidden where all bands have theirs.
PER_BAND = "NODATA_VALUES"
_LONG = ("int64", "uint64")
# In GDAL's metadata of a band, in lower case.
NUMBERS = {"nodatavalue", "scale", "offset"}
_DIGITS = re.compile(r"\s*[+-]?\d{1,40}\s*")
# As C libraries of Microsoft print what is no number.
_SPECIAL = re.compile(r"\s*[+-]?1\.#(?:QNAN|SNAN|IND|INF)\w*\s*", re.IGNORECASE)
_ADVICE = "correct it (gdal_edit -a_nodata), or remove it (gdal_edit -unsetnodata)"


def problem_with_nodata(dataset: Any) -> str | None:
    """Why an open local raster would have a nodata value that nobody gave it, in words; None where it has its own.

    GDAL takes a text that is no number for 0, and of 64-bit whole numbers the digits that it begins with.
    """
    if problem := _problem_with_values_per_band(dataset):
        return problem
    if dataset.dtypes[0] in _LONG:
        return _problem_of_long(dataset)
    text = nodata_text(dataset.name)
    # Where a metadata file beside it has another one, that is its nodata.
    if text is not None and dataset.nodata == 0 and not is_number(text):
        return f"its nodata is the text {text[:50]!r}, which is no number and would hide the value 0; {_ADVICE}"
    return None


def _problem_with_values_per_band(dataset: Any) -> str | None:
    """GDAL takes what is no number for 0 here too, and leaves out the fraction where values are whole numbers."""
    texts = dataset.tags().get(PER_BAND, "").split()
    is_whole = np.dtype(dataset.dtypes[0]).kind in "iu"
    # Of another number of them GDAL makes nothing.
    for text in texts if len(texts) == dataset.count else []:
        if not is_number(text) or (is_whole and not _is_whole(text)):
            return (
                f"its {PER_BAND} have the text {text[:50]!r}, which is no value of its type {dataset.dtypes[0]} and "
                f"would hide another one; correct or remove them (gdal_edit -mo)"
            )
    return None


def _is_whole(text: str) -> bool:
    try:
        return float(text.replace(",", ".")).is_integer()
    except ValueError:
        return False


def problem_outside(dataset: Any) -> str | None:
    """Why an open raster's nodata cannot be written where a reprojected one has no pixels, in words; None if it can."""
    nodata, dtype = dataset.nodata, np.dtype(dataset.dtypes[0])
    if nodata is None:
        return None
    if dtype.kind in "iu" and not float(nodata).is_integer():
        return f"its nodata {nodata:g} is no value of its type {dtype}; give it a whole number (gdal_edit -a_nodata)"
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
    if bits and dtype.kind == "u" and nodata >= 1 << int(bits):
        return f"its nodata {nodata:g} is more than its {bits} bits hold; give it a smaller one (gdal_edit -a_nodata)"
    if bits == "16" and dtype.kind == "f" and not _is_half(nodata):
        return f"its nodata {nodata:g} is no value of floats of {bits} bits; give it one that is (gdal_edit -a_nodata)"
    return None


def _is_half(value: float) -> bool:
    """Whether a float of 16 bits is equal to it; GDAL writes no others that are shorter than 32."""
    with np.errstate(over="ignore"):
        return math.isnan(value) or float(np.float16(value)) == value


def exact_nodata(dataset: Any, *, is_alone: bool = False) -> int | float | None:
    """Of an open local raster, where a double is not exact as a whole number.

    Args:
        is_alone: The files beside it are none of its.
    """
    if dataset.dtypes[0] in _LONG:
        text = nodata_text(dataset.name) if is_alone else _texts_of_bands(dataset)[0]
        if _DIGITS.fullmatch(text or ""):
            return int(text or "")
    nodata = dataset.nodata
    return None if nodata is None else float(nodata)


def _problem_of_long(dataset: Any) -> str | None:
    limits = np.iinfo(dataset.dtypes[0])
    texts = _texts_of_bands(dataset)
    for text in texts:
        if text is not None and not (_DIGITS.fullmatch(text) and limits.min <= int(text) <= limits.max):
            found = f"{text[:50]!r}, which is no whole number of its type {dataset.dtypes[0]} in digits"
            return f"its nodata is the text {found}: GDAL would hide another value; {_ADVICE}"
    # rasterio has none of those that a double cannot hold.
    values = {None if text is None else int(text) for text in texts}
    if len(values) > 1:
        found = ", ".join(sorted(map(str, values)))
        return f"its bands have different nodata values ({found}), a GeoTIFF has one; give them one"
    return None


def has_nodata(dataset: Any) -> bool:
    """Whether an open local raster has a value of nodata for GDAL: rasterio leaves out those beyond its type."""
    return any(text is not None for text in _texts_of_bands(dataset))


def _texts_of_bands(dataset: Any) -> list[str | None]:
    """The nodata of each band as it is written: in the metadata file beside the raster, or in the TIFF."""
    beside = nodata_beside(Path(f"{dataset.name}{AUX}"))
    own = nodata_text(dataset.name)
    return [beside.get(number, own) for number in dataset.indexes]


def nodata_beside(file: Path) -> dict[int, str]:
    """Texts of nodata in GDAL's metadata file, by the number of the band; empty where there is no such file."""
    found: dict[int, str] = {}
    if file.is_file():
        document = ET.parse(file).getroot()  # noqa: S314 - `stage` has read it before
        for number, name, text in numbers_of_bands(document):
            if name.lower() == "nodatavalue":
                found.setdefault(number, text)
    return found


def numbers_of_bands(document: ET.Element) -> Iterator[tuple[int, str, str]]:
    """Each text that is a number in GDAL's metadata of bands: the number of the band, the name of the text, and itself.

    GDAL takes names in upper and lower case for the same, and an attribute for an element.
    """
    for band in document:
        if band.tag.lower() != "pamrasterband":
            continue
        number = _DIGITS.match(next((text for name, text in band.attrib.items() if name.lower() == "band"), ""))
        for name, text in (*band.attrib.items(), *((each.tag, each.text or "") for each in band)):
            if name.lower() in NUMBERS and text.strip():
                yield int(number[0]) if number else 0, name, text


def is_number(text: str) -> bool:
    """Whether GDAL takes a text for the number that it is."""
    if _SPECIAL.fullmatch(text):
        return True
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return False
    # Of a sign before it GDAL makes a zero.
    return not (math.isnan(value) and text.strip().startswith("-"))


def nodata_as_json(dataset: Any) -> float | int | str | None:
    """Of an open local COG: exact where a double is not; JSON has no NaN and no infinity, they are spelt out."""
    nodata = exact_nodata(dataset, is_alone=True)
    return str(nodata) if isinstance(nodata, float) and not math.isfinite(nodata) else nodata
