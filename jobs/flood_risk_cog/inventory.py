"""Which rasters a source holds, and what each of them is."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

from jobs.flood_risk_cog.marker import FILES, FOLDERS, MARKER, STALE, TABLE
from jobs.flood_risk_cog.places import PlaceRefused, check_place
from jobs.flood_risk_cog.remote import filesystem_of, is_remote, without_file_scheme
from jobs.flood_risk_cog.source import SourceNotFound, open_raster
from jobs.flood_risk_cog.stage import by_name_without_case, not_taken_among, sidecars_among
from jobs.flood_risk_cog.target import LONGEST_NAME, short_name

SUFFIXES = (".tif", ".tiff")
OTHER_NAME = "its name does not end in .tif or .tiff"
ONE_RULE = "a pattern says itself which folders it is about: write ** for all of them, as in /data/**/*.tif"
REMOTE_READS = 8
# Results are rows in the database: a definition of pages is not what they are for.
LONGEST_CRS = 1000


class NoRasters(ValueError):
    """The source exists and holds no GeoTIFF."""

    def __init__(self, source: str) -> None:
        super().__init__(f"expected *.tif or *.tiff files in {source!r}, found none; choose the folder that holds them")
        self.source = source


class RasterPath(TypedDict):
    """Where a raster is."""

    path: str


class RasterFile(RasterPath):
    """A raster of the source, not opened yet.

    `output` is the stem of its COG's name, no other raster's; `sidecars` are names of files that belong to it.
    """

    name: str
    bytes: int
    output: str
    sidecars: list[str]


@dataclass(frozen=True)
class Listing:
    """The rasters of a source, sorted by name; `ignored` is what else is there, each with its reason.

    Files that belong to a raster, and those that this job writes, are not among them.
    """

    rasters: list[RasterFile]
    ignored: list[dict[str, str]]


def list_rasters(source: str, *, recursive: bool = False, leave_out: str | None = None) -> Listing:
    """The rasters of a folder, a file, an fsspec URL or a pattern of them (`*`, `?`, `[..]`).

    Args:
        leave_out: A folder of results: its COGs are no sources.

    Raises:
        SourceNotFound: There is no such folder.
        NoRasters: It holds no raster.
        PlaceRefused: It may not be read.
        ValueError: It is a pattern, and `recursive` as well.
    """
    check_place(source)
    source = without_file_scheme(source)
    filesystem, root = filesystem_of(source)
    if recursive and is_pattern(root) and not filesystem.exists(root):
        raise ValueError(f"recursive: expected false with a pattern, found true with {source!r}; {ONE_RULE}")
    entries, top = _entries(filesystem, root, source, recursive=recursive)
    rasters: list[RasterFile] = []
    ignored = []
    folders: dict[str, list[str]] = {}
    for entry in entries:
        folder, _, file = str(entry["name"]).rpartition("/")
        folders.setdefault(folder, []).append(file)
    there = {folder: by_name_without_case(names) for folder, names in folders.items()}
    belonging: set[str] = set()
    others = []
    seen: dict[str, bool] = {}
    for entry in entries:
        inner = str(entry["name"])
        is_below = bool(top) and inner.startswith(f"{top.rstrip('/')}/")
        name = inner[len(top.rstrip("/")) + 1 :] if is_below else PurePosixPath(inner).name
        path = filesystem.unstrip_protocol(inner) if is_remote(source) else inner
        if not inner.lower().endswith(SUFFIXES):
            if leave_out is None or not is_result(path, leave_out):
                others.append((inner, {"name": as_text(name), "reason": _reason_for_other(entry, name)}))
            continue
        reason = _reason_to_ignore(entry, path)
        if leave_out is not None and f"{path}/".startswith(f"{leave_out.rstrip('/')}/cogs/"):
            reason = "a result of this job"
        elif reason is None and is_of_another_job(filesystem, inner, seen):
            reason = "a result of another job, whose output folder this is"
        if reason is not None:
            ignored.append({"name": as_text(name), "reason": reason})
        else:
            folder, slash, file = inner.rpartition("/")
            taken = sidecars_among(file, there[folder])
            belonging.update(f"{folder}{slash}{each}" for each in taken)
            names = [*sorted(taken), *(each for each in not_taken_among(file, there[folder]) if each not in taken)]
            size = int(entry.get("size") or 0)
            rasters.append({"name": name, "path": path, "bytes": size, "output": "", "sidecars": names})
    ignored += [other for inner, other in others if inner not in belonging]
    if not rasters:
        raise NoRasters(source)
    _name_outputs(rasters)
    return Listing(sorted(rasters, key=lambda raster: raster["name"]), sorted(ignored, key=lambda each: each["name"]))


def is_pattern(path: str) -> bool:
    return any(mark in path for mark in "*?[")


def is_result(path: str, output: str) -> bool:
    """Whether it is one of what the job writes into its output folder, or that folder."""
    root = output.rstrip("/")
    if path.rstrip("/") == root:
        return True
    first = path.removeprefix(f"{root}/").split("/")[0] if path.startswith(f"{root}/") else ""
    return first in {*FOLDERS, STALE, TABLE, MARKER, *FILES} or (
        first.startswith(("mosaic", ".coremachine-")) and first != path
    )


def is_of_another_job(filesystem: Any, path: str, seen: dict[str, bool]) -> bool:
    """Whether a file below the source is in a job's output folder, which the marker in it shows.

    Args:
        seen: Which folders were looked at before, and whether they have one.
    """
    folders = path.split("/")[:-1]
    for number in (index for index, name in enumerate(folders) if name in {"cogs", STALE} and index):
        output = "/".join(folders[:number])
        if output not in seen:
            seen[output] = bool(filesystem.exists(f"{output}/{MARKER}"))
        if seen[output]:
            return True
    return False


def as_text(name: str) -> str:
    return name.encode(errors="replace").decode()


def _reason_for_other(entry: Mapping[str, Any], name: str) -> str:
    """Why what is not called as a raster is not read."""
    if entry.get("type") == "directory":
        return "a folder: rasters in it are read with `recursive`"
    return "hidden: its name begins with a dot" if PurePosixPath(name).name.startswith(".") else OTHER_NAME


def _entries(filesystem: Any, root: str, source: str, *, recursive: bool) -> tuple[list[dict[str, Any]], str]:
    """What is there, and the folder that names are given from."""
    try:
        if is_pattern(root) and not filesystem.exists(root):
            found = filesystem.glob(root, detail=True)
            fixed = re.split(r"[*?\[]", root)[0]
            return list(found.values()), fixed[: fixed.rfind("/") + 1]
        if recursive:
            found = filesystem.find(root, detail=True)
            if not found and not filesystem.exists(root):
                raise SourceNotFound(source)
            return list(found.values()), root
        return filesystem.ls(root, detail=True), root
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFound(source) from error


def _reason_to_ignore(entry: Mapping[str, Any], path: str) -> str | None:
    """Why something that is called as a raster is none of the source's."""
    name = PurePosixPath(path).name
    for is_so, reason in (
        (not is_text(path), "its name is not UTF-8"),
        ("/.coremachine-scratch-" in path, "an unfinished result"),
        (name.startswith("._"), "a resource fork of macOS, not a raster"),
        (name.startswith("."), "hidden: its name begins with a dot"),
    ):
        if is_so:
            return reason
    if is_remote(path):
        return None if entry["type"] == "file" else "a folder"
    file = Path(path)
    if file.is_symlink():
        try:
            check_place(str(file.resolve(strict=True)))
        except (OSError, RuntimeError):
            return "a link that leads nowhere"
        except PlaceRefused as refused:
            return f"a link out of the allowed places: {refused}"
    return None if file.is_file() else "a folder" if file.is_dir() else "no regular file"


