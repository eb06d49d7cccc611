"""The engine: what happens when a message comes. Reads as the story of one message: claim, run, record, advance."""

from collections.abc import Sequence

from core.advancing.bounded_submission import BoundedSubmitter
from core.advancing.dry_run import DryRunner
from core.advancing.job_advancer import INLINE_SECONDS, JobAdvancer, obstacle_of
from core.advancing.submission import Submitter
from core.announcing.limit_turns import LimitTurns
from core.announcing.windows import StageWindows
from core.app_queues import JOBS_QUEUE
from core.basics.canonical import NotJson, ValueTooLarge
from core.basics.log_fields import log_fields
from core.basics.outage import outage
from core.error_handler import CoreMachineErrorHandler
from core.errors import (
    ContractViolationError,
    DataRefused,
    IdempotencyKeyReused,
    InvalidParameters,
    MessageRefused,
    OtherParameters,
    StoreUnavailable,
    SubmissionHangs,
    SubmissionRefused,
    UnknownWork,
    WorkWaits,
)
from core.models import (
    JobQueueMessage,
    JobRecord,
    JobRef,
    JobStatus,
    StageCompleteMessage,
    StageDefinition,
    TaskQueueMessage,
)
from core.models.bulk import DeleteAnswer, HoldAnswer
from core.models.control import (
    DEFAULT_CANCEL_GRACE_SECONDS,
    AdjustAnswer,
    AdjustRequest,
    ControlAnswer,
    IfEnded,
    RerunRequest,
)
from core.models.dry_run import JobDraft
from core.models.lease import HeldTask
from core.models.message import UnknownMessage
from core.models.refs import StepRef
from core.models.submission import Submission, SubmitRequest
from core.models.transition import ClaimOutcome
from core.operating.job_control import JobControl
from core.operating.unknown_work import Postponer
from core.running.engine_parts import EngineParts
from core.running.job_cache import CachedJob, JobCache
from core.running.message_runner import MessageRunner
from core.running.task_slots import ProcessGate, RunsAlone
from core.safety.safe_log import safe_logger
from core.safety.safe_text import type_name
from core.telemetry.reports import report_claims

log = safe_logger(__name__)

# A submission that met one of these meets it again, however often its message comes.
_REFUSALS = (
    InvalidParameters,
    ValueTooLarge,
    NotJson,
    DataRefused,
    SubmissionRefused,
    OtherParameters,
    IdempotencyKeyReused,
)


