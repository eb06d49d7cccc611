"""Processes that end with the one that started them, however it ends, and whatever they do then."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

_LOOK_SECONDS = 0.01
Process = subprocess.Popen[bytes]


class Tether:
    """A pipe to which nothing is ever written: the system ends a group of processes when its other end is closed.

    A process that is to be tethered inherits `inherited` (`pass_fds`). A thread that waits for the end of a pipe would
    do too, but does not run while C code holds the interpreter, and other programs have none.
    """

    def __init__(self) -> None:
        self.inherited, self._held = os.pipe()

    def tie(self, group: int) -> None:
        """To be called once the group's first process runs. What it starts in its group ends with it."""
        if sys.platform == "linux":
            # Where a sandbox knows no such signals, nothing is tied. They belong to the open pipe, in any process.
            with suppress(OSError):
                fcntl.fcntl(self.inherited, fcntl.F_SETOWN, -group)
                fcntl.fcntl(self.inherited, fcntl.F_SETSIG, signal.SIGKILL)
                flags = fcntl.fcntl(self.inherited, fcntl.F_GETFL)
                fcntl.fcntl(self.inherited, fcntl.F_SETFL, flags | os.O_ASYNC)
        os.close(self.inherited)
        self.inherited = -1

    def cut(self) -> None:
        """Close it, which ends what is tied to it and still runs."""
        if self.inherited >= 0:
            os.close(self.inherited)
        os.close(self._held)


def has_ended(process: Process, seconds: float = 0.0) -> bool:
    """Whether it has ended within the time. It is not reaped: its group's number stays its own until then."""
    until = time.monotonic() + seconds
    while not _is_over(process):
        if time.monotonic() >= until:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def signal_group(process: Process, number: signal.Signals) -> None:
    """To the process and what it started; nothing where it was reaped, since its number may be another's by now."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def _is_over(process: Process) -> bool:
    if process.returncode is not None:
        return True
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
