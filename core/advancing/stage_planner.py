"""Plans a stage: asks the author for its tasks and writes them, all or none; few in one call, many as a stream."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from threading import Lock
from uuid import uuid4

from core.advancing.first_window import fewest_in_first_window, first_window, tasks_per_message
from core.advancing.steps import FEW_TASKS, Draft, Plan, StepTimes
from core.basics.cache import LatestCache
from core.basics.canonical import LARGE_VALUE_BYTES, MOST_BYTES_AT_ONCE, as_stored
from core.errors import StoreUnavailable
from core.models import JobRecord, Lease, Parallelism, StageDefinition
from core.models.announcement import UnannouncedTask
from core.models.context import CompletedTask
from core.models.transition import ClaimedRow, ClaimOutcome, PlannedTask, PlanOutcome, SmallStage
from core.running.engine_parts import EngineParts

# The tasks of a stage are collected up to this size, so that no connection is held while the author's code makes them.
COLLECTED_BYTES = 16 * 1024 * 1024
# What a collected task takes beside its parameters.
_ROW_BYTES = 500
# This many earlier results are read before the author is asked; more are read page by page.
PREFETCHED_RESULTS = 1000
# How long a measured duration is used before it is read again, and where there was none.
MEAN_LIFE_SECONDS, UNKNOWN_LIFE_SECONDS = 60.0, 0.5


@dataclass(frozen=True)
class _Collected:
    """The first tasks of a draft, or all of them."""

    rows: list[PlannedTask]
    are_all: bool


@dataclass(frozen=True)
class _MeanSeconds:
    value: float | None
    until: float


class StagePlanner:
    """One per process."""

    def __init__(self, parts: EngineParts, times: StepTimes) -> None:
        self._state = parts.state
        self._orchestration = parts.orchestration
        self._results = parts.results
        self._owner = parts.owner
        self._times = times
        self._patience = parts.patience
        # A planner that streams holds a connection for as long as its author's code runs, and may ask for pages over
        # another. Only one does so at a time: the others wait for it without a connection.
        self._streaming = Lock()
        self._mean_seconds: LatestCache[tuple[str, int], _MeanSeconds] = LatestCache(256)

    def plan(
        self,
        job: JobRecord,
        stage: StageDefinition,
        *,
        inline: bool,
        earlier: Sequence[CompletedTask] | None = None,
    ) -> Plan:
        """Plan the job's stage.

        Args:
            inline: Claim the tasks too, if they are one message's worth that this app serves.
            earlier: All tasks of the stage before, if they are in memory and none failed. None: they are read.

        Raises:
            Exception: Whatever the author's `create_tasks_for_stage` raises; nothing is written then.
        """
        previous = self._previous(job, stage) if earlier is None else earlier
        count = None if earlier is None else len(earlier)
        return self.write(self.draft(job, stage, previous, count), inline=inline)

    def write(self, draft: Draft, *, inline: bool) -> Plan:
        """Write a draft: all of it, or nothing. An outage is waited for, so that the author is not asked again."""
        small = self.small_stage(draft, inline=inline)
        if small is None:
            return self._write_many(draft)
        write = partial(self._state.plan_small_stage, draft.job.stage_ref, small)
        try:
            outcome = write()
        except StoreUnavailable as error:
            outcome = self._patience.repeat(error, write)
        return plan_of(small, outcome)

    def small_stage(self, draft: Draft, *, inline: bool) -> SmallStage | None:
        """A draft of few tasks, as it will be written: with a lease of this process, or to be announced.

        None if they are not few, or more than are to be announced at first, or have limits.
        """
        is_few = (
            len(draft.first) <= FEW_TASKS and sum([len(row.parameters) for row in draft.first]) <= MOST_BYTES_AT_ONCE
        )
        if not is_few or (draft.stage.limits and draft.first):
            return None
        size = self._message_size(draft.job, draft.stage, is_many=False)
        if len(draft.first) > self._first_window(draft, size):
            return None
        runs_here = inline and self._orchestration.may_run_here(draft.first, size)
        return SmallStage(draft.first, Lease(uuid4(), self._owner) if runs_here else None, size)

    def _write_many(self, draft: Draft) -> Plan:
        job, stage = draft.job, draft.stage
        plan = Plan(tasks_per_message=self._message_size(job, stage, is_many=len(draft.first) > FEW_TASKS))
        first_window = self._first_window(draft, plan.tasks_per_message)
        collected = _collected(draft)
        large: list[tuple[str, int]] = []

        def noted() -> Iterator[PlannedTask]:
            for row in chain(collected.rows, draft.rest):
                if len(row.parameters) > LARGE_VALUE_BYTES:
                    large.append((row.task_id, len(row.parameters)))
                yield row

        def write() -> PlanOutcome:
            large.clear()
            return self._state.plan_stage(
                job.stage_ref,
                noted(),
                tasks_per_message=plan.tasks_per_message,
                first_window=first_window,
                is_limited=draft.stage.limits is not None,
                is_stream=not collected.are_all,
            )[0]

        with nullcontext() if collected.are_all else self._streaming:
            try:
                plan.outcome = write()
            except StoreUnavailable as error:
                if not collected.are_all:  # what the author's code has yielded is gone
                    raise
                plan.outcome = self._patience.repeat(error, write)
        if plan.outcome is PlanOutcome.PLANNED:
            plan.is_windowed = True
            self._state.note_large_values(job.stage_ref, "parameters", large)
        return plan

    def _message_size(self, job: JobRecord, stage: StageDefinition, *, is_many: bool) -> int:
        size = stage.tasks_per_message
        if size is None and stage.limits:
            return 1
        if size is None or (is_many and size > 1):
            size = tasks_per_message(self._mean_task_seconds(job, stage), is_many=is_many, declared=size)
        return min(size, stage.max_parallel or size)

    def _first_window(self, draft: Draft, size: int) -> int:
        """How many tasks are announced at first; what is known of them is only read if that matters."""
        fewest = fewest_in_first_window(draft.stage, size)
        if len(draft.first) <= min(fewest, FEW_TASKS):
            return fewest
        return first_window(draft.stage, size, self._mean_task_seconds(draft.job, draft.stage))

    def _mean_task_seconds(self, job: JobRecord, stage: StageDefinition) -> float | None:
        """How long tasks of the stage lasted in the last job of the type, as it was read at most a minute ago."""
        key = (job.job_type, stage.number)
        known = self._mean_seconds.get(key)
        if known is None or known.until < time.monotonic():
            mean = self._results.mean_task_seconds(job.job_type, stage.number)
            life = UNKNOWN_LIFE_SECONDS if mean is None else MEAN_LIFE_SECONDS
            known = _MeanSeconds(mean, time.monotonic() + life)
            self._mean_seconds.put(key, known)
        return known.value

    def draft(
        self, job: JobRecord, stage: StageDefinition, previous: Iterable[CompletedTask], count: int | None
    ) -> Draft:
        """Ask the author for the stage's tasks and write nothing yet.

        Args:
            previous: All tasks of the stage before that have not failed.
            count: How many tasks the stage before has; None: it is read if it matters.

        Raises:
            Exception: As `plan`.
        """
        if stage.parallelism is not Parallelism.FAN_IN:
            count = 0
        elif count is None:
            count = self._results.expected_count(job.ref.at_stage(stage.number - 1))
        with self._times.measured(job.job_type, stage.number):
            rows = self._orchestration.tasks_of_stage(job, stage, previous, previous_count=count)
            return Draft(job, stage, _first_of(rows), rows)

    def _previous(self, job: JobRecord, stage: StageDefinition) -> Iterable[CompletedTask]:
        """The earlier results; what is many is read when it is asked for."""
        if stage.number == 1 or stage.parallelism is Parallelism.FAN_IN:
            return ()
        first = list(islice(self._earlier(job, stage), PREFETCHED_RESULTS + 1))
        return first if len(first) <= PREFETCHED_RESULTS else self._earlier(job, stage)

    def _earlier(self, job: JobRecord, stage: StageDefinition) -> Iterator[CompletedTask]:
        return self._results.stream_results(job.ref.at_stage(stage.number - 1))


def _first_of(rows: Iterator[PlannedTask]) -> list[PlannedTask]:
    """One more than are few, or than can be written at once."""
    first: list[PlannedTask] = []
    size = 0
    for row in islice(rows, FEW_TASKS + 1):
        first.append(row)
        size += len(row.parameters)
        if size > MOST_BYTES_AT_ONCE:
            break
    return first


def _collected(draft: Draft) -> _Collected:
    """Let the author's code run to its end, unless it makes more than is kept in memory."""
    rows, size = list(draft.first), sum([len(row.parameters) + _ROW_BYTES for row in draft.first])
    if size > COLLECTED_BYTES:
        return _Collected(rows, are_all=False)
    for row in draft.rest:
        rows.append(row)
        size += len(row.parameters) + _ROW_BYTES
        if size > COLLECTED_BYTES:
            return _Collected(rows, are_all=False)
    return _Collected(rows, are_all=True)


def plan_of(small: SmallStage, outcome: PlanOutcome) -> Plan:
    """What came of writing a small stage."""
    plan = Plan(
        outcome, lease_id=small.lease.lease_id if small.lease else None, tasks_per_message=small.tasks_per_message or 1
    )
    if outcome is PlanOutcome.PLANNED and small.lease is not None:
        plan.claimed = [_born_claimed(row) for row in small.tasks]
        plan.rows = small.tasks
    elif outcome is PlanOutcome.PLANNED:
        plan.waiting = [UnannouncedTask(row.task_id, row.queue) for row in small.tasks]
    return plan


def _born_claimed(row: PlannedTask) -> ClaimedRow:
    return ClaimedRow(
        task_id=row.task_id,
        outcome=ClaimOutcome.CLAIMED,
        task_type=row.task_type,
        task_index=row.task_index,
        name=row.name,
        # As a handler would see it after a message.
        parameters=as_stored(row.parameters),
        attempt=1,
        interruptions=0,
    )
