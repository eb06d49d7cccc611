"""What job authors are handed: earlier results when planning, the whole job when finalizing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CompletedTask:
    """A task that succeeded, as later stages see it."""

    task_id: str
    task_index: int
    name: str | None
    parameters: dict[str, Any]
    result: dict[str, Any]


@dataclass(frozen=True)
class FailedTask:
    """A task that failed, as a fan-in handler and the API see it. `error` holds type, message, attempt, retryable."""

    task_id: str
    task_index: int
    name: str | None
    parameters: dict[str, Any]
    error: dict[str, Any]


@dataclass(frozen=True)
class StageSummary:
    """How a stage ended, in numbers of tasks."""

    stage: int
    status: str
    completed: int
    failed: int


@dataclass(frozen=True)
class JobExecutionContext:
    """What `finalize_job` gets.

    Args:
        results: `results(stage)` streams that stage's completed tasks from the database, in order of their index.
    """

    job_id: str
    job_type: str
    parameters: dict[str, Any]
    stages: tuple[StageSummary, ...]
    results: Callable[[int], Iterator[CompletedTask]]
