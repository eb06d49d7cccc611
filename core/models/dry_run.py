"""What a submission would do, found out without writing anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.models.definition import StageDefinition
from core.models.status import JobStatus


@dataclass(frozen=True)
class DraftTask:
    """A task that the first stage would have."""

    task_id: str
    name: str | None
    task_type: str
    queue: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class JobDraft:
    """A job as a submission would write it, and its first stage as it would be planned.

    Args:
        parameters: As they would be stored, with defaults.
        found_status: Of the job of these parameters, if it is there.
        tasks: The first ones of the first stage.
        task_count: How many it would have; `is_counted` is false where counting was given up there.
    """

    job_id: str
    job_type: str
    parameters: Mapping[str, Any]
    found_status: JobStatus | None
    stages: Sequence[StageDefinition]
    tasks: Sequence[DraftTask]
    task_count: int
    is_counted: bool
