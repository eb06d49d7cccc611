"""A process that an author's code forked ends where that code comes back to the engine.

It has this process's memory, its claimed tasks and its connections too, and would settle, send and serve in its place.
"""

import logging
import os
import sys
import traceback
from types import TracebackType
from typing import NoReturn

log = logging.getLogger(__name__)


class ForkBoundary:
    """`with ForkBoundary():` around a call of an author's code: only the process that went in comes out.

    A child that leaves by SystemExit ends with its status, after another exception with 1, and after a plain return,
    for which `os._exit(0)` was forgotten, with 0. What it still has in buffers is not written: it is the
    parent's too.
    """

    def __enter__(self) -> None:
        self._pid = os.getpid()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            _leave(self._pid, error)


def _leave(parent: int, error: BaseException | None) -> NoReturn:
    status = 1
    try:
        status = _status_of(error)
        log.warning(
            "forked_child_left_handler",
            extra={
                "checkpoint": "FORK",
                "pid": os.getpid(),
                "parent_pid": parent,
                "exit_status": status,
                "reason": "a process that a handler forks must end by os._exit; it was ended here",
            },
        )
        if error is not None and not isinstance(error, SystemExit):
            traceback.print_exception(error, file=sys.stderr)
    finally:
        os._exit(status)  # no clean-up: connections, files and threads are the parent's


def _status_of(error: BaseException | None) -> int:
    if error is None:
        return 0
    code = error.code if isinstance(error, SystemExit) else 1
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1
