"""The rules. Names are imported when they are first used: a cold start is short."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.error_handler import CoreMachineErrorHandler, log_nested_error
    from core.errors import ContractViolationError
    from core.fan_in import load_fan_in_results
    from core.machine import CoreMachine
    from core.models import JobQueueMessage, TaskQueueMessage
    from core.orchestration_manager import OrchestrationManager
    from core.state_manager import StateManager

__all__ = [
    "ContractViolationError",
    "CoreMachine",
    "CoreMachineErrorHandler",
    "JobQueueMessage",
    "OrchestrationManager",
    "StateManager",
    "TaskQueueMessage",
    "load_fan_in_results",
    "log_nested_error",
]

_MODULES = {
    "ContractViolationError": "core.errors",
    "CoreMachine": "core.machine",
    "CoreMachineErrorHandler": "core.error_handler",
    "JobQueueMessage": "core.models",
    "OrchestrationManager": "core.orchestration_manager",
    "StateManager": "core.state_manager",
    "TaskQueueMessage": "core.models",
    "load_fan_in_results": "core.fan_in",
    "log_nested_error": "core.error_handler",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
