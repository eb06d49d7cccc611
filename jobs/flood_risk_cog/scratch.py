"""Scratch folders beside the result, so that it is put in place by one rename; swept when their process was killed."""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# Whatever else stands in an output folder is not ours to remove.
PREFIX = ".coremachine-scratch-"
# GDAL writes all the time while it works; a folder that nobody wrote to for so long has lost its process.
ABANDONED_SECONDS = 6 * 3600.0


@dataclass(frozen=True)
class ScratchOwner:
    """The attempt at a task that a folder belongs to."""

    job_id: str
    task_id: str
    attempt: int

    @property
    def mark(self) -> str:
        """The same for all attempts at a task, safe in a file name, and beginning alike for all tasks of a job."""
        return f"{_mark_of_job(self.job_id)}{_digest(f'{self.job_id}/{self.task_id}')[:16]}"


@contextmanager
def scratch_folder(parent: Path, owner: ScratchOwner | None = None) -> Iterator[Path]:
    """An empty folder in `parent` (made when it is missing), removed at the end.

    What earlier attempts of the owner left is removed first: theirs was a process that was killed, or one that lost
    its lease and whose work counts no more. A later attempt's folder is never touched.
    """
    parent.mkdir(parents=True, exist_ok=True)
    prefix = PREFIX
    if owner is not None:
        if owner.attempt > 1:
            _remove(parent, lambda folder: _is_earlier(folder.name, owner))
        prefix = _prefix(owner)
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as folder:
        yield Path(folder)


def remove_scratch(parents: Iterable[Path], owner: ScratchOwner) -> None:
    """Remove what an attempt left whose process was killed."""
    for parent in parents:
        _remove(parent, lambda folder: folder.name.startswith(_prefix(owner)))


def remove_scratch_of_job(parents: Iterable[Path], job_id: str) -> None:
    """Remove what all tasks of a job left, before a run of it has any: theirs were of an earlier run."""
    mark = f"{PREFIX}{_mark_of_job(job_id)}"
    for parent in parents:
        _remove(parent, lambda folder: folder.name.startswith(mark))


def written_bytes(parents: Iterable[Path], owner: ScratchOwner) -> int:
    """Bytes that an attempt has in its scratch by now."""
    total = 0
    for parent in parents:
        for folder in parent.glob(f"{_prefix(owner)}*"):
            for path in folder.rglob("*"):
                # GDAL removes what it wrote for itself.
                with suppress(FileNotFoundError):
                    total += path.lstat().st_size
    return total


def sweep_scratch(parent: Path, *, idle_seconds: float = ABANDONED_SECONDS) -> int:
    """Remove scratch folders in `parent` that nothing was written to for so long; returns how many."""
    oldest = time.time() - idle_seconds
    return _remove(parent, lambda folder: _last_write(folder) < oldest)


def _mark_of_job(job_id: str) -> str:
    return f"{_digest(job_id)[:8]}."


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _prefix(owner: ScratchOwner) -> str:
    return f"{PREFIX}{owner.mark}-{owner.attempt}-"


def _is_earlier(name: str, owner: ScratchOwner) -> bool:
    mark, _, rest = name.removeprefix(PREFIX).partition("-")
    attempt = rest.partition("-")[0]
    return mark == owner.mark and attempt.isdecimal() and int(attempt) < owner.attempt


def _last_write(folder: Path) -> float:
    # A file may be renamed or removed while we look; its folder's own time tells that.
    times = [folder.stat().st_mtime]
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return max(times)


def _remove(parent: Path, unwanted: Callable[[Path], bool]) -> int:
    if not parent.is_dir():
        return 0
    removed = 0
    for folder in parent.iterdir():
        if not folder.name.startswith(PREFIX) or folder.is_symlink():
            continue
        # Gone in between: another sweep, or its owner, removed it. Or it is another user's.
        with suppress(FileNotFoundError, PermissionError):
            if unwanted(folder):
                shutil.rmtree(folder)
                removed += 1
    return removed
