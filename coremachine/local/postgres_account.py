"""Which user PostgreSQL runs as: it refuses to run as root, so root lends it another one."""

import contextlib
import fcntl
import logging
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_NAME = "pgserver"
_FALLBACK = "nobody"


@dataclass(frozen=True)
class Account:
    """A user and group; None for both is the present user."""

    uid: int | None = None
    gid: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `subprocess` that make a program run as this account."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def working_folder(self, folder: Path) -> str:
        """How a program of this account names the folder that it was started in.

        The lent account may have no way there: a parent can be root's alone, or become so while the server runs (pytest
        closes its temporary folder at each start). On Linux this name needs no way.
        """
        is_reachable_by_name = self.uid is not None and Path("/proc/self/cwd").exists()
        return "/proc/self/cwd" if is_reachable_by_name else str(folder)

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def find_account(folder: Path, binaries: Path) -> Account:
    """The account for the data in this folder; as root, the way to the programs is opened for passage (o+x)."""
    if os.geteuid() != 0:
        return Account()
    account = _owner_of(folder) or _lent_account()
    _open_programs(binaries.parent)
    return account


def _owner_of(folder: Path) -> Account | None:
    """Data made by a normal user stay his when root starts the server."""
    if not (folder / "PG_VERSION").exists():
        return None
    status = folder.stat()
    return Account(status.st_uid, status.st_gid) if status.st_uid != 0 else None


def _lent_account() -> Account:
    entry = _find(_NAME) or _make_account()
    if entry is None:
        log.warning("no user %s could be made; PostgreSQL runs as %s", _NAME, _FALLBACK)
        entry = pwd.getpwnam(_FALLBACK)
    return Account(entry.pw_uid, entry.pw_gid)


def _find(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _make_account() -> pwd.struct_passwd | None:
    """One process at a time: of two that add it at once, `useradd` lets the second replace the account of the first."""
    if (tool := shutil.which("useradd")) is None:
        return None
    with contextlib.suppress(OSError), _folder_of_accounts() as folder:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if _find(_NAME) is None:
            subprocess.run([tool, "--system", "--no-create-home", _NAME], check=False, capture_output=True)  # noqa: S603
    return _find(_NAME)


@contextlib.contextmanager
def _folder_of_accounts() -> Iterator[int]:
    folder = os.open("/etc", os.O_RDONLY)
    try:
        yield folder
    finally:
        os.close(folder)


def _open_programs(root: Path) -> None:
    """Under a tight umask the wheel's files are root's alone."""
    for parent in root.parents:
        _allow(parent, stat.S_IXOTH)
    _allow(root, stat.S_IROTH | stat.S_IXOTH)
    for path in root.rglob("*"):
        if not path.is_symlink():
            is_program = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            _allow(path, stat.S_IROTH | stat.S_IXOTH if is_program else stat.S_IROTH)


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(stat.S_IMODE(mode) | bits)
        log.info("opened path=%s mode=%o", path, stat.S_IMODE(mode) | bits)
