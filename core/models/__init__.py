"""Frozen models and enums: the nouns of the engine."""

from core.models.definition import (
    FailurePolicy,
    JobDefinition,
    Parallelism,
    RetryPolicy,
    StageDefinition,
    TaskDefinition,
)
from core.models.lease import Lease
from core.models.message import JobQueueMessage, QueueMessage, StageCompleteMessage, TaskQueueMessage, TaskResult
from core.models.record import JobEvent, JobRecord, JobRunRecord, StageRecord, TaskRecord
from core.models.refs import JobRef, StageRef
from core.models.status import (
    JOB_RERUN_TRANSITIONS,
    JOB_TRANSITIONS,
    STAGE_TRANSITIONS,
    TASK_TRANSITIONS,
    JobStatus,
    StageStatus,
    TaskStatus,
)

__all__ = [
    "JOB_RERUN_TRANSITIONS",
    "JOB_TRANSITIONS",
    "STAGE_TRANSITIONS",
    "TASK_TRANSITIONS",
    "FailurePolicy",
    "JobDefinition",
    "JobEvent",
    "JobQueueMessage",
    "JobRecord",
    "JobRef",
    "JobRunRecord",
    "JobStatus",
    "Lease",
    "Parallelism",
    "QueueMessage",
    "RetryPolicy",
    "StageCompleteMessage",
    "StageDefinition",
    "StageRecord",
    "StageRef",
    "StageStatus",
    "TaskDefinition",
    "TaskQueueMessage",
    "TaskRecord",
    "TaskResult",
    "TaskStatus",
]
