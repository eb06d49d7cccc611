"""The engine: what happens when a message comes. Reads as the story of one message: claim, run, settle, move on."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from core.cache import LatestCache
from core.drain import Drain
from core.error_handler import CoreMachineErrorHandler
from core.errors import ContractViolationError, StoreUnavailable, classify
from core.faults import fault_point
from core.job_control import JobControl
from core.leases import LeaseKeeper
from core.models import (
    JobDefinition,
    JobQueueMessage,
    JobRecord,
    JobStatus,
    StageCompleteMessage,
    StageDefinition,
    TaskQueueMessage,
)
from core.models.context import JobExecutionContext
from core.models.control import DEFAULT_CANCEL_GRACE_SECONDS, ControlAnswer, RerunMode
from core.orchestration_manager import OrchestrationManager
from core.ports import JobCatalog, ResultStore
from core.retry import retry_delay
from core.settlement import Settlement
from core.stage_planner import StagePlanner
from core.state_manager import StateManager
from core.submission import Submission, Submitter
from core.task_runner import Batch, ClaimedTask

log = logging.getLogger(__name__)

# An invocation that has lasted this long leaves what follows to messages.
ON_THE_SPOT_SECONDS = 5.0


@dataclass(frozen=True)
class KnownJob:
    """What never changes within a run of a job: its parameters and its definition."""

    record: JobRecord
    definition: JobDefinition


class CoreMachine:
    """Takes queue messages, creates a stage's tasks, runs handlers, moves jobs on.

    Args:
        task_threads: At most so many tasks of one message run side by side.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        *,
        catalog: JobCatalog,
        state: StateManager,
        orchestration: OrchestrationManager,
        results: ResultStore,
        keeper: LeaseKeeper,
        owner: str,
        task_threads: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._state = state
        self._orchestration = orchestration
        self._results = results
        self._keeper = keeper
        self._owner = owner
        self._task_threads = task_threads
        self._clock = clock
        self._drain = Drain()
        self._control = JobControl(catalog, state, orchestration)
        self._errors = CoreMachineErrorHandler(log)
        self._known: LatestCache[tuple[str, int], KnownJob] = LatestCache(256)
        self._planner = StagePlanner(state, orchestration, results, owner)
        self._submitter = Submitter(catalog, state, orchestration)

    def submit_job(
        self,
        job_type: str,
        parameters: Mapping[str, Any],
        *,
        correlation_id: str | None = None,
        force: bool = False,
        idempotency_key: str | None = None,
    ) -> Submission:
        """Validate, write the job and its first stage, and tell the jobs queue. The row is the outbox.

        The same type and parameters give the same job, whatever its status; docs/submitting.md has the table.

        Args:
            force: Make a new job of the same parameters if there is one already.
            idempotency_key: The same key with the same payload gives the job that it gave before, forced ones too.

        Raises:
            UnknownJobType, ParameterErrors: What the caller must mend (`jobs.registry`, `jobs.parameters`).
            IdempotencyKeyReused: The key came before with another payload; nothing was written.
            StoreUnavailable: Nothing was written.
        """
        return self._submitter.submit(
            job_type, parameters, correlation_id=correlation_id, force=force, idempotency_key=idempotency_key
        )

    def process_job_message(self, message: JobQueueMessage | StageCompleteMessage) -> None:
        """Plan the job's stage or finalize it, whichever its row asks for; a message that came late changes nothing.

        Raises:
            ContractViolationError: It is no such message.
            StoreUnavailable, Draining: The message must stay with the broker.
        """
        self._drain.refuse()
        if not isinstance(message, JobQueueMessage | StageCompleteMessage):
            raise ContractViolationError(
                f"expected a JobQueueMessage or StageCompleteMessage, found {type(message).__name__}"
            )
        with self._errors.handle_operation("process_job_message", job_id=message.job_id):
            if message.job_id is None:
                self.submit_job(message.job_type, message.parameters or {}, correlation_id=message.correlation_id)
                return
            job = self._state.find_job(message.job_id)
            obstacle = _obstacle(job, message.run)
            if job is None or obstacle is not None:
                log.info("job_message_without_effect", extra={"job_id": message.job_id, "outcome": obstacle})
                return
            self._move_on(job, self._clock() + ON_THE_SPOT_SECONDS)

    def process_task_message(self, message: TaskQueueMessage) -> None:
        """Claim the message's tasks, run them, settle them; if they were the stage's last, move the job on.

        Raises:
            ContractViolationError: It is no such message.
            StoreUnavailable, Draining: The message must stay with the broker. A task's own failure never raises.
        """
        self._drain.refuse()
        if not isinstance(message, TaskQueueMessage):
            raise ContractViolationError(f"expected a TaskQueueMessage, found {type(message).__name__}")
        until = self._clock() + ON_THE_SPOT_SECONDS
        with self._errors.handle_operation("process_task_message", job_id=message.job_id, stage=message.stage):
            job = self._know(message.job_id, message.run)
            if job is None or message.stage > len(job.definition.stages):
                log.warning("task_message_without_rows", extra={"checkpoint": "NO_ROWS", "job_id": message.job_id})
                return
            job_status = self._run_tasks(job, job.definition.stage(message.stage), message.task_ids)
            moved = _moved(job.record, message.stage, job_status)
            if moved is not None:
                fault_point("job.moved")
                self._follow_up(moved, until)

    def drain(self) -> int:
        """Take no messages from now on, and hand all tasks back: how many. For a process that is about to end.

        Each handed back is an interruption and announced again. What was claimed a moment ago is given back unbegun.
        """
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
        return self._state.cancel_job(job_id, reason, grace_seconds=grace_seconds, actor=actor)

    def pause_job(self, job_id: str, *, reason: str | None = None, actor: str | None = None) -> ControlAnswer | None:
        """Begin nothing new of the job; what runs ends as it would. None for an unknown job."""
        return self._control.pause(job_id, reason=reason, actor=actor)

    def resume_job(self, job_id: str, *, reason: str | None = None, actor: str | None = None) -> ControlAnswer | None:
        """Let a paused job go on, and announce what waits. None for an unknown job."""
        return self._control.resume(job_id, reason=reason, actor=actor)

    def rerun_job(
        self,
        job_id: str,
        *,
        mode: RerunMode = RerunMode.FAILED,
        from_stage: int | None = None,
        parameters: Mapping[str, Any] | None = None,
        expected_run: int | None = None,
        reason: str | None = None,
        actor: str | None = None,
    ) -> ControlAnswer | None:
        """Begin the next run of a job that has ended; `core.job_control` says how. None for an unknown job."""
        return self._control.rerun(
            job_id,
            mode=mode,
            from_stage=from_stage,
            parameters=parameters,
            expected_run=expected_run,
            reason=reason,
            actor=actor,
        )

    def _follow_up(self, job: JobRecord, until: float) -> None:
        """After the last task of a stage. The row already says what comes next, so an error here loses nothing."""
        if not self._orchestration.role.moves_jobs:
            self._orchestration.signal_stage_complete(job)
            return

        def announce_instead(_: Exception) -> None:
            self._orchestration.announce_job(_job_message(job, job.stage, cause="follow-up"))

        with self._errors.handle_operation(
            "move_on", job_id=job.job_id, stage=job.stage, on_error=announce_instead, raise_on_error=False
        ):
            self._move_on(job, until)

    def _move_on(self, job: JobRecord, until: float) -> None:
        """Plan and finalize as long as the job waits for it and this process may do what comes next itself."""
        current: JobRecord | None = job
        while current is not None and current.status is JobStatus.QUEUED:
            current = self._plan(current, until)
        if current is not None and current.status is JobStatus.FINALIZING:
            self._finalize(current)

    def _plan(self, job: JobRecord, until: float) -> JobRecord | None:
        """Plan the job's stage and announce or run its tasks. Returns the job as it is then, if it is to move on."""
        known = self._remember(job)
        stage = known.definition.stage(job.stage)
        fault_point("job.before_plan")
        try:
            plan = self._planner.plan(job, stage, on_the_spot=self._clock() < until and not self._drain.is_draining)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - an author's planner raises anything; the type decides
            self._fail_step(job, "plan_stage", error)
            return None
        fault_point("job.planned")
        if plan.outcome == "expired":
            self._state.enforce_deadlines(job.job_id, job.run, job.stage)
            return None
        if plan.is_empty_stage:
            found = self._state.find_job(job.job_id)
            return found if _obstacle(found, job.run) is None else None
        if plan.lease_id is not None and plan.claimed:
            return _moved(job, job.stage, self._run_claimed(known, stage, plan.lease_id, plan.claimed))
        self._orchestration.announce_tasks(
            job,
            stage.number,
            plan.tasks_per_message,
            plan.waiting,
            on_sent=lambda ids: self._state.mark_tasks_announced(job.job_id, job.run, ids),
        )
        return None

    def _finalize(self, job: JobRecord) -> None:
        fault_point("job.before_finalize")
        try:
            context = JobExecutionContext(
                job_id=job.job_id,
                job_type=job.job_type,
                parameters=job.parameters,
                stages=tuple(self._results.stage_summaries(job.job_id, job.run)),
                results=lambda stage: self._results.stream_results(job.job_id, job.run, stage),
            )
            result = self._catalog.get_job(job.job_type).finalize_job(context)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - an author's code raises anything; the type decides
            self._fail_step(job, "finalize_job", error)
            return
        fault_point("job.finalizing")
        self._state.finalize_job(job.job_id, job.run, result)
        fault_point("job.finalized")

    def _fail_step(self, job: JobRecord, step: str, error: Exception) -> None:
        """A planner or finalizer raised: try again later, or fail the job with its reason."""
        failure = classify(error)
        policy = JobDefinition.model_validate(job.definition).stage(job.stage).retry
        attempt = job.attempt + 1
        log.error(
            "job_step_failed",
            exc_info=error,
            extra={"checkpoint": "JOB_STEP_FAILED", "job_id": job.job_id, "stage": job.stage, "operation": step},
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
            self._state.mark_job_announced(job.job_id, job.run, job.stage)

    def _run_tasks(self, job: KnownJob, stage: StageDefinition, task_ids: Iterable[str]) -> str | None:
        """Claim, run and settle tasks of one stage. Returns the job's status if it moved on, else None."""
        record = job.record
        lease_id = uuid4()
        rows = self._state.claim_tasks(
            record.job_id, record.run, stage.number, list(task_ids), lease_id=lease_id, owner=self._owner
        )
        claimed = [_claimed_task(row) for row in rows if row["outcome"] == "claimed"]
        early = [row for row in rows if row["outcome"] == "not_due"]
        Settlement(self._state, self._orchestration, record, stage, lease_id).send_again(early)
        moved_to = None
        if any(row["outcome"] == "expired" for row in rows):
            enforced = self._state.enforce_deadlines(record.job_id, record.run, stage.number)
            moved_to = enforced.job_status if enforced.is_last_task_in_stage else None
        return self._run_claimed(job, stage, lease_id, claimed) if claimed else moved_to

    def _run_claimed(
        self, job: KnownJob, stage: StageDefinition, lease_id: UUID, claimed: list[ClaimedTask]
    ) -> str | None:
        """Run and settle tasks under this process's lease. Returns the job's status if it moved on, else None."""
        settlement = Settlement(self._state, self._orchestration, job.record, stage, lease_id)
        fault_point("task.claimed")
        batch = Batch(
            job.record,
            stage,
            lease_id,
            claimed,
            catalog=self._catalog,
            results=self._results,
            keeper=self._keeper,
            threads=self._task_threads,
        )
        with batch, self._drain.holding(batch, settlement) as may_run:
            if not may_run:
                settlement.release(batch.give_up_waiting())
            for group in batch.outcomes():
                fault_point("task.ran")
                settlement.settle(group)
                fault_point("task.settled")
                if batch.is_to_be_cut:
                    settlement.release(batch.give_up_waiting())
        return settlement.job_status

    def _know(self, job_id: str, run: int) -> KnownJob | None:
        known = self._known.get((job_id, run))
        if known is not None:
            return known
        job = self._state.find_job(job_id)
        if job is None or job.run != run:
            return None
        return self._remember(job)

    def _remember(self, job: JobRecord) -> KnownJob:
        known = self._known.get((job.job_id, job.run))
        if known is None:
            known = KnownJob(job, JobDefinition.model_validate(job.definition))
            self._known.put((job.job_id, job.run), known)
        return known


def _obstacle(job: JobRecord | None, run: int) -> str | None:
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


def _claimed_task(row: Mapping[str, Any]) -> ClaimedTask:
    return ClaimedTask(
        task_id=row["task_id"],
        task_type=row["task_type"],
        task_index=row["task_index"],
        name=row["name"],
        parameters=row["parameters"],
        attempt=row["attempt"],
        tries=row["attempt"] - row["interruptions"],
    )


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
