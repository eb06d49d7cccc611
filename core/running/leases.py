"""One thread per process renews the leases of its tasks, and stops a task whose work is not wanted any more."""

import random
import threading
import time
from collections.abc import Callable

from core.basics.process_limits import start_thread
from core.models.lease import HeldTask, LeaseOutcome
from core.ports import LeaseStore, StandIn
from core.running.step_leases import StepLeases, report_renewal_failed
from core.safety.safe_log import safe_logger
from core.telemetry.instruments import RENEWAL_FAILURES, RENEWAL_LAG
from core.telemetry.reports import observer

log = safe_logger(__name__)

# A lease is renewed when a third of its life is over, so that two renewals may fail.
RENEWALS_PER_LEASE = 3
RETRY_SECONDS = 1.0
# How soon a task learns that its job is being cancelled: a look by key, for all tasks of the process together.
LOOK_SECONDS = 1.5
# How long the thread of a process without leases stays.
IDLE_SECONDS = 30.0
# An attempt's time began in the database a moment before it did here; asked a moment late, the answer is final.
ASK_MARGIN_SECONDS = 0.1


# After these, the attempt's outcome is refused.
_ENDS = frozenset({LeaseOutcome.LOST, LeaseOutcome.TIMED_OUT})
_EVENTS = {LeaseOutcome.LOST: "lease_lost", LeaseOutcome.TIMED_OUT: "task_timed_out"}


class LeaseKeeper:
    """Renews what is held, all of it in one call, from one daemon thread that lives as long as something is held."""

    def __init__(self, store: LeaseStore, stand_in: StandIn | None = None) -> None:
        self._store = store
        self._stand_in = stand_in
        self._held: set[HeldTask] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._shortest = 0.0
        self.lost_leases = 0

    def hold(self, leases: list[HeldTask]) -> None:
        has_timeout = False
        for lease in leases:
            if lease.timeout_seconds is not None:
                lease.ask_at = time.monotonic() + lease.timeout_seconds + ASK_MARGIN_SECONDS
                has_timeout = True
        shortest = min([lease.lease_seconds for lease in leases])
        if self._stand_in is not None:
            self._stand_in.watch(shortest)
        with self._changed:
            needs_attention = not self._held or has_timeout or shortest < self._shortest
            self._held.update(leases)
            if self._thread is None:
                self._start()
            elif needs_attention:
                self._changed.notify()

    def _start(self) -> None:
        """If the system gives no thread, the tasks run all the same; the next call of `hold` starts one."""
        thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        try:
            start_thread(thread)
        except RuntimeError as error:
            log.warning("heartbeat_not_started", extra={"checkpoint": "LEASE", "error": repr(error)})
            return
        self._thread = thread

    def step_leases(self, owner: str) -> StepLeases:
        """The sign of life of those who plan stages and make summaries, beside that of tasks."""
        return StepLeases(self._store, owner, self._stand_in)

    def drop(self, leases: list[HeldTask]) -> None:
        with self._changed:
            self._held.difference_update(leases)

    def close(self) -> None:
        """Whatever is still leased under this process's name may run out, in whatever state the process is."""
        if self._stand_in is not None:
            self._stand_in.close()

    def held(self) -> list[HeldTask]:
        with self._changed:
            return list(self._held)

    def renew_now(self) -> None:
        """Renew everything that is held, and tell the tasks whose lease or job is gone."""
        held = self.held()
        if not held:
            return
        now = time.monotonic()
        for lease in held:
            if lease.ask_at is not None and lease.ask_at <= now:
                lease.ask_at = None
        outcomes = self._store.renew_leases(held)
        for lease in held:
            outcome = outcomes.get((lease.lease_id, lease.task_id), LeaseOutcome.LOST)
            lease.is_over = outcome in _ENDS
            if outcome is not LeaseOutcome.RENEWED and not lease.is_stop_requested:
                self._tell(lease, outcome)

    def _tell(self, lease: HeldTask, outcome: LeaseOutcome) -> None:
        with self._changed:
            if lease not in self._held:
                return  # it ended in order while the renewal was under way
        self.lost_leases += outcome is LeaseOutcome.LOST
        log.warning(
            _EVENTS.get(outcome, "task_not_wanted"),
            extra={"checkpoint": "LEASE", "job_id": lease.job_id, "task_id": lease.task_id, "outcome": outcome},
        )
        lease.stop(outcome)

    def _run(self) -> None:
        """Whatever ends it, the next call of `hold` starts another one."""
        try:
            self._renew_while_held()
        except BaseException:
            log.exception("heartbeat_ended", extra={"checkpoint": "LEASE"})
            with self._changed:
                self._thread = None

    def _renew_while_held(self) -> None:
        due: float | None = None
        look_at = time.monotonic() + LOOK_SECONDS
        while True:
            with self._changed:
                if not self._held:
                    if not self._changed.wait_for(lambda: bool(self._held), timeout=IDLE_SECONDS):
                        self._thread = None
                        return
                    look_at = time.monotonic() + LOOK_SECONDS
                self._shortest = min(lease.lease_seconds for lease in self._held)
                soonest = time.monotonic() + self._shortest / RENEWALS_PER_LEASE * random.uniform(0.8, 1.0)
                asks = [lease.ask_at for lease in self._held if lease.ask_at is not None]
                due = min(asks + [soonest] + ([] if due is None else [due]))
                self._changed.wait(timeout=max(0.0, min(due, look_at) - time.monotonic()))
            now = time.monotonic()
            if now >= look_at:
                look_at = now + LOOK_SECONDS
                if now < due and self._try(self._is_any_job_stopping):
                    due = now
            if now < due:
                continue  # woken for a shorter lease, or after a look
            is_renewed = self._try(self._renew)
            observer().measure(RENEWAL_LAG, time.monotonic() - due)
            due = None if is_renewed else time.monotonic() + RETRY_SECONDS * random.uniform(0.5, 1.5)

    def _renew(self) -> bool:
        self.renew_now()
        return True

    def _is_any_job_stopping(self) -> bool:
        """Whether a renewal now would tell a task to stop: its job is being cancelled, or has ended."""
        jobs = {lease.job_id for lease in self.held() if not lease.is_stop_requested}
        return bool(jobs) and self._store.is_any_stopping(jobs)

    def _try(self, ask: Callable[[], bool]) -> bool:
        """The answer, or False where there is none."""
        try:
            return ask()
        except Exception as error:  # noqa: BLE001 - the thread must outlive a database that is away
            observer().measure(RENEWAL_FAILURES, 1)
            report_renewal_failed(error)
        return False
