"""All job types and handlers of this app, checked as a whole before anything runs."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from core.app_queues import how_to_add_queue
from core.basics.canonical import shown
from core.basics.keywords import constructor_suggests_names
from core.errors import UnknownWork
from core.isolation.function import ProcessFunction
from core.isolation.limits import TASKS_PER_PROCESS, Limits
from core.isolation.target import import_problem
from core.ports import HandlerFunction
from jobs.base import JobBase, JobDefinitionError, is_job_class, job_problems
from jobs.functions import function_problems, place_of
from jobs.handlers import HandlerMark, find_marked
from jobs.names import name_problems
from jobs.typed import UnknownAnnotation, name_check_of, with_types
from jobs.validators import find_unknown_validators


@constructor_suggests_names
@dataclass(frozen=True)
class Handler:
    """What runs a task type, and the logical queue that its messages go to.

    Args:
        isolation: Where its attempts run: in a `thread` of the worker, or in a `process` of their own, which a cancel
            or a timeout really ends and which crashes alone (docs/howto/isolate-a-handler.md). Its function is then
            found by import.
        memory_limit_mb: Of an attempt in a process: one that takes more is ended and fails.
        tasks_per_process: A process that has run this number of attempts is not used again.
    """

    task_type: str
    function: HandlerFunction
    queue: str
    isolation: Literal["thread", "process"] = "thread"
    memory_limit_mb: int | None = None
    tasks_per_process: int = TASKS_PER_PROCESS


class UnknownJobType(UnknownWork, LookupError):
    """No job of that name in this app; names the nearest."""

    def __init__(self, job_type: str, known: Iterable[str]) -> None:
        self.job_type, self.known = job_type, sorted(known)
        nearest = difflib.get_close_matches(job_type, self.known, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        super().__init__("job type", job_type, f"job type: expected one of {self.known}, found {job_type!r}{hint}")


@constructor_suggests_names
class Registry:
    """Job classes and handlers that fit together.

    Args:
        handlers: Those that no `@handler` declares in a job's class or module: these are found.
        queues: The logical names that handlers and stages may name.
        instead: They take the place of others of their task types: for tests.

    Raises:
        JobDefinitionError: Everything that does not fit, at once.
    """

    def __init__(
        self,
        jobs: Iterable[type[JobBase]],
        handlers: Iterable[Handler],
        queues: Iterable[str],
        *,
        instead: Iterable[Handler] = (),
    ) -> None:
        job_list, queue_names = list(jobs), set(queues)
        handler_list = _with_marked(job_list, list(handlers), list(instead))
        problems, task_types = _handler_problems(handler_list, queue_names)
        problems += _job_problems(job_list, task_types, queue_names)
        if problems:
            raise JobDefinitionError("registry", problems)
        self._jobs = {job.job_type: job for job in job_list}
        self._handlers = {handler.task_type: _callable(handler) for handler in handler_list}
        checks = {handler.task_type: name_check_of(handler.function) for handler in handler_list}
        self._name_checks = {task_type: check for task_type, check in checks.items() if check is not None}

    @property
    def job_types(self) -> tuple[str, ...]:
        return tuple(sorted(self._jobs))

    @property
    def task_types(self) -> tuple[str, ...]:
        """Those that have a handler here."""
        return tuple(sorted(self._handlers))

    @property
    def named_task_types(self) -> frozenset[str]:
        """Those that have a handler here or that a stage names."""
        declared = {stage.task_type for job in self._jobs.values() for stage in job.definition().stages}
        return frozenset(declared.union(self._handlers))

    def get_job(self, job_type: str) -> type[JobBase]:
        """The class of a job type.

        Raises:
            UnknownJobType: There is none of that name.
        """
        if job_type not in self._jobs:
            raise UnknownJobType(job_type, self._jobs)
        return self._jobs[job_type]

    def find_handler(self, task_type: str) -> Handler | None:
        """The handler of a task type; None when this app has none, as another app may."""
        return self._handlers.get(task_type)

    def find_unknown_name(self, task_type: str, parameters: Mapping[str, Any]) -> str | None:
        """What a task would have that the type of its handler's parameters has not; None where nothing is wrong."""
        check = self._name_checks.get(task_type)
        problem = check and check(parameters, "parameters")
        return problem.message if problem else None


def _with_marked(jobs: Sequence[object], handlers: list[Handler], instead: list[Handler]) -> list[Handler]:
    """The listed handlers and those that are declared beside their functions."""
    found = list(handlers)
    for job in jobs:
        for function, mark in find_marked(job) if isinstance(job, type) else ():
            marked = handler_of(function, mark)
            # A job of the same module had it, or it is listed as well.
            if not any(_is_same(each, marked) for each in found):
                found.append(marked)
    replaced = [handler.task_type for handler in instead]
    return [*instead, *(each for each in found if not isinstance(each, Handler) or each.task_type not in replaced)]


