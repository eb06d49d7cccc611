"""Handlers that are declared beside their functions, and where they are found."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Literal, TypeVar

from core.basics.keywords import suggests_names
from core.isolation.limits import TASKS_PER_PROCESS

F = TypeVar("F", bound=Callable[..., object])

_MARKS = "__coremachine_handlers__"


@dataclass(frozen=True)
class HandlerMark:
    """What `handler` was given."""

    task_type: str
    options: Mapping[str, Any]


@suggests_names
def handler(
    task_type: str,
    *,
    queue: str = "tasks",
    isolation: Literal["thread", "process"] = "thread",
    memory_limit_mb: int | None = None,
    tasks_per_process: int = TASKS_PER_PROCESS,
) -> Callable[[F], F]:
    """Declare a function to be the handler of a task type; the function stays as it is.

    It is found in the module of a job class, or in the class itself as a static method: the registry of an app that
    has the job has the handler.

    Args:
        queue: The logical queue of its tasks; the other arguments too are those of `jobs.registry.Handler`.

    Raises:
        TypeError: It decorates what cannot be marked.
    """
    if callable(task_type):
        raise TypeError("handler: expected a task type, found a function; write @handler('task_type')")

    options = {
        "queue": queue,
        "isolation": isolation,
        "memory_limit_mb": memory_limit_mb,
        "tasks_per_process": tasks_per_process,
    }

    def mark(function: F) -> F:
        marked = _function_of(function)
        if marked is None:
            raise TypeError(
                f"handler of {task_type!r}: expected a function or a static method, found {function!r}; "
                "register it with Handler(...)"
            )
        setattr(marked, _MARKS, (*getattr(marked, _MARKS, ()), HandlerMark(task_type, options)))
        return function

    return mark


def find_marked(job: type) -> Iterator[tuple[Callable[..., object], HandlerMark]]:
    """The functions in a job class and in its module that `handler` marked, in their order; each once."""
    module = sys.modules.get(job.__module__)
    namespaces: list[Mapping[str, Any]] = [vars(base) for base in job.__mro__]
    if module is not None:
        namespaces.append(vars(module))
    yield from marked_in(*namespaces)


def marked_in(*namespaces: Mapping[str, Any]) -> Iterator[tuple[Callable[..., object], HandlerMark]]:
    """The functions in namespaces that `handler` marked, in their order; each once."""
    values = [value for namespace in namespaces for value in namespace.values()]
    for function in dict.fromkeys(filter(None, map(_function_of, values))):
        yield from ((function, mark) for mark in getattr(function, _MARKS, ()))


def _function_of(value: object) -> FunctionType | None:
    """The function, or that of a static method. Nothing else is asked: a module may hold anything."""
    function = value.__func__ if type(value) is staticmethod else value
    return function if type(function) is FunctionType else None
