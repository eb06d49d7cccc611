"""Where results go: a local folder, or any place that fsspec writes to."""

import base64
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from jobs.flood_risk_cog.remote import filesystem_of, is_remote
from jobs.flood_risk_cog.scratch import scratch_folder

# In bytes, as most file systems have it; what is left beside the stem is for what is appended.
LONGEST_NAME, LONGEST_STEM = 255, 200
# Appended to a raster's name: GDAL takes place, mask and overviews from such a file rather than from the raster.
BESIDE = (".aux.xml", ".msk", ".ovr")
_MOVE = "move that away, or choose another output"
_RIGHTS = "let this app write there, or choose another output"
# What no other attempt finds otherwise: a person must change it.
_IN_THE_WAY = {
    errno.EISDIR: f"a folder is where this file belongs; {_MOVE}",
    errno.EEXIST: f"a file, or a link that leads nowhere, is where this folder belongs; {_MOVE}",
    errno.ENOTDIR: f"a file is where a folder belongs; {_MOVE}",
    errno.ELOOP: f"its links lead in a circle; {_MOVE}",
    errno.ENAMETOOLONG: "its name is too long for this file system; give the raster, or the output, a shorter one",
    errno.EROFS: f"it is on a file system that can only be read; {_RIGHTS}",
    errno.EACCES: f"this app may not write there; {_RIGHTS}",
    errno.EPERM: f"this app may not write there; {_RIGHTS}",
}


class OutputBlocked(ValueError):
    """Something in the output is in the way of a result, which no other attempt changes."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place


@contextmanager
def blocked_in_words() -> Iterator[None]:
    """A block of code that writes into the output, whose errors of places are `OutputBlocked`."""
    try:
        yield
    except OSError as error:
        if (problem := _IN_THE_WAY.get(error.errno or 0)) is None:
            raise
        raise OutputBlocked(str(error.filename2 or error.filename or "the output"), problem) from error


def check_file_place(path: str) -> None:
    """Refuse a place for a file that a folder has, before the work that would end there."""
    if is_remote(path):
        return
    with blocked_in_words(), suppress(FileNotFoundError):
        # A link is replaced, wherever it leads.
        if stat.S_ISDIR(os.lstat(path).st_mode):
            raise IsADirectoryError(errno.EISDIR, "", path)


def check_folder_place(path: str) -> None:
    """Refuse a place for a folder that something else has."""
    if not is_remote(path) and os.path.lexists(path) and not os.path.isdir(path):  # noqa: PTH112
        raise OutputBlocked(path, _IN_THE_WAY[errno.EEXIST])


class UploadIncomplete(OSError):
    """What arrived is not what was sent; another attempt may do better."""

    def __init__(self, url: str, expected: int, found: int | None) -> None:
        super().__init__(f"{url}: expected {expected} bytes after the upload, found {found}; it is sent again")
        self.url = url


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else str(Path(folder) / name)


def short_name(stem: str) -> str:
    """A name for files that are made of one: itself, or where that is too long its beginning and its hash."""
    whole = stem.encode()
    if len(whole) <= LONGEST_STEM:
        return stem
    return f"{whole[: LONGEST_STEM - 20].decode(errors='ignore')}~{hashlib.sha256(whole).hexdigest()[:16]}"


def size_of(path: str) -> int | None:
    """Bytes of a file; None when there is none."""
    try:
        if is_remote(path):
            filesystem, inner = filesystem_of(path)
            filesystem.invalidate_cache()
            return int(filesystem.info(inner)["size"])
        return Path(path).stat().st_size
    except FileNotFoundError:
        return None


def written_at(path: str) -> str | None:
    """When a file was put in place, in RFC 3339 and UTC; None where its store does not keep that."""
    try:
        if is_remote(path):
            filesystem, inner = filesystem_of(path)
            moment = filesystem.modified(inner)
        else:
            moment = datetime.fromtimestamp(Path(path).stat().st_mtime, UTC)
    except (FileNotFoundError, NotImplementedError):
        return None
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return str(aware.isoformat(timespec="seconds")).replace("+00:00", "Z")


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """A file for reading bytes, wherever it is. Raises FileNotFoundError."""
    if not is_remote(path):
        with Path(path).open("rb") as file:
            yield file
        return
    filesystem, inner = filesystem_of(path)
    filesystem.invalidate_cache()
    with filesystem.open(inner, "rb") as file:
        yield file


def read_text(path: str) -> str | None:
    """A text file whole; None when there is none, or it is no text."""
    try:
        with open_file(path) as file:
            return file.read().decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def text_of(path: str, most_bytes: int) -> dict[str, Any]:
    """Size and text of a file, for a worker that has a child process read it; no text of one that is too large."""
    size = size_of(path)
    is_readable = size is not None and size <= most_bytes
    return {"bytes": size, "text": read_text(path) if is_readable else None}


def base64_of(path: str, most_bytes: int) -> dict[str, Any]:
    """Size and content of a file in the same way; no content of one that is too large."""
    size = size_of(path)
    if size is None or size > most_bytes:
        return {"bytes": size, "base64": None}
    with open_file(path) as file:
        return {"bytes": size, "base64": base64.b64encode(file.read()).decode()}


def put_text(text: str, target: str) -> None:
    """Write a text file in one step."""
    if is_remote(target):
        filesystem, inner = filesystem_of(target)
        filesystem.pipe_file(inner, text.encode())
        return
    path = Path(target)
    with scratch_folder(path.parent) as scratch:
        temporary = scratch / path.name
        temporary.write_text(text)
        put_file(temporary, target)


def names_in(folder: str) -> list[str]:
    """Names of what stands in a folder; empty for one that is not there."""
    try:
        if not is_remote(folder):
            return os.listdir(folder)  # noqa: PTH208
        filesystem, inner = filesystem_of(folder)
        return [str(name).rstrip("/").rsplit("/", 1)[-1] for name in filesystem.ls(inner, detail=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def put_file(file: Path, target: str) -> None:
    """Put a file in place: moved where it is local, else uploaded.

    A reader finds the whole file or none, as far as the store commits an upload in one step (object stores do).

    Raises:
        UploadIncomplete: The store holds another number of bytes.
    """
    if not is_remote(target):
        os.replace(file, target)  # noqa: PTH105
        return
    filesystem, inner = filesystem_of(target)
    filesystem.put_file(str(file), inner)
    expected, found = file.stat().st_size, size_of(target)
    if found != expected:
        raise UploadIncomplete(target, expected, found)


def remove_beside(raster: str) -> None:
    """Remove the files that would make GDAL read another raster: an older one's, or a viewer's."""
    for ending in BESIDE:
        path = raster + ending
        if not is_remote(path):
            # `Path.is_symlink` raises on a name that is too long.
            if os.path.islink(path) or os.path.isfile(path):  # noqa: PTH113, PTH114
                Path(path).unlink(missing_ok=True)
            continue
        filesystem, inner = filesystem_of(path)
        if size_of(path) is not None:
            with suppress(FileNotFoundError):
                filesystem.rm_file(inner)


def put_tree(folder: Path, target: str) -> None:
    """Upload all files under a folder."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        put_file(file, join(target, file.relative_to(folder).as_posix()))
