"""CoreMachine: jobs of sequential stages of parallel tasks.

`__all__` is the public API, which follows semantic versioning; everything below this package may change at any time. A
name is imported when it is first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.basics.version import VERSION as __version__  # noqa: N811
    from core.context import TaskContext
    from core.errors import (
        ContractViolationError,
        CoreMachineError,
        InvalidParameters,
        PermanentTaskError,
        RetryableTaskError,
        TaskCancelled,
        TaskTimedOut,
    )
    from core.fan_in import FanInResults, load_fan_in_results
    from core.isolation.command import CommandFailed, run_command
    from core.models import JobStatus, TaskDefinition, TaskStatus
    from core.models import TaskDefinition as Task
    from core.models.context import CompletedTask, FailedTask, JobExecutionContext, StageSummary
    from core.models.definition import FailurePolicy, RetryPolicy
    from core.models.limit import Limit
    from jobs.base import JobBase, JobDefinitionError
    from jobs.handlers import handler
    from jobs.job import Job
    from jobs.mixins import JobBaseMixin
    from jobs.parameters import ParameterError, ParameterErrors
    from jobs.registry import Handler, Registry
    from jobs.stages import Stage
    from jobs.validators import ResourceInvalid, resource_validator
    from jobs.views import (
        Figure,
        NoSuchPart,
        NothingToShow,
        Outline,
        ViewAnswer,
        ViewBusy,
        ViewFailed,
        ViewNotInstalled,
        ViewProblem,
        ViewRequest,
    )

__all__ = [
    "CommandFailed",
    "CompletedTask",
    "ContractViolationError",
    "CoreMachineError",
    "FailedTask",
    "FailurePolicy",
    "FanInResults",
    "Figure",
    "Handler",
    "InvalidParameters",
    "Job",
    "JobBase",
    "JobBaseMixin",
    "JobDefinitionError",
    "JobExecutionContext",
    "JobStatus",
    "Limit",
    "NoSuchPart",
    "NothingToShow",
    "Outline",
    "ParameterError",
    "ParameterErrors",
    "PermanentTaskError",
    "Registry",
    "ResourceInvalid",
    "RetryPolicy",
    "RetryableTaskError",
    "Stage",
    "StageSummary",
    "Task",
    "TaskCancelled",
    "TaskContext",
    "TaskDefinition",
    "TaskStatus",
    "TaskTimedOut",
    "ViewAnswer",
    "ViewBusy",
    "ViewFailed",
    "ViewNotInstalled",
    "ViewProblem",
    "ViewRequest",
    "__version__",
    "handler",
    "load_fan_in_results",
    "resource_validator",
    "run_command",
]

_MODULES = {
    "core.context": ("TaskContext",),
    "core.errors": (
        "ContractViolationError",
        "CoreMachineError",
        "InvalidParameters",
        "PermanentTaskError",
        "RetryableTaskError",
        "TaskCancelled",
        "TaskTimedOut",
    ),
    "core.fan_in": ("FanInResults", "load_fan_in_results"),
    "core.isolation.command": ("CommandFailed", "run_command"),
    "core.models": ("JobStatus", "TaskDefinition", "TaskStatus"),
    "core.models.context": ("CompletedTask", "FailedTask", "JobExecutionContext", "StageSummary"),
    "core.models.definition": ("FailurePolicy", "RetryPolicy"),
    "core.models.limit": ("Limit",),
    "jobs.base": ("JobBase", "JobDefinitionError"),
    "jobs.handlers": ("handler",),
    "jobs.job": ("Job",),
    "jobs.mixins": ("JobBaseMixin",),
    "jobs.parameters": ("ParameterError", "ParameterErrors"),
    "jobs.registry": ("Handler", "Registry"),
    "jobs.stages": ("Stage",),
    "jobs.validators": ("ResourceInvalid", "resource_validator"),
    "jobs.views": (
        "Figure",
        "NoSuchPart",
        "NothingToShow",
        "Outline",
        "ViewAnswer",
        "ViewBusy",
        "ViewFailed",
        "ViewNotInstalled",
        "ViewProblem",
        "ViewRequest",
    ),
}
_PLACES = {name: (module, name) for module, names in _MODULES.items() for name in names} | {
    "Task": ("core.models", "TaskDefinition"),
    "__version__": ("core.basics.version", "VERSION"),
}

if not TYPE_CHECKING:  # a type checker would take any name for one of this package

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, attribute = _PLACES[name]
        value = getattr(import_module(module), attribute)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
