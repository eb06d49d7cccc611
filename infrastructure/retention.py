"""Old jobs go, in pieces that no running work waits for."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from core.models.upkeep import Pruned
from infrastructure.base import ChangeRefused, ValuesRefused
from infrastructure.postgresql import PostgreSQLRepository

JOBS_PER_FIND = 500
TASKS_PER_CALL = 2000
DEAD_LETTERS_PER_CALL = 2000
TICKS_PER_CALL = 2000
LIMITS_PER_CALL = 1000
AUDIT_ROWS_PER_CALL = 2000
# After a piece, this many times as long as it took: old rows have time, running work has not.
REST = 3.0
# The log of one call has no more jobs that the database refuses to delete.
_MOST_TOLD = 5
# After a piece of many small jobs, which writes less of the log for its time: most of it is looks by keys.
REST_AFTER_SMALL = 0.7


@dataclass(frozen=True)
class PrunableJob:
    """A job that ended long enough ago."""

    job_id: str
    job_type: str
    status: str
    finished_at: datetime


class RetentionRepository(PostgreSQLRepository):
    """`sql/functions/retention.sql`."""

    def find_prunable_jobs(self, older_than_seconds: float, limit: int = JOBS_PER_FIND) -> list[PrunableJob]:
        """Jobs that ended longer ago than that, the oldest first."""
        return [PrunableJob(**row) for row in self._call("find_prunable_jobs", (older_than_seconds, limit))]

    def prune_jobs(
        self,
        older_than_seconds: float,
        *,
        most_tasks: int | None = None,
        on_progress: Callable[[Pruned], None] = lambda _: None,
    ) -> Pruned:
        """Delete jobs that ended longer ago than that, with their tasks, stages and events.

        Args:
            most_tasks: Stop after about this number of task rows; the next call goes on. None: all.
            on_progress: Called after each piece with what went so far.
        """
        pruned = Pruned()
        # Those that the database refuses to delete, and so the first that are found each time.
        refused: set[str] = set()
        while jobs := self.find_prunable_jobs(older_than_seconds, JOBS_PER_FIND + len(refused)):
            before = pruned.jobs + len(refused)
            left = [job.job_id for job in jobs if job.job_id not in refused]
            while gone := self._prune_small(left, pruned):
                left = [job_id for job_id in left if job_id not in gone]
                on_progress(pruned)
                if most_tasks is not None and pruned.tasks >= most_tasks:
                    return pruned
            for job_id in left:
                while self._prune_piece(job_id, pruned, refused):
                    on_progress(pruned)
                    if most_tasks is not None and pruned.tasks >= most_tasks:
                        return pruned
                on_progress(pruned)
            if pruned.jobs + len(refused) == before:
                break  # all of them are locked by others
        return pruned

    def prune_dead_letters(self, older_than_seconds: float, *, most: int | None = None) -> int:
        """Delete dead letters that came longer ago than that and whose job is not there: how many went.

        Args:
            most: Stop after about this number; the next call goes on. None: all.
        """
        return self._prune_rows("prune_dead_letters", older_than_seconds, DEAD_LETTERS_PER_CALL, most)

    def prune_ticks(self, older_than_seconds: float, *, most: int | None = None) -> int:
        """Delete ticks of schedules that were decided about longer ago than that: how many went.

        Args:
            most: Stop after about this number; the next call goes on. None: all.
        """
        return self._prune_rows("prune_ticks", older_than_seconds, TICKS_PER_CALL, most)

    def prune_audit(self, older_than_seconds: float, *, most: int | None = None) -> int:
        """Delete rows of the audit log that are older than that: how many went.

        Args:
            most: Stop after about this number; the next call goes on. None: all.
        """
        return self._prune_rows("prune_audit", older_than_seconds, AUDIT_ROWS_PER_CALL, most)

    def prune_limits(self, idle_seconds: float, *, most: int | None = None) -> int:
        """Delete limits that no stage has needed for this time, and places whose time is over: how many limits went.

        Args:
            most: Stop after about this number; the next call goes on. None: all.
        """
        return self._prune_rows("prune_limits", idle_seconds, LIMITS_PER_CALL, most)

    def _prune_rows(self, function: str, older_than_seconds: float, per_call: int, most: int | None) -> int:
        count = 0
        while most is None or count < most:
            (row,) = self._call(function, (older_than_seconds, per_call))
            count += row[function]
            if row[function] < per_call:
                break
        return count

    def _prune_small(self, job_ids: list[str], pruned: Pruned) -> frozenset[str]:
        """Delete the first of these jobs that make one piece together: which are gone. Rests afterwards.

        None of them, if the database refuses to delete one: each is asked for alone then.
        """
        started = time.monotonic()
        try:
            (row,) = self._call("prune_small_jobs", (job_ids, TASKS_PER_CALL))
        except (ChangeRefused, ValuesRefused):
            return frozenset()
        gone = frozenset(row["pruned_job_ids"])
        if gone:
            time.sleep(REST_AFTER_SMALL * (time.monotonic() - started))
        pruned.tasks += row["pruned_tasks"]
        pruned.jobs += len(gone)
        return gone

    def _prune_piece(self, job_id: str, pruned: Pruned, refused: set[str]) -> bool:
        """Whether tasks of the job are left. Rests afterwards: others have the database for most of the time.

        Args:
            refused: Gets the job's id if the database refuses to delete it, such as for a foreign key of another table.
        """
        started = time.monotonic()
        try:
            (row,) = self._call("prune_job", (job_id, TASKS_PER_CALL))
        except (ChangeRefused, ValuesRefused) as error:
            if len(refused) < _MOST_TOLD:
                self._log.warning(
                    "job_not_pruned", extra={"checkpoint": "PRUNE", "job_id": job_id, "reason": error.reason}
                )
            refused.add(job_id)
            return False
        time.sleep(REST * (time.monotonic() - started))
        pruned.tasks += row["pruned_tasks"]
        pruned.jobs += row["is_job_pruned"]
        return bool(row["pruned_tasks"] and not row["is_job_pruned"])
