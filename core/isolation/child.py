"""A process of the pool: `python -m core.isolation.child package.module:function <descriptor for answers>`.

It runs attempts of one handler for the worker that started it, and ends with that worker: see `wire` for what goes to
and fro.
"""

import faulthandler
import io
import itertools
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from json import loads
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast
from uuid import UUID

from core.authors.author_code import call_author, judge_returned
from core.authors.printed_lines import PrintedLines
from core.basics.canonical import MOST_JSONB_BYTES
from core.basics.log_fields import log_fields
from core.basics.strict_json import EncodedJson
from core.context import TaskContext
from core.errors import AuthorError, ContractViolationError, Failure, TaskCancelled, TaskTimedOut, classify
from core.fan_in import fan_in_reader
from core.isolation.log_records import adopt_settings, as_message
from core.isolation.target import find
from core.isolation.wire import ANSWERS_CLOSED, END_OF_OUTPUT, Message, encode
from core.models import StageRef
from core.models.context import CompletedTask, FailedTask

# A worker that has nothing to run keeps no processes.
IDLE_SECONDS = 60.0
# Several threads may print at once.
_printing = threading.Lock()


class Worker:
    """The other side: where tasks come from and answers go to. Any thread may answer."""

    def __init__(self, requests: BinaryIO, answers: int) -> None:
        self._requests, self._answers = requests, answers
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[Message] = queue.SimpleQueue()
        # By attempt and stream: a handler may read several at a time, in threads of its own.
        self._pages: dict[tuple[int, int], queue.SimpleQueue[list[Any] | None]] = {}
        # The attempt that runs, or was the last.
        self.number = 0
        self.stop: str | None = None

    def start(self) -> None:
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def next_task(self) -> Message | None:
        """None when none came for long."""
        try:
            return self._tasks.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return None

    def answer(self, **message: Any) -> bool:
        """Whether it was sent: the worker may be gone, or a handler has closed the file for it."""
        data = memoryview(encode(message))
        with self._lock, suppress(OSError):
            while data:
                data = data[os.write(self._answers, data) :]
        return not data

    def read_page(self, to: tuple[int, int], request: Message) -> list[Any]:
        """The next page of a stream; an empty one is its end."""
        pages = self._pages.setdefault(to, queue.SimpleQueue())
        self.answer(read={**request, "to": to})
        page = pages.get()
        if not page:
            self._pages.pop(to, None)
        if page is None:
            raise ContractViolationError(
                "results of an earlier stage: expected a call while the handler runs, found one of a thread that it "
                "left behind; wait for its threads before it returns"
            )
        return page

    def _read(self) -> None:
        for line in self._requests:
            message = loads(line)
            if "loggers" in message:
                adopt_settings(message["loggers"])
            elif "task" in message:
                self.number, self.stop = message["task"]["number"], None
                self._tasks.put(message["task"])
            elif "stop" in message:
                self.stop = message["stop"]
            elif "page" in message:
                attempt, stream = message["to"]
                self._pages[attempt, stream].put(message["page"])
        # The worker is gone, and nobody waits for this any more, nor for what it started. `tether` may be quicker.
        os.killpg(0, signal.SIGKILL)


