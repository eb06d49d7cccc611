"""What came of a job, as its test sees it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from core.models import TaskStatus
from core.models.record import JobEvent
from core.models.view import JobDetail, StageDetail, TaskSummary
from infrastructure.postgresql import Pool
from infrastructure.queries import MAX_LIMIT, JobQueries


@dataclass(frozen=True)
class TaskResult:
    """A task as its last attempt left it.

    Args:
        attempt: How many attempts there were.
        result: What its handler returned; empty where it did not complete.
        error: `type`, `message`, `traceback` and more of the last attempt that failed; empty where none did.
    """

    task_id: str
    name: str | None
    task_type: str
    stage: int
    status: str
    attempt: int
    parameters: dict[str, Any] = field(repr=False)
    result: dict[str, Any] = field(repr=False)
    error: dict[str, Any] = field(repr=False)
    progress: dict[str, Any] | None = field(repr=False)
    started_at: datetime | None = field(repr=False)
    finished_at: datetime | None = field(repr=False)


@dataclass(frozen=True)
class StageResult:
    """A stage that the job came to, with its tasks in the order in which they were planned."""

    number: int
    name: str
    status: str
    tasks: tuple[TaskResult, ...] = field(repr=False)

    @property
    def results(self) -> list[dict[str, Any]]:
        """Those of the tasks that completed."""
        return [task.result for task in self.tasks if task.status == TaskStatus.COMPLETED]

    @property
    def failures(self) -> tuple[TaskResult, ...]:
        return tuple(task for task in self.tasks if task.status == TaskStatus.FAILED)

    @property
    def completed(self) -> int:
        return len(self.results)

    @property
    def failed(self) -> int:
        return len(self.failures)


@dataclass(frozen=True)
class JobResult:
    """A job that has ended.

    Args:
        status: `completed`, `completed_with_errors`, `failed` or `cancelled`.
        summary: What `finalize_job` returned; empty where it did not come to that.
        error: Why the job failed: `type`, `message` and more.
        stages: Those that the job came to.
        events: Its timeline, oldest first.
    """

    job_id: str
    job_type: str
    status: str
    parameters: dict[str, Any] = field(repr=False)
    summary: dict[str, Any]
    error: dict[str, Any] | None = field(repr=False)
    stages: tuple[StageResult, ...]
    events: tuple[JobEvent, ...] = field(repr=False)

    @property
    def tasks(self) -> tuple[TaskResult, ...]:
        """All tasks, by stage."""
        return tuple(task for stage in self.stages for task in stage.tasks)

    @property
    def failures(self) -> tuple[TaskResult, ...]:
        """The tasks that failed; `task.error` has `type`, `message` and `traceback`."""
        return tuple(task for stage in self.stages for task in stage.failures)

    def stage(self, name: str) -> StageResult:
        """The stage of a name.

        Raises:
            LookupError: The job came to none of that name, or to several.
        """
        found = [stage for stage in self.stages if stage.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise LookupError(f"stage: expected the name of one stage, found {len(found)} named {name!r}: see `stages`")
        raise LookupError(f"stage: expected one of {[stage.name for stage in self.stages]}, found {name!r}")

    @property
    def report(self) -> str:
        """What went wrong, for people: the job's error, and each failed task with its traceback."""
        return "\n".join(_report_lines(self))


def read_result(pool: Pool, job_id: str) -> JobResult:
    """The job as its rows have it, all values whole."""
    queries = JobQueries(pool)
    detail = queries.get_job_detail(job_id)
    tasks = sorted(_tasks(queries, job_id), key=lambda task: (task.stage, task.task_index))
    return JobResult(
        job_id=job_id,
        job_type=detail.job.job_type,
        status=detail.job.status.value,
        parameters=detail.job.parameters,
        summary=detail.job.result or {},
        error=detail.job.error,
        stages=tuple(_stage(stage, tasks) for stage in detail.stages),
        events=tuple(_events(queries, detail)),
    )


def _stage(detail: StageDetail, tasks: list[TaskSummary]) -> StageResult:
    own = tuple(_task(task) for task in tasks if task.stage == detail.stage)
    return StageResult(detail.stage, detail.name, detail.status.value, own)


def _task(row: TaskSummary) -> TaskResult:
    return TaskResult(
        task_id=row.task_id,
        name=row.name,
        task_type=row.task_type,
        stage=row.stage,
        status=row.status.value,
        attempt=row.attempt,
        parameters=row.parameters,
        result=row.result or {},
        error=row.error or {},
        progress=row.progress,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _tasks(queries: JobQueries, job_id: str) -> Iterator[TaskSummary]:
    cursor = None
    while True:
        page = queries.list_tasks(job_id, limit=MAX_LIMIT, cursor=cursor)
        # A list cuts large values and texts.
        for task in page.items:
            is_cut = task.error is not None or any(map(_is_cut, (task.result, task.parameters, task.progress)))
            yield queries.get_task(job_id, task.task_id) if is_cut else task
        cursor = page.next_cursor
        if cursor is None:
            return


def _is_cut(value: Mapping[str, Any] | None) -> bool:
    return value is not None and value.get("truncated") is True and "stored_bytes" in value


def _events(queries: JobQueries, detail: JobDetail) -> Iterator[JobEvent]:
    cursor = None
    while True:
        page = queries.list_events(detail.job.job_id, limit=MAX_LIMIT, cursor=cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _report_lines(result: JobResult) -> Iterator[str]:
    yield f"job {result.job_type} ({result.job_id[:12]}): {result.status}"
    if result.error is not None:
        yield f"  {result.error.get('type')}: {result.error.get('message')}"
        yield from _indented(result.error.get("traceback"))
    for task in result.failures:
        what = f"task {task.name or task.task_id} of stage {task.stage}, attempt {task.attempt}"
        yield f"{what}: {task.error.get('message')}"
        yield from _indented(task.error.get("traceback") or str(task.error.get("type")))
        if lines := task.error.get("log"):
            yield "  its last lines:"
            yield from _indented(lines)


def _indented(text: str | None) -> Iterator[str]:
    for line in (text or "").rstrip().splitlines():
        yield f"  {line}"
