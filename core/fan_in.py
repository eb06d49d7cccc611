"""Fan-in by reference: a task's parameters name a stage, its handler streams that stage's results from the store."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.authors.author_code import read_once
from core.errors import ContractViolationError, CoreMachineError
from core.models import StageRef
from core.models.context import CompletedTask, FailedTask
from core.models.record import JobId

if TYPE_CHECKING:  # with the models of all other ports: a handler's own process would import them for nothing
    from core.ports import ResultStore

Task = TypeVar("Task", CompletedTask, FailedTask)

# The store that handlers load results from; None outside of a handler. `fan_in_reader` sets it for a `with`.
reader: "ContextVar[ResultStore | None]" = ContextVar("fan_in_reader", default=None)


class FanInIncomplete(CoreMachineError):
    """The stage was sealed with one number of tasks and another was read: rows were pruned, or come from elsewhere."""

    def __init__(self, source: "FanInSource", completed: int, failed: int) -> None:
        self.source, self.completed, self.failed = source, completed, failed
        super().__init__(
            f"stage {source.stage} of job {source.job_id}, run {source.run}: expected {source.expected_count} tasks, "
            f"found {completed} completed and {failed} failed; look at its rows"
        )


class FanInSource(BaseModel):
    """The place of a fan-in task's input. `expected_count` is what the stage was sealed with, failed tasks included."""

    # Additive: an older app may meet a key that a newer planner wrote.
    model_config = ConfigDict(frozen=True, extra="ignore")

    job_id: JobId
    run: Annotated[int, Field(ge=1)]
    stage: Annotated[int, Field(ge=1)]
    expected_count: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class FanInResults:
    """A stage's tasks, read as streams in the order of their index: memory does not grow with them.

    Each call reads anew. No connection is held between pages, so slow work on each result is fine.
    """

    source: FanInSource
    _store: "ResultStore" = field(repr=False)
    _counts: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    @property
    def expected_count(self) -> int:
        """Completed and failed tasks together."""
        return self.source.expected_count

    def results(self) -> Iterator[CompletedTask]:
        """The tasks that succeeded.

        Raises:
            FanInIncomplete: At the end of whichever stream is read last, when a task is in neither.
        """
        return self._stream("completed", self._store.stream_results)

    def failures(self) -> Iterator[FailedTask]:
        """The tasks that failed; none unless the stage's failure policy goes on past failures.

        Raises:
            FanInIncomplete: As for `results`.
        """
        return self._stream("failed", self._store.stream_failures)

    def _stream(self, kind: str, read: Callable[[StageRef], Iterator[Task]]) -> Iterator[Task]:
        source, count = self.source, 0
        for task in read_once(read(StageRef(source.job_id, source.run, source.stage))):
            count += 1
            yield task
        self._counts[kind] = count
        if self._counts.keys() == {"completed", "failed"} and sum(self._counts.values()) != self.expected_count:
            raise FanInIncomplete(source, self._counts["completed"], self._counts["failed"])


@contextmanager
def fan_in_reader(store: "ResultStore") -> Iterator[None]:
    """Let handlers called inside, in this thread, load results from the store."""
    token = reader.set(store)
    try:
        yield
    finally:
        reader.reset(token)


def load_fan_in_results(params: Mapping[str, Any]) -> FanInResults:
    """The results that a fan-in task is about; nothing is read before they are iterated.

    Args:
        params: The task's parameters, as its handler got them.

    Raises:
        ContractViolationError: It is no fan-in task, or this is no handler that the machine is running.
    """
    store = reader.get()
    if store is None:
        raise ContractViolationError(
            "load_fan_in_results: expected a call from a handler, in the thread that runs it, found no reader; "
            "a handler's own threads get the results handed over, and tests set fan_in_reader(store)"
        )
    if "fan_in_source" not in params:
        raise ContractViolationError(
            f"load_fan_in_results: expected the parameters of a fan_in task, with 'fan_in_source', "
            f"found {sorted(params)}; declare the stage with parallelism 'fan_in'"
        )
    try:
        source = FanInSource.model_validate(params["fan_in_source"])
    except ValidationError as error:
        raise ContractViolationError(
            f"load_fan_in_results: fan_in_source is not as the machine makes it: {error}"
        ) from error
    return FanInResults(source, store)
