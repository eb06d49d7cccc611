"""Services without a database: what the API may ask, and what it asked."""

import asyncio
import functools
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import httpx
from fastapi import FastAPI

from core.models import JobEvent, JobRecord, JobStatus
from core.models.app import FleetFacts
from core.models.control import AdjustAnswer, AdjustOutcome, ControlAnswer, ControlOutcome
from core.models.dry_run import DraftTask, JobDraft
from core.models.insight import Severity
from core.models.status import JobPriority
from core.models.submission import Submission, SubmissionOutcome
from core.models.view import (
    EventPosition,
    JobDetail,
    JobRun,
    JobSummary,
    NewEvents,
    Page,
    StageDetail,
    TaskSummary,
)
from core.operating.brief_reason import BriefReason
from core.operating.dead_letters import RedriveReport
from infrastructure.queries import InvalidCursor, JobNotFound, RunNotFound, TaskNotFound
from jobs.hello_world import HANDLERS, HelloWorldJob
from jobs.registry import Registry
from triggers.api import create_api
from triggers.ports import Check

JOB_ID = "ab" * 32
JSON = {"Content-Type": "application/json"}
AT = "2026-01-02T03:04:05.678000+00:00"
SUMMARY = {
    "job_id": JOB_ID,
    "job_type": "hello_world",
    "status": "processing",
    "run": 1,
    "stage": 2,
    "total_stages": 2,
    "correlation_id": "c-1",
    "error": None,
    "created_at": AT,
    "updated_at": AT,
    "finished_at": None,
    "paused_at": None,
}
COUNTS = {
    "pending": 0,
    "queued": 1,
    "processing": 0,
    "pending_retry": 0,
    "completed": 2,
    "failed": 0,
    "cancelled": 0,
}
DETAIL = {
    **SUMMARY,
    "deadline_at": AT,
    "start_at": None,
    "tags": {"team": "geo"},
    "hold": None,
    "priority": None,
    "forced_from": None,
    "traceparent": "00-58838bf93ba3c78a0eca3a2247f9aa69-b7ad6b7169203331-01",
    "parameters": {"n": 3},
    "result": None,
    "stages": [
        {
            "stage": 1,
            "name": "greet",
            "task_type": "hello_world_greeting",
            "parallelism": "single",
            "status": "completed",
            "expected_count": 3,
            "failed_count": 0,
            "counts": COUNTS,
            "created_at": AT,
            "planned_at": AT,
            "finished_at": AT,
            "deadline_at": AT,
            "queue_deadline_at": None,
            "from_run": None,
        }
    ],
}
TASK = {
    "task_id": "t-1",
    "run": 1,
    "stage": 1,
    "task_index": 0,
    "task_type": "hello_world_greeting",
    "queue": "tasks",
    "name": "greeting-0",
    "parameters": {"number": 0},
    "status": "completed",
    "attempt": 1,
    "interruptions": 0,
    "lease_owner": None,
    "lease_expires_at": None,
    "due_at": None,
    "progress": None,
    "result": {"greeting": "hi"},
    "error": None,
    "created_at": AT,
    "started_at": AT,
    "finished_at": AT,
    "timed_out_at": None,
    "from_run": None,
}
EVENT = {
    "job_id": JOB_ID,
    "event_id": 1,
    "run": 1,
    "stage": None,
    "task_id": None,
    "event": "job_submitted",
    "detail": {"a": 1},
    "at": AT,
}


RUNS = [
    {
        "run": 2,
        "status": "processing",
        "parameters": {"n": 3},
        "result": None,
        "error": None,
        "started_at": AT,
        "finished_at": None,
    },
    {
        "run": 1,
        "status": "failed",
        "parameters": {"n": 2},
        "result": None,
        "error": {"message": "x"},
        "started_at": AT,
        "finished_at": AT,
    },
]


# Nothing changes a registry: one is for all tests.
REGISTRY = Registry([HelloWorldJob], HANDLERS, ["tasks"])


