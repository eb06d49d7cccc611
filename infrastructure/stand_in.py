"""This process's side of its stand-in: the process that renews our leases while our interpreter is blocked.

A handler in C, or in a regular expression that does not end, may hold the interpreter for minutes. No thread of ours,
not even the heartbeat, runs then. `infrastructure.stand_in_process` gets a sign of life four times a second.
"""

import math
import os
import subprocess
import sys
import threading
import time
import weakref
from json import dumps
from typing import Any

from core.basics.process_limits import start_thread
from core.models.refs import StepRef
from core.safety.safe_log import safe_logger
from infrastructure.settings import Settings
from infrastructure.step_sheet import StepSheet

log = safe_logger(__name__)

MODULE = "infrastructure.stand_in_process"
TICK_SECONDS = 0.25
# For shorter leases it gets everything ready at once, and waits for a shorter silence.
SHORT_LEASE_SECONDS = 20.0
_TICK, _BE_QUICK = b".", b"!"
# One that does not live longer is not started again and again.
_RESTART_SECONDS = 30.0
_END_SECONDS = 5.0

_made: "weakref.WeakSet[LeaseStandIn]" = weakref.WeakSet()


class LeaseStandIn:
    """One for each keeper of leases.

    Args:
        owner: The name in the leases that are renewed. No other process may have it.
    """

    def __init__(self, settings: Settings, owner: str) -> None:
        self._brief = {
            "environment": settings.to_environment(),
            "owner": owner,
            "parent": os.getpid(),
            "longest_seconds": settings.lease_stand_in_seconds,
        }
        self._is_wanted = settings.lease_stand_in_seconds > 0 and os.name == "posix" and bool(sys.executable)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._thread: threading.Thread | None = None
        self._ready_for = math.inf
        self._closed = threading.Event()
        self._steps: set[StepRef] = set()
        self._sheet: StepSheet | None = None
        _made.add(self)

    def watch(self, lease_seconds: float) -> None:
        """Have this process watched from now on. Returns when it is: what blocks the next moment is noticed.

        Args:
            lease_seconds: The shortest of the leases that will be held.
        """
        if lease_seconds >= self._ready_for or not self._is_wanted:
            return
        with self._lock:
            if self._closed.is_set() or lease_seconds >= self._ready_for:
                return
            # First the thread: a process that nobody ticks would renew what nobody works on.
            is_new = self._thread is None
            if is_new and not self._start_ticking():
                return
            self._ready_for = 0.0 if lease_seconds < SHORT_LEASE_SECONDS else SHORT_LEASE_SECONDS
            if is_new:
                self._start()
            else:
                self._say(self._word())

    def note_step(self, step: StepRef, *, is_taken: bool) -> None:
        """Renew the step's lease too, if this process is blocked while it takes it."""
        self.watch(SHORT_LEASE_SECONDS)
        with self._lock:
            if is_taken:
                self._steps.add(step)
            else:
                self._steps.discard(step)
            if self._sheet is not None:
                self._sheet.write(self._steps)

    def close(self) -> None:
        """End it: from now on nobody renews."""
        self._closed.set()
        with self._lock:
            process, self._process = self._process, None
            sheet, self._sheet = self._sheet, None
        if process is not None:
            _end(process)
        if sheet is not None:
            sheet.close()

    def forget(self) -> None:
        """In a forked child: the stand-in is the parent's, and sees that it has died by the end of the pipe."""
        self._closed.set()
        if self._sheet is not None:
            self._sheet.close()
            self._sheet = None
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _start_ticking(self) -> bool:
        thread = threading.Thread(target=self._tick, name="stand-in", daemon=True)
        try:
            start_thread(thread)
        except RuntimeError as error:  # the system gives none; the next call tries again
            _tell_not_started(error)
            return False
        self._thread = thread
        return True

    def _start(self) -> None:
        try:
            if self._sheet is None or not self._sheet.is_whole:
                self._sheet = StepSheet()
                self._sheet.write(self._steps)
            process = subprocess.Popen(  # noqa: S603 - our own module under our own interpreter
                [sys.executable, "-P", "-m", MODULE],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                # Ctrl-C is for us; it ends when we have ended.
                start_new_session=True,
                pass_fds=[self._sheet.descriptor],
                bufsize=0,
            )
            self._process, self._started_at = process, time.monotonic()
            brief = self._brief | {"steps": self._sheet.descriptor}
            self._say(dumps(brief).encode() + b"\n" + self._word())
        except OSError as error:
            _tell_not_started(error)

    def _word(self) -> bytes:
        return _TICK if self._ready_for else _BE_QUICK

    def _say(self, data: bytes) -> None:
        """Without waiting for one that does not read; the next call finds out that it has ended."""
        if self._process is None:
            return
        pipe: Any = self._process.stdin
        os.set_blocking(pipe.fileno(), False)
        try:
            pipe.write(data)
        except (BlockingIOError, BrokenPipeError):
            return

    def _tick(self) -> None:
        while not self._closed.wait(TICK_SECONDS):
            with self._lock:
                if self._closed.is_set():
                    return
                self._look_after()

    def _look_after(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            self._say(_TICK)
            return
        if process is not None:
            log.warning("lease_stand_in_ended", extra={"checkpoint": "LEASE", "exit_status": process.returncode})
            _end(process)
            self._process = None
        if time.monotonic() - self._started_at > _RESTART_SECONDS:
            self._start()


def _tell_not_started(error: Exception) -> None:
    log.warning("lease_stand_in_not_started", extra={"checkpoint": "LEASE", "error": repr(error)})


def _end(process: "subprocess.Popen[bytes]") -> None:
    pipe: Any = process.stdin
    pipe.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _forget_all() -> None:
    for stand_in in _made:
        stand_in.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
