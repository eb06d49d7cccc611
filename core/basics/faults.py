"""Named places between two effects where a test, or a person who tries an outage, may end the process.

Rows are written before their messages are sent, and messages are sent before that is noted: between any two such
steps a process may die. A fault point is such a place. It does nothing unless somebody armed it.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FAULT_VARIABLE = "COREMACHINE_FAULT"
# What a shell sees of a process that was killed.
KILLED_STATUS = 137

FAULT_POINTS = (
    "submit.written",
    "submit.sent",
    "control.written",
    "control.sent",
    "job.before_plan",
    "job.planning",
    "job.planned",
    "tasks.sent",
    "tasks.marked",
    "task.claimed",
    "task.ran",
    "task.settled",
    "task.retry_written",
    "task.retry_sent",
    "task.released",
    "tasks.returned",
    "window.due",
    "window.taken",
    "job.advanced",
    "job.before_signal",
    "job.before_finalize",
    "job.finalizing",
    "job.finalized",
    "job.step_retry_written",
    "job.step_retry_sent",
    "schedule.decided",
    "schedule.submitted",
    "webhook.sent",
    "janitor.taken_back",
    "janitor.tasks_found",
    "janitor.job_found",
    "janitor.job_sent",
)

_hook: Callable[[str], None] | None = None


class UnknownFaultPoint(ValueError):
    """No fault point is called that."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{FAULT_VARIABLE}: expected one of {', '.join(FAULT_POINTS)}, with :<which time> if it is not the first, "
            f"found {name!r}; fix it or remove it"
        )


def fault_point(name: str) -> None:
    """A place where the process may die; `name` is one of `FAULT_POINTS`, and is used at one place only."""
    if _hook is not None:
        _hook(name)


@contextmanager
def armed(hook: Callable[[str], None]) -> Iterator[None]:
    """Let every fault point of this process call the hook, which may raise or end the process."""
    global _hook  # noqa: PLW0603 - a process dies as a whole
    before, _hook = _hook, hook
    try:
        yield
    finally:
        _hook = before


def arm_from_text(text: str, end: Callable[[int], object] = os._exit) -> None:
    """End this process when a fault point is reached.

    Args:
        text: A name, or name:nth to let it pass nth - 1 times; "" arms nothing.

    Raises:
        UnknownFaultPoint: There is no such point, or nth is no number from 1.
    """
    global _hook  # noqa: PLW0603 - as above
    if not text:
        return
    name, _, nth = text.partition(":")
    if name not in FAULT_POINTS or not (nth or "1").isdecimal() or int(nth or 1) < 1:
        raise UnknownFaultPoint(text)
    hits = NthHit(name, int(nth or 1))

    def die(reached: str) -> None:
        if hits(reached):
            end(KILLED_STATUS)

    _hook = die


class NthHit:
    """Decides for each point that is reached whether it is the requested one, at the nth time. Any thread."""

    def __init__(self, name: str, nth: int) -> None:
        self._name = name
        self._left = nth
        self._lock = threading.Lock()

    def __call__(self, reached: str) -> bool:
        if reached != self._name:
            return False
        with self._lock:
            self._left -= 1
            return self._left == 0
