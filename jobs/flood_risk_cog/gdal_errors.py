"""What GDAL and PROJ raise about a raster, as a reason for a person: what, why, and what to do.

The same raster gives the same error again, but for the few that are about a disk or a connection.
"""

import errno
import re
from pathlib import PurePosixPath

from jobs.flood_risk_cog.facts import cause
from jobs.flood_risk_cog.memory import is_out_of_memory
from jobs.flood_risk_cog.plan import UnusableRaster

_DISK_FULL = re.compile(r"No space left|disk (?:is )?full|quota exceeded", re.IGNORECASE)
# Of the machine, not of the raster: another attempt may do better.
_OF_THE_MACHINE = re.compile(
    r"Input/output error|I/O error|write error|Stale file handle|Too many open files|Permission denied|Read-only file"
    r"|Unable to (?:open|create)|Cannot (?:open|create)|Attempt to create|No such file|timed? ?out|Connection",
    re.IGNORECASE,
)
_OF_PLACES = re.compile(
    r"reproject|transform|PROJ\b|proj_|coordinate operation|out of range|outside|invalid (?:latitude|longitude)"
    r"|Tolerance condition|converge",
    re.IGNORECASE,
)
_OF_SIZE = re.compile(r"too (?:large|big)|dimension|exceed|overflow|BigTIFF|4 ?GB", re.IGNORECASE)


class MachineFailed(OSError):
    """Something beside the raster failed while GDAL read or wrote; another attempt may do better."""


def failure_of(path: str, error: BaseException, target_crs: str | None) -> Exception:
    """The error to raise for one of rasterio's, GDAL's or PROJ's.

    Args:
        path: Of the raster, as people know it.
        target_crs: What it was being reprojected to, if anything.
    """
    name, text = PurePosixPath(path).name, cause(error)
    if _DISK_FULL.search(text):
        return OSError(errno.ENOSPC, f"{name}: the disk of the output or the scratch folder is full")
    if is_out_of_memory(error):
        return MemoryError(text)
    if _OF_THE_MACHINE.search(text):
        return MachineFailed(f"{name}: a file of this machine could not be read or written ({text}); it is retried")
    return UnusableRaster(path, _reason_of(text, target_crs))


def _reason_of(text: str, target_crs: str | None) -> str:
    quoted = f"GDAL: {text[:300]}"
    if target_crs is not None and _OF_PLACES.search(text):
        return (
            f"reprojected to {target_crs}, some of it has no place there ({quoted}); "
            "choose a target_crs that covers its place, or leave it out"
        )
    if _OF_PLACES.search(text):
        return f"its place cannot be computed ({quoted}); assign the right coordinate system (gdal_edit -a_srs)"
    if _OF_SIZE.search(text):
        return f"it is too large for what GDAL writes ({quoted}); divide it into smaller rasters (gdal_retile)"
    advice = "; or leave target_crs out" if target_crs is not None else ""
    return f"GDAL cannot convert it ({quoted}); write it anew (gdal_translate -of GTiff){advice}"
