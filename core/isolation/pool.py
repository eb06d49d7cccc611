"""The processes of this worker: at most a number of them at work, and as many that wait for the next task."""

import atexit
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from typing import Any

from core.basics.strict_json import EncodedJson
from core.errors import AuthorError
from core.isolation.attempt import Attempt, NeverBegan, Surroundings
from core.isolation.limits import Limits
from core.isolation.memory import MEGABYTE, can_be_seen, private_bytes
from core.isolation.process import HandlerProcess
from core.isolation.wire import Message
from core.models import StageRef
from core.ports import ResultStore
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

# A process that keeps more than this beyond what its first attempt left has a leak.
MOST_GROWTH = 256 * MEGABYTE
# Results of an earlier stage are passed on in pages of about this size.
_PAGE_BYTES = 1 << 20


class ProcessPool:
    """Runs attempts in processes. Each process has one handler, which it has imported, and is used again."""

    def __init__(self, most: int | None = None) -> None:
        self._lock = threading.Lock()
        self._idle: list[HandlerProcess] = []
        # How many attempts may run at once: those that call `run` see to it.
        self.most = most or os.cpu_count() or 1

    def configure(self, most: int) -> None:
        """Set how many attempts may run at once, before the first one does."""
        self.most = most

    def run(self, target: str, limits: Limits, task: Message, around: Surroundings) -> EncodedJson:
        """One attempt, in a process that waits or a new one. Raises as `Attempt.run`."""
        if limits.memory_limit_mb is not None and not can_be_seen():
            _report_no_limit()
        while True:
            process = self._borrow(target)
            is_new = process.attempts == 0
            try:
                result = Attempt(process, around).run(task)
            except AuthorError:
                self._give_back(process, limits)
                raise
            except NeverBegan:
                process.end()
                if is_new:
                    raise
                continue  # it had waited for too long, and ended as it was asked
            except BaseException:
                process.end()
                raise
            self._give_back(process, limits)
            return result

    def end(self) -> None:
        """End those that wait."""
        with self._lock:
            processes, self._idle = self._idle, []
        for process in processes:
            process.end()

    def _borrow(self, target: str) -> HandlerProcess:
        ended: list[HandlerProcess] = []
        try:
            with self._lock:
                for process in reversed(self._idle):
                    if process.target == target:
                        self._idle.remove(process)
                        if process.is_alive:
                            return process
                        ended.append(process)
                while len(self._idle) >= self.most:
                    ended.append(self._idle.pop(0))
        finally:
            for process in ended:
                process.end()
        return HandlerProcess(target)

    def _give_back(self, process: HandlerProcess, limits: Limits) -> None:
        found = private_bytes(process.pid)
        if process.first_bytes is None:
            process.first_bytes = found
        limit = limits.memory_limit_mb
        most_growth = MOST_GROWTH if limit is None else min(MOST_GROWTH, limit * MEGABYTE // 4)
        if process.attempts >= limits.tasks_per_process or found - process.first_bytes > most_growth:
            process.end()
            return
        with self._lock:
            self._idle.append(process)


@cache
def _report_no_limit() -> None:
    log.warning("memory_limit_not_enforced", extra={"checkpoint": "PROCESSES", "reason": "there is no /proc here"})


class Pages:
    """Results of earlier stages for an attempt, page by page: its memory does not grow with them, nor does ours."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._streams: dict[int, Iterator[Any]] = {}

    def read(self, request: Message) -> list[Any]:
        """The next page of a stream; an empty one is its end."""
        number = request["to"][1]
        if number not in self._streams:
            read = self._store.stream_results if request["kind"] == "results" else self._store.stream_failures
            self._streams[number] = iter(read(StageRef(*request["ref"])))
        page: list[Any] = []
        size = 0
        for row in self._streams[number]:
            page.append(asdict(row))
            size += len(repr(row))
            if size > _PAGE_BYTES:
                break
        return page


POOL = ProcessPool()
atexit.register(POOL.end)
