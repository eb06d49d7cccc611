"""Plans a stage: asks the author for its tasks and writes them, all or none; few in one call, many as a stream."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice
from threading import Lock
from uuid import UUID, uuid4

from core.cache import LatestCache
from core.message_size import tasks_per_message
from core.models import JobRecord, Parallelism, StageDefinition
from core.models.context import CompletedTask
from core.orchestration_manager import OrchestrationManager, Waiting
from core.ports import PlannedTask, ResultStore
from core.state_manager import StateManager
from core.task_runner import ClaimedTask

# So many earlier results are read before the planning transaction begins; more are streamed beside it.
PREFETCHED_RESULTS = 1000
# Stages of so few tasks are planned in one round trip.
FEW_TASKS = 100
# So long a measured duration is believed before it is asked for again.
MEAN_LIFE_SECONDS = 60.0


@dataclass
class Plan:
    """What came of planning: `planned`, or why not (busy, missing, stale_run, closed, expired).

    Args:
        waiting: Tasks that need a message.
        claimed: Tasks born under `lease_id`, for this process to run at once.
    """

    outcome: str = "planned"
    waiting: list[Waiting] = field(default_factory=list)
    claimed: list[ClaimedTask] = field(default_factory=list)
    lease_id: UUID | None = None
    tasks_per_message: int = 1

    @property
    def is_empty_stage(self) -> bool:
        return self.outcome == "planned" and not self.waiting and not self.claimed


@dataclass(frozen=True)
class _MeanSeconds:
    value: float | None
    until: float


class StagePlanner:
    """One a process.

    Args:
        owner: The process's name in leases.
    """

    def __init__(
        self, state: StateManager, orchestration: OrchestrationManager, results: ResultStore, owner: str
    ) -> None:
        self._state = state
        self._orchestration = orchestration
        self._results = results
        self._owner = owner
        # A planner that streams holds a connection and asks for pages over another; several could starve the pool.
        self._streaming = Lock()
        self._mean_seconds: LatestCache[tuple[str, int], _MeanSeconds] = LatestCache(256)

    def plan(self, job: JobRecord, stage: StageDefinition, *, on_the_spot: bool) -> Plan:
        """Plan the job's stage.

        Args:
            on_the_spot: Claim the tasks too, if they are one message's worth that this app serves.

        Raises:
            Exception: Whatever the author's `create_tasks_for_stage` raises; nothing is written then.
        """
        previous, turn = self._previous(job, stage)
        with turn:
            rows = self._rows(job, stage, previous)
            few = list(islice(rows, FEW_TASKS + 1))
            if len(few) <= FEW_TASKS:
                return self._plan_few(job, stage, few, on_the_spot=on_the_spot)
            return self._plan_many(job, stage, chain(few, rows))

    def _plan_few(self, job: JobRecord, stage: StageDefinition, rows: list[PlannedTask], *, on_the_spot: bool) -> Plan:
        plan = Plan(tasks_per_message=self._message_size(job, stage, is_many=False))
        runs_here = on_the_spot and self._orchestration.may_run_here(rows, plan.tasks_per_message)
        plan.lease_id = uuid4() if runs_here else None
        plan.outcome = self._state.plan_small_stage(
            job.job_id,
            job.run,
            stage.number,
            rows,
            lease_id=plan.lease_id,
            owner=self._owner if runs_here else None,
            tasks_per_message=plan.tasks_per_message,
        )
        if plan.outcome == "planned" and runs_here:
            plan.claimed = [_born_claimed(row) for row in rows]
        elif plan.outcome == "planned":
            plan.waiting = [Waiting(row.task_id, row.queue) for row in rows]
        return plan

    def _plan_many(self, job: JobRecord, stage: StageDefinition, rows: Iterable[PlannedTask]) -> Plan:
        plan = Plan(tasks_per_message=self._message_size(job, stage, is_many=True))

        def noted() -> Iterator[PlannedTask]:
            for row in rows:
                plan.waiting.append(Waiting(row.task_id, row.queue))
                yield row

        plan.outcome, _ = self._state.plan_stage(
            job.job_id, job.run, stage.number, noted(), tasks_per_message=plan.tasks_per_message
        )
        return plan

    def _message_size(self, job: JobRecord, stage: StageDefinition, *, is_many: bool) -> int:
        if stage.tasks_per_message is not None:
            return stage.tasks_per_message
        key = (job.job_type, stage.number)
        known = self._mean_seconds.get(key)
        if known is None or known.until < time.monotonic():
            mean = self._results.mean_task_seconds(job.job_type, stage.number)
            known = _MeanSeconds(mean, time.monotonic() + MEAN_LIFE_SECONDS)
            self._mean_seconds.put(key, known)
        return tasks_per_message(None, known.value, is_many=is_many)

    def _rows(self, job: JobRecord, stage: StageDefinition, previous: Iterable[CompletedTask]) -> Iterator[PlannedTask]:
        is_fan_in = stage.parallelism is Parallelism.FAN_IN
        count = self._state.expected_count(job.job_id, job.run, stage.number - 1) if is_fan_in else 0
        return self._orchestration.tasks_of_stage(job, stage, previous, previous_count=count)

    def _previous(
        self, job: JobRecord, stage: StageDefinition
    ) -> tuple[Iterable[CompletedTask], AbstractContextManager[object]]:
        """The earlier results, and the turn to hold while they are read."""
        if stage.number == 1 or stage.parallelism is Parallelism.FAN_IN:
            return (), nullcontext()
        first = list(islice(self._earlier(job, stage), PREFETCHED_RESULTS + 1))
        if len(first) <= PREFETCHED_RESULTS:
            return first, nullcontext()
        return self._earlier(job, stage), self._streaming

    def _earlier(self, job: JobRecord, stage: StageDefinition) -> Iterator[CompletedTask]:
        return self._results.stream_results(job.job_id, job.run, stage.number - 1)


def _born_claimed(row: PlannedTask) -> ClaimedTask:
    return ClaimedTask(
        task_id=row.task_id,
        task_type=row.task_type,
        task_index=row.task_index,
        name=row.name,
        # Read back, so that a handler sees what it would see after a message.
        parameters=json.loads(row.parameters),
        attempt=1,
        tries=1,
    )
