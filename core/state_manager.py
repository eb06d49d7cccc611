"""Every state transition, and nothing else makes one. PostgreSQL decides; this calls it and logs the outcome.

Those of a job as a whole are in `core.job_transitions`, those of its tasks and stages here.

Claims and completions of different messages of one stage are one call for all that wait for it at the same time. Many
messages of one task would make many transactions, each of which waits until it is on disk. Nothing else is shared: each
task is fenced by its own row's lease, and an error of one message's values is not the others'. A completion may claim
the stage's next task in the same call.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from core.basics.canonical import LARGE_VALUE_BYTES
from core.basics.joined_calls import JoinedCalls
from core.basics.log_fields import log_fields, with_log_fields
from core.basics.outage import outage
from core.basics.strict_json import EncodedJson
from core.error_handler import log_nested_error
from core.errors import Failure, StoreUnavailable
from core.job_transitions import JobTransitions
from core.models import JobRecord, JobRef, Lease, RetryPolicy, StageRef
from core.models.announcement import LimitedTask, TakenTask
from core.models.retry import retry_delay
from core.models.transition import (
    Claim,
    ClaimOutcome,
    Completion,
    DeadlineOutcome,
    Enforcement,
    JsonObject,
    NextTask,
    NextTasks,
    PlanOutcome,
    PostponedTask,
    PostponeOutcome,
    Released,
    RetryAnswer,
    SmallStage,
    StageCheck,
    TakenBack,
    TaskRow,
)
from core.ports import JobStore, StageStore, TaskStore
from core.safety.credentials import redacted_start
from core.safety.safe_log import safe_logger
from core.safety.safe_text import text_of
from core.telemetry.reports import (
    report_claims,
    report_ended,
    report_finalized,
    report_interrupted,
    report_job_ended,
    report_planned,
    report_released,
    report_retry,
)

log = safe_logger(__name__)

# Messages of more tasks, or of larger results, have work enough for a call of their own.
MOST_JOINED_TASKS = 10
MOST_JOINED_CHARACTERS = 20_000
MOST_TASKS_PER_CALL = 100
# Of tasks in a record of the log, and of a reason in it and in the timeline.
_MOST_NAMED, _LONGEST_REASON = 20, 500


@dataclass(frozen=True, slots=True)
class _Asked:
    task_ids: Sequence[str]
    owner: str


_Answer = tuple[StageCheck, Claim | None]


class StateManager(JobTransitions):
    """The only caller of the state-changing verbs. One per process."""

    def __init__(self, jobs: JobStore, tasks: TaskStore, stages: StageStore) -> None:
        super().__init__(jobs)
        self._tasks = tasks
        self._stages = stages
        self._claims: JoinedCalls[StageRef, _Asked, Claim] = JoinedCalls(
            self._claim_all, names=lambda asked: asked.task_ids, most=MOST_TASKS_PER_CALL, for_all=StoreUnavailable
        )
        self._completions: JoinedCalls[StageRef, Completion, _Answer] = JoinedCalls(
            self._complete_all, names=lambda one: one.results, most=MOST_TASKS_PER_CALL, for_all=StoreUnavailable
        )

    def claim_tasks(self, ref: StageRef, task_ids: Sequence[str], *, owner: str) -> Claim:
        """Lease a message's tasks: one row per id. Messages that are claimed together have one lease."""
        asked = _Asked(task_ids, owner)
        is_large = len(task_ids) > MOST_JOINED_TASKS
        claim = self._claim_all(ref, [asked])[0] if is_large else self._claims.call(ref, asked)
        refused = {row.task_id: row.outcome for row in claim.rows if row.outcome is not ClaimOutcome.CLAIMED}
        if refused:
            report_claims(ref, refused)
        return claim

    def _claim_all(self, ref: StageRef, asked: Sequence[_Asked]) -> list[Claim]:
        lease = Lease(uuid4(), asked[0].owner)
        ids = [task_id for one in asked for task_id in one.task_ids]
        rows = self._tasks.claim_tasks(ref, ids, lease=lease)
        if len(asked) == 1:
            return [Claim(lease.lease_id, tuple(rows))]
        by_id = {row.task_id: row for row in rows}
        return [
            Claim(lease.lease_id, tuple(by_id[task_id] for task_id in dict.fromkeys(one.task_ids))) for one in asked
        ]

    def complete_tasks(
        self, ref: StageRef, *, lease_id: UUID, results: Mapping[str, EncodedJson], wanted: NextTask | None = None
    ) -> tuple[StageCheck, Claim | None]:
        """End a message's tasks as completed. If the call ended the stage, one of its callers learns it.

        Returns:
            What the call did, and the claim of the task that is wanted; None if nothing waits, or none is wanted.
        """
        one = Completion(lease_id, results, wanted)
        is_large = len(results) > MOST_JOINED_TASKS or sum(map(len, results.values())) > MOST_JOINED_CHARACTERS
        check, claim = self._complete_all(ref, [one])[0] if is_large else self._completions.call(ref, one)
        report_ended("TASK_COMPLETE", ref, results, check)
        if is_large:
            self._note_if_large(ref, "result", results)
        return check, claim

    def _complete_all(self, ref: StageRef, completions: Sequence[Completion]) -> list[_Answer]:
        if any([one.wanted for one in completions]):  # noqa: C419 - quicker
            return self._complete_and_claim(ref, completions)
        if len(completions) == 1:
            (one,) = completions
            check = self._stages.complete_task_and_check_stage(ref, lease_id=one.lease_id, results=one.results)
            return [(check, None)]
        check = self._stages.complete_tasks_and_check_stage(ref, completions)
        return [(part, None) for part in _split(check, completions)]

    def _complete_and_claim(self, ref: StageRef, completions: Sequence[Completion]) -> list[_Answer]:
        """Whose task it becomes is decided by the order in which they came; those for whom none is left have none."""
        wanted = [one.wanted for one in completions if one.wanted is not None]
        lease = Lease(uuid4(), wanted[0].owner)
        types = {one.task_type for one in wanted}
        check, rows = self._stages.complete_tasks_and_claim_next(ref, completions, NextTasks(types, len(wanted), lease))
        left = iter(rows)
        claims = [Claim(lease.lease_id, tuple(islice(left, 1 if one.wanted else 0))) for one in completions]
        return [
            (part, claim if claim.rows else None)
            for part, claim in zip(_split(check, completions), claims, strict=True)
        ]

    def fail_tasks(self, ref: StageRef, *, lease_id: UUID, errors: Mapping[str, Mapping[str, Any]]) -> StageCheck:
        """End tasks as failed; the stage's policy may end the job."""
        check = self._stages.fail_task_and_check_stage(ref, lease_id=lease_id, errors=errors)
        report_ended("TASK_FAILED", ref, errors, check)
        return check

    def schedule_retry(
        self,
        ref: StageRef,
        task_id: str,
        *,
        lease_id: UUID,
        failure: Failure,
        attempt: int,
        policy: RetryPolicy,
    ) -> RetryAnswer:
        """Write down that a failed attempt is to be retried, and when.

        Args:
            attempt: The attempt that failed, interruptions not counted.

        Raises:
            AttemptsExhausted: attempt >= policy.max_attempts.
        """
        delay = retry_delay(attempt, policy)
        if failure.retry_after_seconds is not None:
            delay = max(delay, failure.retry_after_seconds)
        answer = self._stages.increment_task_retry_count(
            ref, task_id, lease_id=lease_id, error=failure.to_json(), delay_seconds=delay
        )
        report_retry(ref, task_id, answer)
        return answer

    def release_tasks(self, ref: StageRef, *, lease_id: UUID, task_ids: Sequence[str]) -> list[str]:
        """Release tasks that this process claims again at once: the ids that are pending again."""
        return self._tasks.release_tasks(ref, lease_id=lease_id, task_ids=task_ids, started=False)

    def release_tasks_into_line(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        task_ids: Sequence[str],
        started: bool,
        mean_seconds: float | None = None,
    ) -> Released:
        """Release tasks before their lease ends: those that are pending again, and whether they wait for their turn.

        Args:
            mean_seconds: As for `take_next_tasks`.
        """
        released = self._tasks.release_tasks_into_line(
            ref, lease_id=lease_id, task_ids=task_ids, started=started, mean_seconds=mean_seconds
        )
        if started:
            report_released(len(released.task_ids))
        return released

    def return_tasks_to_line(self, ref: StageRef, task_ids: Sequence[str], mean_seconds: float) -> list[str]:
        """Put tasks of a message that nobody has claimed back into their stage's line: which wait there.

        Args:
            mean_seconds: As for `take_next_tasks`.
        """
        return self._tasks.return_tasks_to_line(ref, task_ids, mean_seconds)

    def postpone_tasks(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        task_ids: Sequence[str],
        unknown: Mapping[str, str],
        patience_seconds: float,
        delays: Sequence[float],
    ) -> list[PostponedTask]:
        """Leave claimed tasks to an app that knows them; no attempt is counted. Beyond the patience they fail."""
        tasks = self._tasks.postpone_tasks(
            ref,
            lease_id=lease_id,
            task_ids=task_ids,
            unknown=unknown,
            patience_seconds=patience_seconds,
            delays=delays,
        )
        failed = [task.task_id for task in tasks if task.outcome is PostponeOutcome.FAILED]
        extra = {"checkpoint": "UNKNOWN_WORK", **ref.log_fields, "missing": dict(unknown)}
        log.log(
            logging.ERROR if failed else logging.INFO,
            "tasks_postponed",
            extra={**extra, "count": len(tasks) - len(failed), "failed": failed},
        )
        report_job_ended(ref, next((task.job_status for task in tasks if task.is_last_task_in_stage), None))
        return tasks

    def find_suspects(self, ref: JobRef, task_ids: Sequence[str], most: int) -> list[str]:
        """Those that spent half of the interruptions that they survive on processes that were lost under them."""
        lost = self._stages.count_lost_processes(ref, task_ids)
        return [task_id for task_id in task_ids if lost.get(task_id, 0) * 2 >= max(most, 1)]

    def note_alone(self, ref: StageRef, task_id: str) -> None:
        """In the job's timeline: nothing else runs in the process where this task is about to."""
        record = with_log_fields(checkpoint="TASK_RUNS_ALONE", **ref.log_fields, task_id=task_id)
        log.warning("task_runs_alone", extra=record)
        try:
            self._jobs.record_event(ref, task_id, "task_runs_alone", {})
        except StoreUnavailable as error:
            outage.note(str(error))

    def note_step_alone(self, ref: StageRef) -> None:
        """In the job's timeline: nothing else runs in the process where the job's step is about to be taken."""
        log.warning("job_step_runs_alone", extra={"checkpoint": "JOB_STEP_RUNS_ALONE", **ref.log_fields})
        try:
            self._jobs.record_event(ref, None, "job_step_runs_alone", {})
        except StoreUnavailable as error:
            outage.note(str(error))

    def note_unwritten(self, ref: StageRef, *, lease_id: UUID, task_ids: Sequence[str], why: Exception) -> None:
        """Keep why the outcomes of these tasks could not be written, if the database takes that at least.

        Their leases run out as if their process had been lost. It was not, and a person must learn what was.
        """
        reason = _reason_of(why)
        count = 0
        try:
            count = self._tasks.note_unwritten(ref, lease_id=lease_id, task_ids=task_ids, reason=reason)
        except StoreUnavailable as error:
            outage.note(str(error))
        except Exception as error:  # noqa: BLE001 - the first one is raised
            log_nested_error(log, why, error, "note_unwritten", job_id=ref.job_id, stage=ref.stage)
        if count:
            record = {"checkpoint": "OUTCOME_NOT_WRITTEN", **ref.log_fields, "count": count, "reason": reason}
            log.warning("outcome_not_written", extra={**record, "task_ids": list(task_ids[:_MOST_NAMED])})

    def note_step_unwritten(self, job: JobRecord, why: Exception) -> None:
        """Keep why the end of the job's step could not be written, if the database takes that at least.

        The step's message comes again, perhaps for ever, and the job's own row is as it was.
        """
        ref, reason = job.stage_ref, _reason_of(why)
        is_noted = False
        try:
            is_noted = self._jobs.note_step_unwritten(ref, job.step_name, reason)
        except StoreUnavailable as error:
            outage.note(str(error))
        except Exception as error:  # noqa: BLE001 - the first one is raised
            log_nested_error(log, why, error, "note_step_unwritten", job_id=ref.job_id, stage=ref.stage)
        if is_noted:
            record = {"checkpoint": "JOB_STEP_NOT_WRITTEN", **ref.log_fields, "operation": job.step_name}
            log.error("job_step_not_written", extra={**record, "reason": reason})

    def take_back_tasks(self, ref: StageRef) -> TakenBack:
        """Take back tasks whose lease ran out."""
        answer = self._stages.take_back_tasks(ref)
        if answer.taken_back or answer.given_up:
            report_interrupted(ref, answer)
        if answer.is_last_task_in_stage:
            self._report_end(ref)
        return answer

    def _report_end(self, ref: StageRef) -> None:
        """For an answer that does not say what became of the job. What was done is done: an outage is only noted."""
        try:
            job = self._jobs.find_job(ref.job_id)
        except StoreUnavailable as error:
            outage.note(str(error))
            return
        if job is not None and job.stage_ref == ref:
            with log_fields(correlation_id=job.correlation_id):
                report_job_ended(ref, job.status)

    def plan_stage(
        self,
        ref: StageRef,
        tasks: Iterable[TaskRow],
        *,
        tasks_per_message: int | None = None,
        first_window: int | None = None,
        is_limited: bool = False,
        is_stream: bool = False,
    ) -> tuple[PlanOutcome, int]:
        """Insert a stage's tasks and seal it, or nothing; with `first_window` they wait to be taken into a window.

        Args:
            is_limited: The stage has limits, in which each of its tasks needs a place.
            is_stream: An author's code makes the tasks while they are written.

        Returns:
            `planned` and the number of tasks, or why not and 0.
        """
        began = time.monotonic()
        outcome, count = self._tasks.plan_stage(
            ref,
            tasks,
            tasks_per_message=tasks_per_message,
            first_window=first_window,
            is_limited=is_limited,
            is_stream=is_stream,
        )
        report_planned(ref, outcome, count, began)
        return outcome, count

    def plan_small_stage(self, ref: StageRef, planned: SmallStage) -> PlanOutcome:
        """As `plan_stage`, in one call."""
        began = time.monotonic()
        outcome = self._tasks.plan_small_stage(ref, planned)
        report_planned(ref, outcome, len(planned.tasks), began)
        if outcome is PlanOutcome.PLANNED:
            self._note_if_large(ref, "parameters", {task.task_id: task.parameters for task in planned.tasks})
        return outcome

    def mark_tasks_announced(self, ref: JobRef, task_ids: Sequence[str]) -> int:
        """A queue has the messages for these tasks: pending becomes queued."""
        return self._tasks.mark_tasks_announced(ref, task_ids)

    def mark_taken_tasks_announced(self, ref: JobRef, task_ids: Sequence[str]) -> int:
        """The same, for those that `take_next_tasks` returned: one that an attempt had meanwhile keeps what it has."""
        return self._tasks.mark_taken_tasks_announced(ref, task_ids)

    def take_next_tasks(self, ref: StageRef, mean_seconds: float | None = None) -> list[TakenTask]:
        """Take tasks that waited in line into their stage's window: the caller sends their messages.

        Args:
            mean_seconds: How long a task of the stage lasts, as far as the caller knows.
        """
        return self._tasks.take_next_tasks(ref, mean_seconds)

    def take_limited_tasks(self, ref: StageRef) -> list[LimitedTask]:
        """Take tasks that waited for their stage's limits: the caller sends their messages."""
        return self._tasks.take_limited_tasks(ref)

    def find_limit_waiters(self, names: Sequence[str] | None, limit: int) -> list[StageRef]:
        """Stages whose turn has come at these limits, or at all of them."""
        return self._tasks.find_limit_waiters(names, limit)

    def complete_stage_and_plan_next(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        results: Mapping[str, JsonObject],
        following: SmallStage,
    ) -> bool:
        """End all tasks of a stage as completed, and plan the next, of at least one task: all of it, or nothing."""
        began = time.monotonic()
        done = self._stages.complete_stage_and_plan_next(ref, lease_id=lease_id, results=results, following=following)
        if done:
            after = StageRef(ref.job_id, ref.run, ref.stage + 1)
            report_ended("TASK_COMPLETE", ref, results, _all_of(results))
            report_planned(after, PlanOutcome.PLANNED, len(following.tasks), began)
            self._note_if_large(ref, "result", results)
            self._note_if_large(after, "parameters", {task.task_id: task.parameters for task in following.tasks})
        return done

    def complete_stage_and_finalize(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        results: Mapping[str, JsonObject],
        summary: JsonObject,
    ) -> str | None:
        """End all tasks of the last stage as completed, and the job: all of it, or nothing. The job's status then."""
        status = self._stages.complete_stage_and_finalize(ref, lease_id=lease_id, results=results, summary=summary)
        if status is not None:
            report_ended("TASK_COMPLETE", ref, results, _all_of(results))
            report_finalized(ref.job_ref, status)
            self._note_if_large(ref, "result", results)
            self._note_if_large(ref, "summary", {None: summary})
        return status

    def enforce_deadlines(self, ref: StageRef, *, limit: int = 1000) -> Enforcement:
        """End what is overdue at the job's current stage: the job, or at most `limit` tasks that have not begun."""
        enforced = self._stages.enforce_deadlines(ref, limit)
        if enforced.outcome is not DeadlineOutcome.NOTHING:
            log.error(
                "deadline_passed",
                extra={
                    "checkpoint": "DEADLINE_PASSED",
                    **ref.log_fields,
                    "outcome": enforced.outcome,
                    "count": enforced.expired_count,
                },
            )
            report_job_ended(ref, enforced.job_status)
        return enforced

    def resume_stalled_job(self, ref: StageRef) -> bool:
        """Decide again what a stage's last task decides: whether the job moved."""
        return self._stages.resume_stalled_job(ref)

    def note_large_values(self, ref: StageRef, kind: str, sizes: Iterable[tuple[str | None, int]]) -> None:
        """Warn in the job's timeline of values that are large, in one line. Nothing else depends on it.

        Args:
            kind: result, parameters or summary.
            sizes: Tasks' ids, None for the job itself, and bytes of JSON.
        """
        large = [(size, task_id) for task_id, size in sizes if size > LARGE_VALUE_BYTES]
        if not large:
            return
        size, task_id = max(large, key=lambda one: one[0])
        detail = {"kind": kind, "count": len(large), "largest_bytes": size, "warned_above_bytes": LARGE_VALUE_BYTES}
        record = with_log_fields(checkpoint="LARGE_VALUE", **ref.log_fields, task_id=task_id)
        log.warning("large_value", extra={**record, **detail})
        try:
            self._jobs.record_event(ref, task_id, "large_value", detail)
        except Exception as error:  # noqa: BLE001 - what it warns of is written down, and must not be done again
            log.warning("large_value_not_noted", extra={**record, "reason": str(error)})

    def _note_if_large(self, ref: StageRef, kind: str, values: Mapping[Any, JsonObject]) -> None:
        """As `note_large_values`, of the values themselves, by the tasks' ids."""
        if max(map(len, values.values()), default=0) > LARGE_VALUE_BYTES:
            self.note_large_values(ref, kind, ((task_id, len(value)) for task_id, value in values.items()))


def _all_of(results: Mapping[str, JsonObject]) -> StageCheck:
    """What a call did that ends all of a stage's tasks, or none."""
    return StageCheck(tuple(results), is_last_task_in_stage=True, stage_status=None, job_status=None)


def _reason_of(why: Exception) -> str:
    """On one line, without where in the database's code it was."""
    return redacted_start(" ".join(text_of(why).partition("CONTEXT:")[0].split()), _LONGEST_REASON)


def _split(check: StageCheck, completions: Sequence[Completion]) -> list[StageCheck]:
    """What a call means for each of its callers. If it ended the stage, the first whose task it ended moves the job."""
    if len(completions) == 1:
        return [check]
    ended = set(check.updated_ids)
    own = [tuple(task_id for task_id in one.results if task_id in ended) for one in completions]
    checks = [replace(check, updated_ids=ids, is_last_task_in_stage=False) for ids in own]
    if check.is_last_task_in_stage:
        place = next(place for place, ids in enumerate(own) if ids)
        checks[place] = replace(checks[place], is_last_task_in_stage=True)
    return checks