class Records(logging.Handler):
    """Sends log records to the worker."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._worker.answer(log=as_message(record))
        except Exception:  # noqa: BLE001 - as every handler of `logging`
            self.handleError(record)


class Prints(io.TextIOBase):
    """A stream of `sys` whose lines go to the worker among the log records: what came first is there first."""

    def __init__(self, stream: TextIO, worker: Worker) -> None:
        self._stream, self._worker = stream, worker
        self._lines = PrintedLines()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _printing:
            lines = self._lines.add(text)
        for line in lines:
            self._worker.answer(printed=line)
        return len(text)

    def fileno(self) -> int:
        return self._stream.fileno()

    def end_line(self) -> None:
        with _printing:
            rest = self._lines.rest()
        if rest:
            self._worker.answer(printed=rest)


class Results:
    """A `ResultStore` whose rows the worker reads."""

    def __init__(self, worker: Worker, number: int) -> None:
        self._worker, self._number = worker, number
        self._streams = itertools.count(1)

    def stream_results(self, ref: StageRef) -> Iterator[CompletedTask]:
        return (CompletedTask(**row) for row in self._stream("results", ref))

    def stream_failures(self, ref: StageRef) -> Iterator[FailedTask]:
        return (FailedTask(**row) for row in self._stream("failures", ref))

    def _stream(self, kind: str, ref: StageRef) -> Iterator[Mapping[str, Any]]:
        to = self._number, next(self._streams)
        request = {"kind": kind, "ref": [ref.job_id, ref.run, ref.stage]}
        while page := self._worker.read_page(to, request):
            yield from page


class Standard:
    """What each task is to find as the first did: the streams and the folder, which a handler may close or change."""

    def __init__(self) -> None:
        self._streams = sys.stdout, sys.stderr
        self._folder = Path.cwd()
        self._copies = {number: os.dup(number) for number in (0, 1, 2)}

    def restore(self) -> bool:
        """False where that is not possible: the process is of no more use."""
        for stream in (sys.stdout, sys.stderr):
            if stream not in self._streams:
                with suppress(Exception):
                    stream.flush()
        sys.stdout, sys.stderr = self._streams
        try:
            for number, copy in self._copies.items():
                if not _is_same_file(number, copy):
                    os.dup2(copy, number)
            os.chdir(self._folder)
        except OSError:
            return False
        return True


def _is_same_file(number: int, copy: int) -> bool:
    try:
        return os.path.sameopenfile(number, copy)
    except OSError:  # it was closed
        return False


def main(target: str, answers: int) -> None:
    faulthandler.enable(all_threads=False)
    worker = _take_pipes(answers)
    logging.root.addHandler(Records(worker))
    worker.start()
    # While nothing waits for it, if it can be; if not, each task reports why.
    with suppress(BaseException):
        _find_once(target)
    standard = Standard()
    is_of_use = True
    while is_of_use and (task := worker.next_task()) is not None:
        worker.answer(began=True)
        answer = _answer_to(target, task, worker)
        is_of_use = standard.restore()
        _end_output()
        if not worker.answer(**answer):
            os._exit(ANSWERS_CLOSED)
    # The thread that reads holds stdin, for which an orderly end of the interpreter would abort the process.
    os._exit(0)


def _take_pipes(answers: int) -> Worker:
    """What a handler reads is nothing, and what it starts has none of them."""
    requests = os.fdopen(os.dup(0), "rb")
    os.set_inheritable(answers, False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    worker = Worker(requests, answers)
    sys.stdout, sys.stderr = Prints(sys.stdout, worker), Prints(sys.stderr, worker)
    return worker


def _answer_to(target: str, task: Message, worker: Worker) -> Message:
    lease_id = task["context"].pop("lease_id")
    number = task["number"]

    def report(progress: Mapping[str, Any]) -> None:
        worker.answer(progress=[progress["percent"], progress["message"]], number=number)

    context = TaskContext(
        **task["context"],
        lease_id=lease_id and UUID(lease_id),
        _report=report,
        # A thread that the handler of an earlier attempt left behind is to stop too.
        _stop_requested=lambda: worker.stop is not None or worker.number != number,
        _timed_out=lambda: worker.stop == TaskTimedOut.__name__ and worker.number == number,
    )
    try:
        with log_fields(**task["log_fields"]), fan_in_reader(cast("Any", Results(worker, number))):
            judged = call_author(_call, target, task, context)
    except AuthorError as error:
        return {"failure": asdict(error.failure), "is_cancelled": False}
    if isinstance(judged, EncodedJson):
        return {"result": judged}
    failure, is_cancelled = judged
    return {"failure": asdict(failure), "is_cancelled": is_cancelled}


def _call(target: str, task: Message, context: TaskContext) -> EncodedJson | tuple[Failure, bool]:
    """The result, or a failure and whether it heeds a cancel."""
    try:
        # The worker has a bound of its own, which is lower; this one is for its memory.
        returned = _find_once(target)(task["parameters"], context)
        judged = judge_returned(task["task_type"], returned, MOST_JSONB_BYTES)
    except TaskCancelled as stopped:
        return classify(stopped), True
    return judged if isinstance(judged, EncodedJson) else (judged, False)


@cache
def _find_once(target: str) -> Any:
    """What raises is asked for again."""
    return find(target)


def _end_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
        if isinstance(stream, Prints):
            stream.end_line()
    with suppress(OSError):  # what was closed could not be restored
        os.write(2, f"{END_OF_OUTPUT}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
