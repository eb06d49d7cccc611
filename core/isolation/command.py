"""Commands that a handler runs: they end with a cancel, a timeout and the worker, and what they print is logged."""

import os
import selectors
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.authors.attempt_log import print_line
from core.authors.printed_lines import PrintedBytes
from core.context import TaskContext
from core.errors import RetryableTaskError
from core.isolation.attempt import end_of
from core.isolation.tether import Tether, has_ended, signal_group
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

LOOK_SECONDS = 0.2
# Between SIGTERM and SIGKILL. A handler in a process of its own has not much longer itself.
GRACE_SECONDS = 2.0
_KEPT_LINES = 10
_PIECE = 1 << 16


class CommandFailed(RetryableTaskError):
    """A command ended with another status than 0. Raise PermanentTaskError from it where no attempt would help.

    Args:
        status: As `subprocess` has it: negative for a signal.
        last_lines: Of its stderr.
    """

    def __init__(self, command: str, status: int, last_lines: Sequence[str]) -> None:
        self.command, self.status, self.last_lines = command, status, tuple(last_lines)
        said = "; its last lines:\n" + "\n".join(last_lines) if last_lines else ""
        super().__init__(f"expected {command} to end with exit status 0, found {end_of(status)}{said}")


def run_command(
    arguments: Sequence[str | Path],
    context: TaskContext,
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command and return what it wrote to stdout. Each line of its stderr is logged as it comes.

    When the attempt is not wanted any more, the command and what it started get SIGTERM, and 2 seconds later SIGKILL.
    They end with the worker too, however it ends.

    Args:
        env: Beside the environment of this process.

    Raises:
        CommandFailed: It ended with another status than 0.
        TaskCancelled, TaskTimedOut: As `context.check_cancelled`; the command has ended.
        OSError: There is no such command.
    """
    running = _Command(arguments, cwd=cwd, env=env)
    try:
        while running.read(LOOK_SECONDS):
            context.check_cancelled()
        status = running.wait(context)
    finally:
        running.end()
    if status != 0:
        raise CommandFailed(Path(str(arguments[0])).name, status, running.last_lines)
    return b"".join(running.stdout).decode("utf-8", "replace")


class _Command:
    def __init__(self, arguments: Sequence[str | Path], **options: Any) -> None:
        options["env"] = {**os.environ, **(options["env"] or {})}
        self.stdout: list[bytes] = []
        self.last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._lines = PrintedBytes()
        self._tether = Tether()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the author's own command
                [str(part) for part in arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(self._tether.inherited,),
                start_new_session=True,
                bufsize=0,
                **options,
            )
        except BaseException:
            self._tether.cut()
            raise
        self._tether.tie(self._process.pid)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        self._selector.register(self._process.stderr, selectors.EVENT_READ)  # type: ignore[arg-type]

    def read(self, seconds: float) -> bool:
        """Take what comes within the time; whether more may come."""
        for key, _ in self._selector.select(seconds):
            data = os.read(key.fd, _PIECE)
            if key.fileobj is self._process.stdout:
                self.stdout.append(data)
            else:
                self._log(self._lines.add(data) if data else [self._lines.rest()])
            if not data:
                self._selector.unregister(key.fileobj)
        # What it left behind may hold its pipes open.
        return bool(self._selector.get_map()) and (not has_ended(self._process) or self._has_data())

    def wait(self, context: TaskContext) -> int:
        """Its status: it may close its output, and go on."""
        while not has_ended(self._process, LOOK_SECONDS):
            context.check_cancelled()
        signal_group(self._process, signal.SIGKILL)
        return self._process.wait()

    def end(self) -> None:
        signal_group(self._process, signal.SIGTERM)
        if not has_ended(self._process, GRACE_SECONDS):
            log.warning("command_killed", extra={"checkpoint": "PROCESSES", "pid": self._process.pid})
        signal_group(self._process, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdout, self._process.stderr):
            pipe.close()  # type: ignore[union-attr]
        self._tether.cut()

    def _has_data(self) -> bool:
        return bool(self._selector.select(0))

    def _log(self, lines: list[str]) -> None:
        for line in filter(None, lines):
            self.last_lines.append(line)
            print_line(line)
