"""What follows from the outcomes of a message's tasks: completed, failed, tried again later, given back."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from core.advancing.inline_stage import Following, StageEnding
from core.basics.canonical import MOST_BYTES_AT_ONCE, EncodedJson
from core.basics.faults import fault_point
from core.basics.log_fields import log_fields
from core.errors import AttemptsExhausted, DataRefused, Failure, StoreUnavailable, classify
from core.models import JobRecord, JobStatus, StageDefinition, TaskQueueMessage
from core.models.announcement import UnannouncedTask
from core.models.transition import ClaimedRow, RetryOutcome, StageCheck
from core.orchestration_manager import OrchestrationManager
from core.running.task_batch import ClaimedTask, Outcome
from core.safety.safe_log import safe_logger
from core.state_manager import StateManager

log = safe_logger(__name__)


class Settlement:
    """Settles groups of outcomes under one lease, and remembers what became of the job."""

    def __init__(
        self,
        state: StateManager,
        orchestration: OrchestrationManager,
        job: JobRecord,
        stage: StageDefinition,
        lease_id: UUID,
        ending: StageEnding | None = None,
    ) -> None:
        self._state = state
        self._orchestration = orchestration
        self._job = job
        self._stage = stage
        self._ref = job.ref.at_stage(stage.number)
        self._lease_id = lease_id
        self._ending = ending
        # The job's status if one of these tasks was its stage's last, and what follows as far as it was prepared.
        self.job_status: str | None = None
        self.following: Following | None = None
        # Whether the next stage was planned with the last results.
        self.is_planned = False

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Each outcome by its kind; successes first, in one call unless they are very large."""
        attempts = {one.task.task_id: (one.task.attempt, round(one.duration_seconds, 3)) for one in outcomes}
        with log_fields(correlation_id=self._job.correlation_id, _attempts=attempts):
            self._settle(outcomes)

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        failures = {one.task.task_id: one.failure for one in outcomes if one.failure is not None}
        for results in _portions(outcomes):
            failures |= self._complete_all(results)
        errors: dict[str, Mapping[str, Any]] = {}
        for task in (one.task for one in outcomes if one.task.task_id in failures):
            failure = failures[task.task_id]
            if not (failure.retryable and self._retry(task, failure)):
                errors[task.task_id] = failure.to_json(task.attempt)
        if errors:
            self._note(self._state.fail_tasks(self._ref, lease_id=self._lease_id, errors=errors))

    def release(self, tasks: Sequence[ClaimedTask], *, started: bool = False) -> int:
        """Give tasks back, and announce them for others; how many were still this process's.

        Args:
            started: Their handlers run: that is an interruption.
        """
        by_id = {task.task_id: task for task in tasks}
        released = self._state.release_tasks(self._ref, lease_id=self._lease_id, task_ids=list(by_id), started=started)
        fault_point("task.released")
        waiting = [
            UnannouncedTask(
                task_id, self._orchestration.queue_for(self._stage, by_id[task_id].task_type), by_id[task_id].attempt
            )
            for task_id in released
        ]
        self._orchestration.announce_tasks(
            self._job,
            self._stage.number,
            self._stage.tasks_per_message or 1,
            waiting,
            on_sent=lambda ids: self._state.mark_tasks_announced(self._job.ref, ids),
            cause=self._lease_id.hex[:12],
        )
        return len(released)

    def send_again(self, rows: Sequence[ClaimedRow]) -> None:
        """Messages that came before their tasks were due go back to the queue until then."""
        for row in rows:
            self._announce_retry(
                row.task_id, row.task_type, row.attempt, row.wait_seconds, cause=self._lease_id.hex[:12]
            )

    def _complete_all(self, results: Mapping[str, EncodedJson]) -> dict[str, Failure]:
        """Complete them in one call; one by one if the database refuses a value. Returns why it refused which."""
        try:
            self._complete(results)
        except DataRefused as error:
            if len(results) == 1:
                (task_id,) = results
                log.warning("result_refused", extra={"job_id": self._job.job_id, "task_id": task_id})
                return {task_id: classify(error)}
            refused: dict[str, Failure] = {}
            for task_id, result in results.items():
                refused |= self._complete_all({task_id: result})
            return refused
        return {}

    def _complete(self, results: Mapping[str, EncodedJson]) -> None:
        has_ended = self.job_status is not None
        if self._ending is not None and not has_ended:
            self.following = self._ending.following(results)
            if self.following is not None and self._complete_with(self.following, results):
                return
        check = self._state.complete_tasks(self._ref, lease_id=self._lease_id, results=results)
        self._note_large(results)
        if has_ended:
            return  # These came too late, and change nothing of what the stage's last results led to.
        if self._ending is not None:
            self._ending.add(results, check)
        if len(check.updated_ids) < len(results):
            # Somebody else ended the others: what they left is not what was prepared from.
            self.following = None
        self._note(check)

    def _complete_with(self, following: Following, results: Mapping[str, EncodedJson]) -> bool:
        """Settle the stage's last results together with what follows; False if nothing was done."""
        try:
            if following.small is not None:
                self.is_planned = self._state.complete_stage_and_plan_next(
                    self._ref, lease_id=self._lease_id, results=results, following=following.small
                )
                self.job_status = JobStatus.QUEUED if self.is_planned else None
            elif following.summary is not None:
                self.job_status = self._state.complete_stage_and_finalize(
                    self._ref, lease_id=self._lease_id, results=results, summary=following.summary
                )
        except StoreUnavailable:
            raise
        except Exception:
            # The results must not suffer from it: they are written alone, and the step that follows meets it again.
            log.exception("stage_not_ended_with_what_follows", extra={"job_id": self._job.job_id})
        if self.job_status is None:
            return False
        self._note_large(results)
        if following.small is not None:
            sizes = ((row.task_id, len(row.parameters)) for row in following.small.tasks)
            self._state.note_large_values(self._job.ref.at_stage(self._stage.number + 1), "parameters", sizes)
        elif following.summary is not None:
            self._state.note_large_values(self._ref, "summary", [(None, len(following.summary))])
        return True

    def _note_large(self, results: Mapping[str, EncodedJson]) -> None:
        sizes = ((task_id, len(result)) for task_id, result in results.items())
        self._state.note_large_values(self._ref, "result", sizes)

    def _note(self, check: StageCheck) -> None:
        if check.is_last_task_in_stage:
            self.job_status = check.job_status

    def _retry(self, task: ClaimedTask, failure: Failure) -> bool:
        """Whether another attempt is scheduled."""
        try:
            answer = self._state.schedule_retry(
                self._ref,
                task.task_id,
                lease_id=self._lease_id,
                failure=failure,
                attempt=task.tries,
                policy=self._stage.retry,
            )
        except AttemptsExhausted:
            return False
        if answer.outcome is RetryOutcome.SCHEDULED:
            fault_point("task.retry_written")
            self._announce_retry(task.task_id, task.task_type, task.attempt, answer.delay_seconds)
        return answer.outcome in {RetryOutcome.SCHEDULED, RetryOutcome.STALE}

    def _announce_retry(
        self, task_id: str, task_type: str, attempt: int, delay_seconds: float, *, cause: str | None = None
    ) -> None:
        message = TaskQueueMessage(
            job_id=self._job.job_id,
            job_type=self._job.job_type,
            run=self._job.run,
            stage=self._stage.number,
            task_ids=(task_id,),
            attempt=attempt + 1,
            cause=cause,
            correlation_id=self._job.correlation_id,
        )
        queue = self._orchestration.queue_for(self._stage, task_type)
        if self._orchestration.announce_retry(message, queue, delay_seconds):
            fault_point("task.retry_sent")
            self._state.mark_tasks_announced(self._job.ref, [task_id])


def _portions(outcomes: Sequence[Outcome]) -> Iterator[dict[str, EncodedJson]]:
    """The results by their tasks' ids, as many at once as can be written in one call."""
    portion: dict[str, EncodedJson] = {}
    size = 0
    for outcome in outcomes:
        if outcome.result is None:
            continue
        if portion and size + len(outcome.result) > MOST_BYTES_AT_ONCE:
            yield portion
            portion, size = {}, 0
        portion[outcome.task.task_id] = outcome.result
        size += len(outcome.result)
    if portion:
        yield portion
