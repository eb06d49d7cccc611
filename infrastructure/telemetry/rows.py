"""What an observer reads from the rows: how a run of a job went, and what waits."""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import DictRow
from psycopg.sql import SQL

from core.models import JobRef
from core.schema.statuses import STATUS_SETS
from infrastructure.postgresql import PostgreSQLRepository

_RUN = SQL(
    "select job_type, status, correlation_id, traceparent, coalesce(run_started_at, created_at) as began_at,"
    " finished_at from {jobs} where job_id = %s and run = %s and finished_at is not null"
)
_CANCELLED = SQL(
    "select run from {jobs}"
    " where job_id = %s and status = 'cancelled' and finished_at > {clock}() - interval '5 seconds'"
)
_STAGES = SQL(
    "select stage, status, settings ->> 'name' as name, coalesce(expected_count, 0) as tasks, failed_count as failed,"
    " created_at as began_at, finished_at from {stages}"
    " where job_id = %s and run = %s and finished_at is not null order by stage"
)
_QUEUES = SQL(
    "select queue, status, count(*)::integer as tasks,"
    " coalesce(extract(epoch from {clock}() - min(announced_at) filter (where status = 'queued')), 0)::double precision"
    "   as age_seconds"
    " from {tasks} where status in ({open_tasks}) and parked_at is null group by queue, status"
)
# Tasks that wait in line in a window are no part of it, those that were taken into one are.
_UNANNOUNCED = SQL(
    "select (select count(*)::integer from {tasks} where status = 'pending' and not is_windowed and parked_at is null"
    "   and coalesce(due_at, created_at) <= {clock}())"
    " + (select count(*)::integer from {stages} s join {tasks} t using (job_id, run, stage)"
    "   where s.status in ({open_stages}) and t.status = 'pending' and t.task_id >= s.window_from"
    "   and t.task_id <= s.window_after and t.parked_at is null and t.held_for is null and t.announced_at is null"
    "   and coalesce(t.due_at, s.window_at) <= {clock}())"
    " as tasks,"
    " (select count(*)::integer from {jobs} where status in ({waiting_jobs}) and announced_at is null"
    "   and paused_at is null and coalesce(due_at, updated_at) <= {clock}()) as jobs"
)
# Those that most stages wait for: a name may have a job's parameter in it, so there may be many.
_LIMITS = SQL(
    "select w.limit_name as name, w.stages,"
    " (select count(*)::integer from {slots} s where s.limit_name = w.limit_name and s.has_begun) as places"
    " from (select limit_name, count(*)::integer as stages from {waiters} group by limit_name"
    "   order by count(*) desc, limit_name limit 50) w"
)


@dataclass(frozen=True)
class EndedStage:
    """A stage of a run that has ended."""

    stage: int
    status: str
    name: str
    tasks: int
    failed: int
    began_at: datetime
    finished_at: datetime


@dataclass(frozen=True)
class EndedRun:
    """A run of a job that has ended, with its stages."""

    job_type: str
    status: str
    correlation_id: str
    traceparent: str | None
    began_at: datetime
    finished_at: datetime
    stages: tuple[EndedStage, ...]


@dataclass(frozen=True)
class WaitingTasks:
    """Open tasks of one queue in one status, and how long the first of those with a message has waited."""

    queue: str
    status: str
    tasks: int
    age_seconds: float


@dataclass(frozen=True)
class WaitedForLimit:
    """A limit that stages wait for, and how many tasks hold its places."""

    name: str
    stages: int
    places: int


class TelemetryRows(PostgreSQLRepository):
    """Reads for the observer."""

    def find_ended_run(self, ref: JobRef) -> EndedRun | None:
        """None if the job is in another run by now."""
        rows = self._select("find_ended_run", _RUN, ref)
        if not rows:
            return None
        stages = tuple(EndedStage(**row) for row in self._select("find_ended_run", _STAGES, ref))
        return EndedRun(**rows[0], stages=stages)

    def find_cancelled_run(self, job_id: str) -> int | None:
        """The job's run if it was cancelled just now: a later cancel of a cancelled job changes nothing."""
        rows = self._select("find_cancelled_run", _CANCELLED, (job_id,))
        return int(rows[0]["run"]) if rows else None

    def read_queues(self) -> list[WaitingTasks]:
        """The open tasks of all queues; a hundred thousand take about a tenth of a second."""
        return [WaitingTasks(**row) for row in self._select("read_queues", _QUEUES)]

    def count_unannounced(self) -> dict[str, int]:
        """Tasks and jobs that are due and for which no message is confirmed."""
        (row,) = self._select("count_unannounced", _UNANNOUNCED)
        return dict(row)

    def read_waited_for_limits(self) -> list[WaitedForLimit]:
        """The limits that most stages wait for."""
        return [WaitedForLimit(**row) for row in self._select("read_waited_for_limits", _LIMITS)]

    def _select(self, operation: str, query: SQL, parameters: tuple[object, ...] = ()) -> list[DictRow]:
        names = {"jobs": "jobs", "stages": "stages", "tasks": "tasks", "clock": "clock"}
        names |= {"slots": "limit_places", "waiters": "limit_waiters"}
        tables = {name: self._table(table) for name, table in names.items()}
        return self._execute_query(operation, query.format(**tables, **STATUS_SETS), parameters)
