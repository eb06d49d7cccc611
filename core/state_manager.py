"""Every state transition, and nothing else makes one. The decisions are PostgreSQL's; this asks, and says what came."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from core.errors import Failure
from core.models import JobRecord, RetryPolicy, TaskRecord
from core.ports import JobStore, StageCheck, StageStore, TaskStore
from core.retry import retry_delay

log = logging.getLogger(__name__)


class StateManager:
    """The only caller of the state-changing verbs."""

    def __init__(self, jobs: JobStore, tasks: TaskStore, stages: StageStore) -> None:
        self._jobs = jobs
        self._tasks = tasks
        self._stages = stages

    def submit_job(self, job: JobRecord) -> tuple[bool, str]:
        """Write the job and its first stage, or find it there: (whether it is new, its status)."""
        created, status = self._jobs.submit_job(job)
        log.info(
            "job_submitted",
            extra={"checkpoint": "JOB_SUBMITTED", "job_id": job.job_id, "is_new": created, "status": status},
        )
        return created, status

    def plan_stage(self, job_id: str, run: int, stage: int, tasks: Iterable[TaskRecord]) -> tuple[str, int]:
        """Insert a stage's tasks and seal it, or nothing: (planned | busy | missing | stale_run | closed, count)."""
        outcome, count = self._tasks.plan_stage(job_id, run, stage, tasks)
        log.info(
            "stage_plan_ended",
            extra={"checkpoint": "STAGE_PLAN", "job_id": job_id, "stage": stage, "outcome": outcome, "count": count},
        )
        return outcome, count

    def complete_tasks(
        self, job_id: str, run: int, stage: int, *, lease_id: UUID, results: Mapping[str, Mapping[str, Any]]
    ) -> StageCheck:
        """End tasks as completed and see whether they were the stage's last."""
        check = self._stages.complete_task_and_check_stage(job_id, run, stage, lease_id=lease_id, results=results)
        self._tell("TASK_COMPLETE", job_id, stage, results, check)
        return check

    def fail_tasks(
        self, job_id: str, run: int, stage: int, *, lease_id: UUID, errors: Mapping[str, Mapping[str, Any]]
    ) -> StageCheck:
        """End tasks as failed; the stage's policy may end the job."""
        check = self._stages.fail_task_and_check_stage(job_id, run, stage, lease_id=lease_id, errors=errors)
        self._tell("TASK_FAILED", job_id, stage, errors, check)
        return check

    def schedule_retry(
        self,
        job_id: str,
        run: int,
        stage: int,
        task_id: str,
        *,
        lease_id: UUID,
        failure: Failure,
        attempt: int,
        policy: RetryPolicy,
    ) -> dict[str, Any]:
        """Write down that a failed attempt is to be tried again, and when.

        Args:
            attempt: The attempt that failed, interruptions not counted.

        Returns:
            `outcome` (scheduled | exhausted | closed | stale), `attempt`, `due_at`.

        Raises:
            AttemptsExhausted: attempt >= policy.max_attempts.
        """
        delay = retry_delay(attempt, policy)
        if failure.retry_after_seconds is not None:
            delay = max(delay, failure.retry_after_seconds)
        error = {"type": failure.error_type, "message": failure.message, "retryable": True, "attempt": attempt}
        answer = self._stages.increment_task_retry_count(
            job_id, run, stage, task_id, lease_id=lease_id, error=error, delay_seconds=delay
        )
        log.warning(
            "retry_scheduled" if answer["outcome"] == "scheduled" else "retry_refused",
            extra={
                "checkpoint": "RETRY_SCHEDULED",
                "job_id": job_id,
                "stage": stage,
                "task_id": task_id,
                "outcome": answer["outcome"],
                "delay_seconds": delay,
            },
        )
        return answer

    def finalize_job(self, job_id: str, run: int, result: Mapping[str, Any] | None) -> str | None:
        """Store the job's summary and end it; None when it does not wait for that."""
        return self._jobs.finalize_job(job_id, run, result)

    def fail_all_job_tasks(self, job_id: str, error: Mapping[str, Any]) -> bool:
        """Fail the job: its open stage ends with it, its unfinished tasks are cancelled. False if it had ended."""
        job = self._jobs.find_job(job_id)
        if job is None:
            return False
        failed = self._jobs.fail_job(job_id, job.run, error)
        if failed:
            log.error("job_failed", extra={"checkpoint": "JOB_FAILED", "job_id": job_id, "error": dict(error)})
        return failed

    def cancel_job(self, job_id: str, reason: str | None) -> str | None:
        """Cancel what has not started; running tasks stop at a heartbeat. The job's status, None if unknown."""
        return self._jobs.cancel_job(job_id, reason)

    def _tell(self, checkpoint: str, job_id: str, stage: int, asked: Mapping[str, Any], check: StageCheck) -> None:
        refused = sorted(set(asked) - set(check.updated_ids))
        if refused:
            log.warning(
                "stale_lease_refused",
                extra={"checkpoint": "STALE_LEASE", "job_id": job_id, "stage": stage, "task_ids": refused},
            )
        log.info(
            checkpoint.lower(),
            extra={
                "checkpoint": checkpoint,
                "job_id": job_id,
                "stage": stage,
                "task_ids": list(check.updated_ids),
                "stage_complete": check.is_last_task_in_stage,
            },
        )
