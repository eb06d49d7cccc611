"""Queue messages: they say "look at these rows" and carry ids, never the truth."""

from typing import Annotated, Any

from pydantic import Field

from core.models.definition import FrozenModel
from core.models.record import JobId


class JobQueueMessage(FrozenModel):
    """On the jobs queue: look at this job; plan its stage or finalize it, whichever its row asks for."""

    job_id: JobId
    job_type: str
    run: Annotated[int, Field(ge=1)] = 1
    stage: Annotated[int, Field(ge=1)] = 1
    correlation_id: str | None = None

    @property
    def message_id(self) -> str:
        return f"job-{self.job_id[:32]}-{self.run}-{self.stage}"


class TaskQueueMessage(FrozenModel):
    """On a task queue: run these tasks of one stage."""

    job_id: JobId
    job_type: str
    run: Annotated[int, Field(ge=1)] = 1
    stage: Annotated[int, Field(ge=1)]
    task_ids: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]
    attempt: Annotated[int, Field(ge=1)] = 1
    correlation_id: str | None = None

    @property
    def message_id(self) -> str:
        return f"task-{self.job_id[:32]}-{self.run}-{self.task_ids[0][:60]}-{self.attempt}"


class TaskResult(FrozenModel):
    """How one attempt ended. `retryable` and `error_type` are set when it failed."""

    task_id: str
    success: bool
    result: dict[str, Any] | None = None
    error: str | None = None
    error_type: str | None = None
    retryable: bool | None = None
    retry_after_seconds: Annotated[float, Field(ge=0)] | None = None
    duration_seconds: float | None = None
