"""The only code that knows psycopg and Azure. Names are imported when they are first used: a cold start is short."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infrastructure.factory import Repositories, RepositoryFactory
    from infrastructure.jobs_tasks import JobRepository, StageCompletionRepository, TaskRepository
    from infrastructure.service_bus import ServiceBusRepository
    from infrastructure.settings import Settings, load_settings

__all__ = [
    "JobRepository",
    "Repositories",
    "RepositoryFactory",
    "ServiceBusRepository",
    "Settings",
    "StageCompletionRepository",
    "TaskRepository",
    "load_settings",
]

_MODULES = {
    "JobRepository": "infrastructure.jobs_tasks",
    "Repositories": "infrastructure.factory",
    "RepositoryFactory": "infrastructure.factory",
    "ServiceBusRepository": "infrastructure.service_bus",
    "Settings": "infrastructure.settings",
    "StageCompletionRepository": "infrastructure.jobs_tasks",
    "TaskRepository": "infrastructure.jobs_tasks",
    "load_settings": "infrastructure.settings",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
