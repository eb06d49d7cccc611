"""A sign of life of the process that plans a stage or makes a summary, for as long as an author's code takes for that.

A step that ends soon leaves none. One that lasts gets a lease in its job's row, which this process renews, or its
stand-in while the interpreter is blocked. Another process that gets the step's message leaves it alone meanwhile; when
the lease runs out, the janitor announces the step again.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.basics.outage import outage
from core.errors import StoreUnavailable
from core.models import JobRecord
from core.models.refs import StepRef
from core.ports import StandIn, StepLeaseStore
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

# A step that takes less leaves no lease.
QUICK_SECONDS = 2.0
# How long the thread of a process without steps stays.
IDLE_SECONDS = 30.0
# Several renewals may fail before a lease is over (`STEP_LEASE_SECONDS`).
LOOK_SECONDS = 3.0


class StepLeases:
    """One per process: the steps that its threads take now."""

    def __init__(self, store: StepLeaseStore, owner: str, stand_in: StandIn | None = None) -> None:
        self._store, self._owner, self._stand_in = store, owner, stand_in
        self._lock = threading.Lock()
        # When each began.
        self._held: dict[StepRef, float] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @contextmanager
    def hold(self, job: JobRecord) -> Iterator[None]:
        """Around the author's code for the job's step, and the write of what came of it."""
        step, began = job.step_ref, time.monotonic()
        with self._lock:
            self._held[step] = began
            if self._thread is None:
                self._start()
        if self._stand_in is not None:
            self._stand_in.note_step(step, is_taken=True)
        try:
            yield
        finally:
            if self._stand_in is not None:
                self._stand_in.note_step(step, is_taken=False)
            with self._lock:
                self._held.pop(step, None)
            if time.monotonic() - began >= QUICK_SECONDS:
                self._release(step)

    def is_taken(self, job: JobRecord) -> bool:
        """Whether a process takes the job's step now, as far as it has left a sign."""
        step = job.step_ref
        return step in self._held or (job.step_lease is not None and self._store.is_step_leased(step))

    def close(self) -> None:
        """This process ends: others may take its steps at once."""
        self._closed.set()
        for step in list(self._held):
            self._release(step)

    def renew_now(self) -> None:
        """Renew the lease of each step that has lasted for a while."""
        before = time.monotonic() - QUICK_SECONDS
        for step, began in list(self._held.items()):
            if began <= before and not self._closed.is_set():
                self._store.renew_step_lease(step, self._owner)

    def _start(self) -> None:
        """If the system gives no thread, the step is taken all the same; the next one asks again."""
        thread = threading.Thread(target=self._run, name="step-leases", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            log.warning("heartbeat_not_started", extra={"checkpoint": "LEASE", "error": repr(error)})
            return
        self._thread = thread

    def _run(self) -> None:
        """Looks from time to time, so that a quick step wakes nobody."""
        idle_since = time.monotonic()
        while not self._closed.wait(LOOK_SECONDS):
            try:
                self.renew_now()
            except Exception as error:  # noqa: BLE001 - the thread must outlive a database that is away
                report_renewal_failed(error)
            with self._lock:
                if self._held:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > IDLE_SECONDS:
                    self._thread = None
                    return

    def _release(self, step: StepRef) -> None:
        """Without it, the lease runs out by itself."""
        try:
            self._store.release_step_lease(step, self._owner)
        except Exception as error:  # noqa: BLE001 - it must not hide what became of the step
            report_renewal_failed(error)


def report_renewal_failed(error: Exception) -> None:
    """An outage of the database is noted once for all that meet it; anything else is logged."""
    if isinstance(error, StoreUnavailable):
        outage.note(str(error))
    else:
        log.warning("lease_renewal_failed", extra={"checkpoint": "LEASE", "error": repr(error)})
