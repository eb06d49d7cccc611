"""Leases: the right to tasks that a claim gives, and the tasks that a process holds under it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.models.status import StoredEnum


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to the tasks of one claim. Writes are fenced by its random id; `owner` is the process's name."""

    lease_id: UUID
    owner: str


# Of a job's step. A process that died keeps others from it for no longer.
STEP_LEASE_SECONDS = 10.0


class LeaseOutcome(StoredEnum):
    """What became of a lease that was to be renewed.

    stop: the job or stage has ended or is being cancelled; the lease is kept, so that the task can end in order.
    timed_out: the task has run longer than its stage allows. lost: another attempt has the task, or it has ended; the
    database has no row for it.
    """

    RENEWED = "renewed"
    STOP = "stop"
    TIMED_OUT = "timed_out"
    LOST = "lost"


@dataclass(frozen=True)
class RenewedLease:
    """What became of the lease of a task, found by its owner's name, and how long it still lasts."""

    job_id: str
    task_id: str
    outcome: LeaseOutcome
    seconds_left: float


@dataclass(eq=False)
class HeldTask:
    """A task under a lease of this process, as long as its handler runs.

    Args:
        timeout_seconds: How long the attempt may run. The database decides; here it sets when to ask.
    """

    job_id: str
    run: int
    task_id: str
    lease_id: UUID
    lease_seconds: float
    progress: Mapping[str, Any] | None = None
    timeout_seconds: float | None = None
    # When to ask, beside the usual times, by time.monotonic(); None: no need any more.
    ask_at: float | None = None
    outcome: LeaseOutcome = LeaseOutcome.RENEWED
    is_stop_requested: bool = False
    # The attempt has ended, by its time limit or in its row; only its thread may still run.
    is_over: bool = False

    @property
    def is_timed_out(self) -> bool:
        return self.outcome is LeaseOutcome.TIMED_OUT

    def report(self, progress: Mapping[str, Any]) -> None:
        """Kept until the next renewal stores it; a later report replaces it."""
        self.progress = progress

    def stop(self, outcome: LeaseOutcome) -> None:
        self.outcome = outcome
        self.is_stop_requested = True


@dataclass(frozen=True, slots=True)
class LostProcesses:
    """The processes that ended while they took a job's step, which is begun again: how many, and the name of the last.

    Args:
        alone: How many of them did nothing else at that time.
    """

    interruptions: int
    alone: int
    owner: str | None
