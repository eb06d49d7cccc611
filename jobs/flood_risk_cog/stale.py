"""Results in the output folder that no source has any more: found, and moved or removed only when asked for."""

import re
import shutil
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.flood_risk_cog.convert import proof_name
from jobs.flood_risk_cog.marker import STALE
from jobs.flood_risk_cog.remote import filesystem_of, is_remote
from jobs.flood_risk_cog.target import join, names_in, short_name, size_of, written_at

KEEP, MOVE, REMOVE = ("keep", "move", "remove")
_MOSAIC = re.compile(r"mosaic(-rp\d+)?(-\d+)?\.vrt")


def find_stale(output: str, cogs: Collection[str], mosaics: Collection[str]) -> list[str]:
    """Results that are not among the present ones, as paths below the output, sorted.

    A COG is a result of this job where its proof is beside it; whatever else is there is not ours to judge.

    Args:
        cogs: File names of the COGs of all rasters that the source has now, of those that failed as well.
        mosaics: File names of the mosaics that were written now.
    """
    there = set(names_in(join(output, "cogs")))
    stale = {
        f"cogs/{name}" for name in there if name.endswith(".tif") and name not in cogs and proof_name(name) in there
    }
    stale |= {
        name
        for name in names_in(output)
        if _MOSAIC.fullmatch(name) and name not in mosaics and not _is_local_folder(join(output, name))
    }
    return sorted(stale)


def items_of(output: str, cogs: Collection[str]) -> list[str]:
    """The items of COGs (paths below the output) that are there, as paths below the output."""
    found = [f"items/{name}/{name}.json" for name in (short_name(PurePosixPath(cog).stem) for cog in sorted(cogs))]
    return [path for path in found if size_of(join(output, path)) is not None]


def find_kept(output: str, failed: Collection[str]) -> list[dict[str, Any]]:
    """Earlier results of rasters that failed now: they stay, and the catalog, which is of this run, has none of them.

    Args:
        failed: File names of the COGs that these rasters would have.

    Returns:
        Of each, as paths below the output, the COG and its item (None without one), and when the COG was written.
    """
    there = set(names_in(join(output, "cogs")))
    kept = []
    for name in sorted(each for each in failed if each in there and proof_name(each) in there):
        cog = f"cogs/{name}"
        item = next(iter(items_of(output, [cog])), None)
        kept.append({"cog": cog, "item": item, "written_at": written_at(join(output, cog))})
    return kept


def _is_local_folder(path: str) -> bool:
    return not is_remote(path) and Path(path).is_dir()


def settle_stale(output: str, stale: Collection[str], action: str) -> None:
    """Move or remove them, each with its proof and its item; `keep` leaves all as it is."""
    if action == KEEP:
        return
    for path in stale:
        for each in _with_company(path):
            _settle(output, each, action)


def _with_company(path: str) -> list[str]:
    """A COG last: while it is there, another attempt finds it again."""
    if not path.startswith("cogs/"):
        return [path]
    stem = path.removeprefix("cogs/").removesuffix(".tif")
    return [f"items/{short_name(stem)}", path, proof_name(path)]


def _settle(output: str, path: str, action: str) -> None:
    here, there = join(output, path), join(join(output, STALE), path)
    if is_remote(output):
        filesystem, inner = filesystem_of(here)
        if not filesystem.exists(inner):
            return
        if action == MOVE:
            _move_remote(filesystem, inner, filesystem_of(there)[1])
        else:
            filesystem.rm(inner, recursive=True)
        return
    found = Path(here)
    if not (found.exists() or found.is_symlink()):
        return
    if action == MOVE:
        _remove(Path(there))
        Path(there).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(found, there)
    else:
        _remove(found)


def _move_remote(filesystem: Any, inner: str, target: str) -> None:
    if filesystem.exists(target):
        filesystem.rm(target, recursive=True)
    filesystem.mv(inner, target, recursive=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
