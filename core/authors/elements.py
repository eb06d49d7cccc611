"""The tasks of a stage that declares `over`: one per element of lists in earlier results or in the job's parameters."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.authors.author_code import MOST_TASKS, refusal
from core.basics.canonical import describe
from core.errors import AuthorError
from core.models import JobRecord, Parallelism, StageDefinition, TaskDefinition
from core.models.context import CompletedTask

# The parameter of a task whose element is no object.
ITEM = "item"


def tasks_over(job: JobRecord, stage: StageDefinition, previous: Iterable[CompletedTask]) -> Iterator[TaskDefinition]:
    """One task per element, in their order.

    Raises:
        AuthorError: There is no such list, an element has no such name, or there are too many.
        StoreUnavailable: The earlier results cannot be read now.
    """
    for count, element in enumerate(_elements(job, stage, previous)):
        if count == MOST_TASKS:
            raise _refused(stage, f"expected at most {MOST_TASKS:,} elements, found more; split the job")
        parameters = element if isinstance(element, dict) else {ITEM: element}
        # Looked at as every other task is, by who reads this.
        yield TaskDefinition.model_construct(parameters=parameters, name=_name_of(stage, element, parameters))


def _elements(job: JobRecord, stage: StageDefinition, previous: Iterable[CompletedTask]) -> Iterator[object]:
    if stage.parallelism is Parallelism.SINGLE:
        yield from _list_in(stage, job.parameters, "the job's parameters")
        return
    for task in previous:
        yield from _list_in(stage, task.result, f"the result of task {task.name or task.task_id}")


def _list_in(stage: StageDefinition, values: Mapping[str, Any], where: str) -> list[object]:
    name = stage.over or ""
    found = values.get(name)
    if isinstance(found, list):
        return found
    what = describe(found) if name in values else f"the names {', '.join(sorted(values)) or '(none)'}"
    raise _refused(stage, f"expected a list named {name!r} in {where}, found {what}")


def _name_of(stage: StageDefinition, element: object, parameters: Mapping[str, Any]) -> str | None:
    if stage.name_from is None:
        return element if isinstance(element, str) else None
    name = parameters.get(stage.name_from)
    if isinstance(name, str | int) and not isinstance(name, bool):
        return str(name)
    found = describe(name) if stage.name_from in parameters else f"the names {', '.join(sorted(parameters))}"
    raise _refused(stage, f"expected a text or a whole number named {stage.name_from!r} in each element, found {found}")


def _refused(stage: StageDefinition, problem: str) -> AuthorError:
    return AuthorError(refusal(f"stage {stage.number} ({stage.name}), over {stage.over!r}: {problem}"))
