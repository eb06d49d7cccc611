"""Advances a job: plans its next stage, runs it inline where it may, finalizes the job after its last stage."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from core.advancing.finalizer import Finalizer
from core.advancing.inline_stage import InlineStage
from core.advancing.stage_planner import StagePlanner
from core.advancing.steps import NextStep, Plan, StepTimes
from core.announcing.announcer import step_message
from core.announcing.limit_turns import LimitTurns
from core.announcing.windows import StageWindows
from core.basics.faults import fault_point
from core.basics.log_fields import log_fields
from core.basics.words import in_times
from core.error_handler import CoreMachineErrorHandler
from core.errors import (
    AuthorError,
    Draining,
    PermanentTaskError,
    StoreCancelled,
    StoreUnavailable,
    UnknownWork,
    classify,
)
from core.models import JobRecord, JobStatus, StageDefinition
from core.models.definition import read_definition
from core.models.lease import LostProcesses
from core.models.retry import retry_delay
from core.models.status import STEP_STATUSES
from core.models.transition import PlanOutcome
from core.operating.unknown_work import Postponer
from core.running.engine_parts import EngineParts
from core.running.job_cache import JobCache
from core.running.message_runner import MessageRunner
from core.running.overtime import Overtime
from core.running.step_leases import StepLeases
from core.safety.safe_log import safe_logger
from core.telemetry.reports import observer

log = safe_logger(__name__)

# After this time in one invocation, later steps are left to messages.
INLINE_SECONDS = 5.0


class InterruptedTooOften(PermanentTaskError):
    """Planning or finalizing ended more processes than the stage's `max_interruptions`."""

    def __init__(self, lost: LostProcesses, stage: StageDefinition) -> None:
        alone = f", and {in_times(lost.alone)} it ran alone there, so that nothing else in that process was the reason"
        super().__init__(
            f"its process died, or lost the database, {in_times(lost.interruptions)} without an outcome"
            f"{alone if lost.alone else ''} (last: {lost.owner}). Usually the memory was used up, and the system "
            "killed the process: yield tasks and read earlier results one by one instead of collecting them, or give "
            "the processes of the app more memory. Else "
            "native code crashed, or the job class called os._exit. max_interruptions of stage "
            f"{stage.number} is {stage.max_interruptions}"
        )


