"""What submissions beyond one job take and answer: many at once, and those that are only tried."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from core.models.control import IfEnded
from core.models.dry_run import JobDraft
from core.models.fields import CorrelationId, IdempotencyKey, JobTypeText, PriorityText, StartAt, Tags
from core.models.status import StoredJobStatus
from core.models.submission import SubmitRequest, expect_one_wish
from triggers.api_models import BatchJob, StageDescription, read_if_ended
from triggers.problem_models import Problem

MOST_JOBS = 1000


class BatchItem(BaseModel):
    """One submission. The fields are those of a submission alone; what is an address or a header there is here."""

    model_config = ConfigDict(extra="forbid")

    job_type: JobTypeText
    parameters: Annotated[dict[str, Any], Field(description="Those of the job type.")] = {}
    force: Annotated[bool, Field(strict=True)] = False
    if_ended: Annotated[IfEnded, BeforeValidator(read_if_ended)] = IfEnded.RETURN
    idempotency_key: IdempotencyKey | None = None
    correlation_id: CorrelationId | None = None
    tags: Tags = {}
    start_at: StartAt | None = None
    priority: PriorityText | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> "BatchItem":
        expect_one_wish(self.if_ended, force=self.force)
        return self

    def to_request(self, actor: str | None) -> SubmitRequest:
        return SubmitRequest(**dict(self), actor=actor)


class BatchRequest(BaseModel):
    """Submissions; those of one job type are written in one transaction."""

    model_config = ConfigDict(extra="forbid")

    jobs: Annotated[
        list[Any],
        Field(
            min_length=1,
            max_length=MOST_JOBS,
            description="Objects with job_type, and if wanted with parameters, force, if_ended, idempotency_key, "
            "correlation_id, tags, start_at and priority. What is no such object is refused alone.",
        ),
    ]


class BatchOutcome(BaseModel):
    """What became of one submission: a job, or a problem. `status` is what it alone would have been answered."""

    index: Annotated[int, Field(description="Its place in `jobs`, from 0.")]
    status: int
    job: BatchJob | None = None
    problem: Problem | None = None


class BatchAnswer(BaseModel):
    """One outcome for each submission, in their order; `counts` has them by word, `refused` for a problem."""

    value: list[BatchOutcome]
    counts: dict[str, int]


class DraftTaskAnswer(BaseModel):
    task_id: str
    name: str | None
    task_type: str
    queue: str
    parameters: dict[str, Any]


class DraftStage(BaseModel):
    """The first stage as it would be planned now. `is_counted` is false where the tasks are more than `task_count`."""

    number: int
    name: str
    task_count: int
    is_counted: bool
    tasks: Annotated[list[DraftTaskAnswer], Field(description="The first 20.")]


class DraftAnswer(BaseModel):
    """What a submission would do; nothing is written. `found_status` is that of a job which is there already."""

    dry_run: bool = True
    job_id: str
    job_type: str
    parameters: dict[str, Any]
    found_status: StoredJobStatus | None
    stages: list[StageDescription]
    first_stage: DraftStage

    @classmethod
    def of(cls, draft: JobDraft) -> "DraftAnswer":
        first = draft.stages[0]
        tasks = [DraftTaskAnswer.model_validate(task, from_attributes=True) for task in draft.tasks]
        return cls(
            job_id=draft.job_id,
            job_type=draft.job_type,
            parameters=dict(draft.parameters),
            found_status=draft.found_status,
            stages=[StageDescription.model_validate(stage, from_attributes=True) for stage in draft.stages],
            first_stage=DraftStage(
                number=first.number,
                name=first.name,
                task_count=draft.task_count,
                is_counted=draft.is_counted,
                tasks=tasks,
            ),
        )
