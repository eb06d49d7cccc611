"""The claimed tasks of a message, and the attempts at them: what surrounds the call of a handler."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from typing import Any, Self
from uuid import UUID

from core.authors.attempt_log import AttemptLog
from core.authors.author_code import call_guarded, judge_returned
from core.basics.canonical import MOST_VALUE_BYTES
from core.basics.log_fields import log_fields
from core.basics.strict_json import EncodedJson
from core.context import TaskContext
from core.errors import AuthorError, Failure, TaskCancelled, classify
from core.fan_in import reader
from core.isolation.function import ProcessFunction
from core.models import JobRecord, StageDefinition
from core.models.lease import HeldTask, LeaseOutcome
from core.models.retry import judged
from core.models.transition import ClaimedRow
from core.ports import JobCatalog, ResultStore
from core.running.leases import LeaseKeeper
from core.safety.log_guard import log_guard
from core.safety.safe_log import safe_logger
from core.telemetry.reports import observer

log = safe_logger(__name__)

_UNKNOWN = Failure(
    "AttemptUntold", "expected a reason for the end of the attempt, found none that could be kept; see the log", True
)


@dataclass(slots=True)
class TaskOutcome:
    """How one attempt ended: with a result, or with a failure. `stopped`: its handler heeded `check_cancelled`."""

    task: ClaimedRow
    result: EncodedJson | None = None
    failure: Failure | None = None
    stopped: bool = False
    duration_seconds: float = 0.0


class Attempts:
    """The tasks of one claim, until each was run or taken back. A `with`, in which their leases are renewed.

    A thread takes a task and runs it: one after the other, or several threads at the same time (`TaskBatch`).

    Args:
        most_bytes: How large a result may be.
    """

    def __init__(
        self,
        job: JobRecord,
        stage: StageDefinition,
        lease_id: UUID,
        tasks: Sequence[ClaimedRow],
        *,
        catalog: JobCatalog,
        results: ResultStore,
        keeper: LeaseKeeper,
        most_bytes: int = MOST_VALUE_BYTES,
    ) -> None:
        self.job, self.stage, self.lease_id = job, stage, lease_id
        self.tasks = tuple(tasks)
        self.is_abandoned = False
        # The outcomes, for a caller that runs them in several threads. None wakes that caller: all have been abandoned.
        self.ended: SimpleQueue[TaskOutcome | None] = SimpleQueue()
        self._waiting = deque(tasks)
        self._results, self._keeper, self._most_bytes = results, keeper, most_bytes
        # A task without one was set aside.
        self._handlers = {
            task_type: handler
            for task_type in {task.task_type for task in tasks}
            if (handler := catalog.find_handler(task_type)) is not None
        }
        watch = observer().attempts_of(job, stage)
        self._observed: Callable[[ClaimedRow], TaskOutcome] = partial(watch, self._attempt) if watch else self._attempt
        self._leases = {
            task.task_id: HeldTask(
                job.job_id,
                job.run,
                task.task_id,
                lease_id,
                stage.lease_seconds,
                timeout_seconds=stage.task_timeout_seconds,
            )
            for task in tasks
        }
        # Whether a handler is to have a process of its own.
        self.has_process = any(isinstance(each.function, ProcessFunction) for each in self._handlers.values())

    def __enter__(self) -> Self:
        log_guard.enter()
        self._keeper.hold(list(self._leases.values()))
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting:
            # Left behind by an error: nobody writes their outcomes, so they begin no more.
            self._take_all()
        self._keeper.drop(list(self._leases.values()))
        log_guard.leave()

    @property
    def are_waiting(self) -> bool:
        """Whether some have not begun."""
        return bool(self._waiting)

    @property
    def waiting_count(self) -> int:
        """How many have not begun."""
        return len(self._waiting)

    def run_next(self) -> TaskOutcome | None:
        """One attempt at the next task. Whatever happens has an outcome: a task never holds up or fails its neighbours.

        None: all have begun or were taken back, or the handler stopped for `abandon`, whose caller releases its task.
        """
        try:
            task = self._waiting.popleft()
        except IndexError:  # another thread was quicker
            return None
        unknown = TaskOutcome(task, failure=_UNKNOWN)  # made before: where the memory is used up, nothing can be
        try:
            outcome = self._observed(task)
        except BaseException:  # noqa: BLE001 - it is said to have no reason; the log may be what broke
            return unknown
        return None if outcome.stopped and self.is_abandoned else outcome

    def take_back(self) -> list[ClaimedRow]:
        """The tasks that have not begun, which now do not: the caller releases them."""
        taken = self._take_all()
        self.drop(taken)
        return taken

    def _take_all(self) -> list[ClaimedRow]:
        taken: list[ClaimedRow] = []
        while True:
            try:
                taken.append(self._waiting.pop())
            except IndexError:  # threads take from the other end
                return taken

    def drop(self, tasks: Iterable[ClaimedRow]) -> None:
        """Renew the leases of these no more: a renewal would find them gone, and take that for a lost lease."""
        self._keeper.drop([self._leases[task.task_id] for task in tasks])

    def abandon(self) -> tuple[list[ClaimedRow], list[ClaimedRow]]:
        """Tell all handlers to stop, from any thread: the tasks that have not begun, and the others.

        The caller releases them; among the others there may be some that have ended, which their rows know.
        """
        self.is_abandoned = True
        waiting = self._take_all()
        unbegun = {task.task_id for task in waiting}
        for lease in self._leases.values():
            lease.stop(LeaseOutcome.LOST)
        self.ended.put(None)
        self._keeper.drop(list(self._leases.values()))
        return waiting, [task for task in self.tasks if task.task_id not in unbegun]

    def _attempt(self, task: ClaimedRow) -> TaskOutcome:
        began = time.monotonic()
        fields = {
            "job_id": self.job.job_id,
            "run": self.job.run,
            "correlation_id": self.job.correlation_id,
            "stage": self.stage.number,
            "task_id": task.task_id,
            "attempt": task.attempt,
        }
        with log_fields(**fields), AttemptLog() as kept:
            try:
                outcome = call_guarded(self._call_handler, task)
            except AuthorError as error:
                outcome = TaskOutcome(task, failure=error.failure)
            except Exception as error:  # noqa: BLE001 - the database is away, which a handler may meet
                outcome = TaskOutcome(task, failure=classify(error))
        if outcome.failure is not None:
            outcome.failure = replace(outcome.failure, log=kept.text())
        outcome.duration_seconds = time.monotonic() - began
        if outcome.failure is not None and not outcome.stopped:
            outcome.failure = judged(outcome.failure, self.stage.retry)
            _report_failure(fields, outcome.duration_seconds, outcome.failure)
        return outcome

    def _call_handler(self, task: ClaimedRow) -> TaskOutcome:
        job, lease = self.job, self._leases[task.task_id]
        context = TaskContext(
            job_id=job.job_id,
            job_type=job.job_type,
            stage=self.stage.number,
            task_id=task.task_id,
            task_index=task.task_index,
            attempt=task.attempt,
            job_parameters=job.parameters,
            correlation_id=job.correlation_id,
            # The tasks of a message share one lease, and no attempt shares the name of its files with another.
            lease_id=UUID(int=self.lease_id.int ^ task.task_index),
            _report=lease.report,
            _stop_requested=lambda: lease.is_stop_requested,
            _timed_out=lambda: lease.is_timed_out,
            _timeout_seconds=self.stage.task_timeout_seconds,
        )
        try:
            reader.set(self._results)  # for `load_fan_in_results`, in this call's own context
            returned = self._handlers[task.task_type].function(dict(task.parameters), context)
            judged = judge_returned(task.task_type, returned, self._most_bytes)
        except TaskCancelled as error:
            return TaskOutcome(task, failure=classify(error), stopped=lease.is_stop_requested)
        return TaskOutcome(task, failure=judged) if isinstance(judged, Failure) else TaskOutcome(task, result=judged)


def _report_failure(fields: Mapping[str, Any], seconds: float, failure: Failure) -> None:
    log.warning(
        "task_attempt_failed",
        # What is stored, and not the exception itself: it is bounded, and its text can be read.
        exc_info=AuthorError(failure),
        extra={
            "checkpoint": "TASK_ATTEMPT_FAILED",
            **fields,
            "duration_seconds": round(seconds, 3),
            "error_type": failure.error_type,
        },
    )
