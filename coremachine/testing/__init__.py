"""Tests of jobs: the real engine in the test's process, on a real database, with a clock and faults to turn."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coremachine.testing.clock import Clock
    from coremachine.testing.engine import UnreachedCrash
    from coremachine.testing.queues import MessageFaults
    from coremachine.testing.results import JobResult, StageResult, TaskResult
    from coremachine.testing.runner import JobRunner, JobStuck, run_job

__all__ = [
    "Clock",
    "JobResult",
    "JobRunner",
    "JobStuck",
    "MessageFaults",
    "StageResult",
    "TaskResult",
    "UnreachedCrash",
    "run_job",
]

_PLACES = {
    "Clock": "coremachine.testing.clock",
    "JobResult": "coremachine.testing.results",
    "JobRunner": "coremachine.testing.runner",
    "JobStuck": "coremachine.testing.runner",
    "MessageFaults": "coremachine.testing.queues",
    "StageResult": "coremachine.testing.results",
    "TaskResult": "coremachine.testing.results",
    "UnreachedCrash": "coremachine.testing.engine",
    "run_job": "coremachine.testing.runner",
}

if not TYPE_CHECKING:  # a type checker would take any name for one of this package

    def __getattr__(name: str) -> object:
        """Import a name when it is first used: pytest loads this package in every session."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_PLACES[name]), name)
        return value
