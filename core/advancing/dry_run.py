"""A submission that is tried and writes nothing: are its parameters right, and which tasks would it begin with?"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from core.advancing.unchecked import note_unchecked
from core.authors.author_code import refusal
from core.authors.bounded_calls import for_requests
from core.authors.job_class import draft_job
from core.basics.canonical import as_stored
from core.errors import AuthorError, PermanentTaskError, SubmissionHangs
from core.models import JobRecord
from core.models.definition import JobDefinition
from core.models.dry_run import DraftTask, JobDraft
from core.models.submission import SubmitRequest
from core.models.transition import PlannedTask
from core.orchestration_manager import OrchestrationManager
from core.ports import JobCatalog
from core.state_manager import StateManager

SHOWN_TASKS = 20
MOST_COUNTED = 100_000
# A planner that takes longer is not waited for: what it had made until then is the answer.
COUNTING_SECONDS = 19.0


@dataclass
class _FirstStage:
    """Its first tasks, how many there are, and whether all were counted: added as its planner makes them."""

    shown: list[PlannedTask] = field(default_factory=list)
    count: int = 0
    is_counted: bool = False


class DryRunner:
    """Asks the job class as a submission and its first planning do."""

    def __init__(self, catalog: JobCatalog, state: StateManager, orchestration: OrchestrationManager) -> None:
        self._catalog = catalog
        self._state = state
        self._orchestration = orchestration

    def draft(self, request: SubmitRequest) -> JobDraft:
        """See `CoreMachine.draft_job`."""
        job_class = self._catalog.get_job(request.job_type)
        most_bytes = self._orchestration.role.most_bytes
        with note_unchecked():
            drafted = draft_job(
                job_class, request.job_type, request.parameters, most_bytes, request.correlation_id or "dry-run"
            )
        job = drafted.record
        definition = JobDefinition.model_validate(job.definition)
        first = self._first_stage(job, definition)
        found = self._state.find_job(job.job_id)
        return JobDraft(
            job_id=job.job_id,
            job_type=job.job_type,
            parameters=job.parameters,
            found_status=found.status if found else None,
            stages=definition.stages,
            tasks=tuple(map(_draft_task, first.shown)),
            task_count=first.count,
            is_counted=first.is_counted,
        )

    def _first_stage(self, job: JobRecord, definition: JobDefinition) -> _FirstStage:
        first = _FirstStage()
        try:
            for_requests.call(job.job_type, "dry run", lambda _: self._count(job, definition, first))
        except SubmissionHangs:
            if first.count == 0:
                raise
        return first

    def _count(self, job: JobRecord, definition: JobDefinition, first: _FirstStage) -> None:
        until = time.monotonic() + COUNTING_SECONDS
        tasks = self._orchestration.tasks_of_stage(job, definition.stage(1), (), previous_count=0)
        for count, task in enumerate(_named_errors(tasks), start=1):
            if count <= SHOWN_TASKS:
                first.shown.append(task)
            first.count = count
            if count >= MOST_COUNTED or time.monotonic() > until:
                return
        first.is_counted = True


def _named_errors(tasks: Iterator[PlannedTask]) -> Iterator[PlannedTask]:
    """What planning refuses is the job type's fault, as it would be after a submission."""
    try:
        yield from tasks
    except PermanentTaskError as error:
        raise AuthorError(refusal(str(error))) from error


def _draft_task(task: PlannedTask) -> DraftTask:
    return DraftTask(task.task_id, task.name, task.task_type, task.queue, as_stored(task.parameters))
