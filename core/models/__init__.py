"""Frozen models and enums: the nouns of the engine. A name is imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_MODULES = {
    "definition": (
        "FailurePolicy",
        "JobDefinition",
        "Parallelism",
        "RetryPolicy",
        "StageDefinition",
        "TaskDefinition",
    ),
    "lease": ("Lease",),
    "message": ("JobQueueMessage", "QueueMessage", "StageCompleteMessage", "TaskQueueMessage", "TaskResult"),
    "record": ("JobEvent", "JobRecord", "JobRunRecord", "StageRecord", "TaskRecord"),
    "refs": ("JobRef", "StageRef"),
    "status": (
        "JOB_RERUN_TRANSITIONS",
        "JOB_TRANSITIONS",
        "STAGE_TRANSITIONS",
        "TASK_TRANSITIONS",
        "JobStatus",
        "StageStatus",
        "TaskStatus",
    ),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # a type checker would take any name for one of this package

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
