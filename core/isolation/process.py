"""One process of the pool, seen from the worker: how it starts, what goes to and fro, how it ends."""

import os
import selectors
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from core.isolation.log_records import settings_of_loggers
from core.isolation.tether import Tether, has_ended, signal_group
from core.isolation.wire import LineBuffer, Message, encode

CHILD_MODULE = f"{__package__}.child"
_END_SECONDS = 5.0
_PIECE = 1 << 16


@dataclass(frozen=True)
class Line:
    """What came from a process: an answer, or a line that it printed. An answer of None is the last."""

    is_answer: bool
    data: bytes | None


class HandlerProcess:
    """A spawned process that finds its handler by name, and runs one attempt at a time.

    Args:
        target: `package.module:function`.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.attempts = 0
        # Its private memory after its first attempt.
        self.first_bytes: int | None = None
        self._tether = Tether()
        try:
            self._process = _spawn(target, self._tether)
        except BaseException:
            self._tether.cut()
            raise
        self._tether.tie(self._process.pid)
        self._selector = selectors.DefaultSelector()
        for pipe, is_answer in ((self._process.stdout, True), (self._process.stderr, False)):
            self._selector.register(pipe, selectors.EVENT_READ, (is_answer, LineBuffer()))  # type: ignore[arg-type]
        self.send({"loggers": settings_of_loggers()})

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return not has_ended(self._process)

    def send(self, message: Message) -> None:
        """A process that is gone is noticed by its last answer."""
        pipe: Any = self._process.stdin
        data = memoryview(encode(message))
        with suppress(OSError):
            while data:
                data = data[pipe.write(data) :]

    def receive(self, seconds: float) -> list[Line]:
        """What comes within the time; empty when nothing does."""
        was_alive = self.is_alive
        lines: list[Line] = []
        for key, _ in self._selector.select(seconds):
            is_answer, buffer = key.data
            data = os.read(key.fd, _PIECE)
            lines += [Line(is_answer, line) for line in buffer.add(data)]
            if not data:
                self._selector.unregister(key.fileobj)
                rest = buffer.rest()
                # Half an answer: it died while it wrote.
                lines += [Line(True, None)] if is_answer else [Line(False, rest)] if rest else []
        if not lines and not was_alive:
            # What it forked may hold its pipes open, and will never answer.
            lines.append(Line(True, None))
        return lines

    def exit_status(self) -> int:
        """As `subprocess` has it: negative for a signal. To be asked after the last answer; ends what it started."""
        # One that closed its answers and lives on is of no more use.
        has_ended(self._process, _END_SECONDS)
        signal_group(self._process, signal.SIGKILL)
        return self._process.wait()

    def end(self) -> None:
        """End it and what it started, whatever it does now. To be called once."""
        signal_group(self._process, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        self._tether.cut()


def _spawn(target: str, tether: Tether) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - our own module under our own interpreter
        [sys.executable, "-P", "-m", CHILD_MODULE, target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        pass_fds=(tether.inherited,),
        # Ctrl-C is for the worker; and what a handler starts belongs to the group that ends with its process.
        start_new_session=True,
        bufsize=0,
    )
