"""What operators may do to a job, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator

from core.models.fields import expectation
from core.models.status import JobPriority, JobStatus, StoredEnum

DEFAULT_CANCEL_GRACE_SECONDS = 300.0


class JobAction(StoredEnum):
    """What an operator may ask of a job."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RERUN = "rerun"


StoredJobAction = Annotated[JobAction, BeforeValidator(JobAction.stored)]


class RerunMode(StrEnum):
    """What a rerun does again.

    failed: the tasks that did not complete, in the first stage that has such, and all stages after it.
    from_stage: a stage and all after it. all: everything.
    """

    FAILED = "failed"
    FROM_STAGE = "from_stage"
    ALL = "all"


@dataclass(frozen=True)
class RerunRequest:
    """What the next run of a job does again, and with what.

    Args:
        from_stage: Of mode from_stage: the first stage to do again.
        parameters: Values that take the place of the last run's; the others stay.
        expected_run: The run that the caller saw; if the job is in another one, nothing begins.
    """

    mode: RerunMode = RerunMode.FAILED
    from_stage: int | None = None
    parameters: Mapping[str, Any] | None = None
    expected_run: int | None = None
    reason: str | None = None
    actor: str | None = None

    def __post_init__(self) -> None:
        has_stage = self.from_stage is not None
        if has_stage != (self.mode is RerunMode.FROM_STAGE):
            expected = "mode 'from_stage', or no from_stage" if has_stage else "from_stage, since mode is 'from_stage'"
            raise expectation(expected, f"mode {self.mode.value!r} and from_stage {self.from_stage}")


class IfEnded(StrEnum):
    """What a submission wants where the job of its parameters is there and does not run with them.

    It has ended, is being cancelled, or runs with the other parameters of a rerun.
    return: the job as it is. rerun: another run of it, all of it, once it has ended. force: a new job beside it.
    fail: nothing, and an error.
    """

    RETURN = "return"
    RERUN = "rerun"
    FORCE = "force"
    FAIL = "fail"


class ControlOutcome(StoredEnum):
    """What became of an operator's wish: done by this call, by an earlier one, or not at all.

    refused: the job's status does not allow it. The others are of a rerun. pruned: what it would keep is deleted.
    other_run: the job is not in the run that the caller saw.
    """

    PAUSED = "paused"
    ALREADY_PAUSED = "already_paused"
    RESUMED = "resumed"
    NOT_PAUSED = "not_paused"
    RERUN = "rerun"
    REFUSED = "refused"
    OTHER_RUN = "other_run"
    NOTHING_FAILED = "nothing_failed"
    STAGE_NOT_REACHED = "stage_not_reached"
    PRUNED = "pruned"


_CHANGED = frozenset({ControlOutcome.PAUSED, ControlOutcome.RESUMED, ControlOutcome.RERUN})
_UNCHANGED = frozenset({ControlOutcome.ALREADY_PAUSED, ControlOutcome.NOT_PAUSED})


@dataclass(frozen=True)
class ControlAnswer:
    """What became of an operator's wish, and the job's state after it.

    Args:
        wait_seconds: Of a resume: until the job's next step is due.
        kept_count: Of a rerun: tasks kept from earlier runs.
        fresh_count: Of a rerun: tasks of its first stage that are retried.
    """

    outcome: ControlOutcome
    status: JobStatus
    run: int
    stage: int
    is_paused: bool
    wait_seconds: float = 0.0
    kept_count: int | None = None
    fresh_count: int | None = None

    @property
    def is_done(self) -> bool:
        """It is as wished, by this call or an earlier one."""
        return self.has_changed or self.outcome in _UNCHANGED

    @property
    def has_changed(self) -> bool:
        """It is as wished, by this call."""
        return self.outcome in _CHANGED

    @property
    def allowed_actions(self) -> tuple[JobAction, ...]:
        return allowed_actions(self.status, is_paused=self.is_paused)


def allowed_actions(status: JobStatus, *, is_paused: bool) -> tuple[JobAction, ...]:
    """What may be asked of a job in this state. A second cancel can bring the deadline of the first one nearer.

    Of one in a status that a newer release gave it: nothing, that release knows.
    """
    if not status.is_known:
        return ()
    if status.is_terminal:
        return (JobAction.RERUN,)
    if status is JobStatus.CANCELLING:
        return (JobAction.CANCEL,)
    return (JobAction.CANCEL, JobAction.RESUME if is_paused else JobAction.PAUSE)


class AdjustOutcome(StoredEnum):
    """What became of the wish to change how fast a job goes on.

    unchanged: it was so before. refused: it has ended, or is being cancelled. other_stage: it is not at the stage that
    was named. nothing_waits: of max_parallel, where all tasks of the stage are announced.
    """

    ADJUSTED = "adjusted"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    OTHER_STAGE = "other_stage"
    NOTHING_WAITS = "nothing_waits"


@dataclass(frozen=True)
class AdjustRequest:
    """What is to change of a job that runs.

    Args:
        changes: `priority`, and `max_parallel` of its present stage (None: no limit); those that are to change.
        stage: The stage that the caller means; nothing is changed where the job is at another one.
    """

    changes: Mapping[str, str | int | None]
    stage: int | None = None
    reason: str | None = None
    actor: str | None = None


@dataclass(frozen=True)
class AdjustAnswer:
    """What became of it. `priority` and `max_parallel` are those that count now, the latter for the present stage."""

    outcome: AdjustOutcome
    status: JobStatus
    run: int
    stage: int
    is_paused: bool
    priority: JobPriority
    max_parallel: int | None
