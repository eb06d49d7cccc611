"""The sweep that announces, takes back and closes: whatever a dead process left behind, another finishes."""

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol
from uuid import uuid4

from core.models import JobQueueMessage
from core.orchestration_manager import JOBS_QUEUE, OrchestrationManager, Waiting
from core.parking import announce_parked_tasks
from core.state_manager import StateManager

log = logging.getLogger(__name__)

ROWS_PER_FIND = 1000
# What a planner gets between its commit and the last of its messages.
ANNOUNCE_GRACE_SECONDS = 30.0
# How long rows that one janitor announces are left alone by others.
HOLD_SECONDS = 60.0
# A finished step sends its message at once; a job that still has none after this was left behind.
JOB_GRACE_SECONDS = 10.0
# A confirmed message of an empty queue is missed for this long before it is sent again: it may be in a worker's hands.
LOST_GRACE_SECONDS = 20.0
# A sweep deletes no more old rows than this: a second or so of work that nothing else waits for.
PRUNED_TASKS_PER_SWEEP = 20_000


@dataclass(frozen=True)
class UnannouncedTask:
    """A task row that needs a message, with what the message says of its job."""

    job_id: str
    run: int
    stage: int
    task_id: str
    queue: str
    attempt: int
    job_type: str
    correlation_id: str | None
    tasks_per_message: int


@dataclass(frozen=True)
class UnannouncedJob:
    """A job row that needs a message."""

    job_id: str
    run: int
    stage: int
    attempt: int
    job_type: str
    correlation_id: str | None


StageKey = tuple[str, int, int]


class JanitorStore(Protocol):
    """What the janitor asks of the rows; `infrastructure.janitor_store.JanitorRepository` is one."""

    def find_expired_stages(self, limit: int) -> list[StageKey]: ...
    def find_stalled_jobs(self, limit: int, grace_seconds: float) -> list[StageKey]: ...
    def find_overdue_cancels(self, limit: int) -> list[StageKey]: ...
    def find_unannounced_tasks(
        self, limit: int, grace_seconds: float, hold_seconds: float
    ) -> list[UnannouncedTask]: ...
    def find_unannounced_jobs(self, limit: int, grace_seconds: float, hold_seconds: float) -> list[UnannouncedJob]: ...
    def find_lost_tasks(self, queue: str, limit: int, grace_seconds: float) -> list[UnannouncedTask]: ...
    def find_lost_jobs(self, limit: int, grace_seconds: float) -> list[UnannouncedJob]: ...


class Pruner(Protocol):
    """Deletes old jobs, up to about so many task rows; `infrastructure.retention.RetentionRepository` is one."""

    def prune_jobs(self, older_than_seconds: float, *, most_tasks: int | None = None) -> "PrunedRows": ...


class PrunedRows(Protocol):
    """What a pruner deleted."""

    @property
    def jobs(self) -> int: ...
    @property
    def tasks(self) -> int: ...


class QueueInspector(Protocol):
    """Looks into queues without taking anything out."""

    def is_queue_empty(self, queue: str) -> bool:
        """Whether the queue (logical name) holds no message at all: none ready, locked or scheduled."""
        ...


@dataclass
class SweepReport:
    """What one sweep did, in rows; `errors` names the steps that failed, and why."""

    taken_back: int = 0
    given_up: int = 0
    resumed_jobs: int = 0
    forced_cancels: int = 0
    announced_tasks: int = 0
    announced_jobs: int = 0
    found_lost_tasks: int = 0
    found_lost_jobs: int = 0
    pruned_jobs: int = 0
    pruned_tasks: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    duration_seconds: float = 0.0

    @property
    def repairs(self) -> int:
        return (
            self.taken_back
            + self.given_up
            + self.resumed_jobs
            + self.forced_cancels
            + self.announced_tasks
            + self.announced_jobs
            + self.found_lost_tasks
            + self.found_lost_jobs
        )


