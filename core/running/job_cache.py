"""What a process remembers of jobs: what never changes within a run, and for a moment their status."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from core.basics.cache import LatestCache
from core.basics.joined_calls import JoinedCalls
from core.errors import StoreUnavailable
from core.models import JobDefinition, JobRecord, JobRef
from core.models.definition import read_definition
from core.state_manager import StateManager

# A status that is older is read again: messages of a job that was cancelled meanwhile need no claim then.
FRESH_SECONDS = 5.0
# Parameters and definitions may be large.
_MOST_JOBS_PER_LOOK = 20


@dataclass(frozen=True)
class CachedJob:
    """A job's parameters and its definition; its row is read again after `fresh_until`, by the cache's clock."""

    record: JobRecord
    definition: JobDefinition
    fresh_until: float


class JobCache:
    """The latest jobs of a process. Messages of different jobs that look at the same time share a call.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, state: StateManager, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self._clock = clock
        self._jobs: LatestCache[JobRef, CachedJob] = LatestCache(256)
        self._looks: JoinedCalls[None, str, JobRecord | None] = JoinedCalls(
            self._look_at_all, names=lambda job_id: (job_id,), most=_MOST_JOBS_PER_LOOK, for_all=StoreUnavailable
        )

    def look(self, job_id: str) -> JobRecord | None:
        """The job as it is now; None if there is none."""
        return self._looks.call(None, job_id)

    def find(self, ref: JobRef) -> CachedJob | None:
        """From memory, or from its row; None if there is no such job or it is in another run. Raises as `remember`."""
        known = self._jobs.get(ref)
        if known is not None and self._clock() < known.fresh_until:
            return known
        job = self.look(ref.job_id)
        return None if job is None or job.ref != ref else self.remember(job)

    def remember(self, job: JobRecord) -> CachedJob:
        """Raises UnknownWork if this release cannot read its definition."""
        known = self._jobs.get(job.ref)
        definition = read_definition(job.definition) if known is None else known.definition
        # What has ended in a run has ended for good.
        cached = CachedJob(job, definition, inf if job.status.is_terminal else self._clock() + FRESH_SECONDS)
        self._jobs.put(job.ref, cached)
        return cached

    def _look_at_all(self, _: None, job_ids: Sequence[str]) -> list[JobRecord | None]:
        if len(job_ids) == 1:
            return [self._state.find_job(job_ids[0])]
        found = {job.job_id: job for job in self._state.find_jobs(job_ids)}
        return [found.get(job_id) for job_id in job_ids]
