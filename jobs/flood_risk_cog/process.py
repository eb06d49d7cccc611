"""Conversions in processes of their own, seen from the worker: a crash, a cancel or a leak ends no other task.

GDAL's cache and options belong to a whole process, its C code cannot be interrupted, and a damaged file may end the
process that reads it. So the worker's threads each have a child process convert for them (`jobs.flood_risk_cog.serve`),
which is kept for the next raster. Requests and answers are JSON lines on its pipes.
"""

import atexit
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from core.errors import AuthorError, Failure, RetryableTaskError

COMMAND = (sys.executable, "-m", "jobs.flood_risk_cog.serve")
# Of a child's environment. The allocator keeps blocks of up to 32 MB, and 128 MB at its end, for
# the next ones: pages that come and go with each tile cost a twentieth to a tenth of the time.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    "OPENBLAS_NUM_THREADS": "1",
}
# How soon a cancel is heeded, and how often a step's growth is looked at.
LOOK_SECONDS = 0.5
# What libraries leak in a thousand rasters is not for ever.
MOST_CONVERSIONS = 200

Answer = dict[str, Any]
Report = Callable[[str, float], None]
Look = Callable[[str], None]


class ConversionEnded(RetryableTaskError):
    """The child ended without an answer: a crash in C code, or killed for its memory."""

    def __init__(self, status: int, step: str) -> None:
        self.status, self.step = status, step
        how = f"signal {_signal_name(-status)}" if status < 0 else f"exit status {status}"
        super().__init__(
            f"expected an answer from the conversion's own process, found that it ended by {how} in the step {step!r}; "
            "another attempt follows. If each ends so, the raster makes GDAL crash or this machine is short of memory: "
            "write the raster anew in tiles (gdal_translate -co TILED=YES) or give the worker more memory"
        )


class ConversionProcess:
    """One child: it converts one raster at a time."""

    def __init__(self) -> None:
        self.conversions = 0
        # What this process finds, the child finds.
        python_path = os.pathsep.join(path or os.getcwd() for path in sys.path)  # noqa: PTH109
        environment = {**os.environ, "PYTHONPATH": python_path, **ALLOCATOR}
        # A session of its own: Ctrl-C in a terminal is for the worker, which ends its children in order.
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="conversion-answers", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def convert(self, request: dict[str, Any], report: Report, look: Look) -> dict[str, Any]:
        """Have one raster converted.

        Args:
            request: Keywords of `convert_raster`, as JSON values.
            report: Called with each step as it begins, and with its part that is done; what it raises comes through.
            look: Called with the step at least every `LOOK_SECONDS`; what it raises comes through.

        Raises:
            ConversionEnded: The child is gone. `step` is empty when it never began.
            AuthorError: The conversion failed; its `failure` says how.
        """
        self.conversions += 1
        step = ""
        self._send(request)
        while True:
            try:
                answer = self._answers.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                look(step)
                continue
            if answer is None:
                raise ConversionEnded(self._process.wait(), step)
            if "result" in answer:
                return dict(answer["result"])
            if "failure" in answer:
                raise AuthorError(Failure(**answer["failure"]))
            step = answer["step"]
            report(step, answer["share"])
            look(step)
            if answer["waits"]:
                self._send({"go_on": True})

    def end(self) -> None:
        """End it, whatever it does now."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        # A child that is gone, or was ended meanwhile (ValueError), is noticed by the end of its answers.
        with suppress(OSError, ValueError):
            self._process.stdin.write(line)  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def _read(self) -> None:
        with self._process.stdout as lines:  # type: ignore[union-attr]
            for line in lines:
                try:
                    answer = json.loads(line)
                except ValueError:
                    # Half a line: it died while it wrote.
                    break
                self._answers.put(answer)
        self._answers.put(None)


class ConversionProcesses:
    """The children of this process: one per conversion at work, and those that wait for the next."""

    def __init__(self) -> None:
        self._idle: list[ConversionProcess] = []
        self._lock = threading.Lock()

    def convert(self, request: dict[str, Any], report: Report, look: Look) -> dict[str, Any]:
        """As `ConversionProcess.convert`, in a child that is free or new; one that did not finish is killed."""
        while True:
            child = self._borrow()
            was_kept = child.conversions > 0
            try:
                result = child.convert(request, report, look)
            except AuthorError:
                self._give_back(child)
                raise
            except ConversionEnded as ended:
                child.end()
                if was_kept and not ended.step:
                    # It had waited too long, and ended as it was asked.
                    continue
                raise
            except BaseException:
                child.end()
                raise
            self._give_back(child)
            return result

    def end(self) -> None:
        """End those that wait."""
        with self._lock:
            children, self._idle = self._idle, []
        for child in children:
            child.end()

    def _borrow(self) -> ConversionProcess:
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.is_alive:
                    return child
                child.end()
        return ConversionProcess()

    def _give_back(self, child: ConversionProcess) -> None:
        if child.conversions >= MOST_CONVERSIONS:
            child.end()
            return
        with self._lock:
            self._idle.append(child)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


PROCESSES = ConversionProcesses()
atexit.register(PROCESSES.end)
