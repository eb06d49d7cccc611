"""What does not move, on a whole server: one finding for the jobs of a type that have the same reason."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import islice

from core.models import JobStatus
from core.models.job_filter import JobSort
from coremachine.cli.client import ApiClient, Json
from coremachine.cli.errors import ApiError
from coremachine.cli.render import SHORT_ID

# Jobs that are looked at: the oldest of the open ones, and the latest of a day that failed or had failed tasks.
MOST_JOBS = 500
# Each is a request.
MOST_SCHEDULES = 50
_DAY = timedelta(days=1)
_OPEN = [status.value for status in JobStatus if not status.is_terminal]
_SHOWN_IDS = 3
_ENDED_BADLY = [JobStatus.FAILED.value, JobStatus.COMPLETED_WITH_ERRORS.value]
_WAITS_FOR_LIMIT = "waits_for_limit"
NOT_ALL = "not_all_looked_at"
_ORDER = {"error": 0, "warning": 1}


def find_troubles(client: ApiClient) -> list[Json]:
    """Findings as `explain` has them, errors first: of queues and apps, dead letters, schedules, and jobs.

    What goes on by itself is left out, except for jobs of which all that is open waits for a limit.
    A last one names which of them were not looked at, where there are too many.
    """
    open_jobs = client.list_jobs(status=_OPEN, sort="created_at", reasons=True, limit=MOST_JOBS + 1)
    failed = _since(
        datetime.now(UTC) - _DAY,
        client.list_jobs(status=_ENDED_BADLY, sort=JobSort.LATEST_ENDED.value, reasons=True, limit=MOST_JOBS + 1),
    )
    letters = client.group_dead_letters(limit=MOST_JOBS + 1)
    schedules = client.list_schedules(limit=MOST_SCHEDULES + 1)
    found = [*_queues(client), *_dead_letters(letters[:MOST_JOBS])]
    found += _schedules(client, schedules[:MOST_SCHEDULES])
    found += [*_of_jobs(open_jobs[:MOST_JOBS]), *_of_jobs(failed[:MOST_JOBS])]
    told = [each for each in found if each["severity"] in _ORDER or each["code"] == _WAITS_FOR_LIMIT]
    parts = (
        (open_jobs, MOST_JOBS, "oldest open jobs"),
        (failed, MOST_JOBS, "latest jobs that failed or had failed tasks within a day"),
        (letters, MOST_JOBS, "first groups of dead letters"),
        (schedules, MOST_SCHEDULES, "first schedules by name"),
    )
    return [
        *sorted(told, key=lambda each: _ORDER.get(each["severity"], len(_ORDER))),
        *(_not_all(most, what) for rows, most, what in parts if len(rows) > most),
    ]


def _queues(client: ApiClient) -> list[Json]:
    """An app that is not ready, as with code that cannot be loaded, still knows its jobs."""
    try:
        findings: list[Json] = client.list_queues()["findings"]
    except ApiError as error:
        if error.status != HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        message = f"the app cannot tell what waits in its queues: {error}"
        return [{"code": "not_ready", "severity": "error", "message": message, "advice": None}]
    return findings


def _since(moment: datetime, ended: Iterable[Json]) -> list[Json]:
    return [job for job in ended if datetime.fromisoformat(job["finished_at"]) >= moment]


def _not_all(most: int, what: str) -> Json:
    message = f"looked at the {most} {what} only; there are more"
    return {"code": NOT_ALL, "severity": "info", "message": message, "advice": None}


def _dead_letters(groups: Iterable[Json]) -> Iterator[Json]:
    for group in groups:
        why = ": ".join(filter(None, (group["reason"], group["description"]))) or "the broker gave no reason"
        letters = "dead letter" if group["count"] == 1 else "dead letters"
        yield {
            "code": "dead_letters",
            "severity": "warning",
            "message": f"{group['count']} {letters} on the queue {', '.join(group['queues'])}: {why}",
            "advice": f"coremachine dead list --fingerprint {group['fingerprint']}",
        }


def _schedules(client: ApiClient, schedules: Iterable[Json]) -> Iterator[Json]:
    for schedule in schedules:
        name = schedule["name"]
        for finding in client.explain_schedule(name)["findings"]:
            yield {**finding, "message": f"schedule {name}: {finding['message']}"}


def _of_jobs(jobs: Iterable[Json]) -> Iterator[Json]:
    """One for all jobs of a type that have the same reason."""
    groups: dict[tuple[str, str], list[Json]] = {}
    for job in jobs:
        if job.get("reason") is not None:
            groups.setdefault((job["job_type"], job["reason"]["text"]), []).append(job)
    for (job_type, text), same in groups.items():
        ids = [job["job_id"][:SHORT_ID] for job in islice(same, _SHOWN_IDS)]
        named = ", ".join(ids) + (" and others" if len(same) > len(ids) else "")
        jobs_of = "job" if len(same) == 1 else f"{len(same)} jobs"
        code = same[0]["reason"]["code"]
        how = " completed with errors" if code == JobStatus.COMPLETED_WITH_ERRORS else ""
        yield {
            "code": code,
            "severity": same[0]["reason"]["severity"],
            "message": f"{jobs_of} of type {job_type} ({named}){how}: {text}",
            "advice": f"coremachine explain {ids[0]}",
        }
