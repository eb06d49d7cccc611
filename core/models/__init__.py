"""Frozen models and enums: the nouns of the engine."""

from core.models.definition import (
    FailurePolicy,
    JobDefinition,
    Parallelism,
    RetryPolicy,
    StageDefinition,
    TaskDefinition,
)
from core.models.message import JobQueueMessage, QueueMessage, StageCompleteMessage, TaskQueueMessage, TaskResult
from core.models.record import JobEvent, JobRecord, StageRecord, TaskRecord
from core.models.status import (
    JOB_TRANSITIONS,
    STAGE_TRANSITIONS,
    TASK_TRANSITIONS,
    JobStatus,
    StageStatus,
    TaskStatus,
)

__all__ = [
    "JOB_TRANSITIONS",
    "STAGE_TRANSITIONS",
    "TASK_TRANSITIONS",
    "FailurePolicy",
    "JobDefinition",
    "JobEvent",
    "JobQueueMessage",
    "JobRecord",
    "JobStatus",
    "Parallelism",
    "QueueMessage",
    "RetryPolicy",
    "StageCompleteMessage",
    "StageDefinition",
    "StageRecord",
    "StageStatus",
    "TaskDefinition",
    "TaskQueueMessage",
    "TaskRecord",
    "TaskResult",
    "TaskStatus",
]
