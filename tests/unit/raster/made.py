"""GeoTIFFs of every kind of value and validity, made by rasterio alone."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float32", "float64")
TYPES = (*INTEGERS, *FLOATS)
# How a raster says which of its pixels are valid.
VALIDITIES = ("none", "nodata", "nan", "mask", "msk", "alpha", "nodata and mask")
PLACE = Affine(10, 0, 600_000, 0, -10, 3_300_000)
NODATA = 99
SIDE = 150
NODATA_TAG = 42113


def pixels_of(dtype: str, validity: str = "none", *, bands: int = 1, side: int = SIDE, seed: int = 0) -> Any:
    """Values from 0 to 89 (bands, rows, columns), of which many are 0; those that nodata hides are NODATA or NaN."""
    random = np.random.default_rng(seed)
    pixels = (np.clip(random.integers(-40, 90, (bands, side, side)), 0, None)).astype(dtype)
    hole = np.s_[:, side // 3 : side // 2, side // 4 : side // 2]
    if "nodata" in validity:
        pixels[hole] = NODATA
    elif validity == "nan":
        pixels[hole] = np.nan
    return pixels


def hidden(side: int = SIDE) -> Any:
    """Which pixels (rows, columns) a mask hides: another part than nodata does."""
    mask = np.zeros((side, side), bool)
    mask[: side // 4, : side // 2] = True
    return mask


def write_raster(path: Path, pixels: Any, validity: str = "none", **profile: Any) -> Path:
    """Write pixels (bands, rows, columns) with one of VALIDITIES; keywords go to rasterio."""
    bands, rows, columns = pixels.shape
    has_alpha = validity == "alpha"
    options: dict[str, Any] = {"crs": "EPSG:32614", "transform": PLACE, **profile}
    if "nodata" in validity:
        options["nodata"] = NODATA
    elif validity == "nan":
        options["nodata"] = float("nan")
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=validity != "msk"),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=columns,
            height=rows,
            count=bands + has_alpha,
            dtype=pixels.dtype.name,
            **options,
        ) as dataset,
    ):
        dataset.write(pixels, list(range(1, bands + 1)))
        if has_alpha:
            opaque = min(255, np.iinfo(pixels.dtype).max) if pixels.dtype.kind in "iu" else 255
            dataset.write(np.where(hidden(rows), 0, opaque).astype(pixels.dtype), bands + 1)
            dataset.colorinterp = [*dataset.colorinterp[:bands], ColorInterp.alpha]
        if "mask" in validity or validity == "msk":
            dataset.write_mask(~hidden(rows))
    return path


def write_nodata_text(path: Path, text: str) -> Path:
    """Have a small TIFF (little-endian, not BigTIFF) say this of its nodata, whatever GDAL would write."""
    value = text.encode() + b"\0"
    return write_tag(path, NODATA_TAG, 2, len(value), value)


def write_tag(path: Path, tag: int, kind: int, count: int, value: bytes) -> Path:
    """Have the first image of a small TIFF (little-endian, not BigTIFF) have a tag, whatever GDAL would write."""
    content = bytearray(path.read_bytes())
    (begin,) = struct.unpack_from("<I", content, 4)
    (number,) = struct.unpack_from("<H", content, begin)
    size = 2 + 12 * number
    entries = [bytes(content[at : at + 12]) for at in range(begin + 2, begin + size, 12)]
    entries = [entry for entry in entries if struct.unpack_from("<H", entry)[0] != tag]
    following = content[begin + size : begin + size + 4]
    content += bytes(len(content) % 2)
    place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", len(content))
    content += value if len(value) > 4 else b""
    content += bytes(len(content) % 2)
    entries.append(struct.pack("<HHI", tag, kind, count) + place)
    struct.pack_into("<I", content, 4, len(content))
    content += struct.pack("<H", len(entries)) + b"".join(sorted(entries, key=lambda each: each[:2][::-1])) + following
    path.write_bytes(bytes(content))
    return path
