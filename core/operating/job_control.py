"""What operators do to a job: pause, resume, rerun, cancel. The row decides; what then waits is announced at once."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from core.authors.author_code import call_author
from core.authors.job_class import record_of, validate
from core.basics.faults import fault_point
from core.models import JobQueueMessage, JobRecord, JobStatus
from core.models.control import ControlAnswer, RerunMode
from core.operating.announcer import announce_parked_tasks
from core.orchestration_manager import OrchestrationManager
from core.ports import JobCatalog
from core.state_manager import StateManager


class JobControl:
    """Each call is one transition, and messages after it. A message that cannot be sent is the janitor's to send."""

    def __init__(self, catalog: JobCatalog, state: StateManager, orchestration: OrchestrationManager) -> None:
        self._catalog = catalog
        self._state = state
        self._orchestration = orchestration

    def pause(self, job_id: str, *, reason: str | None, actor: str | None) -> ControlAnswer | None:
        """From now on nothing of the job is claimed, planned or finalized; what runs ends as it would."""
        return self._state.pause_job(job_id, reason=reason, actor=actor)

    def resume(self, job_id: str, *, reason: str | None, actor: str | None) -> ControlAnswer | None:
        """Let a paused job go on."""
        answer = self._state.resume_job(job_id, reason=reason, actor=actor)
        if answer is not None and answer.has_changed:
            self._announce(job_id, answer)
        return answer

    def rerun(
        self,
        job_id: str,
        *,
        mode: RerunMode,
        from_stage: int | None,
        parameters: Mapping[str, Any] | None,
        expected_run: int | None,
        reason: str | None,
        actor: str | None,
    ) -> ControlAnswer | None:
        """Begin the next run of a job that has ended.

        Args:
            expected_run: The run that the caller saw; if the job is in another one, nothing is begun.
            parameters: Values that take the place of the last run's; the others stay.

        Raises:
            UnknownJobType, ParameterErrors, ValueTooLarge, AuthorError: As for a submission. Nothing was changed.
        """
        job = self._state.find_job(job_id)
        if job is None:
            return None
        # Refused as it was seen: a moment later it may have ended, and would begin anew without these parameters.
        if expected_run not in {None, job.run}:
            return _refused("other_run", job)
        if not job.status.is_terminal:
            return _refused("refused", job)
        changed, definition = self._renewed(job, mode, parameters)
        answer = self._state.rerun_job(
            job.ref,
            mode=mode,
            from_stage=from_stage,
            parameters=changed,
            definition=definition,
            reason=reason,
            actor=actor,
        )
        if answer is not None and answer.has_changed:
            self._announce(job_id, answer)
        return answer

    def _renewed(
        self, job: JobRecord, mode: RerunMode, parameters: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The parameters, if any change, and the definition, if nothing of the old one's work is kept."""
        changed = None
        if parameters:
            most_bytes = self._orchestration.role.most_bytes
            job_class = self._catalog.get_job(job.job_type)
            changed, _ = validate(job_class, job.job_type, {**job.parameters, **parameters}, most_bytes)
        if mode is not RerunMode.ALL:
            return changed, None
        record = call_author(
            record_of,
            self._catalog.get_job(job.job_type),
            job.job_type,
            job.job_id,
            changed or job.parameters,
            job.correlation_id,
        )
        return changed, record.definition

    def _announce(self, job_id: str, answer: ControlAnswer) -> None:
        fault_point("control.written")
        if answer.status is JobStatus.PROCESSING:
            announce_parked_tasks(self._state, self._orchestration, job_id)
            return
        job = self._state.find_job(job_id)
        if job is None or job.run != answer.run or job.status not in {JobStatus.QUEUED, JobStatus.FINALIZING}:
            return
        message = JobQueueMessage(
            job_id=job.job_id,
            job_type=job.job_type,
            run=job.run,
            stage=job.stage,
            attempt=job.attempt + 1,
            cause=f"again-{uuid4().hex[:8]}",
            correlation_id=job.correlation_id,
        )
        if self._orchestration.announce_job(message, delay_seconds=answer.wait_seconds):
            fault_point("control.sent")
            self._state.mark_job_announced(job.stage_ref)


def _refused(outcome: str, job: JobRecord) -> ControlAnswer:
    return ControlAnswer(outcome, job.status, job.run, job.stage, is_paused=job.paused_at is not None)
