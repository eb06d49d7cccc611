"""An attempt and a database that is away: what it reads, and its outcome, wait. Its lease is still renewed."""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from core.basics.outage import outage
from core.errors import StoreCancelled, StoreShort, StoreUnavailable
from core.models import JobRef, StageRef
from core.models.context import CompletedTask, FailedTask, StageSummary
from core.ports import ResultStore

T = TypeVar("T")
_END: Any = object()

# A restart or a failover of the database is over by then; else the work is done again.
PATIENCE_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
# A server that stops the statement, or has no room for it, takes other work: no slot is to wait for that.
MOST_REFUSALS = 3


@dataclass(frozen=True)
class Patience:
    """How long an attempt waits for the database.

    Args:
        seconds: From the first refusal.
        wait: Lets that many seconds pass; False if this process is about to end.
    """

    seconds: float
    wait: Callable[[float], bool]

    def repeat(self, error: StoreUnavailable, call: Callable[[], T]) -> T:
        """Make a call again that met this error, until it is answered. Raises its last error if it never is."""
        until = time.monotonic() + self.seconds
        for nth in itertools.count():
            outage.note(str(error))
            pause = min(FIRST_PAUSE_SECONDS * 2**nth, LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)
            is_refused = nth >= MOST_REFUSALS and isinstance(error, StoreCancelled | StoreShort)
            if is_refused or time.monotonic() + pause > until or not self.wait(pause):
                break
            try:
                return call()
            except StoreUnavailable as again:
                error = again
        raise error


class PatientResults:
    """Results for handlers: a stream that meets an outage goes on where it was. It would cost the task an attempt."""

    def __init__(self, store: ResultStore, patience: Patience) -> None:
        self._store, self._patience = store, patience

    def stream_results(self, ref: StageRef) -> Iterator[CompletedTask]:
        """As the store's, so are the others."""
        return self._stream(partial(self._store.stream_results, ref))

    def stream_failures(self, ref: StageRef) -> Iterator[FailedTask]:
        return self._stream(partial(self._store.stream_failures, ref))

    def expected_count(self, ref: StageRef) -> int:
        return self._store.expected_count(ref)

    def mean_task_seconds(self, job_type: str, stage: int) -> float | None:
        return self._store.mean_task_seconds(job_type, stage)

    def stage_summaries(self, ref: JobRef) -> list[StageSummary]:
        return self._store.stage_summaries(ref)

    def _stream(self, read: Callable[[], Iterator[T]]) -> Iterator[T]:
        items = read()
        for count in itertools.count():
            try:
                item = next(items, _END)
            except StoreUnavailable as error:
                item, items = self._patience.repeat(error, partial(_read_on, read, count))
            if item is _END:
                return
            yield item


def _read_on(read: Callable[[], Iterator[T]], count: int) -> tuple[T, Iterator[T]]:
    """The item after that many, and those after it."""
    items = itertools.islice(read(), count, None)
    return next(items, _END), items
