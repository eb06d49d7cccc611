"""The janitor's finds: which rows need a message, a new owner or an end."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from core.models import JobRef, StageRef
from core.models.announcement import FoundTask, UnannouncedJob
from infrastructure.adapters import as_jsonb
from infrastructure.postgresql import PostgreSQLRepository


class JanitorRepository(PostgreSQLRepository):
    """`sql/functions/janitor.sql`: one method per function."""

    def find_expired_stages(self, limit: int) -> list[StageRef]:
        """Stages with tasks whose lease has run out."""
        return self._stages("find_expired_stages", (limit,))

    def find_overdue_stages(self, limit: int) -> list[StageRef]:
        """Stages at which jobs stand that have missed a declared deadline; up to `limit` of each kind of deadline."""
        return self._stages("find_overdue_stages", (limit,))

    def find_stalled_jobs(self, limit: int, grace_seconds: float) -> list[StageRef]:
        """Jobs that run though nothing of their stage is open, untouched for the grace."""
        return self._stages("find_stalled_jobs", (limit, grace_seconds))

    def find_overdue_cancels(self, limit: int) -> list[StageRef]:
        """Jobs that are cancelling for longer than their grace."""
        return self._stages("find_overdue_cancels", (limit,))

    def find_unannounced_tasks(self, limit: int, grace_seconds: float, hold_seconds: float) -> list[FoundTask]:
        """Tasks that need a message and have none confirmed, ordered by job and stage; held for the caller."""
        rows = self._call("find_unannounced_tasks", (limit, grace_seconds, hold_seconds))
        return [FoundTask(**row) for row in rows]

    def find_idle_windows(self, limit: int, planned_seconds: float, idle_seconds: float) -> list[StageRef]:
        """Stages with tasks that wait in line, whose window nobody has looked after for a while."""
        return self._stages("find_idle_windows", (limit, planned_seconds, idle_seconds))

    def find_unannounced_jobs(self, limit: int, grace_seconds: float, hold_seconds: float) -> list[UnannouncedJob]:
        """Jobs that wait for a step and have no message confirmed for it; held for the caller."""
        rows = self._call("find_unannounced_jobs", (limit, grace_seconds, hold_seconds))
        return [UnannouncedJob(**row) for row in rows]

    def let_go_of_tasks(self, ref: JobRef, task_ids: list[str]) -> None:
        """Found tasks whose messages no queue took: the next sweep finds them again."""
        self._call("let_go_of_tasks", (*ref, task_ids))

    def let_go_of_job(self, ref: JobRef, attempt: int) -> None:
        """The same for a job."""
        self._call("let_go_of_job", (*ref, attempt))

    def record_repair(self, ref: StageRef, event: str, detail: Mapping[str, Any]) -> None:
        """A line in the job's timeline."""
        self._call("record_event", (*ref, None, event, as_jsonb(detail)))

    def note_stalled_jobs(self, limit: int) -> int:
        """Write what webhooks are to learn of jobs that do not move, looking at up to `limit`: for how many."""
        [row] = self._call("note_stalled_jobs", (limit,))
        return int(row["note_stalled_jobs"])

    def bring_times_back(self, limit: int) -> int:
        """Times that are later than they can be, since the database's clock was ahead: how many rows begin anew."""
        [row] = self._call("bring_times_back", (limit,))
        return int(row["bring_times_back"])

    def read_clock(self) -> datetime:
        """The database's time."""
        [row] = self._call("clock", ())
        moment: datetime = row["clock"]
        return moment

    def find_lost_tasks(self, queue: str, limit: int, before: datetime) -> list[FoundTask]:
        """Tasks of a queue that wait for a message confirmed before the moment, by the database's clock; held."""
        return [FoundTask(**row) for row in self._call("find_lost_tasks", (queue, limit, before))]

    def find_lost_jobs(self, limit: int, before: datetime) -> list[UnannouncedJob]:
        """The same of jobs."""
        return [UnannouncedJob(**row) for row in self._call("find_lost_jobs", (limit, before))]

    def find_unknown_work(self, limit: int) -> list[tuple[str, str]]:
        """Kinds and names of what work waits for, since an app that took it did not know it."""
        return [(row["kind"], row["name"]) for row in self._call("find_unknown_work", (limit,))]

    def renew_patience(self, kind: str, name: str, limit: int) -> int:
        """An app that knows it is there: what has spent half of its patience has all of it again. How many rows."""
        [row] = self._call("renew_patience", (kind, name, limit))
        return int(row["renew_patience"])

    def _stages(self, function: str, parameters: tuple[Any, ...]) -> list[StageRef]:
        return [StageRef(row["job_id"], row["run"], row["stage"]) for row in self._call(function, parameters)]
