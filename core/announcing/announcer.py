"""Messages for rows that had one before or lost it: tasks that a search found, and steps of jobs."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar
from uuid import uuid4

from core.models import JobQueueMessage, JobRecord
from core.models.announcement import FoundTask, ParkedTask, UnannouncedJob
from core.orchestration_manager import OrchestrationManager
from core.state_manager import StateManager

_Found = TypeVar("_Found", bound=FoundTask)

# A find reads all parked tasks of its job, so it takes many of them.
TASKS_PER_FIND = 10_000
# How long tasks whose messages are being sent are left alone by others.
HOLD_SECONDS = 30.0
# Then the rest is left to the next sweep: a request or a timer is waiting for this.
SEND_SECONDS = 20.0


def announce_parked_tasks(
    state: StateManager,
    orchestration: OrchestrationManager,
    job_id: str | None,
    *,
    tell: Callable[[ParkedTask, int], None] = lambda _first, _count: None,
) -> int:
    """Send messages for parked tasks of one job, or of all (None), whose job is not paused; returns how many.

    A parked task needs a message once more: its job was paused when one came, or a rerun wrote it.

    `tell` gets a task of each stage that had some, and how many.

    What cannot be sent, or not in time, stays parked until somebody calls this again.
    """

    def unpark(task: ParkedTask, ids: list[str]) -> None:
        state.unpark_tasks(task.stage_ref.job_ref, ids, task.held_until)

    count = 0
    until = time.monotonic() + SEND_SECONDS
    while tasks := state.find_parked_tasks(job_id, TASKS_PER_FIND, HOLD_SECONDS):
        sent = 0
        for rows, ids in announce_by_stage(orchestration, tasks, "again", unpark):
            sent += len(ids)
            if ids:
                tell(rows[0], len(ids))
        count += sent
        if sent < len(tasks) or len(tasks) < TASKS_PER_FIND or time.monotonic() > until:
            break
    return count


def announce_by_stage(
    orchestration: OrchestrationManager,
    tasks: Iterable[_Found],
    cause: str,
    mark: Callable[[_Found, list[str]], object],
) -> Iterator[tuple[list[_Found], list[str]]]:
    """Send messages for tasks that come ordered by stage. Yields those of each stage, and the ids that were announced.

    `mark` gets one of them and the ids of each confirmed group.
    """
    cause = new_cause(cause)
    for _, group in itertools.groupby(tasks, key=lambda task: task.stage_ref):
        rows = list(group)
        first = rows[0]
        announced: list[str] = []

        def confirm(ids: list[str], first: _Found = first, announced: list[str] = announced) -> None:
            announced.extend(ids)
            mark(first, ids)

        size = first.tasks_per_message
        orchestration.announce_tasks(first, first.stage, size, rows, on_sent=confirm, cause=cause)
        yield rows, announced


def step_message(job: JobRecord | UnannouncedJob, cause: str | None, *, attempt: int | None = None) -> JobQueueMessage:
    """A message for the step that a job waits for.

    Args:
        cause: If the step may have had a message before: a `new_cause`.
        attempt: The number of the attempt that it asks for. None: the one after those that the job's row counts.
    """
    return JobQueueMessage(
        job_id=job.job_id,
        job_type=job.job_type,
        run=job.run,
        stage=job.stage,
        attempt=attempt or job.attempt + 1,
        cause=cause,
        correlation_id=job.correlation_id,
    )


def new_cause(cause: str) -> str:
    """One that no earlier message had: a broker that drops doubles would drop a message whose id it knows."""
    return f"{cause}-{uuid4().hex[:8]}"
