"""A running stack's addresses, for other programs: `stack.json` in its folder, under a lock that ends with it."""

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

log = logging.getLogger(__name__)

USUAL_DATA = ".coremachine"
_FILE, _LOCK = "stack.json", "stack.lock"
# In the usual folder, of a stack whose data are elsewhere.
_SHOWN = "elsewhere.json"


class StackError(RuntimeError):
    """The stack cannot be started; the message has what was expected, what was found and what to do."""


class StackRunning(StackError):
    """Another process runs a stack on the same data folder."""

    def __init__(self, data_dir: Path, info: "StackInfo | None") -> None:
        self.info = info
        who = f"pid {info.pid}, {info.url}, since {info.started_at}" if info else "it is still starting or stopping"
        act = f"stop it (Ctrl-C where it runs, or kill {info.pid})" if info else "wait for it"
        super().__init__(
            f"expected no stack on {data_dir}, found one running ({who}); use that one, {act}, "
            "or choose another folder with --data"
        )


@dataclass(frozen=True)
class StackInfo:
    """How to reach a running stack.

    `environment` holds the settings that all its workers got, `apps` the names of its apps where there are several.
    """

    pid: int
    started_at: str
    url: str
    admin_url: str
    database_url: str
    service_bus_connection: str
    app_dir: str
    data_dir: str
    workers: int
    ports: dict[str, int]
    environment: dict[str, str] = field(default_factory=dict)
    apps: list[str] = field(default_factory=list)

    def write(self) -> None:
        """Put the file in place in one step; only its owner can read it."""
        _write(Path(self.data_dir) / _FILE, self)


def find_stack(data_dir: Path) -> StackInfo | None:
    """The stack that runs on this folder; None if there is none, or if its process is gone."""
    return _read(data_dir / _FILE)


def find_stack_of(folder: Path) -> StackInfo | None:
    """The stack that was started here, or in the nearest folder above with one, wherever its data are; else None."""
    for place in (folder, *folder.parents):
        files = [place / USUAL_DATA / name for name in (_SHOWN, _FILE)]
        found = [info for info in map(_read, filter(_is_trusted, files)) if info is not None]
        if found:
            return max(found, key=lambda info: info.started_at)
    return None


def find_folder_of_stack(folder: Path) -> Path | None:
    """Where a stack was started before, here or above, whether it runs or not; else None."""
    return next((place for place in (folder, *folder.parents) if (place / USUAL_DATA).is_dir()), None)


@contextlib.contextmanager
def shown_in(folder: Path, info: StackInfo) -> Iterator[None]:
    """Let commands in this folder find a stack whose data are elsewhere."""
    usual = folder / USUAL_DATA
    if usual.resolve() == Path(info.data_dir):
        yield
        return
    file = usual / _SHOWN
    try:
        usual.mkdir(exist_ok=True)
        _write(file, info)
    except OSError as error:
        log.warning("stack_not_shown folder=%s: %s; give commands --url %s", folder, error, info.url)
    try:
        yield
    finally:
        if _read(file) == info:
            file.unlink(missing_ok=True)


def _is_trusted(file: Path) -> bool:
    """Whether it is this user's: somebody else's file in a folder above would send commands to their server."""
    try:
        return file.stat().st_uid in {os.geteuid(), 0}
    except OSError:
        return False


def _read(file: Path) -> StackInfo | None:
    try:
        info = StackInfo(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        # No file, not ours to read, or from another version: all the same as none.
        return None
    return info if _is_alive(info.pid) else None


def _write(path: Path, info: StackInfo) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(asdict(info), indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def remove_stack_file(data_dir: Path) -> None:
    (data_dir / _FILE).unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class StackLock:
    """One stack a data folder. The system lets go of the lock when the process ends, however it ends."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._descriptor: int | None = None

    def acquire(self, patience_seconds: float = 1.0) -> None:
        """Take it; a stack that is just ending is waited for.

        Raises:
            StackRunning: Somebody has it.
        """
        descriptor = os.open(self._data_dir / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                os.close(descriptor)
                raise StackRunning(self._data_dir, find_stack(self._data_dir)) from None
            self._descriptor = descriptor
            return

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
