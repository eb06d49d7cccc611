"""Tasks that need a message once more: their job was paused when one came, or a rerun wrote them."""

import itertools
import time
from collections.abc import Callable
from uuid import uuid4

from core.models.control import ParkedTask
from core.orchestration_manager import OrchestrationManager, Waiting
from core.state_manager import StateManager

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

    `tell` gets a task of each stage that had some, and how many.

    What cannot be sent, or not in time, stays parked until somebody calls this again.
    """
    count = 0
    until = time.monotonic() + SEND_SECONDS
    while tasks := state.find_parked_tasks(job_id, TASKS_PER_FIND, HOLD_SECONDS):
        sent = _announce(state, orchestration, tasks, tell)
        count += sent
        if sent < len(tasks) or len(tasks) < TASKS_PER_FIND or time.monotonic() > until:
            break
    return count


def _announce(
    state: StateManager,
    orchestration: OrchestrationManager,
    tasks: list[ParkedTask],
    tell: Callable[[ParkedTask, int], None],
) -> int:
    # Not the ids of earlier messages: a broker that drops doubles would drop these.
    cause = f"again-{uuid4().hex[:8]}"
    count = 0
    for _, group in itertools.groupby(tasks, key=lambda task: task.stage_ref):
        rows = list(group)
        first = rows[0]

        def unpark(ids: list[str], first: ParkedTask = first) -> None:
            state.unpark_tasks(first.stage_ref.job_ref, ids, first.held_until)

        sent = orchestration.announce_tasks(
            first,
            first.stage,
            first.tasks_per_message,
            [Waiting(row.task_id, row.queue, row.attempt) for row in rows],
            on_sent=unpark,
            cause=cause,
        )
        if sent:
            tell(first, sent)
        count += sent
    return count
