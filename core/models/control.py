"""What operators may do to a job, and what came of it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from core.models.refs import StageRef
from core.models.status import JobStatus

DEFAULT_CANCEL_GRACE_SECONDS = 300.0


class JobAction(StrEnum):
    """What an operator may ask of a job."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RERUN = "rerun"


class RerunMode(StrEnum):
    """What a rerun does again.

    failed: the tasks that did not complete, in the first stage that has such, and all stages after it.
    from_stage: a stage and all after it. all: everything.
    """

    FAILED = "failed"
    FROM_STAGE = "from_stage"
    ALL = "all"


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


@dataclass(frozen=True)
class ControlAnswer:
    """What became of an operator's wish, and the job's state after it.

    Args:
        outcome: paused, already_paused, resumed, not_paused or rerun: it is as wished. refused: the job's status does
            not allow it. Of a rerun also nothing_failed, stage_not_reached, pruned (what it would keep is deleted), and
            other_run (it is not in the run that the caller saw).
        wait_seconds: Of a resume: until the job's next step is due.
        kept_count: Of a rerun: tasks kept from earlier runs.
        fresh_count: Of a rerun: tasks of its first stage that are tried again.
    """

    outcome: str
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
        return self.outcome in {"paused", "already_paused", "resumed", "not_paused", "rerun"}

    @property
    def has_changed(self) -> bool:
        """It is as wished, by this call."""
        return self.outcome in {"paused", "resumed", "rerun"}

    @property
    def allowed_actions(self) -> tuple[JobAction, ...]:
        return allowed_actions(self.status, is_paused=self.is_paused)


@dataclass(frozen=True)
class ParkedTask:
    """A task that needs a message once more; `held_until` is the caller's right to send it."""

    job_id: str
    run: int
    stage: int
    task_id: str
    queue: str
    attempt: int
    job_type: str
    correlation_id: str | None
    tasks_per_message: int
    held_until: datetime

    @property
    def stage_ref(self) -> StageRef:
        return StageRef(self.job_id, self.run, self.stage)


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
