"""Releases the tasks of a process that is asked to end, and keeps messages from it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from core.basics.outage import outage
from core.errors import Draining, StoreUnavailable
from core.running.attempts import Attempts
from core.running.outcome_writer import OutcomeWriter
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)


class Drain:
    """Knows the tasks that this process has claimed, and releases them at its end. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Attempts, OutcomeWriter] = {}
        self.is_draining = False
        self._begun = threading.Event()

    def refuse(self) -> None:
        """Keep a message from a process that is about to end.

        Raises:
            Draining: The message must stay with the broker.
        """
        if self.is_draining:
            raise Draining

    def wait(self, seconds: float) -> bool:
        """Let time pass. False, at once, if this process is about to end."""
        return not self._begun.wait(seconds)

    @contextmanager
    def holding(self, attempts: Attempts, writer: OutcomeWriter) -> Iterator[bool]:
        """Yields whether they may run; False when they were claimed too late, and have to be released unbegun."""
        with self._lock:
            may_run = not self.is_draining
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
            self.is_draining = True
            held, self._held = self._held, {}
        self._begun.set()
        abandoned = [(writer, *attempts.abandon()) for attempts, writer in held.items()]
        count = 0
        for writer, waiting, running in abandoned:
            for tasks, started in ((waiting, False), (running, True)):
                try:
                    count += writer.release(tasks, started=started) if tasks else 0
                except StoreUnavailable as error:
                    outage.note(str(error))
                except Exception:
                    log.exception("tasks_not_released", extra={"checkpoint": "DRAIN", "count": len(tasks)})
        log.info("drained", extra={"checkpoint": "DRAIN", "count": count})
        return count
