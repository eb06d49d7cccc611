"""Finds out which source files below a folder change."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_LOOK_SECONDS = 0.2
# A look takes at most this part of the time.
_LARGEST_SHARE = 0.1
_SUFFIX = ".py"
# Modules that no app loads: see `jobs.loading`.
_TESTS = frozenset({"tests", "conftest.py"})
# The mark of a virtual environment.
_ENVIRONMENT = "pyvenv.cfg"

Snapshot = dict[str, tuple[int, int]]


class SourceWatch:
    """The Python files below a folder; hidden folders, tests and virtual environments are left out.

    Args:
        wait: Sleeps for a number of seconds.
    """

    def __init__(self, folder: Path, wait: Callable[[float], object] = time.sleep) -> None:
        self._folder = folder
        self._wait = wait
        self._seen = take_snapshot(folder)

    def wait_for_change(self) -> list[Path]:
        """Return when a file is new, gone or changed: which ones, relative to the folder."""
        while True:
            began = time.monotonic()
            changed = self.find_changes()
            if changed:
                return changed
            self._wait(max(_LOOK_SECONDS, (time.monotonic() - began) / _LARGEST_SHARE))

    def find_changes(self) -> list[Path]:
        """What has changed since the last look."""
        found, before = take_snapshot(self._folder), self._seen
        self._seen = found
        names = sorted(name for name in found.keys() | before.keys() if found.get(name) != before.get(name))
        return [Path(name).relative_to(self._folder) for name in names]


def take_snapshot(folder: Path) -> Snapshot:
    """Time of change and size of each file; one that is being replaced just now is missing."""
    return {entry.path: _state_of(entry) for entry in _sources(str(folder))}


def _sources(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:  # removed meanwhile, or not for us to read
        return
    if any(entry.name == _ENVIRONMENT for entry in entries):
        return
    for entry in entries:
        if _is_left_out(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _sources(entry.path)
        elif entry.name.endswith(_SUFFIX):
            yield entry


def _is_left_out(name: str) -> bool:
    return name.startswith((".", "__pycache__", "test_")) or name in _TESTS


def _state_of(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        found = entry.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)
