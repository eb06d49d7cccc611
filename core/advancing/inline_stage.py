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

from collections.abc import Callable, Collection, Mapping, Sequence

from core.advancing.finalizer import Finalizer
from core.advancing.stage_planner import StagePlanner, plan_of
from core.advancing.steps import NextStep, Plan, StepTimes
from core.basics.canonical import as_stored
from core.basics.strict_json import EncodedJson
from core.errors import StoreUnavailable
from core.models import JobRecord, JobStatus, StageStatus
from core.models.context import CompletedTask, StageSummary
from core.models.transition import PlannedTask, PlanOutcome
from core.running.engine_parts import EngineParts
from core.running.job_cache import CachedJob
from core.running.message_runner import MessageRunner
from core.running.outcome_writer import OutcomeWriter
from core.running.overtime import Overtime
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

# Results of more text than this are read from the database when they are needed.
MOST_CHARACTERS = 200_000


class InlineStage(OutcomeWriter):
    """Writes the outcomes of a stage that was planned and claimed by this process.

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
        stage = job.definition.stage(step.job.stage)
        super().__init__(
            parts.state, parts.orchestration, step.job, stage, step.job.stage_ref, plan.lease_id, _nothing_waits
        )
        self._parts = parts
        self._planner = planner
        self._finalizer = finalizer
        self._times = times
        self._definition = job.definition
        self._step = step
        self._plan = plan
        self._overtime = overtime
        self._hold = hold
        self._until = until
        self._written: dict[str, EncodedJson] = {}
        self._next: NextStep | None = None
        # Of the results that were written while the author's code lasted.
        self._written_meanwhile: Collection[str] | None = None

    def run(self, runner: MessageRunner) -> NextStep | None:
        """Run the stage. Returns the step that the job waits for then; None if it waits for none."""
        # A stage that runs inline is a small one.
        runner.run_claimed(self, self._plan.claimed, is_ahead=True)
        if self._next is not None and self._next.job.status == self.job_status:
            return self._next
        job = self.job.after_stage(self.stage.number, self.job_status)
        return None if job is None else NextStep(job)

    def _complete(self, results: Mapping[str, EncodedJson]) -> Collection[str]:
        if self.job_status is not None:
            # The stage has ended: these came too late, and change nothing of the next step.
            return super()._complete(results)
        self._next = None
        together = {**self._written, **results}
        if len(together) == len(self._plan.rows) and sum(map(len, together.values())) <= MOST_CHARACTERS:
            # Parsed again: a handler may have changed what it was given.
            completed = [_completed(task, together[task.task_id]) for task in self._plan.rows]
            self._next = step = self._following(completed)
            if self._times.is_quick(self.job.job_type, self.stage.number + 1):
                self._overtime.call(
                    lambda: self._ask_author(step, completed), lambda: self._write_meanwhile(step.job, results)
                )
                if self._written_meanwhile is not None:
                    return self._written_meanwhile
                if self._commit_with(step, results):
                    return results
        return self._write_alone(results)

    def _write_alone(self, results: Mapping[str, EncodedJson]) -> Collection[str]:
        written = super()._complete(results)
        self._written |= {task_id: results[task_id] for task_id in written}
        if len(written) < len(results):
            # Another process ended the others: their results are not those that the step was prepared from.
            self._next = None
        return written

    def _write_meanwhile(self, moved: JobRecord, results: Mapping[str, EncodedJson]) -> None:
        """In another thread, while the author's code lasts: these were the last results of the stage's tasks."""
        self._written_meanwhile = self._write_alone(results)
        keeper = self._parts.keeper
        keeper.drop([held for held in keeper.held() if held.lease_id == self.lease_id])
        if self.job_status == moved.status:
            self._hold(moved)

    def _following(self, completed: list[CompletedTask]) -> NextStep:
        """The step after this stage, if none of its tasks failed."""
        job, number = self.job, self.stage.number
        moved = job.finalizing_after(number) if number == job.total_stages else job.queued_for(number + 1)
        return NextStep(moved, completed, self._summaries(len(completed)))

    def _ask_author(self, step: NextStep, completed: list[CompletedTask]) -> None:
        """Add to the step its tasks or its summary. Raises nothing: an author's error is part of the step."""
        try:
            if step.job.status is JobStatus.FINALIZING:
                summaries = step.summaries or self._summaries(len(completed), self._read_summaries())
                step.summary = self._finalizer.summary(self.job, summaries, completed)
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
        if len(before) < self.stage.number - 1:
            return ()
        return (*before, StageSummary(self.stage.number, StageStatus.COMPLETED.value, completed, 0))

    def _read_summaries(self) -> list[StageSummary]:
        read = self._parts.results.stage_summaries(self.job.ref)
        return [summary for summary in read if summary.stage < self.stage.number]

    def _commit_with(self, step: NextStep, results: Mapping[str, EncodedJson]) -> bool:
        """Write the stage's last results together with the step; False if nothing was written."""
        try:
            if step.small is not None and self._state.complete_stage_and_plan_next(
                self.ref, lease_id=self.lease_id, results=results, following=step.small
            ):
                self.job_status = JobStatus.QUEUED
                step.plan = plan_of(step.small, PlanOutcome.PLANNED)
            elif step.summary is not None:
                self.job_status = self._state.complete_stage_and_finalize(
                    self.ref, lease_id=self.lease_id, results=results, summary=step.summary
                )
        except StoreUnavailable:
            raise
        except Exception:
            # The results must not suffer from it: they are written alone, and the step meets the error again.
            log.exception("stage_not_ended_with_next_step", extra={"job_id": self.job.job_id})
        return self.job_status is not None


def _nothing_waits(*_: object) -> None:
    """Such a stage has no line."""


def _completed(task: PlannedTask, result: EncodedJson) -> CompletedTask:
    return CompletedTask(task.task_id, task.task_index, task.name, as_stored(task.parameters), as_stored(result))
