"""What the triggers ask of the rest of the app. `triggers.services.Services` gives it; tests give a fake."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.models import JobEvent, JobQueueMessage, StageCompleteMessage, TaskQueueMessage, TaskStatus
from core.models.control import AdjustAnswer, AdjustRequest
from core.models.dry_run import JobDraft
from core.models.job_filter import JobFilter, JobSort
from core.models.message import UnknownMessage
from core.models.submission import Submission, SubmitRequest
from core.models.view import EventPosition, JobDetail, JobRun, JobSummary, NewEvents, Page, TaskSummary
from core.operating.brief_reason import BriefReason
from core.ports import JobControls
from jobs.base import JobBase


class ServicesNotReady(Exception):
    """The app cannot work as it is set up; the text is the reason."""


class JobsNotLoaded(ServicesNotReady):
    """The author's modules cannot be loaded; the text has the file, the line and the reason."""


class Missing:
    """In the place of a part that cannot be made: whatever is asked of it raises `ServicesNotReady` with the reason."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __getattr__(self, name: str) -> Any:
        raise ServicesNotReady(self._reason)


@dataclass(frozen=True)
class Check:
    """One thing that the app needs, and what was found."""

    name: str
    ok: bool
    detail: str


class JobCommands(JobControls, Protocol):
    """`core.machine.CoreMachine`, as the API sees it."""

    def submit_job(self, request: SubmitRequest) -> Submission: ...
    def submit_jobs(self, requests: Sequence[SubmitRequest]) -> list[Submission | Exception]: ...
    def draft_job(self, request: SubmitRequest) -> JobDraft: ...
    def adjust_job(self, job_id: str, request: AdjustRequest) -> AdjustAnswer | None: ...


class MessageProcessor(Protocol):
    """`core.machine.CoreMachine`, as the queues see it."""

    def process_job_message(
        self, message: JobQueueMessage | StageCompleteMessage | UnknownMessage, *, is_again: bool = ...
    ) -> None: ...
    def process_task_message(self, message: TaskQueueMessage | UnknownMessage, *, queue: str | None = None) -> None: ...


class JobReads(Protocol):
    """`infrastructure.queries.JobQueries`, which documents its errors; pages carry the cursor of the next one."""

    def get_job_detail(self, job_id: str) -> JobDetail: ...
    def find_ended_job_detail(self, job_id: str) -> JobDetail | None: ...
    def find_jobs(
        self, wanted: JobFilter, *, sort: JobSort = ..., limit: int = 50, cursor: str | None = None
    ) -> Page[JobSummary]: ...
    def list_tasks(
        self,
        job_id: str,
        *,
        run: int | None = None,
        stage: int | None = None,
        statuses: Iterable[TaskStatus] = (),
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[TaskSummary]: ...
    def get_task(self, job_id: str, task_id: str, *, run: int | None = None) -> TaskSummary: ...
    def list_runs(self, job_id: str) -> Sequence[JobRun]: ...
    def get_run(self, job_id: str, run: int) -> JobRun: ...
    def list_events(self, job_id: str, *, limit: int = 50, cursor: str | None = None) -> Page[JobEvent]: ...
    def follow_events(self, job_id: str, *, limit: int = 50, cursor: str | None = None) -> NewEvents: ...
    def list_logs(
        self,
        job_id: str,
        *,
        task_id: str | None = None,
        run: int | None = None,
        after: int | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[JobEvent]: ...


class JobTypes(Protocol):
    """`jobs.registry.Registry`."""

    @property
    def job_types(self) -> tuple[str, ...]: ...
    def get_job(self, job_type: str) -> type[JobBase]: ...


class ApiServices(Protocol):
    """All that the API needs."""

    @property
    def machine(self) -> JobCommands: ...
    @property
    def queries(self) -> JobReads: ...
    @property
    def registry(self) -> JobTypes: ...
    def find_job_status(self, job_id: str) -> str | None:
        """None for an unknown job."""
        ...

    def find_job_type(self, job_id: str) -> str | None:
        """None for an unknown job."""
        ...

    def find_ended_jobs(self, job_ids: Collection[str]) -> Collection[str]:
        """Those of them that have ended, or are not there. Cheap: it is asked many times a second."""
        ...

    def find_jobs_with_events(self, positions: Collection[EventPosition]) -> Collection[EventPosition]:
        """Those after which something happened. Cheap, as `find_ended_jobs`."""
        ...

    def find_reasons(self, jobs: Sequence[JobSummary]) -> Mapping[str, BriefReason]:
        """Why each of them waits or failed, by job id; of one that goes on there is nothing."""
        ...

    def check_readiness(self) -> Sequence[Check]: ...
    def check_database(self) -> Check: ...
