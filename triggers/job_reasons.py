"""Why each job of a list waits or failed, in a sentence: for the list of the API, and that of the pages."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache

from core.models.app import FleetFacts, WaitingWork
from core.models.dashboard import JobBrief, OpenTasks
from core.models.insight import Finding
from core.operating.brief_reason import BriefReason, brief_reason
from core.operating.fleet import find_missing_app


def reasons_of(
    briefs: Mapping[str, JobBrief],
    read_fleet: Callable[[], FleetFacts],
    read_open_tasks: Callable[[], Iterable[OpenTasks]],
) -> dict[str, BriefReason]:
    """By job id; a job that goes on, or completed as it should, has none.

    Args:
        read_fleet, read_open_tasks: Called once, and only where work waits on a queue.
    """
    fleet, open_tasks = cache(read_fleet), cache(lambda: tuple(read_open_tasks()))

    def find_missing(work: WaitingWork) -> Finding | None:
        found = find_missing_app(work, fleet())
        # A process that registers nowhere is seen by the tasks that it has.
        is_busy = found is not None and any(each.queue == work.queue and each.owners for each in open_tasks())
        return None if is_busy else found

    found = ((job_id, brief_reason(brief, find_missing)) for job_id, brief in briefs.items())
    return {job_id: reason for job_id, reason in found if reason is not None}
