"""Queue messages: they say "look at these rows" and carry ids, never the truth."""

import hashlib
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import Field, TypeAdapter, model_validator

from core.models.control import IfEnded
from core.models.definition import FrozenModel
from core.models.record import JobId


class JobQueueMessage(FrozenModel):
    """On the jobs queue: look at this job; plan its stage or finalize it, whichever its row asks for.

    A producer that submits over the queue sends `job_type` and `parameters` without a `job_id`. A message may come
    twice, so what makes something run again (`if_ended` rerun or force) needs an `idempotency_key`.
    """

    message_type: Literal["job"] = "job"
    job_id: JobId | None = None
    job_type: Annotated[str, Field(min_length=1, max_length=100)]
    run: Annotated[int, Field(ge=1)] = 1
    stage: Annotated[int, Field(ge=1)] = 1
    attempt: Annotated[int, Field(ge=1)] = 1
    cause: Annotated[str, Field(max_length=20)] | None = None
    parameters: dict[str, Any] | None = None
    correlation_id: str | None = None
    if_ended: IfEnded | None = None
    idempotency_key: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,255}$")] | None = None

    @model_validator(mode="after")
    def _names_a_job_or_submits_one(self) -> "JobQueueMessage":
        if (self.job_id is None) == (self.parameters is None):
            raise ValueError(
                "expected either job_id (look at this job) or parameters (submit a job), found "
                + ("neither" if self.job_id is None else "both")
            )
        return self

    @model_validator(mode="after")
    def _runs_again_once(self) -> "JobQueueMessage":
        if self.if_ended in {IfEnded.RERUN, IfEnded.FORCE} and self.idempotency_key is None:
            raise ValueError(
                f"expected an idempotency_key with if_ended {self.if_ended.value!r}, found none; add one, "
                "since a message may come twice"
            )
        if self.job_id is not None and (self.if_ended is not None or self.idempotency_key is not None):
            raise ValueError("expected if_ended and idempotency_key only where a job is submitted, found a job_id")
        return self

    @property
    def message_id(self) -> str:
        if self.job_id is None:
            parts = ["submit", self.correlation_id or uuid4().hex, self.cause]
            return "-".join(part for part in parts if part)
        parts = ["job", self.job_id[:32], str(self.run), str(self.stage), str(self.attempt), self.cause]
        return "-".join(part for part in parts if part)


class StageCompleteMessage(FrozenModel):
    """On the jobs queue: a worker app ended a stage; the platform app looks at the job and moves it on."""

    message_type: Literal["stage_complete"] = "stage_complete"
    job_id: JobId
    job_type: str
    run: Annotated[int, Field(ge=1)] = 1
    completed_stage: Annotated[int, Field(ge=1)]
    completed_by_app: str | None = None
    correlation_id: str | None = None

    @property
    def message_id(self) -> str:
        return f"stage-{self.job_id[:32]}-{self.run}-{self.completed_stage}"


class TaskQueueMessage(FrozenModel):
    """On a task queue: run these tasks of one stage.

    Args:
        attempt: The number of the try that it asks for.
        cause: Why it is sent again, when nothing else tells it from an earlier message to a broker that drops doubles.
    """

    job_id: JobId
    job_type: str
    run: Annotated[int, Field(ge=1)] = 1
    stage: Annotated[int, Field(ge=1)]
    task_ids: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]
    attempt: Annotated[int, Field(ge=1)] = 1
    cause: Annotated[str, Field(max_length=20)] | None = None
    correlation_id: str | None = None

    @property
    def message_id(self) -> str:
        """At most 128 characters, which is what Service Bus takes."""
        # A digest, since two ids may share a long beginning.
        first = hashlib.sha256(self.task_ids[0].encode()).hexdigest()[:16]
        parts = ["task", self.job_id[:32], str(self.run), str(self.stage), first, str(self.attempt), self.cause]
        return "-".join(part for part in parts if part)


QueueMessage = JobQueueMessage | StageCompleteMessage | TaskQueueMessage
# What may stand on the jobs queue, for `validate_json(body)`. Without `message_type` it is a job message.
JOBS_QUEUE_MESSAGE: TypeAdapter[JobQueueMessage | StageCompleteMessage] = TypeAdapter(
    JobQueueMessage | StageCompleteMessage
)


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
