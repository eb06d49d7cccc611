"""One attempt in a process of its own: waits for its answer, and meanwhile heeds cancels, time and memory."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from json import loads
from typing import Any

from core.basics.strict_json import EncodedJson
from core.context import TaskContext
from core.errors import AuthorError, Failure, PermanentTaskError, RetryableTaskError, TaskCancelled
from core.isolation.log_records import pass_on
from core.isolation.memory import MEGABYTE, private_bytes
from core.isolation.process import HandlerProcess
from core.isolation.wire import END_OF_OUTPUT, Message
from core.safety.safe_text import repr_of

# How soon a cancel is heeded, and how often memory is looked at.
LOOK_SECONDS = 0.2
MEMORY_LOOK_SECONDS = 0.05
# A handler that calls check_cancelled may leave in order; any other is ended after this.
STOP_GRACE_SECONDS = 3.0
# What is printed comes another way than the answer, and may come a moment later.
_OUTPUT_SECONDS = 1.0


class ProcessEnded(RetryableTaskError):
    """The attempt's own process ended without an answer: a crash in C code, os._exit, or killed from outside."""

    def __init__(self, status: int | None) -> None:
        self.status = status
        if status is None:
            super().__init__(
                "expected an answer of the attempt's process, found that it closed the file for it; a handler in a "
                "process of its own must not close files that it did not open"
            )
            return
        is_killed = status == -signal.SIGKILL
        advice = (
            "see whether memory ran out (memory_limit_mb makes it certain)"
            if is_killed
            else "see its last printed lines"
        )
        super().__init__(f"{advice}: the attempt's process ended by {end_of(status)}, without a result")


class MemoryLimitExceeded(PermanentTaskError):
    """The attempt took more memory than its handler may; every attempt would."""

    def __init__(self, limit_mb: int, found_bytes: int) -> None:
        super().__init__(
            f"expected the attempt to take at most {limit_mb} MB of memory, found {found_bytes // MEGABYTE} MB; raise "
            "memory_limit_mb of its handler, or give one task less to do"
        )


class AnswerUnreadable(RetryableTaskError):
    """What came from the attempt's process is no answer: its handler wrote into the pipe, or changed how it writes."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(
            f"expected an answer of the attempt's process, found {repr_of(answer)}; a handler in a process of its own "
            "must not write to files that it did not open"
        )


class NeverBegan(Exception):
    """The process had ended before it took the task: another one may."""


@dataclass(frozen=True)
class Surroundings:
    """Where an attempt is called from.

    Args:
        read_page: Gives the next results of an earlier stage.
        printed: Takes each line that is printed.
    """

    context: TaskContext
    read_page: Callable[[Message], list[Any]]
    printed: Callable[[str], None]
    memory_limit_mb: int | None = None


class Attempt:
    """One attempt in a process; to be run once."""

    def __init__(self, process: HandlerProcess, around: Surroundings) -> None:
        self._process, self._around = process, around
        self._number = 0
        self._began = False
        self._stopped: TaskCancelled | None = None
        self._kill_at = 0.0
        self._output_is_over = False
        self._look_seconds = LOOK_SECONDS if around.memory_limit_mb is None else MEMORY_LOOK_SECONDS
        self._look_at = time.monotonic() + self._look_seconds

    def run(self, task: Message) -> EncodedJson:
        """The handler's result, as it is stored. After all but a result and AuthorError the process is of no use.

        Raises:
            AuthorError: The handler failed; its `failure` has the reason.
            TaskCancelled: It was asked to stop, and has, or was ended.
            ProcessEnded, MemoryLimitExceeded: There is no answer.
            NeverBegan: Nothing has run.
        """
        self._process.attempts += 1
        self._number = self._process.attempts
        self._process.send({"task": {**task, "number": self._number}})
        while True:
            for answer in self._receive():
                if answer is None:
                    raise self._without_answer()
                if "result" in answer:
                    self._read_output()
                    return EncodedJson(answer["result"])
                if "failure" in answer:
                    self._read_output()
                    raise self._failed(answer)
                self._take(answer)
            self._look()

    def _receive(self) -> list[Message | None]:
        answers: list[Message | None] = []
        for line in self._process.receive(max(0.0, self._look_at - time.monotonic())):
            if line.printed is not None:
                self._print(line.printed)
            else:
                answers.append(None if line.answer is None else _read(line.answer))
        return answers

    def _take(self, answer: Message) -> None:
        if "began" in answer:
            self._began = True
        elif "progress" in answer and answer["number"] == self._number:
            self._around.context.progress(*answer["progress"])
        elif "log" in answer:
            pass_on(answer["log"])
        elif "printed" in answer:
            self._around.printed(answer["printed"])
        elif "read" in answer:
            number, stream = answer["read"]["to"]
            page = self._around.read_page(answer["read"]) if number == self._number else None
            self._process.send({"page": page, "to": [number, stream]})

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + self._look_seconds
        limit = self._around.memory_limit_mb
        if limit is not None and (found := private_bytes(self._process.pid)) > limit * MEGABYTE:
            raise MemoryLimitExceeded(limit, found)
        if self._stopped is None:
            self._heed_stop(now)
        elif now >= self._kill_at:
            raise self._stopped

    def _heed_stop(self, now: float) -> None:
        try:
            self._around.context.check_cancelled()
        except TaskCancelled as stopped:
            self._stopped, self._kill_at = stopped, now + STOP_GRACE_SECONDS
            self._process.send({"stop": type(stopped).__name__})

    def _failed(self, answer: Message) -> Exception:
        if self._stopped is not None and answer["is_cancelled"]:
            return self._stopped
        return AuthorError(Failure(**answer["failure"]))

    def _without_answer(self) -> Exception:
        self._read_output()
        status = self._process.exit_status()
        if self._stopped is not None:
            return self._stopped
        return ProcessEnded(status) if self._began else NeverBegan()

    def _read_output(self) -> None:
        """The rest of what was printed."""
        until = time.monotonic() + _OUTPUT_SECONDS
        while not self._output_is_over and time.monotonic() < until:
            lines = self._process.receive(until - time.monotonic())
            for line in lines:
                if line.printed is not None:
                    self._print(line.printed)
            if any(line.is_last for line in lines):
                return

    def _print(self, line: str) -> None:
        line, end, _ = line.partition(END_OF_OUTPUT)
        self._output_is_over = self._output_is_over or bool(end)
        if line or not end:
            self._around.printed(line)


def _read(answer: bytes) -> Message:
    try:
        message = loads(answer)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise AnswerUnreadable(answer)
    return message


def end_of(status: int) -> str:
    """How a process ended, for people: the name of a signal or the exit status."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
