"""Decides which messages may run now: many at a time, or one alone whose task may end its process; none during a drain.

`ProcessGate` shares the process between messages. `Drain` knows the tasks that it holds, and releases them at the end.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.basics.outage import outage
from core.errors import Draining, StoreUnavailable
from core.running.attempts import Attempts
from core.running.outcome_writer import OutcomeWriter
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

# How long an exclusive run waits for the others to end. None begins meanwhile, so a handler that hangs must not decide.
PATIENCE_SECONDS = 300.0
_LOOK_SECONDS = 1.0


class ProcessGate:
    """A shared or exclusive lock that any thread may take. While an exclusive run waits, no shared one begins.

    Args:
        refuse: Called while a thread waits; raises when this process is about to end.
    """

    def __init__(self, refuse: Callable[[], None], *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._refuse = refuse
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        self._present = 0
        self._waiting = 0
        self._is_alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Run beside others."""
        with self._changed:
            if self._is_alone or self._waiting:
                self._wait(lambda: not self._is_alone and not self._waiting)
            self._present += 1
        try:
            yield
        finally:
            with self._changed:
                self._present -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Run alone. Yields False, and runs beside others after all, where those do not end in time."""
        with self._changed:
            self._waiting += 1
            try:
                is_alone = self._wait_for_quiet()
                self._is_alone = is_alone
                self._present += 1
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield is_alone
        finally:
            with self._changed:
                self._present -= 1
                self._is_alone = self._is_alone and not is_alone
                self._changed.notify_all()

    def _wait_for_quiet(self) -> bool:
        """False where shared runs did not end in time; an exclusive run is waited for without a limit."""
        while True:
            self._wait(lambda: not self._is_alone)
            if self._wait(lambda: not self._present, time.monotonic() + self._patience_seconds):
                return True
            if not self._is_alone:
                return False

    def _wait(self, condition: Callable[[], bool], deadline: float | None = None) -> bool:
        while not condition():
            if deadline is not None and time.monotonic() >= deadline:
                return False
            self._changed.wait(_LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, self._patience_seconds))
            self._refuse()
        return True


class Drain:
    """Knows what this process holds. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Attempts, OutcomeWriter] = {}
        self._is_draining = False

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    def refuse(self) -> None:
        """Keep a message from a process that is about to end.

        Raises:
            Draining: The message must stay with the broker.
        """
        if self._is_draining:
            raise Draining

    @contextmanager
    def holding(self, attempts: Attempts, writer: OutcomeWriter) -> Iterator[bool]:
        """Yields whether they may run; False when they were claimed too late, and have to be released unbegun."""
        with self._lock:
            may_run = not self._is_draining
            if may_run:
                self._held[attempts] = writer
        try:
            yield may_run
        finally:
            with self._lock:
                self._held.pop(attempts, None)

    def drain(self) -> int:
        """Release every task of this process: how many others can claim now.

        A handler learns of it when it calls `check_cancelled`; the result of one that does not is refused by the lease.
        Leases of tasks that cannot be released, since the database is away, expire.
        """
        with self._lock:
            self._is_draining = True
            held, self._held = self._held, {}
        abandoned = [(writer, *attempts.abandon()) for attempts, writer in held.items()]
        count = 0
        for writer, waiting, running in abandoned:
            for tasks, started in ((waiting, False), (running, True)):
                try:
                    count += writer.release(tasks, started=started) if tasks else 0
                except StoreUnavailable as error:
                    outage.note(str(error))
                except Exception:
                    log.exception("tasks_not_handed_back", extra={"checkpoint": "DRAIN", "count": len(tasks)})
        log.info("drained", extra={"checkpoint": "DRAIN", "count": count})
        return count
