"""Names that the texts of sql/ use for what the models define: each is `{name}` there.

A set of statuses is a list of literals, so a new status is added to a set here and in no statement.
`{stage_is_open}` is a condition on a stage `s` and its job `j`: tasks of that stage may be claimed, and their results
count. `{cancel_deadline}` is the time when a job `j` that is being cancelled ends anyway. `{first_messages}` is how
many messages of a large stage are sent at first; `{most_per_message}` is how many tasks one may name, `{whole_seconds}`
how long its work may last, and `{message_seconds}` how long if it would last longer.
"""

from collections.abc import Iterable
from enum import StrEnum

from psycopg.sql import SQL, Composed, Identifier, Literal

from core.models.control import DEFAULT_CANCEL_GRACE_SECONDS
from core.models.definition import FIRST_MESSAGES, MESSAGE_SECONDS, MOST_TASKS_PER_MESSAGE, WHOLE_SECONDS
from core.models.schedule import TickStatus
from core.models.status import JobStatus, StageStatus, TaskStatus
from core.models.webhook import DeliveryStatus

Statuses = tuple[str, ...]


def _values(statuses: Iterable[StrEnum]) -> Statuses:
    return tuple(status.value for status in statuses)


OPEN_JOBS = _values(status for status in JobStatus if not status.is_terminal)
ENDED_JOBS = _values(status for status in JobStatus if status.is_terminal)
# Open, and not being cancelled.
ACTIVE_JOBS = _values(status for status in JobStatus if not status.is_terminal and status is not JobStatus.CANCELLING)
# They wait for a step: the plan of their stage, or their own summary.
WAITING_JOBS = _values((JobStatus.QUEUED, JobStatus.FINALIZING))
# They have a stage whose tasks may run.
RUNNING_JOBS = _values((JobStatus.PROCESSING, JobStatus.CANCELLING))
# Nothing of them is to be done any more, and their tasks may still run.
STOPPED_JOBS = _values((JobStatus.CANCELLING, JobStatus.CANCELLED, JobStatus.FAILED))
# They ended before their last stage did.
ABORTED_JOBS = _values((JobStatus.CANCELLED, JobStatus.FAILED))
COMPLETED_JOBS = _values((JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS))

OPEN_STAGES = _values(status for status in StageStatus if not status.is_terminal)
STOPPED_STAGES = _values((StageStatus.CANCELLED, StageStatus.FAILED))
COMPLETED_STAGES = _values((StageStatus.COMPLETED, StageStatus.COMPLETED_WITH_ERRORS))

OPEN_TASKS = _values(status for status in TaskStatus if not status.is_terminal)
ENDED_TASKS = _values(status for status in TaskStatus if status.is_terminal)
# Open, and no attempt has them.
WAITING_TASKS = _values(
    status for status in TaskStatus if not status.is_terminal and status is not TaskStatus.PROCESSING
)
# They can be claimed at once; one that is pending_retry must be due.
READY_TASKS = _values((TaskStatus.PENDING, TaskStatus.QUEUED))
# A message may have been sent for them.
ANNOUNCED_TASKS = _values((TaskStatus.QUEUED, TaskStatus.PENDING_RETRY))
# An attempt has ended them.
DECIDED_TASKS = _values((TaskStatus.COMPLETED, TaskStatus.FAILED))

# Their job is still to be submitted.
OPEN_TICKS = _values(status for status in TickStatus if status.is_open)
# Still to be sent.
OPEN_DELIVERIES = _values((DeliveryStatus.PENDING,))

