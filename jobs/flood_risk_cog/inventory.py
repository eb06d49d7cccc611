"""Which rasters a source holds, and what each of them is."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, TypedDict

import fsspec
from rasterio.errors import RasterioError

from jobs.flood_risk_cog.source import SourceNotFound, is_remote, open_raster, without_file_scheme

SUFFIXES = (".tif", ".tiff")
REMOTE_READS = 8
# Results are rows in the database: a definition of pages is not what they are for.
LONGEST_CRS = 1000


class NoRasters(ValueError):
    """The source exists and holds no GeoTIFF."""

    def __init__(self, source: str) -> None:
        super().__init__(f"expected *.tif or *.tiff files in {source!r}, found none; choose the folder that holds them")
        self.source = source


class AmbiguousRasters(ValueError):
    """Two rasters would be written to the same output."""

    def __init__(self, source: str, stems: list[str]) -> None:
        super().__init__(
            f"expected each raster in {source!r} to have its own name, found several files named {', '.join(stems)} "
            "that differ in the suffix or in case alone; rename them, or one would overwrite the other"
        )
        self.stems = stems


class RasterFile(TypedDict):
    """A raster of the source, not opened yet."""

    name: str
    path: str
    bytes: int


def list_rasters(source: str) -> list[RasterFile]:
    """The rasters directly in a folder or fsspec URL, sorted by name.

    Raises:
        SourceNotFound: There is no such folder.
        NoRasters: It holds no raster.
        AmbiguousRasters: Two of them would share one output name.
    """
    source = without_file_scheme(source)
    filesystem, root = fsspec.core.url_to_fs(source)
    try:
        entries = filesystem.ls(root, detail=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFound(source) from error
    rasters: list[RasterFile] = []
    for entry in entries:
        inner = str(entry["name"])
        if entry["type"] == "file" and inner.lower().endswith(SUFFIXES):
            path = filesystem.unstrip_protocol(inner) if is_remote(source) else inner
            rasters.append({"name": PurePosixPath(inner).name, "path": path, "bytes": int(entry["size"])})
    if not rasters:
        raise NoRasters(source)
    stems = Counter(PurePosixPath(raster["name"]).stem.lower() for raster in rasters)
    if repeated := sorted(stem for stem, count in stems.items() if count > 1):
        raise AmbiguousRasters(source, repeated)
    return sorted(rasters, key=lambda raster: raster["name"])


def inspect_rasters(files: Sequence[RasterFile]) -> Iterator[dict[str, Any]]:
    """What each raster says of itself, in their order; several remote ones are asked side by side."""
    if not files or not is_remote(files[0]["path"]):
        yield from (inspect_raster(file["path"]) for file in files)
        return
    pool = ThreadPoolExecutor(REMOTE_READS, thread_name_prefix="inventory")
    try:
        yield from pool.map(inspect_raster, [file["path"] for file in files])
    finally:
        # Also when the caller stops early: what was not begun is not read any more.
        pool.shutdown(cancel_futures=True)


def inspect_raster(path: str) -> dict[str, Any]:
    """What one raster says of itself; `problem` holds the reason when it cannot be opened, else None."""
    name = PurePosixPath(path).name
    try:
        with open_raster(path) as dataset:
            return {"name": name, "path": path, "problem": None, **describe(dataset)}
    except (RasterioError, OSError) as error:
        return {"name": name, "path": path, "problem": f"cannot be opened as a GeoTIFF: {error}"}


def describe(dataset: Any) -> dict[str, Any]:
    """Size, bands, type and position of an open dataset, as JSON values."""
    nodata = dataset.nodata
    return {
        "width": dataset.width,
        "height": dataset.height,
        "bands": dataset.count,
        "dtype": dataset.dtypes[0] if dataset.count else None,
        "crs": crs_text(dataset.crs) if dataset.crs else None,
        # JSON has no NaN: it is spelt out, as GDAL does.
        "nodata": "nan" if nodata is not None and nodata != nodata else nodata,  # noqa: PLR0124
        "bounds": list(dataset.bounds),
    }


def has_code(crs: Any) -> bool:
    """Whether a coordinate system is one of an authority's, such as EPSG:4326."""
    return re.fullmatch(r"[A-Z]+:\d+", str(crs.to_string())) is not None


def crs_text(crs: Any) -> str:
    """Its code, else its WKT when that is short; the raster itself holds it in full."""
    text = str(crs.to_string())
    return text if len(text) <= LONGEST_CRS else f"custom (WKT of {len(text)} characters)"
