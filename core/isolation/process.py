"""One process of the pool, seen from the worker: how it starts, what goes to and fro, how it ends."""

import os
import selectors
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from core.authors.printed_lines import PrintedBytes
from core.isolation.log_records import settings_of_loggers
from core.isolation.tether import Tether, has_ended, signal_group
from core.isolation.wire import ANSWERS_CLOSED, END_OF_OUTPUT, LineBuffer, Message, encode

CHILD_MODULE = f"{__package__}.child"
_END_SECONDS = 5.0
_PIECE = 1 << 16


@dataclass(frozen=True)
class Line:
    """What came from a process: an answer, or a line that it printed. Without either, it was the last answer."""

    answer: bytes | None = None
    printed: str | None = None

    @property
    def is_last(self) -> bool:
        return self.answer is None and self.printed is None


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
            self._process, answers, printed = _spawn(target, self._tether)
        except BaseException:
            self._tether.cut()
            raise
        self._pipes = answers, printed
        self._tether.tie(self._process.pid)
        self._selector = selectors.DefaultSelector()
        self._answers, self._printed = LineBuffer(), PrintedBytes(END_OF_OUTPUT)
        for pipe, read in ((answers, self._read_answers), (printed, self._read_printed)):
            self._selector.register(pipe, selectors.EVENT_READ, read)
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
            data = os.read(key.fd, _PIECE)
            lines += key.data(data)
            if not data:
                self._selector.unregister(key.fileobj)
        if not lines and not was_alive:
            # What it forked may hold its pipes open, and will never answer.
            lines.append(Line())
        return lines

    def _read_answers(self, data: bytes) -> list[Line]:
        # At the end there may be half an answer: it died while it wrote.
        return [Line(answer=line) for line in self._answers.add(data)] if data else [Line()]

    def _read_printed(self, data: bytes) -> list[Line]:
        lines = self._printed.add(data) if data else list(filter(None, [self._printed.rest()]))
        return [Line(printed=line) for line in lines]

    def exit_status(self) -> int | None:
        """As `subprocess` has it: negative for a signal. To be asked after the last answer; ends what it started.

        None for one that closed the file for its answers, and ended for it or lived on.
        """
        ended = has_ended(self._process, _END_SECONDS)
        signal_group(self._process, signal.SIGKILL)
        status = self._process.wait()
        return status if ended and status != ANSWERS_CLOSED else None

    def end(self) -> None:
        """End it and what it started, whatever it does now. To be called once."""
        signal_group(self._process, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        for pipe in self._pipes:
            os.close(pipe)
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        self._tether.cut()


def _spawn(target: str, tether: Tether) -> "tuple[subprocess.Popen[bytes], int, int]":
    """The process, and where its answers and its output are read: whatever it prints is no answer."""
    (answers, answering), (printed, printing) = os.pipe(), os.pipe()
    try:
        return _start(target, tether, answering, printing), answers, printed
    except BaseException:
        os.close(answers)
        os.close(printed)
        raise
    finally:
        os.close(answering)
        os.close(printing)


def _start(target: str, tether: Tether, answering: int, printing: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - our own module under our own interpreter
        [sys.executable, "-P", "-m", CHILD_MODULE, target, str(answering)],
        stdin=subprocess.PIPE,
        stdout=printing,
        stderr=printing,
        # Whatever else an app put there is passed over by an import too.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path and isinstance(path, str))},
        pass_fds=(tether.inherited, answering),
        # Ctrl-C is for the worker; and what a handler starts belongs to the group that ends with its process.
        start_new_session=True,
        bufsize=0,
    )