class CoreMachine:
    """Takes queue messages, creates a stage's tasks, runs handlers, advances jobs. `owner` is its name in leases."""

    def __init__(self, parts: EngineParts) -> None:
        self.owner = parts.owner
        self._state = parts.state
        self._orchestration = parts.orchestration
        self._clock = parts.clock
        self._drain = parts.drain
        self._keeper = parts.keeper
        self._steps = parts.keeper.step_leases(parts.owner)
        self._gate = ProcessGate(parts.drain.refuse, self._held)
        self._windows = StageWindows(parts.state, parts.orchestration, parts.clock)
        self._turns = LimitTurns(parts.state, parts.orchestration)
        self._control = JobControl(parts.catalog, parts.state, parts.orchestration, self._windows, self._turns)
        self._errors = CoreMachineErrorHandler(log)
        self._jobs = JobCache(parts.state, parts.clock)
        self._dry_runner = DryRunner(parts.catalog, parts.state, parts.orchestration)
        self._submitter = Submitter(parts.catalog, parts.state, parts.orchestration)
        self._unattended = BoundedSubmitter(self._submitter)
        self._postponer = Postponer(
            parts.state,
            parts.orchestration,
            owner=parts.owner,
            patience_seconds=parts.unknown_work_patience_seconds,
        )
        self.postponed_messages = self._postponer.messages
        self._runner = MessageRunner(parts, self._postponer, self._turns, self._windows)
        self._advancer = JobAdvancer(
            parts, self._runner, self._postponer, self._jobs, self._windows, self._turns, self._steps
        )

    def submit_job(self, request: SubmitRequest) -> Submission:
        """Validate, write the job and its first stage, and tell the jobs queue. The row is the outbox.

        The same type and parameters give the same job, whatever its status; docs/reference/submitting.md has the table.

        Raises:
            UnknownJobType, ParameterErrors: What the caller must fix (`jobs.registry`, `jobs.parameters`).
            ValueTooLarge: The caller sent more than a job's parameters may be.
            AuthorError: The job class failed at validating them; nothing was written.
            IdempotencyKeyReused: The key came before with another payload; nothing was written.
            SubmissionRefused: There is such a job, and `if_ended` is fail; nothing was written.
            OtherParameters: There is such a job, to which a rerun gave other parameters; nothing was written.
            StoreUnavailable: Nothing was written.
        """
        return self._submitter.submit(request)

    def submit_jobs(self, requests: Sequence[SubmitRequest]) -> list[Submission | Exception]:
        """As `submit_job` for each, with the error where it would raise one; one transaction per job type."""
        return self._submitter.submit_many(requests)

    def draft_job(self, request: SubmitRequest) -> JobDraft:
        """What `submit_job` would write, and the tasks that the first stage would have; nothing is written.

        The author's code is asked as it would be then. Raises what `submit_job` raises before it writes.
        """
        return self._dry_runner.draft(request)

    def process_job_message(
        self, message: JobQueueMessage | StageCompleteMessage | UnknownMessage, *, is_again: bool = False
    ) -> None:
        """Plan the job's stage or finalize it, whichever its row asks for; a message that came late changes nothing.

        What this release does not know goes back, for one that does (`core.operating.unknown_work`).

        Args:
            is_again: The message was delivered before: the process that had it may have ended.

        Raises:
            ContractViolationError: It is no such message.
            MessageRefused: It submits what its sender must change; nothing was written.
            StoreUnavailable, DeliveryError, Draining: The message must stay with the broker.
        """
        self._drain.refuse()
        if isinstance(message, UnknownMessage):
            self._postponer.keep_unknown(message)
            return
        if not isinstance(message, JobQueueMessage | StageCompleteMessage):
            raise ContractViolationError(
                f"expected a JobQueueMessage or StageCompleteMessage, found {type(message).__name__}"
            )
        with self._errors.handle_operation("process_job_message", job_id=message.job_id):
            if message.job_id is None:
                self._submit_from_queue(message)
                return
            job = self._jobs.look(message.job_id)
            obstacle = obstacle_of(job, message.run)
            if job is not None and obstacle is None and self._steps.is_taken(job):
                # Should that process die, the janitor announces the step again.
                obstacle = "taken"
            if job is None or obstacle is not None:
                log.info("job_message_without_effect", extra={"job_id": message.job_id, "outcome": obstacle})
                return
            is_sent_again = isinstance(message, JobQueueMessage) and message.cause is not None
            # A copy that was passed on does not know how often the message was delivered before.
            is_again = is_again or is_sent_again or message.kept is not None
            try:
                self._take_step(job, is_again=is_again)
            except RunsAlone:
                self._postponer.pass_on(JOBS_QUEUE, message)

    def _held(self) -> dict[StepRef | HeldTask, bool]:
        """The steps and tasks of this process; whether each has ended for the database, and only its thread runs."""
        tasks = [(task, task.is_over) for task in self._keeper.held()]
        return dict([*self._steps.held().items(), *tasks])

    def _take_step(self, job: JobRecord, *, is_again: bool) -> None:
        """Take the job's step beside others; alone, if it has ended processes. Raises RunsAlone: nothing was done."""
        if self._advancer.is_suspect(job):
            with self._gate.exclusive() as is_alone:
                self._advancer.advance(job, self._clock() + INLINE_SECONDS, is_again=True, is_alone=is_alone)
            return
        is_again = is_again or job.step_interruptions > 0
        with self._gate.shared():
            self._advancer.advance(job, self._clock() + INLINE_SECONDS, is_again=is_again)

    def _submit_from_queue(self, message: JobQueueMessage) -> None:
        """There is no caller who reads an answer: if nothing runs, the log gives the reason and the remedy."""
        try:
            request = SubmitRequest(
                message.job_type,
                message.parameters or {},
                correlation_id=message.correlation_id,
                idempotency_key=message.idempotency_key,
                if_ended=message.if_ended or IfEnded.RETURN,
                tags=message.tags or {},
                start_at=message.start_at,
                priority=message.priority,
            )
            submitted = self._unattended.submit(request)
        except WorkWaits as why:
            document = message.model_dump(mode="json", exclude_none=True)
            self._postponer.keep_message(JOBS_QUEUE, document, message.kept, why)
            return
        except SubmissionHangs as hang:
            # It would hang again, in one more thread.
            raise MessageRefused(hang.failure.error_type, f"{hang.failure.message}, and redrive this message") from None
        except _REFUSALS as error:
            # Not from it: its text may quote what the sender wrote.
            raise MessageRefused(type_name(error), str(error)) from None
        if submitted.advice is not None:
            log.warning(
                "submission_ran_nothing",
                extra={
                    "checkpoint": "SUBMISSION_RAN_NOTHING",
                    "job_id": submitted.job_id,
                    "correlation_id": message.correlation_id,
                    "outcome": submitted.outcome,
                    "status": submitted.status,
                    "advice": submitted.advice,
                },
            )

    def process_task_message(self, message: TaskQueueMessage | UnknownMessage, *, queue: str | None = None) -> None:
        """Claim the message's tasks, run them, record their outcomes; if they were the stage's last, advance the job.

        Args:
            queue: Logical name of the queue that it came from. None: the one of its stage.

        Raises:
            ContractViolationError: It is no such message.
            StoreUnavailable, Draining: The message must stay with the broker. A task's own failure never raises.
            DeliveryError: So must one that this release cannot read, or that another process is to have.
        """
        self._drain.refuse()
        if isinstance(message, UnknownMessage):
            self._postponer.keep_unknown(message)
            return
        if not isinstance(message, TaskQueueMessage):
            raise ContractViolationError(f"expected a TaskQueueMessage, found {type(message).__name__}")
        try:
            try:
                job = self._jobs.find(JobRef(message.job_id, message.run))
                stage = None if job is None else job.definition.stage(message.stage)
            except UnknownWork as unknown:
                self._runner.postpone_message(message, unknown)
                return
            if job is None or stage is None:
                log.warning("task_message_without_rows", extra={"checkpoint": "NO_ROWS", "job_id": message.job_id})
            elif job.record.status is JobStatus.CANCELLED:
                # It is so only when none of its tasks waits any more: there is nothing that a claim could find or end.
                report_claims(message.stage_ref, dict.fromkeys(message.task_ids, ClaimOutcome.CLOSED))
            else:
                with log_fields(correlation_id=job.record.correlation_id):
                    self._run_tasks(job, stage, message, queue)
        except Exception as error:
            self._errors.report("process_task_message", error, job_id=message.job_id, stage=message.stage)
            raise

    def _run_tasks(self, job: CachedJob, stage: StageDefinition, message: TaskQueueMessage, queue: str | None) -> None:
        """All that may run beside others at once; then those that may not. What cannot run here soon is passed on."""
        left = list(message.task_ids)
        suspects: list[str] = []
        try:
            with self._gate.shared():
                left.clear()
                until = self._clock() + INLINE_SECONDS
                status = self._runner.run_message(
                    job, stage, message.task_ids, suspects=suspects, takes_next=message.takes_next
                )
                if status is not None:
                    self._advancer.advance_after(job.record, stage.number, status, until)
            left += suspects
            for task_id in suspects:
                with self._gate.exclusive() as is_alone:
                    left.remove(task_id)
                    until = self._clock() + INLINE_SECONDS
                    status = self._runner.run_message(
                        job, stage, [task_id], is_alone=is_alone, takes_next=message.takes_next
                    )
                    if status is not None:
                        self._advancer.advance_after(job.record, stage.number, status, until)
        except RunsAlone:
            queue = queue or self._orchestration.queue_for(stage, stage.task_type)
            self._postponer.pass_on(queue, message.model_copy(update={"task_ids": tuple(left)}))
        if stage.limits:
            self._turns.serve(stage.limit_names)

    def serve_limits(self, names: Sequence[str]) -> int:
        """Announce what waits for these limits and may run now, after a change of their numbers: how many tasks."""
        return self._turns.serve(names)

    def drain(self) -> int:
        """Take no messages from now on, and release all tasks: how many. For a process that is about to end.

        Each that was running is an interruption; all are announced again.
        """
        self._keeper.close()
        self._steps.close()
        return self._drain.drain()

    def cancel_job(
        self,
        job_id: str,
        reason: str | None,
        *,
        grace_seconds: float = DEFAULT_CANCEL_GRACE_SECONDS,
        actor: str | None = None,
    ) -> str | None:
        """Cancel what has not started; running tasks learn of it at their next heartbeat. None for an unknown job."""
        status = self._state.cancel_job(job_id, reason, grace_seconds=grace_seconds, actor=actor)
        try:
            # Places that were kept for its tasks are free.
            self._turns.serve(None)
        except StoreUnavailable as error:
            outage.note(str(error))
        return status

    def pause_job(self, job_id: str, *, reason: str | None = None, actor: str | None = None) -> ControlAnswer | None:
        """Begin nothing new of the job; what runs ends as it would. None for an unknown job."""
        return self._control.pause(job_id, reason=reason, actor=actor)

    def resume_job(self, job_id: str, *, reason: str | None = None, actor: str | None = None) -> ControlAnswer | None:
        """Let a paused job go on, and announce what waits. None for an unknown job."""
        return self._control.resume(job_id, reason=reason, actor=actor)

    def rerun_job(self, job_id: str, request: RerunRequest) -> ControlAnswer | None:
        """Begin the next run of a job that has ended; see `core.operating.job_control`. None for an unknown job."""
        return self._control.rerun(job_id, request)

    def adjust_job(self, job_id: str, request: AdjustRequest) -> AdjustAnswer | None:
        """Change a job's priority, or max_parallel of its present stage, while it runs. None for an unknown job."""
        return self._control.adjust(job_id, request)

    def delete_job(self, job_id: str, *, reason: str | None, actor: str | None) -> DeleteAnswer | None:
        """Delete a job that has ended and is under no legal hold, with all its rows. None for an unknown job."""
        return self._control.delete(job_id, reason=reason, actor=actor)

    def hold_job(self, job_id: str, *, is_held: bool, reason: str | None, actor: str | None) -> HoldAnswer | None:
        """Keep a job from being deleted, or no more. None for an unknown job."""
        return self._state.hold_job(job_id, is_held=is_held, reason=reason, actor=actor)
