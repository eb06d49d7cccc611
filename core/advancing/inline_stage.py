"""A stage of which this process claimed every task: run here, and committed together with the step after it.

The way of such a stage, all of it in `InlineStage`:

1. `StagePlanner` planned it, its tasks born under a lease of this process. No message was sent.
2. `run` runs them. Results are written as they come, as those of any other message.
3. With the last results, the next step is prepared from memory: the next stage's tasks are asked of the author, or the
   job's summary. Only if that was quick the last time: these results wait for it. If it lasts this time, another thread
   writes the results alone meanwhile, and takes the step's lease.
4. The last results and the prepared step are committed in one transaction. If that cannot be, for whatever reason,
   the results are written alone, and the next step is decided from the rows.

This saves two of three round trips a stage, and the delay of a message. A crash before 4 repeats the last results.
"""

from collections.abc import Callable, Mapping, Sequence

from core.advancing.finalizer import Finalizer
from core.advancing.stage_planner import StagePlanner, plan_of
from core.advancing.steps import NextStep, Plan, StepTimes
from core.basics.canonical import as_stored
from core.basics.strict_json import EncodedJson
from core.errors import StoreUnavailable
from core.models import JobRecord, JobStatus, StageStatus
from core.models.context import CompletedTask, StageSummary
from core.models.status import STEP_STATUSES
from core.models.transition import PlannedTask, PlanOutcome, StageCheck
from core.running.engine_parts import EngineParts
from core.running.job_cache import CachedJob
from core.running.message_runner import MessageRunner
from core.running.outcome_writer import OutcomeWriter
from core.running.overtime import Overtime
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

# Results of more text than this are read from the database when they are needed.
MOST_CHARACTERS = 200_000