def handler_of(function: Callable[..., object], mark: HandlerMark) -> Handler:
    """The handler that a function was marked to be."""
    return Handler(mark.task_type, cast("HandlerFunction", function), **mark.options)


def _is_same(handler: object, marked: Handler) -> bool:
    if not isinstance(handler, Handler):
        return False
    return handler.function is marked.function and handler.task_type == marked.task_type


def _callable(handler: Handler) -> Handler:
    """The handler as the engine calls it."""
    typed = with_types(handler.function)
    if handler.isolation == "thread":
        return replace(handler, function=typed)
    limits = Limits(handler.memory_limit_mb, handler.tasks_per_process)
    through = None if typed is handler.function else with_types
    return replace(handler, function=ProcessFunction(handler.task_type, handler.function, limits, through=through))


def _type_problems(what: str, function: HandlerFunction) -> list[str]:
    try:
        with_types(function)
    except UnknownAnnotation as error:
        return [f"{what}: {error}"]
    return []


def _handler_problems(handlers: Sequence[object], queues: set[str]) -> tuple[list[str], set[str]]:
    """What is wrong with the handlers, and their task types."""
    problems: list[str] = []
    seen: dict[str, Handler] = {}
    for place, handler in enumerate(handlers):
        if not isinstance(handler, Handler):
            expected = "a Handler(task_type, function, queue)"
            problems.append(f"handlers[{place}]: expected {expected}, found {shown(handler, 120)}")
            continue
        unusable = name_problems(f"handlers[{place}].task_type", handler.task_type)
        unusable += name_problems(f"handlers[{place}].queue", handler.queue)
        if unusable:
            problems += unusable
            continue
        if handler.task_type in seen:
            both = f"{place_of(seen[handler.task_type].function)} and {place_of(handler.function)}"
            problems.append(f"task type {handler.task_type!r} has two handlers: {both}; leave one out")
        seen[handler.task_type] = handler
        what = f"handler of {handler.task_type!r}"
        unusable = function_problems(what, handler.function, ("params", "context"))
        problems += unusable or [*_type_problems(what, handler.function), *_isolation_problems(what, handler)]
        if handler.queue not in queues:
            problems.append(_queue_problem(what, handler.queue, queues))
    return problems, set(seen)


def _queue_problem(what: str, queue: str, queues: set[str]) -> str:
    return (
        f"{what}: expected a queue of {sorted(queues)}, found {queue!r}; name another queue, or "
        f"{how_to_add_queue(queue)}"
    )


def _isolation_problems(what: str, handler: Handler) -> list[str]:
    if handler.isolation not in {"thread", "process"}:
        return [f"{what}: isolation: expected 'thread' or 'process', found {shown(handler.isolation, 120)}"]
    numbers = {"memory_limit_mb": handler.memory_limit_mb, "tasks_per_process": handler.tasks_per_process}
    problems = [
        f"{what}: {name}: expected a whole number from 1, found {shown(value, 120)}"
        for name, value in numbers.items()
        if value is not None and (type(value) is not int or value < 1)
    ]
    if handler.isolation == "process":
        problem = import_problem(handler.function)
        expected = "a function that a process of its own finds by import"
        return problems + ([] if problem is None else [f"{what}: isolation 'process': expected {expected}, {problem}"])
    if handler.memory_limit_mb is not None:
        problems.append(
            f"{what}: memory_limit_mb: expected isolation='process' beside it, found 'thread'; "
            "threads share the memory of their process, which no limit can divide"
        )
    return problems


def _job_problems(jobs: Sequence[object], task_types: set[str], queues: set[str]) -> list[str]:
    problems = []
    seen: set[str] = set()
    for job in jobs:
        if not is_job_class(job):
            problems.append(f"expected a job class, found {shown(job, 120)}")
            continue
        # Again: what a class declares may have been changed since it was made.
        unusable = job_problems(job)
        if unusable:
            problems += [f"job class {job.__qualname__}: {problem}" for problem in unusable]
            continue
        if job.job_type in seen:
            problems.append(f"job type {job.job_type!r} is there twice")
        seen.add(job.job_type)
        for stage in job.definition().stages:
            where = f"job {job.job_type!r}, stage {stage.number} ({stage.name})"
            if stage.queue is not None and stage.queue not in queues:
                problems.append(_queue_problem(f"{where}: task type {stage.task_type!r}", stage.queue, queues))
            if stage.queue is None and stage.task_type not in task_types:
                problems.append(
                    f"{where}: no handler for task type {stage.task_type!r}; register it, or name in `queue` the queue "
                    "of the app that has it"
                )
        problems += [f"job {job.job_type!r}: {problem}" for problem in find_unknown_validators(job.resource_validators)]
    return problems
