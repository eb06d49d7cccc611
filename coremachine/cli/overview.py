"""What does not move, on a whole server: one finding for each cause, however many jobs have it."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

from core.models import JobStatus
from coremachine.cli.client import ApiClient, Json
from coremachine.cli.render import SHORT_ID

# The newest jobs that are looked at, of the open ones and of those that failed within a day.
MOST_JOBS = 500
# Each is a request.
MOST_SCHEDULES = 50
_DAY = timedelta(days=1)
_OPEN = [status.value for status in JobStatus if not status.is_terminal]
_SHOWN_IDS = 3
_ORDER = {"error": 0, "warning": 1}


def find_troubles(client: ApiClient) -> list[Json]:
    """Findings as `explain` has them, errors first: of queues and apps, dead letters, schedules, and jobs.

    What goes on by itself is left out.
    """
    found = [*client.list_queues()["findings"], *_dead_letters(client), *_schedules(client)]
    found += _of_jobs(client.list_jobs(status=_OPEN, reasons=True, limit=MOST_JOBS))
    since = datetime.now(UTC) - _DAY
    found += _of_jobs(client.list_jobs(status="failed", created_after=since, reasons=True, limit=MOST_JOBS))
    return sorted((each for each in found if each["severity"] in _ORDER), key=lambda each: _ORDER[each["severity"]])


def _dead_letters(client: ApiClient) -> Iterator[Json]:
    for group in client.group_dead_letters(limit=MOST_JOBS):
        why = ": ".join(filter(None, (group["reason"], group["description"]))) or "the broker gave no reason"
        letters = "dead letter" if group["count"] == 1 else "dead letters"
        yield {
            "code": "dead_letters",
            "severity": "warning",
            "message": f"{group['count']} {letters} on the queue {', '.join(group['queues'])}: {why}",
            "advice": f"coremachine dead list --fingerprint {group['fingerprint']}",
        }


def _schedules(client: ApiClient) -> Iterator[Json]:
    for schedule in client.list_schedules(limit=MOST_SCHEDULES):
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
        yield {
            "code": same[0]["reason"]["code"],
            "severity": same[0]["reason"]["severity"],
            "message": f"{jobs_of} of type {job_type} ({named}): {text}",
            "advice": f"coremachine explain {ids[0]}",
        }
