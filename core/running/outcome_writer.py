"""Writes the outcomes of a message's tasks: completed, failed, to be retried, released."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from core.authors.intact import intact
from core.basics.canonical import MOST_BYTES_AT_ONCE
from core.basics.faults import fault_point
from core.basics.log_fields import log_fields
from core.basics.strict_json import EncodedJson
from core.errors import AttemptsExhausted, DataRefused, Failure, StoreUnavailable, classify
from core.models import JobRecord, StageDefinition, StageRef
from core.models.announcement import UnannouncedTask
from core.models.transition import Claim, ClaimedRow, NextTask, RetryOutcome, StageCheck
from core.orchestration_manager import OrchestrationManager, task_message
from core.running.attempts import TaskOutcome
from core.running.patience import Patience
from core.safety.safe_log import safe_logger
from core.state_manager import StateManager

log = safe_logger(__name__)


@dataclass(eq=False)
class OutcomeWriter:
    """Writes groups of outcomes of one stage's tasks under one lease, and keeps the job's status that they led to.

    Args:
        announce_next: Announces what waits in the stage's line, after some were released into it.
        patience: With a database that is away when an attempt has ended.
        complete: Writes results, in place of `StateManager.complete_tasks`.
        share_retry: When a retry that waits in that line wants a message, in seconds; None: another one's takes it.
        job_status: The job's status if one of these tasks was its stage's last.
        next_claim: The task that its message goes on with.
    """

    _state: StateManager
    _orchestration: OrchestrationManager
    job: JobRecord
    stage: StageDefinition
    ref: StageRef
    lease_id: UUID
    announce_next: Callable[[StageRef, StageDefinition], object]
    patience: Patience
    complete: Callable[[Mapping[str, EncodedJson]], StageCheck] | None = None
    share_retry: Callable[[StageRef, float, float], float | None] = lambda _ref, delay, _base: delay
    job_status: str | None = field(default=None, init=False)
    next_claim: Claim | None = field(default=None, init=False)
    _wanted: NextTask | None = field(default=None, init=False)

    def write(self, outcomes: Sequence[TaskOutcome], wanted: NextTask | None = None) -> None:
        """Write each outcome by its kind; successes first, in one call unless they are very large.

        Args:
            wanted: What to claim in the same call, for `next_claim`; only with the outcome of one task.
        """
        fault_point("task.ran")
        self._wanted = wanted
        try:
            with log_fields(_outcomes=outcomes):
                failures = {one.task.task_id: one.failure for one in outcomes if one.failure is not None}
                results = {one.task.task_id: one.result for one in outcomes if one.result is not None}
                if results:
                    failures |= self._complete_or_divide(results)
                if failures:
                    self._retry_or_fail([one.task for one in outcomes if one.task.task_id in failures], failures)
        except Exception as error:
            ids = [one.task.task_id for one in outcomes]
            # Else its process is about to be lost, and a task that broke it is a suspect.
            if not intact.explains(error):
                self._state.note_unwritten(self.ref, lease_id=self.lease_id, task_ids=ids, why=error)
            raise
        fault_point("task.settled")

    def _retry_or_fail(self, tasks: Sequence[ClaimedRow], failures: Mapping[str, Failure]) -> None:
        errors: dict[str, Mapping[str, Any]] = {}
        for task in tasks:
            failure = failures[task.task_id]
            if not (failure.retryable and self._retry(task, failure)):
                errors[task.task_id] = failure.to_json()
        if errors:
            check = self._fail(errors)
            if check.is_last_task_in_stage:
                self.job_status = check.job_status

    def _fail(self, errors: Mapping[str, Mapping[str, Any]]) -> StageCheck:
        fail = partial(self._state.fail_tasks, self.ref, lease_id=self.lease_id, errors=errors)
        try:
            return fail()
        except StoreUnavailable as error:
            return self.patience.repeat(error, fail)

    def release(
        self,
        tasks: Sequence[ClaimedRow],
        *,
        started: bool = False,
        tasks_per_message: int | None = None,
        mean_seconds: float | None = None,
    ) -> int:
        """Release tasks for others, into the stage's line or with messages; how many were still this process's.

        Args:
            started: Their handlers run: that is an interruption.
            tasks_per_message: Of messages an upper limit beside the stage's own number; None: no further limit.
            mean_seconds: How long a task of the stage lasts, if that is why.
        """
        by_id = {task.task_id: task for task in tasks}
        released = self._state.release_tasks_into_line(
            self.ref, lease_id=self.lease_id, task_ids=list(by_id), started=started, mean_seconds=mean_seconds
        )
        fault_point("task.released")
        if released.is_in_line:
            self.announce_next(self.ref, self.stage)
            return len(released.task_ids)
        waiting = [
            UnannouncedTask(
                task_id, self._orchestration.queue_for(self.stage, by_id[task_id].task_type), by_id[task_id].attempt
            )
            for task_id in released.task_ids
        ]
        self._orchestration.announce_tasks(
            self.job,
            self.stage.number,
            min((size for size in (self.stage.tasks_per_message, tasks_per_message) if size), default=1),
            waiting,
            on_sent=lambda ids: self._state.mark_tasks_announced(self.job.ref, ids),
            cause=self.lease_id.hex[:12],
        )
        return len(released.task_ids)

    def send_again(self, rows: Sequence[ClaimedRow]) -> None:
        """Messages that came before their tasks were due go back to the queue until then."""
        for row in rows:
            self._announce_retry(
                row.task_id, row.task_type, row.attempt, row.wait_seconds, cause=self.lease_id.hex[:12]
            )

    def _complete_or_divide(self, results: Mapping[str, EncodedJson]) -> dict[str, Failure]:
        """Complete what one call can write; halves of the rest. Returns the failures of those that are refused."""
        if len(results) == 1 or sum(map(len, results.values())) <= MOST_BYTES_AT_ONCE:
            try:
                try:
                    if self.complete is not None:
                        check = self.complete(results)
                    else:
                        check, self.next_claim = self._state.complete_tasks(
                            self.ref, lease_id=self.lease_id, results=results, wanted=self._wanted
                        )
                except StoreUnavailable as error:
                    check = self.patience.repeat(error, partial(self._complete_again, results))
            except DataRefused as error:
                if len(results) == 1:
                    (task_id,) = results
                    log.warning("result_refused", extra={"job_id": self.job.job_id, "task_id": task_id})
                    return {task_id: classify(error)}
            else:
                if check.is_last_task_in_stage:
                    self.job_status = check.job_status
                return {}
        each = list(results.items())
        half = len(each) // 2
        return self._complete_or_divide(dict(each[:half])) | self._complete_or_divide(dict(each[half:]))

    def _complete_again(self, results: Mapping[str, EncodedJson]) -> StageCheck:
        """After an outage, without the next task: the first call may have claimed it."""
        if self.complete is not None:
            return self.complete(results)
        return self._state.complete_tasks(self.ref, lease_id=self.lease_id, results=results)[0]

    def _retry(self, task: ClaimedRow, failure: Failure) -> bool:
        """Whether another attempt is scheduled."""
        schedule = partial(
            self._state.schedule_retry,
            self.ref,
            task.task_id,
            lease_id=self.lease_id,
            failure=failure,
            attempt=task.counted_attempt,
            policy=self.stage.retry,
        )
        try:
            try:
                answer = schedule()
            except StoreUnavailable as error:
                answer = self.patience.repeat(error, schedule)
        except AttemptsExhausted:
            return False
        if answer.outcome is RetryOutcome.SCHEDULED:
            fault_point("task.retry_written")
            delay: float | None = answer.delay_seconds
            if answer.is_in_line:
                delay = self.share_retry(self.ref, answer.delay_seconds, self.stage.retry.base_delay_seconds)
            if delay is not None:
                self._announce_retry(task.task_id, task.task_type, task.attempt, delay, takes_others=answer.is_in_line)
        return answer.outcome in {RetryOutcome.SCHEDULED, RetryOutcome.STALE}

    def _announce_retry(
        self,
        task_id: str,
        task_type: str,
        attempt: int,
        delay_seconds: float,
        *,
        cause: str | None = None,
        takes_others: bool = False,
    ) -> None:
        number = self.stage.number
        message = task_message(
            self.job,
            number,
            [task_id],
            attempt=attempt + 1,
            cause=cause,
            # A look after each of many would cost much; under `max_parallel` an end makes room.
            takes_next=takes_others or self.stage.max_parallel is not None,
        )
        queue = self._orchestration.queue_for(self.stage, task_type)
        if self._orchestration.announce_retry(message, queue, delay_seconds):
            fault_point("task.retry_sent")
            self._state.mark_tasks_announced(self.job.ref, [task_id])
