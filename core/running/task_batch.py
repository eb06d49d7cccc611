"""Runs the claimed tasks of one message side by side and settles them in groups."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast
from uuid import UUID

from core.authors.attempt_log import AttemptLog
from core.authors.author_code import call_guarded
from core.authors.returned import judge_returned
from core.basics.canonical import MOST_VALUE_BYTES
from core.basics.strict_json import EncodedJson
from core.context import TaskContext
from core.errors import AuthorError, Failure, RetryableTaskError, TaskCancelled, classify
from core.fan_in import fan_in_reader
from core.isolation.function import ProcessFunction, process_pool
from core.models import JobRecord, StageDefinition
from core.models.lease import HeldTask, LeaseOutcome
from core.models.retry import judged
from core.models.transition import ClaimedRow
from core.ports import JobCatalog, ResultStore
from core.running.leases import LeaseKeeper
from core.running.task_slots import Slot, TaskSlots
from core.running.threads import ThreadReserve
from core.safety.log_guard import log_guard
from core.safety.safe_log import safe_logger
from core.telemetry.observer import observer

if TYPE_CHECKING:
    from core.isolation.pool import ProcessPool

log = safe_logger(__name__)

# Results wait this long for company before they are settled together.
GATHER_SECONDS = 0.004
# Another thread joins whenever the tasks of a message last this long without an end in sight.
GROW_SECONDS = 0.002
# How often a message whose tasks wait looks for a spare slot.
SPARE_SECONDS = 0.02
# A message whose tasks wait longer is split: what has not begun goes to a process with slots for it. More than the work
# of a message whose size was measured (core/advancing/message_size.py).
SPLIT_SECONDS = 2.0
# How often a task that waits for a slot or a process looks whether it is still to run.
ROOM_SECONDS = 0.5

_reserve = ThreadReserve("tasks")

_UNTOLD = Failure(
    "AttemptUntold", "expected a reason for the end of the attempt, found none that could be kept; see the log", True
)


class HandlerMissing(RetryableTaskError):
    """This app has no handler for the task type; another version of it may."""

    def __init__(self, task_type: str) -> None:
        self.task_type = task_type
        super().__init__(
            f"expected a handler for task type {task_type!r} in this app, found none; deploy the version that has it, "
            "or give its stage the queue of the app that does"
        )


@dataclass(slots=True)
class TaskOutcome:
    """How one attempt ended: with a result, or with a failure. `stopped`: its handler heeded `check_cancelled`."""

    task: ClaimedRow
    result: EncodedJson | None = None
    failure: Failure | None = None
    stopped: bool = False
    duration_seconds: float = 0.0


class TaskBatch:
    """The claimed tasks of one message while they run: one thread for each slot that the message has.

    A message takes further slots that are spare. As long as another one waits for its first, it keeps but one, and
    that one goes around.

    Args:
        slots: The slots of this process.
        slot: One that the caller took, which this releases. None: the message waits for its first one here.
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
        slots: TaskSlots,
        slot: Slot | None = None,
        most_bytes: int = MOST_VALUE_BYTES,
    ) -> None:
        self._most_bytes = most_bytes
        self.job, self.stage, self.lease_id = job, stage, lease_id
        self._results, self._keeper = results, keeper
        self._handlers = {
            task_type: catalog.find_handler(task_type) for task_type in {task.task_type for task in tasks}
        }
        self._waiting = deque(tasks)
        self._unsettled = len(tasks)
        self._slots, self._slot = slots, slot
        self._most_threads = min(slots.count, len(tasks))
        self._lock = threading.Lock()
        self._threads = 0
        self._began = time.monotonic()
        # None: look up, the batch has been abandoned.
        self._ended: queue.SimpleQueue[TaskOutcome | None] = queue.SimpleQueue()
        self._is_abandoned = False
        self._tasks = tuple(tasks)
        # Of processes, if a task's handler is to have one.
        has_process = any(each and isinstance(each.function, ProcessFunction) for each in self._handlers.values())
        self._pool = process_pool() if has_process else None
        watch = observer().attempts_of(job, stage)
        self._observed: Callable[[ClaimedRow], TaskOutcome] = partial(watch, self._attempt) if watch else self._attempt
        self.leases = {
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
        # An attempt's time runs from its claim, so that tasks which wait for a thread are given back in good time.
        self._patience_seconds = min(stage.lease_seconds, stage.task_timeout_seconds or stage.lease_seconds)

    def __enter__(self) -> Self:
        log_guard.enter()
        self._keeper.hold(list(self.leases.values()))
        return self

    def __exit__(self, *_: object) -> None:
        # Left behind by an error: nobody writes their outcomes, so they begin no more and take no slots.
        self._take_all()
        self._keeper.drop(list(self.leases.values()))
        log_guard.leave()

    def outcomes(self) -> Iterator[list[TaskOutcome]]:
        """Groups of outcomes as they come, until every task has one or was taken back by `give_up_waiting`.

        After `abandon` nothing more comes but what had ended before.

        A group is empty when nothing came for a while: time to ask `is_to_be_split`.
        """
        while self._slot is None:
            if not self._waiting:
                return
            self._slot = self._slots.take(min(ROOM_SECONDS, self._patience_seconds / 4))
            if self._slot is None:
                yield []
        slot = self._slot.hand_over()
        if len(self._tasks) == 1 and self._pool is None:
            yield self._run_alone(slot)
            return
        self._start_thread(slot)
        while self._unsettled > 0 and not self._is_abandoned:
            group = self._gather(self._grow())
            self._unsettled -= len(group)
            yield self._to_settle(group)
            # Settled by now: a renewal would find them gone, and take that for a lost lease.
            self._keeper.drop([self.leases[outcome.task.task_id] for outcome in group])

    def _run_alone(self, slot: Slot) -> list[TaskOutcome]:
        try:
            with fan_in_reader(self._results):
                ended = [self._run(task) for task in self._take(self._waiting.popleft)]
        finally:
            slot.release()
        self._unsettled -= len(ended)
        return self._to_settle(ended)

    def _grow(self) -> float:
        """One thread more, if tasks wait and a slot is spare; how many seconds until that should be asked again."""
        if not self._waiting:
            return self._patience_seconds / 4
        if self._threads >= self._most_threads:
            return min(SPLIT_SECONDS, self._patience_seconds) / 4
        slot = self._slots.take_spare()
        if slot is None:
            return SPARE_SECONDS
        self._start_thread(slot)
        return GROW_SECONDS

    def _start_thread(self, slot: Slot) -> None:
        """Where the system gives no thread, those that run do it all, or this one."""
        with self._lock:
            self._threads += 1
            is_first = self._threads == 1
        try:
            _reserve.start(partial(self._work, slot))
        except RuntimeError:
            log.warning("thread_not_started", extra={"checkpoint": "THREADS", "started": self._threads - 1})
            self._most_threads = 1
            if is_first:
                self._work(slot)
                return
            with self._lock:
                self._threads -= 1
            slot.release()

    def _to_settle(self, group: list[TaskOutcome]) -> list[TaskOutcome]:
        """Without those that stopped since this process ends: who abandoned them hands them back; none has failed."""
        return [outcome for outcome in group if not (outcome.stopped and self._is_abandoned)]

    @property
    def is_to_be_split(self) -> bool:
        """Whether tasks still wait for a slot though that takes long: others may have one, and their lease runs."""
        most = min(SPLIT_SECONDS, self._patience_seconds / 2)
        return bool(self._waiting) and time.monotonic() - self._began > most

    def give_up_waiting(self) -> list[ClaimedRow]:
        """Take the tasks back that have not begun; the caller releases them."""
        taken = self._take_all()
        self._unsettled -= len(taken)
        self._keeper.drop([self.leases[task.task_id] for task in taken])
        return taken

    def abandon(self) -> tuple[list[ClaimedRow], list[ClaimedRow]]:
        """Tell all handlers to stop, from any thread: the tasks that have not begun, and the others.

        The caller releases them; among the others there may be some that have ended, which their rows know.
        """
        self._is_abandoned = True
        waiting = self._take_all()
        unbegun = {task.task_id for task in waiting}
        for lease in self.leases.values():
            lease.stop(LeaseOutcome.LOST)
        self._keeper.drop(list(self.leases.values()))
        self._ended.put(None)
        return waiting, [task for task in self._tasks if task.task_id not in unbegun]

    def _take_all(self) -> list[ClaimedRow]:
        taken: list[ClaimedRow] = []
        while one := self._take(self._waiting.pop):
            taken += one
        return taken

    @staticmethod
    def _take(pop: Callable[[], ClaimedRow]) -> list[ClaimedRow]:
        """One task, or none: several threads take from the same end or the other."""
        try:
            return [pop()]
        except IndexError:
            return []

    def _gather(self, timeout_seconds: float) -> list[TaskOutcome]:
        """What has ended: waits for the first, then a moment for others. Empty when none came in time."""
        group: list[TaskOutcome] = []
        deadline = time.monotonic() + timeout_seconds
        while len(group) < self._unsettled:
            try:
                outcome = self._ended.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if outcome is None:
                break
            if not group:
                deadline = time.monotonic() + GATHER_SECONDS
            group.append(outcome)
        return group

    def _work(self, slot: Slot | None) -> None:
        try:
            with fan_in_reader(self._results):
                if slot is not None and self._pool is not None:
                    slot.release()
                    self._work_in(self._pool)
                    return
                while slot is not None and (one := self._take(self._waiting.popleft)):
                    self._ended.put(self._run(one[0]))
                    if self._slots.is_wanted:
                        slot = self._step_aside(slot)
        finally:
            if slot is not None:
                slot.release()

    def _step_aside(self, slot: Slot) -> Slot | None:
        """Let another message have the slot; the message's last thread waits for another one, behind those in line."""
        slot.release()
        with self._lock:
            if self._threads > 1:
                self._threads -= 1
                return None
        turn = None
        while turn is None and self._waiting:
            turn = self._slots.take(ROOM_SECONDS)
        return turn

    def _work_in(self, pool: "ProcessPool") -> None:
        """Without room for a task's process it has not begun: it takes no slot, and can be given back."""
        while self._waiting:
            if not pool.reserve(ROOM_SECONDS):
                continue
            try:
                if slot := self._slots.take(ROOM_SECONDS):
                    self._run_in_slot(slot)
            finally:
                pool.release()

    def _run_in_slot(self, slot: Slot) -> None:
        try:
            for task in self._take(self._waiting.popleft):
                self._ended.put(self._run(task))
        finally:
            slot.release()

    def _run(self, task: ClaimedRow) -> TaskOutcome:
        """One attempt. Whatever happens there is an outcome, at once: a task never holds up or fails its neighbours."""
        untold = TaskOutcome(task, failure=_UNTOLD)  # made before: where the memory is used up, nothing can be
        try:
            return self._observed(task)
        except BaseException:  # noqa: BLE001 - it is said to have no reason; the log may be what broke
            return untold

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
        with AttemptLog(fields) as kept:
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
            _tell_failure(fields, outcome.duration_seconds, outcome.failure)
        return outcome

    def _call_handler(self, task: ClaimedRow) -> TaskOutcome:
        lease = self.leases[task.task_id]
        handler = self._handlers[task.task_type]
        if handler is None:
            raise HandlerMissing(task.task_type)
        try:
            returned = handler.function(dict(task.parameters), self._context(task, lease))
            judged = judge_returned(task.task_type, returned, self._most_bytes)
        except TaskCancelled as error:
            return TaskOutcome(task, failure=classify(error), stopped=lease.is_stop_requested)
        if isinstance(judged, Failure):
            return TaskOutcome(task, failure=judged)
        return TaskOutcome(task, result=judged)

    def _context(self, task: ClaimedRow, lease: HeldTask) -> TaskContext:
        return TaskContext(
            job_id=self.job.job_id,
            job_type=self.job.job_type,
            stage=self.stage.number,
            task_id=task.task_id,
            task_index=task.task_index,
            attempt=task.attempt,
            job_parameters=self.job.parameters,
            correlation_id=self.job.correlation_id,
            # The tasks of a message share one lease, and no attempt shares the name of its files with another.
            lease_id=cast("UUID", self.lease_id.int ^ task.task_index),  # becomes one when it is read
            _report=lease.report,
            _stop_requested=lambda: lease.is_stop_requested,
            _timed_out=lambda: lease.is_timed_out,
            _timeout_seconds=self.stage.task_timeout_seconds,
        )


def _tell_failure(fields: Mapping[str, Any], seconds: float, failure: Failure) -> None:
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
