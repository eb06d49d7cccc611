"""A job as the API answers it, and how its end is waited for."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from core.errors import StoreUnavailable
from core.models import JobRecord, view
from core.models.control import allowed_actions
from core.models.view import EventPosition, JobDetail
from core.operating.brief_reason import BriefReason
from core.safety.safe_log import safe_logger
from triggers import api_models as models
from triggers.endpoints import job_links
from triggers.ports import ApiServices
from triggers.traces import trace_id_of
from triggers.waiting import Key, Watcher

log = safe_logger(__name__)

# More clients than this are answered at once instead: all that wait are looked for together, and end together.
MAX_WAITING = 250
# A client that polls a job asks less and less often: after a tenth of the time that it has run already.
_SHORTEST_PAUSE, _LONGEST_PAUSE, _PART = 1, 30, 10.0


def job_answer(request: Request, detail: JobDetail) -> models.JobAnswer:
    """The whole job."""
    job = {name: getattr(detail.job, name) for name in models.JobAnswer.model_fields if name in JobRecord.model_fields}
    job["priority"] = detail.job.effective_priority
    job["trace_id"] = trace_id_of(detail.job.traceparent)
    job["run_started_at"], job["duration_seconds"] = view.run_times(detail.job)
    return models.JobAnswer(
        **job,
        paused=detail.job.paused_at is not None,
        allowed_actions=list(allowed_actions(detail.job.status, is_paused=detail.job.paused_at is not None)),
        stages=list(detail.stages),
        links=job_links(request, detail.job.job_id),
    )


def list_item(request: Request, job: view.JobSummary) -> models.JobListItem:
    """A job in a list."""
    started_at, seconds = view.run_times(job)
    fields = dict(job) | {"run_started_at": started_at, "duration_seconds": seconds}
    return models.JobListItem(**fields, links=job_links(request, job.job_id))


def with_reasons(items: Iterable[models.JobListItem], reasons: Mapping[str, BriefReason]) -> list[models.JobListItem]:
    """The same jobs, each with its reason or none."""
    found = ((item, reasons.get(item.job_id)) for item in items)
    return [
        item.model_copy(update={"reason": None if reason is None else models.JobReason.model_validate(reason)})
        for item, reason in found
    ]


def retry_after(job: JobRecord) -> dict[str, str]:
    """The header of an answer about a job; none once it has ended."""
    if job.status.is_terminal:
        return {}
    now = datetime.now(UTC)
    if job.start_at is not None and job.start_at > now:
        seconds = (job.start_at - now).total_seconds()
    else:
        began = max(filter(None, (job.created_at, job.run_started_at, job.start_at)), default=now)
        seconds = (now - began).total_seconds() / _PART
    return {"Retry-After": str(int(min(max(seconds, _SHORTEST_PAUSE), _LONGEST_PAUSE)))}


async def wait_for_end(request: Request, job_id: str, seconds: float) -> bool:
    """Until the job has ended, or the time is over; False at once where too many wait already."""
    ends: Watcher[str] = request.app.state.ends
    return await _wait(ends, job_id, seconds)


async def wait_for_events(request: Request, position: EventPosition, seconds: float) -> bool:
    """Until something happened to the job after this position, or the time is over; False as `wait_for_end`."""
    events: Watcher[EventPosition] = request.app.state.events
    return await _wait(events, position, seconds)


async def _wait(watcher: Watcher[Key], key: Key, seconds: float) -> bool:
    if watcher.count >= MAX_WAITING:
        return False
    await watcher.wait(key, seconds)
    return True


async def look_when_ended(request: Request, services: ApiServices, job_id: str, seconds: float) -> JobDetail | None:
    """The job when it has ended or the time is over; None where waiting fails: the job is written all the same."""
    try:
        if await wait_for_end(request, job_id, seconds):
            return await run_in_threadpool(services.queries.get_job_detail, job_id)
    except StoreUnavailable as error:
        log.warning("wait_given_up", extra={"job_id": job_id, "reason": str(error)})
    return None


async def read_job(
    request: Request, services: ApiServices, job_id: str, seconds: float | None
) -> tuple[JobDetail, bool]:
    """The job, at once or when it has ended; and whether it was waited for.

    Raises:
        JobNotFound: No such job.
    """
    detail: JobDetail | None = None
    waited = False
    if seconds:
        detail = await run_in_threadpool(services.queries.find_ended_job_detail, job_id)
        waited = detail is not None or await wait_for_end(request, job_id, seconds)
    if detail is None:
        detail = await run_in_threadpool(services.queries.get_job_detail, job_id)
    return detail, waited


def describe_error(error: dict[str, Any] | None, status: str) -> dict[str, str]:
    """The code and the message of a job that did not complete."""
    told = error or {}
    return {"code": str(told.get("type") or status), "message": str(told.get("message") or f"the job is {status}")}
