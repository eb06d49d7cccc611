"""The nodata value of a raster as its file has it, where GDAL or rasterio take it for another one."""

import math
import re
from typing import Any

import numpy as np

from jobs.flood_risk_cog.tiff import nodata_text

_LONG = ("int64", "uint64")
_DIGITS = re.compile(r"\s*[+-]?\d+\s*")
# As C libraries of Microsoft print what is no number.
_SPECIAL = re.compile(r"\s*[+-]?1\.#(?:QNAN|SNAN|IND|INF)\w*\s*", re.IGNORECASE)
_ADVICE = "correct it (gdal_edit -a_nodata), or remove it (gdal_edit -unsetnodata)"


def problem_with_nodata(dataset: Any) -> str | None:
    """Why an open local raster would have a nodata value that nobody gave it, in words; None where it has its own.

    GDAL takes a text that is no number for 0, and of 64-bit whole numbers the digits that it begins with.
    """
    text = nodata_text(dataset.name)
    if text is None:
        return None
    if dataset.dtypes[0] in _LONG:
        return _problem_of_long(dataset, text)
    # Where a metadata file beside it has another one, that is its nodata.
    if dataset.nodata == 0 and not _is_number(text):
        return f"its nodata is the text {text[:50]!r}, which is no number and would hide the value 0; {_ADVICE}"
    return None


def _problem_of_long(dataset: Any, text: str) -> str | None:
    limits = np.iinfo(dataset.dtypes[0])
    if _DIGITS.fullmatch(text) and limits.min <= int(text) <= limits.max:
        return None
    begin = _DIGITS.match(text)
    # rasterio has no nodata of them that a double cannot hold.
    if dataset.nodata is not None and dataset.nodata != float(begin[0] if begin else 0):
        return None
    found = f"{text[:50]!r}, which is no whole number of its type {dataset.dtypes[0]} in digits"
    return f"its nodata is the text {found}: GDAL would hide another value; {_ADVICE}"


def _is_number(text: str) -> bool:
    if _SPECIAL.fullmatch(text):
        return True
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return False
    # Of a sign before it GDAL makes a zero.
    return not (math.isnan(value) and text.strip().startswith("-"))


def nodata_as_json(dataset: Any) -> float | int | str | None:
    """Of an open local raster: exact where a double is not; JSON has no NaN and no infinity, they are spelt out."""
    if dataset.dtypes[0] in _LONG and _DIGITS.fullmatch(text := nodata_text(dataset.name) or ""):
        return int(text)
    nodata = dataset.nodata
    if nodata is None or not math.isfinite(nodata):
        return None if nodata is None else str(nodata)
    return float(nodata)