_SETS: dict[str, Statuses] = {
    "open_jobs": OPEN_JOBS,
    "ended_jobs": ENDED_JOBS,
    "active_jobs": ACTIVE_JOBS,
    "waiting_jobs": WAITING_JOBS,
    "running_jobs": RUNNING_JOBS,
    "stopped_jobs": STOPPED_JOBS,
    "aborted_jobs": ABORTED_JOBS,
    "completed_jobs": COMPLETED_JOBS,
    "open_stages": OPEN_STAGES,
    "stopped_stages": STOPPED_STAGES,
    "completed_stages": COMPLETED_STAGES,
    "open_tasks": OPEN_TASKS,
    "ended_tasks": ENDED_TASKS,
    "waiting_tasks": WAITING_TASKS,
    "ready_tasks": READY_TASKS,
    "announced_tasks": ANNOUNCED_TASKS,
    "decided_tasks": DECIDED_TASKS,
    "open_ticks": OPEN_TICKS,
}


def literals(statuses: Iterable[str]) -> Composed:
    """`'queued', 'processing'`: the list between the brackets of `in (...)`."""
    return SQL(", ").join(Literal(status) for status in statuses)


STATUS_SETS: dict[str, Composed] = {name: literals(statuses) for name, statuses in _SETS.items()}
STAGE_IS_OPEN = SQL("(j.status = {job} and j.run = s.run and s.status = {stage})").format(
    job=Literal(JobStatus.PROCESSING.value), stage=Literal(StageStatus.PROCESSING.value)
)

# Of a stage `s`: a process that ends one of its tasks may claim the next one in line, without a message.
GOES_ON = Composed(
    [
        SQL(
            "(coalesce((s.settings ->> 'tasks_per_message')::integer, 1) = 1"
            " and s.settings ->> 'max_parallel' is null and s.settings ->> 'limits' is null)"
        )
    ]
)
# Of a task `t` after its stage's window: it waits in line, and not for a time, or for its job to be resumed.
IS_IN_LINE = SQL("(t.status = {} and (t.due_at is null or t.due_at <= v_now) and t.parked_at is null)").format(
    Literal(TaskStatus.PENDING.value)
)
# Of one within the window: it is due for another attempt, and no message names it.
IS_RETRY_IN_LINE = SQL(
    "(t.status = {} and t.due_at <= v_now and t.announced_at is null and t.parked_at is null and t.held_for is null"
    " and t.waiting_for is null)"
).format(Literal(TaskStatus.PENDING_RETRY.value))
# Of one within the window: its process released it into the line, or it is due for another attempt.
IS_BACK_IN_LINE = Composed(
    [SQL("(("), IS_IN_LINE, SQL(" and t.announced_at is not null) or "), IS_RETRY_IN_LINE, SQL(")")]
)

# Jobs that an early release began to cancel have no deadline in their row.
CANCEL_DEADLINE = SQL("coalesce(j.cancel_deadline_at, j.updated_at + {} * interval '1 second')").format(
    Literal(DEFAULT_CANCEL_GRACE_SECONDS)
)
_NAMES: dict[str, Composed] = {
    **STATUS_SETS,
    "stage_is_open": STAGE_IS_OPEN,
    "goes_on": GOES_ON,
    "is_in_line": IS_IN_LINE,
    "is_back_in_line": IS_BACK_IN_LINE,
    "is_retry_in_line": IS_RETRY_IN_LINE,
    "cancel_deadline": CANCEL_DEADLINE,
    "first_messages": SQL("{}").format(Literal(FIRST_MESSAGES)),
    "message_seconds": SQL("{}").format(Literal(MESSAGE_SECONDS)),
    "whole_seconds": SQL("{}").format(Literal(WHOLE_SECONDS)),
    "most_per_message": SQL("{}").format(Literal(MOST_TASKS_PER_MESSAGE)),
    "cancel_grace_seconds": SQL("{}").format(Literal(DEFAULT_CANCEL_GRACE_SECONDS)),
}


def compose_text(text: str, schema: str) -> Composed:
    """A text of sql/functions or sql/verify with its names filled in.

    Raises:
        KeyError: It has a name that is not known here.
    """
    # The texts are files of this package, as `LiteralString` wants.
    return SQL(text).format(schema=Identifier(schema), **_NAMES)
