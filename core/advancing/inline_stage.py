"""A stage of which one process holds every task: its results are in hand, so what follows can be prepared from them.

What is prepared is written together with the last results, in one transaction. If it cannot be, for whatever reason,
the results are settled alone, and what follows is decided anew from the rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from core.advancing.stage_planner import Draft
from core.basics.canonical import EncodedJson, as_stored
from core.models.context import CompletedTask
from core.models.transition import PlannedTask, SmallStage, StageCheck

# Results of more text than this are read from the database when they are needed.
MOST_CHARACTERS = 200_000


@dataclass(frozen=True)
class Following:
    """What follows the end of a stage, as far as it was prepared.

    Args:
        results: All tasks of the stage, as the database would give them back.
        draft: The next stage's tasks; `small` if they are few.
        summary: The job's own, if this was its last stage.
        error: What the author's planner or finalizer raised.
    """

    results: Sequence[CompletedTask]
    draft: Draft | None = None
    small: SmallStage | None = None
    summary: EncodedJson | None = None
    error: Exception | None = None

    def raise_error(self) -> None:
        """Where it would have been raised, had nothing been prepared."""
        if self.error is not None:
            raise self.error


class StageEnding:
    """Collects the results of a stage's tasks until none is missing.

    Args:
        tasks: All tasks of the stage.
        prepare: What follows these results. It raises nothing: what an author raises is part of what follows.
    """

    def __init__(self, tasks: Sequence[PlannedTask], prepare: Callable[[list[CompletedTask]], Following]) -> None:
        self._tasks = tasks
        self._prepare = prepare
        self._results: dict[str, EncodedJson] = {}

    def add(self, results: Mapping[str, EncodedJson], check: StageCheck) -> None:
        """These are written down, as far as the check says so."""
        self._results |= {task_id: results[task_id] for task_id in check.updated_ids}

    def following(self, results: Mapping[str, EncodedJson]) -> Following | None:
        """What follows, if with these results no task's is missing and they are not large."""
        together = {**self._results, **results}
        if len(together) < len(self._tasks) or sum(map(len, together.values())) > MOST_CHARACTERS:
            return None
        # Read anew: a handler may have changed what it was given.
        return self._prepare([_completed(task, together[task.task_id]) for task in self._tasks])


def _completed(task: PlannedTask, result: EncodedJson) -> CompletedTask:
    parameters = as_stored(task.parameters)
    return CompletedTask(task.task_id, task.task_index, task.name, parameters, as_stored(result))
