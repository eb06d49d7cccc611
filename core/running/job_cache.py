"""What a process remembers of jobs: what never changes within a run."""

from dataclasses import dataclass

from core.basics.cache import LatestCache
from core.models import JobDefinition, JobRecord, JobRef
from core.models.definition import read_definition
from core.state_manager import StateManager


@dataclass(frozen=True)
class CachedJob:
    """A job's parameters and its definition; the record's status is that of the moment when it was read."""

    record: JobRecord
    definition: JobDefinition


class JobCache:
    """The latest jobs of a process."""

    def __init__(self, state: StateManager) -> None:
        self._state = state
        self._jobs: LatestCache[JobRef, CachedJob] = LatestCache(256)

    def find(self, ref: JobRef) -> CachedJob | None:
        """From memory, or from its row; None if there is no such job or it is in another run. Raises as `remember`."""
        known = self._jobs.get(ref)
        if known is not None:
            return known
        job = self._state.find_job(ref.job_id)
        return None if job is None or job.ref != ref else self.remember(job)

    def remember(self, job: JobRecord) -> CachedJob:
        """Raises UnknownWork if this release cannot read its definition."""
        known = self._jobs.get(job.ref)
        if known is None:
            known = CachedJob(job, read_definition(job.definition))
            self._jobs.put(job.ref, known)
        return known