def is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name_outputs(rasters: list[RasterFile]) -> None:
    """A name for each COG: the raster's stem, longer where two would get the same, in upper or lower case."""
    stems = Counter(_stem(raster).lower() for raster in rasters)
    for raster in rasters:
        stem = _stem(raster)
        if stems[stem.lower()] > 1:
            stem = f"{stem}~{hashlib.sha256(raster['name'].encode()).hexdigest()[:8]}"
        if len(f"{stem}.tif".encode()) > LONGEST_NAME:
            stem = short_name(stem)
        raster["output"] = stem


def _stem(raster: RasterFile) -> str:
    return str(PurePosixPath(raster["name"]).with_suffix("")).replace("/", "__")


def inspect_rasters(files: Sequence[RasterPath]) -> Iterator[dict[str, Any]]:
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


def inspect_all(paths: Sequence[str]) -> dict[str, Any]:
    """What each raster says of itself, for a worker that has a child process look."""
    return {"rasters": list(inspect_rasters([{"path": path} for path in paths]))}


def inspect_raster(path: str) -> dict[str, Any]:
    """What one raster says of itself; `problem` holds the reason when it cannot be opened, else None."""
    name = PurePosixPath(path).name
    try:
        with open_raster(path, sidecars=False) as dataset:
            return {"name": name, "path": path, "problem": None, **describe(dataset)}
    except Exception as error:  # noqa: BLE001 - whatever a foreign file makes a library raise, it is that file's
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
        # JSON has no NaN and no infinity: they are spelt out, as GDAL does.
        "nodata": nodata if nodata is None or math.isfinite(nodata) else str(nodata),
        "bounds": list(dataset.bounds),
    }


def has_code(crs: Any) -> bool:
    """Whether a coordinate system is one of an authority's, such as EPSG:4326."""
    return re.fullmatch(r"[A-Z]+:\d+", str(crs.to_string())) is not None


def crs_text(crs: Any) -> str:
    """Its code, else its WKT when that is short; the raster itself holds it in full."""
    text = str(crs.to_string())
    return text if len(text) <= LONGEST_CRS else f"custom (WKT of {len(text)} characters)"
