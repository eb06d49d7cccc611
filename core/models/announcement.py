"""Rows that need a message, with the values that the message carries."""

from dataclasses import dataclass
from datetime import datetime

from core.models.refs import JobRef, StageRef


# Those of tasks come by the thousand: to make a frozen one would take three times as long.
@dataclass(slots=True)
class UnannouncedTask:
    """A task that needs a message."""

    task_id: str
    queue: str
    attempt: int = 0


@dataclass(slots=True, kw_only=True)
class FoundTask(UnannouncedTask):
    """One that a search found, with its job's values for the message."""

    job_id: str
    run: int
    stage: int
    job_type: str
    correlation_id: str | None
    tasks_per_message: int

    @property
    def stage_ref(self) -> StageRef:
        return StageRef(self.job_id, self.run, self.stage)


@dataclass(slots=True, kw_only=True)
class TakenTask(FoundTask):
    """One that was taken into its stage's window; one message of `mark_each`, and the last, should be marked.

    `is_again`: a message named it before, so that the next one needs a cause.
    """

    mark_each: int
    is_again: bool = False


@dataclass(slots=True, kw_only=True)
class LimitedTask(TakenTask):
    """One of a stage with limits; `wait_seconds`: until a rate lets it begin."""

    wait_seconds: float


@dataclass(slots=True, kw_only=True)
class ParkedTask(FoundTask):
    """One that needs a message once more; `held_until` is the finder's right to send it."""

    held_until: datetime


@dataclass(frozen=True)
class UnannouncedJob:
    """A job that needs a message."""

    job_id: str
    run: int
    stage: int
    attempt: int
    job_type: str
    correlation_id: str | None

    @property
    def ref(self) -> JobRef:
        return JobRef(self.job_id, self.run)

    @property
    def stage_ref(self) -> StageRef:
        return StageRef(self.job_id, self.run, self.stage)
