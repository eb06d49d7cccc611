"""Moves a job on: plans its next stage, runs it on the spot where it may, finalizes the job after the last one."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from core.advancing.inline_stage import Following, StageEnding
from core.advancing.stage_planner import Plan, StagePlanner, plan_of
from core.advancing.step_times import StepTimes
from core.authors.author_code import call_author, describe_returned, read_once
from core.basics.canonical import EncodedJson, copied, encode_storable
from core.basics.faults import fault_point
from core.basics.log_fields import log_fields
from core.basics.retry import retry_delay
from core.error_handler import CoreMachineErrorHandler
from core.errors import AuthorError, ContractViolationError, StoreUnavailable, UnknownWork, classify
from core.models import JobQueueMessage, JobRecord, JobStatus, StageDefinition, StageStatus
from core.models.context import CompletedTask, JobExecutionContext, StageSummary
from core.models.definition import read_definition
from core.models.transition import PlanOutcome
from core.operating.unknown_work import Postponer
from core.orchestration_manager import OrchestrationManager
from core.ports import JobCatalog, JobType, ResultStore
from core.running.drain import Drain
from core.running.job_cache import CachedJob, JobCache
from core.running.message_runner import MessageRunner
from core.running.outcome_writer import Settlement
from core.safety.safe_log import safe_logger
from core.state_manager import StateManager

log = safe_logger(__name__)

# An invocation that has lasted this long leaves what follows to messages.
ON_THE_SPOT_SECONDS = 5.0


@dataclass(frozen=True)
class Standing:
    """A job that waits for a step, and what this process has in hand for it.

    Args:
        summaries: How the stages before ended, the first ones of the run that ended in this process.
        following: What was prepared from the results of the stage before.
        plan: The job's stage was planned already, with those results.
    """

    job: JobRecord
    summaries: tuple[StageSummary, ...] = ()
    following: Following | None = None
    plan: Plan | None = None


class JobAdvancer:
    """One a process.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        *,
        catalog: JobCatalog,
        state: StateManager,
        orchestration: OrchestrationManager,
        results: ResultStore,
        runner: MessageRunner,
        postponer: Postponer,
        known: JobCache,
        drain: Drain,
        owner: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._state = state
        self._orchestration = orchestration
        self._results = results
        self._runner = runner
        self._postponer = postponer
        self._known = known
        self._drain = drain
        self._clock = clock
        self._errors = CoreMachineErrorHandler(log)
        self._times = StepTimes()
        self._planner = StagePlanner(state, orchestration, results, owner, self._times)

    def follow_up(self, job: JobRecord, stage: int, status: str | None, until: float) -> None:
        """After a message's tasks: if the stage ended and the job waits for a step, take it.

        The row already says what comes next, so an error here loses nothing.
        """
        moved = _moved(job, stage, status)
        if moved is None:
            return
        fault_point("job.moved")
        if not self._orchestration.role.moves_jobs:
            self._orchestration.signal_stage_complete(moved)
            return

        def announce_instead(_: Exception) -> None:
            self._orchestration.announce_job(_job_message(moved, moved.stage, cause="follow-up"))

        with self._errors.handle_operation(
            "move_on", job_id=moved.job_id, stage=moved.stage, on_error=announce_instead, raise_on_error=False
        ):
            self.move_on(moved, until)

    def move_on(self, job: JobRecord, until: float) -> None:
        """Plan and finalize as long as the job waits for it and this process may do what comes next itself.

        Args:
            until: By this time of the clock what can be left to messages is left to them.
        """
        standing: Standing | None = Standing(job)
        # A row does not say when a later run began.
        began = job.created_at if job.run == 1 else None
        with log_fields(correlation_id=job.correlation_id, _run_began=began):
            while standing is not None and standing.job.status is JobStatus.QUEUED:
                standing = self._take_stage(standing, until)
            if standing is not None and standing.job.status is JobStatus.FINALIZING:
                self._finalize(standing)

    def _take_stage(self, standing: Standing, until: float) -> Standing | None:
        """Plan the job's stage and announce or run its tasks. Returns the job as it is then, if it is to move on."""
        job = standing.job
        try:
            known = self._known.remember(job)
            stage = known.definition.stage(job.stage)
        except UnknownWork as unknown:
            self._postponer.postpone_step(job, unknown)
            return None
        plan = standing.plan or self._plan(standing, stage, until)
        if plan is None:
            return None
        fault_point("job.planned")
        if plan.outcome is PlanOutcome.EXPIRED:
            self._state.enforce_deadlines(job.stage_ref)
            return None
        if plan.is_empty_stage:
            found = self._state.find_job(job.job_id)
            return Standing(found) if found is not None and obstacle_of(found, job.run) is None else None
        if plan.lease_id is not None and plan.claimed:
            return self._run(standing, known, stage, plan, plan.lease_id, until)
        self._orchestration.announce_tasks(
            job,
            stage.number,
            plan.tasks_per_message,
            plan.waiting,
            on_sent=lambda ids: self._state.mark_tasks_announced(job.ref, ids),
        )
        return None

    def _plan(self, standing: Standing, stage: StageDefinition, until: float) -> Plan | None:
        """Plan the stage, from what was prepared if there is anything; None if that failed."""
        job, following = standing.job, standing.following
        fault_point("job.before_plan")
        on_the_spot = self._may_run(until)
        try:
            if following is None:
                return self._planner.plan(job, stage, on_the_spot=on_the_spot)
            following.raise_error()
            if following.draft is not None:
                return self._planner.write(following.draft, on_the_spot=on_the_spot)
            return self._planner.plan(job, stage, on_the_spot=on_the_spot, earlier=following.results)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - an author's planner raises anything; the type decides
            self._fail_step(job, "plan_stage", error)
            return None

    def _run(
        self, standing: Standing, known: CachedJob, stage: StageDefinition, plan: Plan, lease_id: UUID, until: float
    ) -> Standing | None:
        """Run a stage all of whose tasks this process holds. Returns the job as it is then, if it is to move on."""
        ending = StageEnding(plan.rows, lambda results: self._prepare(standing, known, stage, results, until))
        settlement = self._runner.run_claimed(known, stage, lease_id, plan.claimed, ending)
        moved = _moved(standing.job, stage.number, settlement.job_status)
        return None if moved is None else _standing_after(standing, moved, settlement)

    def _prepare(
        self,
        standing: Standing,
        known: CachedJob,
        stage: StageDefinition,
        results: list[CompletedTask],
        until: float,
    ) -> Following:
        """What follows these results, as far as it is known to be quick: they wait for it."""
        job = standing.job
        step = (job.job_type, stage.number + 1)
        if not self._times.is_quick(step):
            return Following(results)
        try:
            if stage.number == job.total_stages:
                summaries = self._summaries(standing, stage, len(results))
                return Following(results, summary=self._ask_summary(job, summaries, results))
            following_job = job.model_copy(update={"status": JobStatus.QUEUED, "stage": stage.number + 1, "attempt": 0})
            draft = self._planner.draft(following_job, known.definition.stage(stage.number + 1), results)
            if not draft.is_small or not draft.few:
                return Following(results, draft=draft)
            return Following(results, draft, self._planner.small_stage(draft, on_the_spot=self._may_run(until)))
        except StoreUnavailable:
            return Following(results)
        except Exception as error:  # noqa: BLE001 - an author's code raises anything; told when the step is taken
            return Following(results, error=error)

    def _finalize(self, standing: Standing) -> None:
        job, following = standing.job, standing.following
        fault_point("job.before_finalize")
        try:
            summary = following.summary if following is not None else None
            if summary is None:
                if following is not None:
                    following.raise_error()
                summaries = tuple(self._results.stage_summaries(job.ref))
                summary = self._ask_summary(job, summaries, following.results if following is not None else None)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - an author's code raises anything; the type decides
            self._fail_step(job, "finalize_job", error)
            return
        fault_point("job.finalizing")
        self._state.finalize_job(job.ref, summary)
        fault_point("job.finalized")
        self._state.note_large_values(job.stage_ref, "summary", [(None, len(summary))])

    def _ask_summary(
        self, job: JobRecord, stages: tuple[StageSummary, ...], last_results: Sequence[CompletedTask] | None
    ) -> EncodedJson:
        """The author's summary of the job. `last_results`: those of its last stage, if they are in hand."""

        def results(stage: int) -> Iterator[CompletedTask]:
            if last_results is not None and stage == job.total_stages:
                return read_once(last_results)
            return read_once(self._results.stream_results(job.ref.at_stage(stage)))

        self._orchestration.expect_stages(job, job.total_stages)
        job_class = self._catalog.get_job(job.job_type)
        context = JobExecutionContext(
            job_id=job.job_id,
            job_type=job.job_type,
            parameters=copied(job.parameters),
            stages=stages,
            results=results,
        )
        with self._times.measured((job.job_type, job.total_stages + 1)):
            return call_author(_summary_of, job_class, context, self._orchestration.role.most_bytes)

    def _summaries(self, standing: Standing, stage: StageDefinition, completed: int) -> tuple[StageSummary, ...]:
        """How all stages will have ended when the last, all of whose tasks are completed, is written down."""
        before = standing.summaries
        if len(before) < stage.number - 1:
            read = self._results.stage_summaries(standing.job.ref)
            before = tuple(summary for summary in read if summary.stage < stage.number)
        return (*before, StageSummary(stage.number, StageStatus.COMPLETED.value, completed, 0))

    def _may_run(self, until: float) -> bool:
        return self._clock() < until and not self._drain.is_draining

    def _fail_step(self, job: JobRecord, step: str, error: Exception) -> None:
        """A planner or finalizer raised: try again later, or fail the job with its reason."""
        if isinstance(error, UnknownWork):
            self._postponer.postpone_step(job, error)
            return
        failure = classify(error)
        policy = read_definition(job.definition).stage(job.stage).retry
        attempt = job.attempt + 1
        log.error(
            "job_step_failed",
            exc_info=AuthorError(failure),
            extra={
                "checkpoint": "JOB_STEP_FAILED",
                **job.stage_ref.log_fields,
                "attempt": attempt,
                "correlation_id": job.correlation_id,
                "operation": step,
                "error_type": failure.error_type,
            },
        )
        if not failure.retryable or attempt >= policy.max_attempts:
            details = failure.to_json(attempt) | {"step": step, "stage": job.stage}
            self._state.fail_all_job_tasks(job.job_id, details)
            return
        delay = max(retry_delay(attempt, policy), failure.retry_after_seconds or 0.0)
        self._state.retry_job_step(job, failure.to_json(attempt) | {"step": step}, delay)
        fault_point("job.step_retry_written")
        if self._orchestration.announce_job(_job_message(job, job.stage, attempt=attempt + 1), delay_seconds=delay):
            fault_point("job.step_retry_sent")
            self._state.mark_job_announced(job.stage_ref)


