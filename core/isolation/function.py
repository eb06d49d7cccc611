"""A handler's function that runs in a process of its own: called as the function itself is."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from core.authors.attempt_log import print_line
from core.basics.log_fields import with_log_fields
from core.context import TaskContext
from core.errors import AuthorError, ContractViolationError, classify
from core.fan_in import reader
from core.isolation.limits import Limits
from core.isolation.target import name_of
from core.ports import HandlerFunction

if TYPE_CHECKING:
    from core.isolation.pool import ProcessPool

_CONTEXT = ("job_id", "job_type", "stage", "task_id", "task_index", "attempt", "correlation_id", "job_parameters")


def process_pool() -> "ProcessPool":
    """The one of this worker. An app without such handlers never imports it."""
    from core.isolation.pool import POOL  # noqa: PLC0415

    return POOL


class ProcessFunction:
    """Calls a handler in a process of its own.

    Args:
        function: To be found by import (`core.isolation.target.import_problem`).
        through: What makes of it the function that is called, in that process; to be found by import too.
    """

    def __init__(
        self,
        task_type: str,
        function: HandlerFunction,
        limits: Limits,
        *,
        through: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
    ) -> None:
        self.function = function
        self._task_type, self._limits = task_type, limits
        self._target = name_of(function, through)
        self._through = through

    def in_this_process(self) -> HandlerFunction:
        """The function as its process calls it, for one where a debugger can look at it."""
        return self.function if self._through is None else self._through(self.function)

    def __call__(self, params: dict[str, Any], context: TaskContext) -> Any:
        """The handler's result as the text of its JSON.

        Raises:
            AuthorError: The handler failed, or its process ended without an answer or for its memory.
            TaskCancelled: It was asked to stop, and has, or was ended.
        """
        from core.isolation.attempt import MemoryLimitExceeded, ProcessEnded, Surroundings  # noqa: PLC0415 - as the pool
        from core.isolation.pool import Pages  # noqa: PLC0415

        store = reader.get()
        if store is None:
            raise ContractViolationError("handler in a process: expected a call by the machine, found another one")
        lease_id = None if context.lease_id is None else str(context.lease_id)
        task = {
            "task_type": self._task_type,
            "parameters": params,
            "context": {name: getattr(context, name) for name in _CONTEXT} | {"lease_id": lease_id},
            "log_fields": with_log_fields(),
        }
        around = Surroundings(context, Pages(store).read, print_line, self._limits.memory_limit_mb)
        try:
            return process_pool().run(self._target, self._limits, task, around)
        except (ProcessEnded, MemoryLimitExceeded) as error:
            failure = classify(error)
        # Without a traceback: it would show where the worker waited.
        raise AuthorError(replace(failure, traceback=None))