class JobAdvancer:
    """One per process."""

    def __init__(
        self,
        parts: EngineParts,
        runner: MessageRunner,
        postponer: Postponer,
        jobs: JobCache,
        windows: StageWindows,
        turns: LimitTurns,
        steps: StepLeases,
    ) -> None:
        self._parts = parts
        self._windows = windows
        self._turns = turns
        self._steps = steps
        self._state = parts.state
        self._orchestration = parts.orchestration
        self._runner = runner
        self._postponer = postponer
        self._jobs = jobs
        self._errors = CoreMachineErrorHandler(log)
        self._times = StepTimes()
        self._planner = StagePlanner(parts, self._times)
        self._finalizer = Finalizer(parts, self._times)
        self._overtime = Overtime()

    def advance_after(self, job: JobRecord, stage: int, status: str, until: float) -> None:
        """Take the job's next step after a message's tasks that ended its stage.

        The row already has the next step, so an error here loses nothing.

        Args:
            status: The job's, as the end of the stage left it.
        """
        if status not in STEP_STATUSES:
            return
        moved = job.after_stage(stage, status)
        fault_point("job.advanced")
        if not self._orchestration.role.advances_jobs:
            self._orchestration.signal_stage_complete(moved)
            return

        def announce_instead(_: Exception) -> None:
            self._orchestration.announce_job(step_message(moved, "follow-up"))

        with self._errors.handle_operation(
            "advance_job", job_id=moved.job_id, stage=moved.stage, on_error=announce_instead, raise_on_error=False
        ):
            self.advance(moved, until)

    def is_suspect(self, job: JobRecord) -> bool:
        """Whether the job's step ended as many processes as make it run alone, and may still be begun again."""
        lost = job.step_interruptions
        if not lost:
            return False
        try:
            most = read_definition(job.definition).stage(job.stage).max_interruptions
        except UnknownWork:
            return False
        return max(most, 1) / 2 <= lost <= most

    def advance(self, job: JobRecord, until: float, *, is_again: bool = False, is_alone: bool = False) -> None:
        """Plan and finalize while the job waits for it and this process may take the next step itself.

        Args:
            until: By this time of the clock, what can be left to messages is left to them.
            is_again: The first step may have been begun before, by a process that ended.
            is_alone: Nothing else runs in this process.
        """
        step: NextStep | None = NextStep(job)
        # A row does not say when a later run began.
        began = job.created_at if job.run == 1 else None
        # Of steps that last before they are taken: from one to the other, no other process may have them.
        with log_fields(correlation_id=job.correlation_id, _run_began=began), ExitStack() as leases:
            with self._noting_refusal(job):
                if is_again and not self._begin_again(job, leases, is_alone=is_alone):
                    return
            while step is not None and step.job.status is JobStatus.QUEUED:
                with self._noting_refusal(step.job), observer().step(step.job):
                    step = self._take_stage(step, until, leases)
            if step is not None and step.job.status is JobStatus.FINALIZING:
                with self._noting_refusal(step.job), observer().step(step.job):
                    self._finalize(step)

    @contextmanager
    def _noting_refusal(self, job: JobRecord) -> Iterator[None]:
        """What keeps the end of a step from being written is to be found at the job: its message comes again."""
        try:
            yield
        except Draining:
            raise
        except Exception as error:
            self._state.note_step_unwritten(job, error)
            raise

    def _begin_again(self, job: JobRecord, leases: ExitStack, *, is_alone: bool) -> bool:
        """Take the lease of a step that was begun before, so that a process that ends over it is counted.

        False: it is not to be taken, since another process has it, or since it has ended too many.
        """
        lost = leases.enter_context(self._steps.hold_again(job, is_alone=is_alone))
        if lost is None:
            log.info("job_message_without_effect", extra={"job_id": job.job_id, "outcome": "taken"})
            return False
        if not lost.interruptions:
            return True
        log.warning(
            "job_step_interrupted",
            extra={
                "checkpoint": "JOB_STEP_INTERRUPTED",
                **job.stage_ref.log_fields,
                "interruptions": lost.interruptions,
                "owner": lost.owner,
            },
        )
        try:
            stage = read_definition(job.definition).stage(job.stage)
        except UnknownWork:
            return True  # it is postponed
        if lost.interruptions > stage.max_interruptions:
            self._fail_step(job, InterruptedTooOften(lost, stage))
            return False
        if is_alone:
            self._state.note_step_alone(job.stage_ref)
        return True

    def _take_stage(self, step: NextStep, until: float, leases: ExitStack) -> NextStep | None:
        """Plan the job's stage, and announce or run its tasks. Returns the step after it, if this process takes it."""
        job = step.job
        try:
            cached = self._jobs.remember(job)
            stage = cached.definition.stage(job.stage)
        except UnknownWork as unknown:
            self._postponer.postpone_step(job, unknown)
            return None
        plan = step.plan or self._plan(step, stage, until)
        if plan is None:
            return None
        fault_point("job.planned")
        if plan.outcome is PlanOutcome.EXPIRED:
            self._state.enforce_deadlines(job.stage_ref)
            return None
        if plan.outcome is PlanOutcome.PLANNED and not (plan.waiting or plan.claimed or plan.is_windowed):
            # A stage without tasks has ended.
            found = self._state.find_job(job.job_id)
            return NextStep(found) if found is not None and obstacle_of(found, job.run) is None else None
        if plan.claimed:
            stage_run = InlineStage(
                self._parts,
                self._planner,
                self._finalizer,
                self._times,
                step,
                cached,
                plan,
                overtime=self._overtime,
                hold=lambda moved: leases.enter_context(self._steps.hold(moved)),
                until=until,
            )
            return stage_run.run(self._runner)
        self._announce(job, stage, plan)
        return None

    def _announce(self, job: JobRecord, stage: StageDefinition, plan: Plan) -> None:
        """Send messages for the stage's tasks, or for those of its first window."""
        if plan.is_windowed and stage.limits:
            self._turns.serve(stage.limit_names)
        elif plan.is_windowed:
            self._windows.fill(job.stage_ref)
        else:
            self._orchestration.announce_tasks(
                job,
                job.stage,
                plan.tasks_per_message,
                plan.waiting,
                on_sent=lambda ids: self._state.mark_tasks_announced(job.ref, ids),
            )

    def _plan(self, step: NextStep, stage: StageDefinition, until: float) -> Plan | None:
        """Plan the stage, from what was prepared if there is anything; None if that failed."""
        fault_point("job.before_plan")
        if step.error is not None:
            self._fail_step(step.job, step.error)
            return None
        inline = self._parts.may_run_inline(until)
        try:
            with self._steps.hold(step.job):
                if step.draft is not None:
                    return self._planner.write(step.draft, inline=inline)
                return self._planner.plan(step.job, stage, inline=inline, earlier=step.results)
        except Exception as error:
            if not _is_of_step(error):
                raise
            self._fail_step(step.job, error)
            return None

    def _finalize(self, step: NextStep) -> None:
        fault_point("job.before_finalize")
        with self._steps.hold(step.job):
            try:
                self._finalizer.write(step.job, self._finalizer.prepare(step))
            except Exception as error:
                if not _is_of_step(error):
                    raise
                failed = error
            else:
                return
        self._fail_step(step.job, failed)

    def _fail_step(self, job: JobRecord, error: Exception) -> None:
        """A planner or finalizer raised, or what came of it was refused: try later, or fail the job with its reason."""
        step = job.step_name
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
            self._state.fail_job_step(job, details)
            return
        delay = max(retry_delay(attempt, policy), failure.retry_after_seconds or 0.0)
        if self._state.retry_job_step(job, failure.to_json(attempt) | {"step": step}, delay) is None:
            return
        fault_point("job.step_retry_written")
        if self._orchestration.announce_job(step_message(job, None, attempt=attempt + 1), delay_seconds=delay):
            fault_point("job.step_retry_sent")
            self._state.mark_job_announced(job.stage_ref)


def _is_of_step(error: Exception) -> bool:
    """Whether it is a failed attempt at the step: the author's code raised, or the database refuses what came of it.

    An outage is not, but for a statement that the database stopped: it might do so each time, and for ever.
    """
    return not isinstance(error, StoreUnavailable) or isinstance(error, StoreCancelled)


def obstacle_of(job: JobRecord | None, run: int) -> str | None:
    """Why a job does not wait for a step of this run; None if it does."""
    if job is None:
        return "missing"
    if job.run != run:
        return "stale_run"
    if job.status not in STEP_STATUSES:
        return job.status
    return None if job.paused_at is None else "paused"
