"""Statuses, and the one table of transitions that Python, SQL and the documents share."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BeforeValidator


class StoredEnum(StrEnum):
    """Values that rows hold. A newer release may have written one that this one does not know."""

    @classmethod
    def stored(cls, value: str) -> Self:
        """The member that a row holds. One that is not known here can be shown, and is like none of the others."""
        # The look that `cls(value)` makes, without its steps: each claimed row comes through here.
        known: Self | None = cls._value2member_map_.get(value)  # type: ignore[assignment]
        if known is not None:
            return known
        stranger = str.__new__(cls, value)
        stranger._name_, stranger._value_ = value, value
        return stranger

    @property
    def is_known(self) -> bool:
        return self in type(self).__members__.values()


class JobStatus(StoredEnum):
    """The status of a job.

    queued: its current stage waits to be planned. processing: that stage's tasks run.
    cancelling: cancelled, tasks that were running have not stopped yet.
    finalizing: all stages ended, the job's own summary is still to be made.
    """

    QUEUED = "queued"
    PROCESSING = "processing"
    CANCELLING = "cancelling"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return JOB_TRANSITIONS.get(self) == frozenset()


class JobPriority(StoredEnum):
    """The weight of a job's windows among those of others, and of its turns at limits: 4, 1 and 1/4."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class StageStatus(StoredEnum):
    """The status of a stage. queued: its tasks are not all inserted yet, so it cannot end."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return STAGE_TRANSITIONS.get(self) == frozenset()


class TaskStatus(StoredEnum):
    """The status of a task.

    pending: the row is written, no message for it is confirmed. queued: the message is sent.
    processing: leased by one attempt. pending_retry: to be attempted again at `due_at`, or postponed until then.
    """

    PENDING = "pending"
    QUEUED = "queued"
    PROCESSING = "processing"
    PENDING_RETRY = "pending_retry"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return TASK_TRANSITIONS.get(self) == frozenset()


# In which a job waits for a step: its stage to be planned, or its summary.
STEP_STATUSES = frozenset({JobStatus.QUEUED, JobStatus.FINALIZING})

# For models that rows are read into.
StoredJobPriority = Annotated[JobPriority, BeforeValidator(JobPriority.stored)]
StoredJobStatus = Annotated[JobStatus, BeforeValidator(JobStatus.stored)]
StoredStageStatus = Annotated[StageStatus, BeforeValidator(StageStatus.stored)]
StoredTaskStatus = Annotated[TaskStatus, BeforeValidator(TaskStatus.stored)]

_J, _S, _T = JobStatus, StageStatus, TaskStatus

# Terminal states are closed: the way back is a rerun, which raises the run and writes new rows beside the old ones.
JOB_TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    _J.QUEUED: frozenset({_J.PROCESSING, _J.CANCELLED, _J.FAILED}),
    # From processing to its end: with its last stage, whose results its summary was made of.
    _J.PROCESSING: frozenset(
        {
            *(_J.QUEUED, _J.FINALIZING, _J.COMPLETED, _J.COMPLETED_WITH_ERRORS),
            *(_J.CANCELLING, _J.CANCELLED, _J.FAILED),
        }
    ),
    _J.CANCELLING: frozenset({_J.CANCELLED}),
    _J.FINALIZING: frozenset({_J.COMPLETED, _J.COMPLETED_WITH_ERRORS, _J.FAILED, _J.CANCELLED}),
    _J.COMPLETED: frozenset(),
    _J.COMPLETED_WITH_ERRORS: frozenset(),
    _J.FAILED: frozenset(),
    _J.CANCELLED: frozenset(),
}
# Allowed only together with the next run: it begins where there is something to do.
JOB_RERUN_TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    _J.COMPLETED: frozenset({_J.QUEUED}),
    _J.COMPLETED_WITH_ERRORS: frozenset({_J.QUEUED, _J.PROCESSING}),
    _J.FAILED: frozenset({_J.QUEUED, _J.PROCESSING, _J.FINALIZING}),
    _J.CANCELLED: frozenset({_J.QUEUED, _J.PROCESSING, _J.FINALIZING}),
}
STAGE_TRANSITIONS: dict[StageStatus, frozenset[StageStatus]] = {
    _S.QUEUED: frozenset({_S.PROCESSING, _S.COMPLETED, _S.FAILED, _S.CANCELLED}),
    _S.PROCESSING: frozenset({_S.COMPLETED, _S.COMPLETED_WITH_ERRORS, _S.FAILED, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.COMPLETED_WITH_ERRORS: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
TASK_TRANSITIONS: dict[TaskStatus, frozenset[TaskStatus]] = {
    # From pending, queued and pending_retry to failed: its declared time in the queue ran out, or the patience with
    # which it waited for a release that knows it. From pending to pending_retry: it was postponed for that one. Back:
    # its time has come, and its stage's next message names it.
    _T.PENDING: frozenset({_T.QUEUED, _T.PROCESSING, _T.PENDING_RETRY, _T.FAILED, _T.CANCELLED}),
    _T.QUEUED: frozenset({_T.PENDING, _T.PROCESSING, _T.FAILED, _T.CANCELLED}),
    _T.PROCESSING: frozenset({_T.PENDING, _T.PENDING_RETRY, _T.COMPLETED, _T.FAILED, _T.CANCELLED}),
    _T.PENDING_RETRY: frozenset({_T.PENDING, _T.PROCESSING, _T.FAILED, _T.CANCELLED}),
    _T.COMPLETED: frozenset(),
    _T.FAILED: frozenset(),
    _T.CANCELLED: frozenset(),
}