class InlineStage:
    """Runs a stage that was planned and claimed by this process.

    Args:
        step: The step that planned the stage; its job and the summaries of the stages before.
        overtime: Writes the results while the author's code for the next step lasts.
        hold: Takes the lease of the step that such a job waits for.
        until: By this time of the clock, later stages are left to messages.
    """

    def __init__(
        self,
        parts: EngineParts,
        planner: StagePlanner,
        finalizer: Finalizer,
        times: StepTimes,
        step: NextStep,
        job: CachedJob,
        plan: Plan,
        *,
        overtime: Overtime,
        hold: Callable[[JobRecord], None],
        until: float,
    ) -> None:
        if plan.lease_id is None:
            raise AssertionError("an inline stage was planned without a lease")
        self._parts = parts
        self._state = parts.state
        self._planner = planner
        self._finalizer = finalizer
        self._times = times
        self._definition = job.definition
        self._step = step
        self._job, self._number = step.job, step.job.stage
        self._plan = plan
        self._lease_id = plan.lease_id
        self._overtime = overtime
        self._hold = hold
        self._until = until
        self._writer = OutcomeWriter(
            parts.state,
            parts.orchestration,
            step.job,
            job.definition.stage(step.job.stage),
            step.job.stage_ref,
            plan.lease_id,
            _nothing_waits,
            parts.patience,
            complete=self._complete,
        )
        self._written: dict[str, EncodedJson] = {}
        self._next: NextStep | None = None
        # Results that were to be written with the next step while the database was away.
        self._refused: Mapping[str, EncodedJson] | None = None
        # What came of the results that were written while the author's code lasted.
        self._written_meanwhile: StageCheck | None = None

    def run(self, runner: MessageRunner) -> NextStep | None:
        """Run the stage. Returns the step that the job waits for then; None if it waits for none."""
        # A stage that runs inline is a small one.
        runner.run_claimed(self._writer, self._plan.claimed, is_ahead=True)
        status = self._writer.job_status
        if self._next is not None and self._next.job.status == status:
            return self._next
        if status is None or status not in STEP_STATUSES:
            return None
        return NextStep(self._job.after_stage(self._number, status))

    def _complete(self, results: Mapping[str, EncodedJson]) -> StageCheck:
        """Write results; the last ones with the next step, if that is known to be prepared quickly."""
        if self._writer.job_status is not None:
            # The stage has ended: these came too late, and change nothing of the next step.
            return self._write(results)
        if results is self._refused and self._next is not None:
            # The same call once more: with the leases of the first one, whose answer may be what was lost.
            return self._commit_with(self._next, results) or self._write_alone(results)
        self._next = None
        together = {**self._written, **results}
        if len(together) == len(self._plan.rows) and sum(map(len, together.values())) <= MOST_CHARACTERS:
            # Parsed again: a handler may have changed what it was given.
            completed = [_completed(task, together[task.task_id]) for task in self._plan.rows]
            self._next = step = self._following(completed)
            if self._times.is_quick(self._job.job_type, self._number + 1):
                self._overtime.call(
                    lambda: self._ask_author(step, completed), lambda: self._write_meanwhile(step.job, results)
                )
                check = self._written_meanwhile or self._commit_with(step, results)
                if check is not None:
                    return check
        return self._write_alone(results)

    def _write(self, results: Mapping[str, EncodedJson]) -> StageCheck:
        return self._state.complete_tasks(self._job.stage_ref, lease_id=self._lease_id, results=results)[0]

    def _write_alone(self, results: Mapping[str, EncodedJson]) -> StageCheck:
        check = self._write(results)
        self._written |= {task_id: results[task_id] for task_id in check.updated_ids}
        if len(check.updated_ids) < len(results):
            # Another process ended the others: their results are not those that the step was prepared from.
            self._next = None
        return check

    def _write_meanwhile(self, moved: JobRecord, results: Mapping[str, EncodedJson]) -> None:
        """In another thread, while the author's code lasts: these were the last results of the stage's tasks."""
        self._written_meanwhile = check = self._write_alone(results)
        keeper = self._parts.keeper
        keeper.drop([held for held in keeper.held() if held.lease_id == self._lease_id])
        if check.is_last_task_in_stage and check.job_status == moved.status:
            self._hold(moved)

    def _following(self, completed: list[CompletedTask]) -> NextStep:
        """The step after this stage, if none of its tasks failed."""
        job, number = self._job, self._number
        moved = job.after_stage(number, JobStatus.FINALIZING if number == job.total_stages else JobStatus.QUEUED)
        return NextStep(moved, completed, self._summaries(len(completed)))

    def _ask_author(self, step: NextStep, completed: list[CompletedTask]) -> None:
        """Add to the step its tasks or its summary. Raises nothing: an author's error is part of the step."""
        try:
            if step.job.status is JobStatus.FINALIZING:
                summaries = step.summaries or self._summaries(len(completed), self._read_summaries())
                step.summary = self._finalizer.summary(self._job, summaries, completed)
                return
            draft = self._planner.draft(step.job, self._definition.stage(step.job.stage), completed, len(completed))
            if draft.first:
                step.small = self._planner.small_stage(draft, inline=self._parts.may_run_inline(self._until))
            step.draft = draft
        except StoreUnavailable:
            return
        except Exception as error:  # noqa: BLE001 - an author's code raises anything; reported when the step is taken
            step.error = error

    def _summaries(self, completed: int, read: Sequence[StageSummary] = ()) -> tuple[StageSummary, ...]:
        """How the stages up to this one end; empty where some are not known to this process and were not read."""
        before = self._step.summaries or read
        if len(before) < self._number - 1:
            return ()
        return (*before, StageSummary(self._number, StageStatus.COMPLETED.value, completed, 0))

    def _read_summaries(self) -> list[StageSummary]:
        read = self._parts.results.stage_summaries(self._job.ref)
        return [summary for summary in read if summary.stage < self._number]

    def _commit_with(self, step: NextStep, results: Mapping[str, EncodedJson]) -> StageCheck | None:
        """Write the stage's last results together with the step; None if nothing was written."""
        status: str | None = None
        try:
            if step.small is not None and self._state.complete_stage_and_plan_next(
                self._job.stage_ref, lease_id=self._lease_id, results=results, following=step.small
            ):
                status = JobStatus.QUEUED
                step.plan = plan_of(step.small, PlanOutcome.PLANNED)
            elif step.summary is not None:
                status = self._state.complete_stage_and_finalize(
                    self._job.stage_ref, lease_id=self._lease_id, results=results, summary=step.summary
                )
        except StoreUnavailable:
            self._refused = results
            raise
        except Exception:
            # The results must not suffer from it: they are written alone, and the step meets the error again.
            log.exception("stage_not_ended_with_next_step", extra={"job_id": self._job.job_id})
        if status is None:
            return None
        return StageCheck(tuple(results), is_last_task_in_stage=True, stage_status=None, job_status=status)


def _nothing_waits(*_: object) -> None:
    """Such a stage has no line."""


def _completed(task: PlannedTask, result: EncodedJson) -> CompletedTask:
    return CompletedTask(task.task_id, task.task_index, task.name, as_stored(task.parameters), as_stored(result))
