"""A sign of life of the process that plans a stage or makes a summary, for as long as an author's code takes for that.

A step that ends soon leaves none. One that lasts, or that was begun before, gets a lease in its job's row, which this
process renews, or its stand-in while the interpreter is blocked. Another process that gets the step's message leaves it
alone meanwhile; when the lease runs out, the janitor counts an interruption and announces the step again.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.basics.outage import outage
from core.basics.threads import LookingThread
from core.errors import StoreUnavailable
from core.models import JobRecord
from core.models.lease import LostProcesses
from core.models.refs import StepRef
from core.ports import StandIn, StepLeaseStore
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

# A step that takes less leaves no lease.
QUICK_SECONDS = 2.0
# Several renewals may fail before a lease is over (`STEP_LEASE_SECONDS`).
LOOK_SECONDS = 3.0


class StepLeases:
    """One per process: the steps that its threads take now."""

    def __init__(self, store: StepLeaseStore, owner: str, stand_in: StandIn | None = None) -> None:
        self._store, self._owner, self._stand_in = store, owner, stand_in
        # When each began.
        self._held: dict[StepRef, float] = {}
        # Those of them that their jobs wait for no more, or another process has.
        self._over: set[StepRef] = set()
        self._thread = LookingThread("step-leases", LOOK_SECONDS, self._look, lambda: bool(self._held))
        self._closed = threading.Event()

    @contextmanager
    def hold(self, job: JobRecord) -> Iterator[None]:
        """Around the author's code for the job's step, and the write of what came of it."""
        step, began = job.step_ref, time.monotonic()
        self._held[step] = began
        self._thread.need()
        if self._stand_in is not None:
            self._stand_in.note_step(step, is_taken=True)
        try:
            yield
        finally:
            if self._stand_in is not None:
                self._stand_in.note_step(step, is_taken=False)
            self._held.pop(step, None)
            self._over.discard(step)
            if time.monotonic() - began >= QUICK_SECONDS:
                self._release(step)

    @contextmanager
    def hold_again(self, job: JobRecord, *, is_alone: bool) -> Iterator[LostProcesses | None]:
        """Around a step that was begun before, with a lease from its begin: if this process ends, it is counted.

        Yields the processes that have ended over it. None: another has it, or the job does not wait for it any more.

        Args:
            is_alone: Nothing else runs in this process.
        """
        step = job.step_ref
        if step in self._held:
            yield None
            return
        with self.hold(job):
            lost = self._store.take_step_again(step, self._owner, is_alone=is_alone)
            try:
                yield lost
            finally:
                if lost is not None:
                    self._release(step)

    def is_taken(self, job: JobRecord) -> bool:
        """Whether a process takes the job's step now, as far as it has left a sign."""
        step = job.step_ref
        return step in self._held or (job.step_lease is not None and self._store.is_step_leased(step))

    def held(self) -> dict[StepRef, bool]:
        """The steps that are taken now; whether each has ended for the database, although its thread still runs."""
        return {step: step in self._over for step in list(self._held)}

    def close(self) -> None:
        """This process ends: others may take its steps at once."""
        self._closed.set()
        for step in list(self._held):
            self._release(step)

    def renew_now(self) -> None:
        """Renew the lease of each step that has lasted for a while."""
        before = time.monotonic() - QUICK_SECONDS
        for step, began in list(self._held.items()):
            if began > before or self._closed.is_set():
                continue
            if not self._store.renew_step_lease(step, self._owner) and step in self._held:
                self._over.add(step)

    def _look(self) -> None:
        try:
            self.renew_now()
        except Exception as error:  # noqa: BLE001 - an outage is noted once for all that meet it
            report_renewal_failed(error)

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
