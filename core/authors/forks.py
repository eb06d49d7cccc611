"""A process that an author's code forked ends where that code comes back to the engine.

It has this process's memory, its claimed tasks and its connections too, and would settle, send and serve in its place.
"""

import os
import sys
from typing import NoReturn

from core.safety.safe_log import safe_logger
from core.safety.safe_text import bounded_text, trace_of, type_name

log = safe_logger(__name__)


# What is the same, by `is`, as long as no fork came between. Read it as `forks.process`: each forked child has another.
# A system call for the process id, twice a task, would cost more.
process = object()


def _be_another() -> None:
    global process  # noqa: PLW0603 - that is what a fork changes
    process = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_be_another)


def end_forked_child(error: BaseException | None = None) -> NoReturn:
    """End this process, which is not the one that called the author's code that comes back here.

    A child that leaves by SystemExit ends with its status, after another exception with 1, and after a plain return,
    for which `os._exit(0)` was forgotten, with 0. What it still has in buffers is not written: it is the
    parent's too.
    """
    status = 1
    try:
        status = _status_of(error)
        log.warning(
            "forked_child_left_handler",
            extra={
                "checkpoint": "FORK",
                "pid": os.getpid(),
                "parent_pid": os.getppid(),
                "exit_status": status,
                "reason": "a process that an author's code forks must end by os._exit; it was ended here",
            },
        )
        if error is not None and not isinstance(error, SystemExit):
            sys.stderr.write(bounded_text(trace_of(error) or type_name(error), keep_end=True) + "\n")
            sys.stderr.flush()
    finally:
        os._exit(status)  # no clean-up: connections, files and threads are the parent's


def _status_of(error: BaseException | None) -> int:
    if error is None:
        return 0
    code = error.code if isinstance(error, SystemExit) else 1
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1