def _summary_of(job_class: JobType, context: JobExecutionContext, most_bytes: int) -> EncodedJson:
    returned: object = job_class.finalize_job(context)
    what = f"finalize_job of {context.job_type!r}"
    if returned is not None and not isinstance(returned, Mapping):
        raise ContractViolationError(f"{what}: expected it to return a mapping, found {describe_returned(returned)}")
    return encode_storable({} if returned is None else returned, what, most_bytes=most_bytes)


def obstacle_of(job: JobRecord | None, run: int) -> str | None:
    """Why a job does not wait for a step of this run; None if it does."""
    if job is None:
        return "missing"
    if job.run != run:
        return "stale_run"
    if job.status not in {JobStatus.QUEUED, JobStatus.FINALIZING}:
        return job.status
    return None if job.paused_at is None else "paused"


def _moved(job: JobRecord, stage: int, status: str | None) -> JobRecord | None:
    """The job after its stage ended, as the settling call told: what waits for a step, or None."""
    if status == JobStatus.QUEUED:
        return job.model_copy(update={"status": JobStatus.QUEUED, "stage": stage + 1, "attempt": 0, "paused_at": None})
    if status == JobStatus.FINALIZING:
        return job.model_copy(update={"status": JobStatus.FINALIZING, "stage": stage, "attempt": 0, "paused_at": None})
    return None


def _standing_after(standing: Standing, moved: JobRecord, settlement: Settlement) -> Standing:
    """The job after a stage of which this process held every task."""
    following, ended = settlement.following, standing.job.stage
    summaries = standing.summaries
    if following is not None and len(summaries) == ended - 1:
        summaries = (*summaries, StageSummary(ended, StageStatus.COMPLETED.value, len(following.results), 0))
    plan = None
    if following is not None and following.small is not None and settlement.is_planned:
        plan = plan_of(following.small, PlanOutcome.PLANNED)
    return Standing(moved, summaries, following, plan)


def _job_message(job: JobRecord, stage: int, *, attempt: int = 1, cause: str | None = None) -> JobQueueMessage:
    return JobQueueMessage(
        job_id=job.job_id,
        job_type=job.job_type,
        run=job.run,
        stage=stage,
        attempt=attempt,
        cause=cause,
        correlation_id=job.correlation_id,
    )
