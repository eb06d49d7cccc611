"""What operators do to a job: pause, resume, adjust, rerun, cancel. The row decides; then what waits is announced."""

import time
from dataclasses import replace
from typing import Any

from core.announcing.announcer import announce_parked_tasks, new_cause, step_message
from core.announcing.limit_turns import LimitTurns
from core.announcing.windows import StageWindows
from core.authors.job_class import definition_of, validate
from core.basics.faults import fault_point
from core.models import JobRecord, JobRef, JobStatus
from core.models.bulk import DeleteAnswer, DeleteOutcome
from core.models.control import (
    AdjustAnswer,
    AdjustOutcome,
    AdjustRequest,
    ControlAnswer,
    ControlOutcome,
    RerunMode,
    RerunRequest,
)
from core.orchestration_manager import OrchestrationManager
from core.ports import JobCatalog
from core.state_manager import StateManager

TASKS_PER_PIECE = 2000
# A request that takes longer may be cut by what is between; what is left is reported.
DELETE_SECONDS = 60.0


class JobControl:
    """Each call is one transition, and messages after it. A message that cannot be sent is the janitor's to send."""

    def __init__(
        self,
        catalog: JobCatalog,
        state: StateManager,
        orchestration: OrchestrationManager,
        windows: StageWindows,
        turns: LimitTurns,
    ) -> None:
        self._windows = windows
        self._turns = turns
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

    def rerun(self, job_id: str, request: RerunRequest) -> ControlAnswer | None:
        """Begin the next run of a job that has ended.

        Raises:
            UnknownJobType, ParameterErrors, ValueTooLarge, AuthorError: As for a submission. Nothing was changed.
        """
        job = self._state.find_job(job_id)
        if job is None:
            return None
        # Refused as it was seen: a moment later it may have ended, and would begin anew without these parameters.
        if request.expected_run not in {None, job.run}:
            return _refused(ControlOutcome.OTHER_RUN, job)
        if not job.status.is_terminal:
            return _refused(ControlOutcome.REFUSED, job)
        changed, definition = self._renewed(job, request)
        answer = self._state.rerun_job(job.ref, replace(request, parameters=changed), definition)
        if answer is not None and answer.has_changed:
            self._announce(job_id, answer)
        return answer

    def adjust(self, job_id: str, request: AdjustRequest) -> AdjustAnswer | None:
        """Change its priority, or how many tasks of its stage run at a time; what may begin then is announced."""
        answer = self._state.adjust_job(job_id, request)
        if answer is not None and answer.outcome is AdjustOutcome.ADJUSTED:
            ref = JobRef(job_id, answer.run).at_stage(answer.stage)
            self._windows.fill(ref)
            self._turns.serve_stage(ref)
        return answer

    def delete(self, job_id: str, *, reason: str | None, actor: str | None) -> DeleteAnswer | None:
        """Delete a job that has ended, in pieces that no running work waits for, for at most DELETE_SECONDS."""
        until = time.monotonic() + DELETE_SECONDS
        pruned = 0
        while True:
            answer = self._state.delete_job(job_id, reason=reason, actor=actor, limit=TASKS_PER_PIECE)
            if answer is None:
                return None
            pruned += answer.pruned_tasks
            if answer.outcome is not DeleteOutcome.DELETING or time.monotonic() > until:
                return replace(answer, pruned_tasks=pruned)

    def _renewed(self, job: JobRecord, request: RerunRequest) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The parameters, if any change, and the definition, if nothing of the old one's work is kept."""
        changed = None
        if request.parameters:
            most_bytes = self._orchestration.role.most_bytes
            job_class = self._catalog.get_job(job.job_type)
            changed = validate(job_class, job.job_type, {**job.parameters, **request.parameters}, most_bytes)
        if request.mode is not RerunMode.ALL:
            return changed, None
        return changed, definition_of(self._catalog.get_job(job.job_type), job, changed or job.parameters)

    def _announce(self, job_id: str, answer: ControlAnswer) -> None:
        fault_point("control.written")
        if answer.status is JobStatus.PROCESSING:
            announce_parked_tasks(self._state, self._orchestration, job_id)
            ref = JobRef(job_id, answer.run).at_stage(answer.stage)
            self._windows.fill(ref)
            self._turns.serve_stage(ref)
            return
        job = self._state.find_job(job_id)
        if job is None or job.run != answer.run or job.status not in {JobStatus.QUEUED, JobStatus.FINALIZING}:
            return
        if self._orchestration.announce_job(step_message(job, new_cause("again")), delay_seconds=answer.wait_seconds):
            fault_point("control.sent")
            self._state.mark_job_announced(job.stage_ref)


def _refused(outcome: ControlOutcome, job: JobRecord) -> ControlAnswer:
    return ControlAnswer(outcome, job.status, job.run, job.stage, is_paused=job.paused_at is not None)
