"""One action on many jobs: which jobs it is for, and what came of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator

from core.models.control import DEFAULT_CANCEL_GRACE_SECONDS
from core.models.job_filter import JobFilter
from core.models.status import JobStatus, StoredEnum
from core.models.view import JobSummary

MOST_JOBS_AT_ONCE = 1000
# Outcomes of jobs that are now as the action wants them.
AS_WISHED = frozenset(
    {"cancelled", "cancelling", "paused", "already_paused", "resumed", "not_paused", "rerun", "deleted"}
)


class BulkAction(StrEnum):
    """What is done to each job.

    retry: run the tasks that failed again. rerun: run everything again. delete: with all that is known of it.
    """

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    RERUN = "rerun"
    DELETE = "delete"


_ACTIVE = (JobStatus.QUEUED, JobStatus.PROCESSING, JobStatus.FINALIZING)
_ENDED = tuple(status for status in JobStatus if status.is_terminal)
_FOR: dict[BulkAction, JobFilter] = {
    BulkAction.CANCEL: JobFilter(statuses=_ACTIVE),
    BulkAction.PAUSE: JobFilter(statuses=_ACTIVE, paused=False),
    BulkAction.RESUME: JobFilter(statuses=_ACTIVE, paused=True),
    BulkAction.RETRY: JobFilter(statuses=(JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.COMPLETED_WITH_ERRORS)),
    BulkAction.RERUN: JobFilter(statuses=_ENDED),
    BulkAction.DELETE: JobFilter(statuses=_ENDED, held=False),
}


class DeleteOutcome(StoredEnum):
    """What became of the wish to delete a job.

    deleting: it is so large that a part is left: ask again. busy: another transaction has it: ask again.
    refused: it has not ended. held: it is under a legal hold.
    """

    DELETED = "deleted"
    DELETING = "deleting"
    BUSY = "busy"
    REFUSED = "refused"
    HELD = "held"


StoredDeleteOutcome = Annotated[DeleteOutcome, BeforeValidator(DeleteOutcome.stored)]


@dataclass(frozen=True)
class DeleteAnswer:
    outcome: DeleteOutcome
    status: JobStatus
    pruned_tasks: int


@dataclass(frozen=True)
class HoldAnswer:
    """`hold` is what is in the job's row after the action."""

    status: JobStatus
    hold: dict[str, str] | None
    has_changed: bool


@dataclass(frozen=True)
class BulkRequest:
    """An action on all jobs of a filter that it can be done to.

    Args:
        confirm: The largest number of jobs that may match: the count of a dry run. None is the dry run.
        limit: The largest number of jobs to act on.
        cursor: `next_cursor` of the request before, to go on after the last job that it came to.
    """

    action: BulkAction
    wanted: JobFilter
    reason: str | None = None
    actor: str | None = None
    confirm: int | None = None
    limit: int = MOST_JOBS_AT_ONCE
    cursor: str | None = None
    cancel_grace_seconds: float = DEFAULT_CANCEL_GRACE_SECONDS

    def matching(self) -> JobFilter | None:
        """The jobs of the filter that the action can be done to; None where there cannot be one."""
        own = _FOR[self.action]
        asked = set(self.wanted.statuses or own.statuses)
        statuses = tuple(status for status in own.statuses if status in asked)
        told = {name: getattr(own, name) for name in ("paused", "held") if getattr(own, name) is not None}
        if not statuses or any(getattr(self.wanted, name) == (not value) for name, value in told.items()):
            return None
        return replace(self.wanted, statuses=statuses, **told)


@dataclass(frozen=True)
class BulkItem:
    """What came of one job; `detail` where it is not as wished."""

    job_id: str
    outcome: str
    detail: str | None = None


@dataclass
class BulkReport:
    """What was found and done.

    Args:
        matched: How many jobs the action could be done to, from the request's cursor on.
        sample: Of a dry run: the first of them.
        next_cursor: Where the next request goes on; None where nothing remains. A job that was acted on may match
            again (a rerun ends, too), so the filter alone cannot tell.
    """

    matched: int
    is_dry_run: bool
    sample: Sequence[JobSummary] = ()
    items: list[BulkItem] = field(default_factory=list)
    next_cursor: str | None = None

    @property
    def remaining(self) -> int:
        """How many were not come to."""
        return max(0, self.matched - len(self.items))

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(item.outcome for item in self.items))