class Janitor:
    """One sweep may run beside any number of others.

    Args:
        queues: Logical names of the task queues that are looked into.
        inspector: None where queues cannot be looked into; messages that a broker lost are then not missed.
        retention_seconds: Jobs that ended longer ago are deleted, by the pruner; None keeps them.
    """

    def __init__(
        self,
        store: JanitorStore,
        state: StateManager,
        orchestration: OrchestrationManager,
        *,
        queues: Iterable[str] = (),
        inspector: QueueInspector | None = None,
        pruner: Pruner | None = None,
        retention_seconds: float | None = None,
    ) -> None:
        self._store = store
        self._state = state
        self._orchestration = orchestration
        self._queues = tuple(queues)
        self._inspector = inspector
        self._pruner = pruner
        self._retention_seconds = retention_seconds

    def sweep(self) -> SweepReport:
        """Do all there is to do, up to a bound. A step that fails is reported; the others go on."""
        report = SweepReport()
        started = time.monotonic()
        steps: list[Callable[[SweepReport], None]] = [
            self._take_back_expired_leases,
            self._force_overdue_cancels,
            self._resume_stalled_jobs,
            self._announce_tasks,
            self._announce_jobs,
            self._find_lost_messages,
            self._prune_old_jobs,
        ]
        for step in steps:
            name = step.__name__.strip("_")
            try:
                step(report)
            except Exception as error:
                log.exception("janitor_step_failed", extra={"checkpoint": "JANITOR", "operation": name})
                report.errors[name] = f"{type(error).__name__}: {error}"
        report.duration_seconds = time.monotonic() - started
        log.log(
            logging.WARNING if report.repairs or report.errors else logging.DEBUG,
            "janitor_swept",
            extra={"checkpoint": "JANITOR", **asdict(report)},
        )
        return report

    def _take_back_expired_leases(self, report: SweepReport) -> None:
        for job_id, run, stage in self._store.find_expired_stages(ROWS_PER_FIND):
            taken_back, given_up = self._state.take_back_tasks(job_id, run, stage)
            report.taken_back += taken_back
            report.given_up += given_up

    def _force_overdue_cancels(self, report: SweepReport) -> None:
        for job_id, run, stage in self._store.find_overdue_cancels(ROWS_PER_FIND):
            report.forced_cancels += self._state.force_cancel(job_id, run, stage) is not None

    def _resume_stalled_jobs(self, report: SweepReport) -> None:
        for job_id, run, stage in self._store.find_stalled_jobs(ROWS_PER_FIND, JOB_GRACE_SECONDS):
            report.resumed_jobs += self._state.resume_stalled_job(job_id, run, stage)

    def _announce_tasks(self, report: SweepReport) -> None:
        tasks = self._store.find_unannounced_tasks(ROWS_PER_FIND, ANNOUNCE_GRACE_SECONDS, HOLD_SECONDS)
        report.announced_tasks += self._announce(tasks)
        report.announced_tasks += announce_parked_tasks(self._state, self._orchestration, None)

    def _announce_jobs(self, report: SweepReport) -> None:
        jobs = self._store.find_unannounced_jobs(ROWS_PER_FIND, JOB_GRACE_SECONDS, HOLD_SECONDS)
        report.announced_jobs += sum(self._announce_job(job) for job in jobs)

    def _find_lost_messages(self, report: SweepReport) -> None:
        """A queue that holds nothing cannot be what its rows wait for."""
        if self._inspector is None:
            return
        for queue in self._queues:
            if self._inspector.is_queue_empty(queue):
                tasks = self._store.find_lost_tasks(queue, ROWS_PER_FIND, LOST_GRACE_SECONDS)
                report.found_lost_tasks += self._announce(tasks)
        if self._inspector.is_queue_empty(JOBS_QUEUE):
            jobs = self._store.find_lost_jobs(ROWS_PER_FIND, LOST_GRACE_SECONDS)
            report.found_lost_jobs += sum(self._announce_job(job) for job in jobs)

    def _prune_old_jobs(self, report: SweepReport) -> None:
        if self._pruner is None or self._retention_seconds is None:
            return
        pruned = self._pruner.prune_jobs(self._retention_seconds, most_tasks=PRUNED_TASKS_PER_SWEEP)
        report.pruned_jobs, report.pruned_tasks = pruned.jobs, pruned.tasks

    def _announce(self, tasks: Sequence[UnannouncedTask]) -> int:
        # Not the ids of earlier messages: a broker that drops doubles would drop the repair.
        cause = f"sweep-{uuid4().hex[:8]}"
        count = 0
        for _, group in itertools.groupby(tasks, key=lambda task: (task.job_id, task.run, task.stage)):
            rows = list(group)
            first = rows[0]

            def mark(ids: list[str], first: UnannouncedTask = first) -> None:
                self._state.mark_tasks_announced(first.job_id, first.run, ids)

            count += self._orchestration.announce_tasks(
                first,
                first.stage,
                first.tasks_per_message,
                [Waiting(row.task_id, row.queue, row.attempt) for row in rows],
                on_sent=mark,
                cause=cause,
            )
        return count

    def _announce_job(self, job: UnannouncedJob) -> bool:
        message = JobQueueMessage(
            job_id=job.job_id,
            job_type=job.job_type,
            run=job.run,
            stage=job.stage,
            attempt=job.attempt + 1,
            cause=f"sweep-{uuid4().hex[:8]}",
            correlation_id=job.correlation_id,
        )
        if not self._orchestration.announce_job(message):
            return False
        self._state.mark_job_announced(job.job_id, job.run, job.stage)
        return True