@dataclass
class FakeServices:
    """One job, JOB_ID, and those submitted.

    `statuses` are what looks at a status see, one after the other; the last one stays.

    `failure` is raised by whatever is called. `outcome` and `advice` are what submissions answer.
    """

    outcome: SubmissionOutcome | None = None
    advice: str | None = None
    run: int = 1

    statuses: list[str] = field(default_factory=lambda: ["processing"])
    cancelled_as: str = "cancelled"
    answer: ControlAnswer = field(
        default_factory=lambda: ControlAnswer(ControlOutcome.PAUSED, JobStatus.PROCESSING, 1, 2, is_paused=True)
    )
    adjusted: AdjustAnswer = field(
        default_factory=lambda: AdjustAnswer(
            AdjustOutcome.ADJUSTED, JobStatus.PROCESSING, 1, 2, False, JobPriority.HIGH, 4
        )
    )
    failure: Exception | None = None
    database: Check = field(default_factory=lambda: Check("database", ok=True, detail="version 1"))
    checks: list[Check] = field(default_factory=lambda: [Check("database", ok=True, detail="version 1")])
    calls: list[tuple[str, Any]] = field(default_factory=list)
    looks: int = 0
    seen: set[str] = field(default_factory=set)
    came: list[Any] = field(default_factory=list)
    registry: Registry = REGISTRY

    @property
    def machine(self) -> "FakeServices":
        return self

    @property
    def queries(self) -> "FakeServices":
        return self

    @property
    def dashboard(self) -> "FakeServices":
        return self

    @property
    def apps(self) -> "FakeServices":
        return self

    def count_dead_letters(self, most):
        return 0

    def read_fleet(self, job_id=None):
        return FleetFacts(AT)

    def find_postponed_messages(self):
        return []

    def find_reasons(self, jobs):
        return {
            job.job_id: BriefReason("paused", Severity.WARNING, "Paused by kim: the source is away") for job in jobs
        }

    def _called(self, name: str, **arguments: Any) -> None:
        self.calls.append((name, arguments))
        if self.failure is not None:
            raise self.failure

    def submit_job(self, request):
        self._called("submit_job", **asdict(request))
        job = self.registry.get_job(request.job_type)
        job_id = job.generate_job_id(job.validate_job_parameters(request.parameters))
        created = job_id not in self.seen
        self.seen.add(job_id)
        outcome = self.outcome or (SubmissionOutcome.CREATED if created else SubmissionOutcome.EXISTING)
        correlation_id = request.correlation_id or "made-here"
        submission = Submission(job_id, request.job_type, created, "queued", self.run, correlation_id, outcome)
        return replace(submission, advice=self.advice)

    def submit_jobs(self, requests):
        return [self.submit_job(request) for request in requests]

    def draft_job(self, request):
        self._called("draft_job", **asdict(request))
        job = self.registry.get_job(request.job_type)
        parameters = job.validate_job_parameters(request.parameters)
        tasks = (DraftTask("s1-a", "a", "hello_world_greeting", "tasks", {"number": 0}),)
        stages = job.definition().stages
        return JobDraft(JOB_ID, request.job_type, parameters, None, stages, tasks, 1, is_counted=True)

    @property
    def dead_letters(self):
        return self

    def redrive(self, selection, **arguments):
        self._called("redrive", **arguments)
        return RedriveReport((), 0)

    def pause_job(self, job_id, **arguments):
        self._called("pause_job", job_id=job_id, **arguments)
        return self.answer if job_id == JOB_ID else None

    def resume_job(self, job_id, **arguments):
        self._called("resume_job", job_id=job_id, **arguments)
        return self.answer if job_id == JOB_ID else None

    def rerun_job(self, job_id, request):
        self._called("rerun_job", job_id=job_id, **asdict(request))
        return self.answer if job_id == JOB_ID else None

    def adjust_job(self, job_id, request):
        self._called("adjust_job", job_id=job_id, **asdict(request))
        return self.adjusted if job_id == JOB_ID else None

    def cancel_job(self, job_id, reason, **arguments):
        self._called("cancel_job", job_id=job_id, reason=reason, **arguments)
        return self.cancelled_as if job_id == JOB_ID else None

    def find_job_status(self, job_id):
        if self.failure is not None:
            raise self.failure
        if job_id not in {JOB_ID, *self.seen}:
            return None
        self.looks += 1
        return self.statuses[min(self.looks, len(self.statuses)) - 1]

    def find_ended_jobs(self, job_ids):
        return [job_id for job_id in job_ids if self._look(job_id) is not None]

    def find_ended_job_detail(self, job_id):
        if self._look(job_id) is None:
            return None
        return self.get_job_detail(job_id)

    def _look(self, job_id):
        """The status of an ended job; empty for one that is not there; None for one that goes on."""
        status = self.find_job_status(job_id)
        return "" if status is None else status if JobStatus(status).is_terminal else None

    def get_job_detail(self, job_id):
        self._called("get_job_detail", job_id=job_id)
        if job_id not in {JOB_ID, *self.seen}:
            raise JobNotFound(job_id)
        status = self.statuses[min(max(self.looks, 1), len(self.statuses)) - 1]
        job = {name: value for name, value in DETAIL.items() if name != "stages"}
        record = JobRecord.model_validate({**job, "job_id": job_id, "status": status, "definition": {}})
        return JobDetail(record, tuple(StageDetail.model_validate(stage) for stage in DETAIL["stages"]))

    def find_job_type(self, job_id):
        self._called("find_job_type", job_id=job_id)
        return SUMMARY["job_type"] if job_id in {JOB_ID, *self.seen} else None

    def find_jobs(self, wanted, **arguments):
        self._called("find_jobs", wanted=wanted, **arguments)
        if arguments["cursor"] not in {None, "next"}:
            raise InvalidCursor(arguments["cursor"])
        return Page((JobSummary.model_validate(SUMMARY),), "next" if arguments["cursor"] is None else None)

    def list_tasks(self, job_id, **arguments):
        self._called("list_tasks", job_id=job_id, **arguments)
        found = job_id == JOB_ID and arguments["stage"] != 2
        return Page((TaskSummary.model_validate(TASK),) if found else (), None)

    def get_task(self, job_id, task_id, *, run=None):
        self._called("get_task", job_id=job_id, task_id=task_id, run=run)
        if job_id != JOB_ID or task_id != TASK["task_id"]:
            raise TaskNotFound(job_id, task_id, run)
        return TaskSummary.model_validate(TASK)

    def get_run(self, job_id, run):
        self._called("get_run", job_id=job_id, run=run)
        for each in RUNS:
            if job_id == JOB_ID and each["run"] == run:
                return JobRun.model_validate(each)
        raise RunNotFound(job_id, run)

    def list_runs(self, job_id):
        self._called("list_runs", job_id=job_id)
        return tuple(map(JobRun.model_validate, RUNS)) if job_id == JOB_ID else ()

    def list_events(self, job_id, **arguments):
        self._called("list_events", job_id=job_id, **arguments)
        return Page((JobEvent.model_validate(EVENT),) if job_id == JOB_ID else (), None)

    def follow_events(self, job_id, *, cursor, **arguments):
        """One event, and another one when somebody has waited for it."""
        self._called("follow_events", job_id=job_id, cursor=cursor, **arguments)
        if cursor not in {None, "one", "two"}:
            raise InvalidCursor(cursor)
        number = {None: 1, "one": 2, "two": 3}[cursor]
        known = job_id == JOB_ID and number <= 1 + len(self.came)
        items = (JobEvent.model_validate(EVENT | {"event_id": number}),) if known else ()
        following = "one" if number == 1 else "two" if known else cursor
        return NewEvents(items, following, EventPosition(job_id, number, 0))

    def find_jobs_with_events(self, positions):
        self.came.append(positions)
        return positions

    def list_logs(self, job_id, **arguments):
        self._called("list_logs", job_id=job_id, **arguments)
        return Page((JobEvent.model_validate(EVENT),) if job_id == JOB_ID else (), None)

    def check_database(self):
        return self.database

    def check_readiness(self):
        if self.failure is not None:
            raise self.failure
        return self.checks


def client(api: FastAPI, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://jobs.example:8080", **options)


@functools.cache
def shared_app(*, trusts_principal: bool) -> tuple[FastAPI, list[FakeServices]]:
    """The application, and the services that it has now. An application of its own would take a test 40 ms."""
    now: list[FakeServices] = []
    return create_api(lambda: now[-1], trusts_principal=trusts_principal), now


class Api:
    """The API on fake services; each call is a whole request."""

    def __init__(self, services: FakeServices | None = None, *, trusts_principal: bool = False) -> None:
        self.services = services or FakeServices()
        self.app, self._now = shared_app(trusts_principal=trusts_principal)
        self.use()

    def use(self) -> None:
        """Let the application have these services, and nothing of those of another test."""
        if not self._now or self._now[0] is not self.services:
            self._now[:] = [self.services]
            self.app.state.services = self.app.state.document = None

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        self.use()

        async def ask() -> httpx.Response:
            async with client(self.app) as http:
                return await http.request(method, path, **options)

        return asyncio.run(ask())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self("POST", path, **options)
