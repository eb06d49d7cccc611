"""The facts that explain a job: one look at its rows, in one snapshot."""

from datetime import datetime
from typing import Any, TypeVar

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL

from core.models.insight import (
    InterruptedTask,
    JobFacts,
    LeaseFacts,
    LockHolder,
    QueueFacts,
    RetryFacts,
    RetryingTask,
    StepLeaseFacts,
    UnannouncedFacts,
    UnknownFacts,
    UnwrittenFacts,
)
from core.models.status import JobStatus
from core.schema.statuses import STATUS_SETS
from infrastructure.apps import AppRepository
from infrastructure.connections import own_transaction, snapshot
from infrastructure.dead_letters import DeadLetterRepository
from infrastructure.failures import GROUPED_ROWS, FailureQueries
from infrastructure.foreign_facts import HELD_SECONDS, find_foreign_facts
from infrastructure.limits import LimitRepository
from infrastructure.postgresql import Pool, PostgreSQLRepository
from infrastructure.queries import JobNotFound

T = TypeVar("T")
_EXAMPLES = 3
_GROUPS = 20

_JOB = SQL(
    "select {clock}() as now, j.job_id, j.status, j.run, j.stage, j.total_stages, j.attempt, j.due_at, j.start_at,"
    " j.announced_at,"
    " j.created_at, j.updated_at, j.finished_at, j.error, least(j.deadline_at, s.deadline_at) as deadline_at,"
    " s.queue_deadline_at, s.settings ->> 'name' as stage_name,"
    " (s.settings ->> 'lease_seconds')::double precision as lease_seconds,"
    " (s.settings ->> 'max_interruptions')::integer as max_interruptions,"
    " (s.settings ->> 'max_parallel')::integer as max_parallel, s.window_after, s.window_at,"
    " s.settings -> 'limits' as limits,"
    " s.status as stage_status, j.paused_at, j.cancel_deadline_at, j.waiting_for, j.step_lease"
    " from {jobs} j left join {stages} s on s.job_id = j.job_id and s.run = j.run and s.stage = j.stage"
    " where j.job_id = %(job_id)s"
)
_EVENT = SQL(
    "select at, detail from {events} where job_id = %(job_id)s and run = %(run)s and event = %(event)s"
    " order by event_id desc limit 1"
)
# Of the present step: its row has not changed since.
_STEP_UNWRITTEN = SQL(
    "select min(at) as since, max(at) as at, (array_agg(detail ->> 'reason' order by event_id desc))[1] as reason"
    " from {events} where job_id = %(job_id)s and run = %(run)s and stage = %(stage)s"
    " and event = 'job_step_not_written' and at >= %(updated_at)s having count(*) > 0"
)
# A task that was postponed, and that nobody has had since.
_IS_STRANGE = SQL(
    "status = 'pending_retry' and (waiting_for -> 'at' ->> 'attempt')::integer is not distinct from attempt"
)
# Where a task that a limit holds back has no message, or has one for when a rate lets it begin.
_IS_HELD = SQL("held_for is not null")
# A task that waits in line in its stage's window.
_IS_IN_LINE = SQL("(status = 'pending' and is_windowed and (task_id > %(window_after)s or announced_at is not null))")
# One that is due for another attempt, and waits there without a message.
_IS_RETRY_IN_LINE = SQL(
    "(status = 'pending_retry' and due_at <= %(now)s and announced_at is null and parked_at is null"
    " and held_for is null and waiting_for is null and coalesce(task_id <= %(retries_until)s, false))"
)
_OPEN = SQL(
    "select count(*)::integer as open_count,"
    " count(*) filter (where {is_in_line} or {is_retry_in_line})::integer as in_line,"
    " (count(*) filter (where status = 'pending' and not {is_in_line} and not {is_held}"
    "   and (due_at is null or due_at <= %(now)s)))::integer as unannounced,"
    # Tasks of a window need a message since they were taken into it.
    " min(coalesce(due_at, case when attempt = 0 then"
    "   greatest(created_at, case when is_windowed then %(window_at)s::timestamptz end) end)) filter"
    "   (where status = 'pending' and not {is_in_line} and not {is_held} and (due_at is null or due_at <= %(now)s))"
    "   as unannounced_since,"
    " count(*) filter (where status = 'pending' and due_at > %(now)s)::integer as held,"
    " min(due_at) filter (where status = 'pending' and due_at > %(now)s) as held_until,"
    " count(*) filter (where parked_at is not null)::integer as parked,"
    " count(*) filter (where status = 'pending_retry' and not ({is_strange}) and not {is_held}"
    "   and not {is_retry_in_line})::integer as retrying,"
    " min(due_at) filter (where status = 'pending_retry' and not ({is_strange}) and not {is_held}"
    "   and not {is_retry_in_line}) as retry_at,"
    " count(*) filter (where {is_strange})::integer as strange,"
    " count(*) filter (where status = 'pending_retry' and due_at <= %(now)s and announced_at is null"
    "   and not {is_held} and not {is_retry_in_line})::integer as retry_unannounced,"
    " count(*) filter (where {is_held} and status in ({waiting_tasks}))::integer as held_back,"
    " min(due_at) filter (where {is_held} and status = 'pending_retry' and due_at > %(now)s) as held_back_until,"
    " count(*) filter (where interruptions > 0)::integer as interrupted,"
    # Nearly always one; the least and the greatest cost no sort of all rows.
    " min(queue) filter (where status <> 'processing') as first_queue,"
    " max(queue) filter (where status <> 'processing') as last_queue"
    " from {tasks} where job_id = %(job_id)s and run = %(run)s and stage = %(stage)s"
    " and status in ({open_tasks})"
)
_RETRIES = SQL(
    "select task_id, name, attempt, due_at, error from {tasks}"
    " where job_id = %(job_id)s and run = %(run)s and stage = %(stage)s and status = 'pending_retry'"
    " and not ({is_strange}) and not {is_held} and not {is_retry_in_line} order by due_at, task_id limit %(examples)s"
)
_STRANGE = SQL(
    "select waiting_for ->> 'kind' as kind, waiting_for ->> 'name' as name, count(*)::integer as count,"
    " min((waiting_for ->> 'since')::timestamptz) as since, max((waiting_for ->> 'times')::integer) as times,"
    " (array_agg(waiting_for ->> 'by' order by waiting_for ->> 'seen_at' desc))[1] as by, min(due_at) as next_at,"
    " max((waiting_for ->> 'waited_seconds')::double precision) as waited_seconds,"
    " max((waiting_for ->> 'patience_seconds')::double precision) as patience_seconds"
    " from {tasks} where job_id = %(job_id)s and run = %(run)s and stage = %(stage)s and {is_strange}"
    " group by 1, 2 order by count desc, 1, 2 limit %(groups)s"
)
_INTERRUPTED = SQL(
    "select t.task_id, t.name, t.interruptions, t.lease_owner as owner,"
    " t.interruptions - coalesce(e.lost, 0)::integer as released, coalesce(e.unwritten, 0)::integer as unwritten,"
    " e.reason from {tasks} t left join (select task_id, count(*) filter (where event = 'task_interrupted') as lost,"
    "   count(*) filter (where event = 'outcome_not_written') as unwritten,"
    "   (array_agg(detail ->> 'reason' order by event_id desc) filter (where event = 'outcome_not_written'))[1]"
    "   as reason"
    "   from {events} where job_id = %(job_id)s and run = %(run)s"
    "   and event in ('task_interrupted', 'outcome_not_written') group by task_id) e using (task_id)"
    " where t.job_id = %(job_id)s and t.run = %(run)s and t.stage = %(stage)s and t.interruptions > 0"
    " and t.status in ({open_tasks})"
    " order by t.interruptions desc, t.task_id limit %(examples)s"
)
_LEASES = SQL(
    "select lease_owner as owner, count(*)::integer as count,"
    " count(*) filter (where lease_expires_at <= %(now)s)::integer as expired,"
    " min(lease_expires_at) filter (where lease_expires_at > %(now)s and timed_out_at is null) as next_expires_at,"
    " min(lease_expires_at) as first_expires_at, min(started_at) as oldest_started_at,"
    " (array_agg(coalesce(name, task_id) order by started_at, task_id))[1:%(examples)s] as examples"
    " from {tasks} where job_id = %(job_id)s and run = %(run)s and stage = %(stage)s and status = 'processing'"
    " group by lease_owner order by count desc, lease_owner limit %(groups)s"
)
# Who works on a queue is seen from the leases of all jobs; they are few, and have an index of their own.
_QUEUES = SQL(
    "select q.queue, q.count, q.announced_at, coalesce(w.busy, 0) as busy,"
    " coalesce(w.owners, array[]::text[]) as owners,"
    " (select max(t.started_at) from {tasks} t where t.job_id = %(job_id)s and t.run = %(run)s and t.queue = q.queue)"
    "   as last_start"
    " from (select queue, count(*)::integer as count, min(announced_at) as announced_at from {tasks}"
    "   where job_id = %(job_id)s and run = %(run)s and stage = %(stage)s and status = 'queued'"
    "     and parked_at is null group by queue) q"
    " left join (select queue, count(*)::integer as busy, array_agg(distinct lease_owner) as owners from {tasks}"
    "   where status = 'processing' and lease_expires_at > %(now)s group by queue) w on w.queue = q.queue"
    " order by q.queue"
)

# A row's lock is in no view; but who has one has also locked its table, in one of these modes. Transactions of the
# engine are short, but for planners that make tasks while they are copied. Those of another role have no times here
# without pg_read_all_stats: they count while others wait.
_HOLDERS = """
with held as (
  select l.pid, array_agg(distinct c.relname::text order by c.relname::text) as tables
  from pg_locks l join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace
  where l.locktype = 'relation' and l.granted and l.mode not in ('AccessShareLock', 'ShareUpdateExclusiveLock')
    and l.database = (select oid from pg_database where datname = current_database())
    and n.nspname = %(schema)s and c.relkind = 'r' and l.pid <> pg_backend_pid()
  group by l.pid
), seen as (
  select a.pid, coalesce(a.application_name, '') as application, coalesce(a.usename::text, '') as "user", a.state,
    extract(epoch from clock_timestamp() - a.xact_start)::double precision as open_seconds, held.tables,
    coalesce(a.state = 'active' and a.query ilike 'copy %%', false) as is_copy
  from held join pg_stat_activity a on a.pid = held.pid
), counted as (
  select seen.*, (select count(distinct w.pid)::integer from pg_locks w
    where not w.granted and seen.pid = any (pg_blocking_pids(w.pid))) as waiting
  from seen where open_seconds is null or open_seconds >= %(seconds)s
)
select pid, application, "user", state, open_seconds, tables, waiting from counted
where (open_seconds is not null and not is_copy) or waiting > 0
order by waiting desc, open_seconds desc nulls last limit %(most)s
"""


class InsightQueries(PostgreSQLRepository):
    """Reads for people who ask why a job does not move."""

    def __init__(self, pool: Pool, schema: str = "app") -> None:
        super().__init__(pool, schema)
        self._failures = FailureQueries(pool, schema)
        self._dead_letters = DeadLetterRepository(pool, schema)
        self._apps = AppRepository(pool, schema)
        self._limits = LimitRepository(pool, schema)

    def get_job_facts(self, job_id: str, *, most_failures: int = GROUPED_ROWS) -> JobFacts:
        """What `core.operating.explain` wants to know of a job.

        Args:
            most_failures: The number of failed tasks that are looked at to group them.

        Raises:
            JobNotFound: No such job.
        """
        with self._get_cursor("get_job_facts") as cursor, snapshot(cursor.connection):
            facts = self._read(cursor, job_id)
        facts["failures"] = tuple(self._failures.group_failures(job_id=job_id, limit=_GROUPS, rows=most_failures))
        facts["dead_letters"] = tuple(self._dead_letters.group_dead_letters(job_id=job_id))
        if not facts["status"].is_terminal:
            facts["fleet"] = self._apps.read_fleet(job_id)
            facts |= self._read_others()
        if limit_names := facts.pop("limit_names"):
            facts["limits"] = self._limits.read_limits(limit_names)
        return JobFacts(**facts)

    def _read_others(self) -> dict[str, Any]:
        """What others did to the tables, and have locked there."""
        with self._get_cursor("get_job_facts") as cursor:
            return {
                "foreign": find_foreign_facts(cursor, self._schema),
                "holders": self._read_holders(cursor, HELD_SECONDS),
            }

    def find_holders_beside(self, seconds: float) -> tuple[LockHolder, ...]:
        """Sessions that have rows or tables of the engine locked for that long, and that others wait for.

        Over a connection beside those of the pool, which may all wait for such a lock.
        """
        with (
            self._error_context("find_holders"),
            self._pool.connect_once() as connection,
            own_transaction(connection),
            connection.cursor() as cursor,
        ):
            return tuple(holder for holder in self._read_holders(cursor, seconds) if holder.waiting)

    def _read_holders(self, cursor: Cursor[DictRow], seconds: float) -> tuple[LockHolder, ...]:
        wanted = {"schema": self._schema, "seconds": seconds, "most": _EXAMPLES}
        return tuple(_as(LockHolder, row, "tables") for row in cursor.execute(_HOLDERS, wanted).fetchall())

    def _read(self, cursor: Cursor[DictRow], job_id: str) -> dict[str, Any]:
        rows = self._select(cursor, _JOB, {"job_id": job_id})
        if not rows:
            raise JobNotFound(job_id)
        facts = dict(rows[0])
        facts["status"] = JobStatus.stored(facts["status"])
        facts["stage_name"] = facts["stage_name"] or ""
        facts["unknown_step"] = _unknown_step(facts)
        facts["step_lease"] = _step_lease(facts)
        window_after, window_at = facts.pop("window_after"), facts.pop("window_at")
        limits = facts.pop("limits") or ()
        facts["limit_names"] = () if facts["status"].is_terminal else [limit["name"] for limit in limits]
        where = {name: facts[name] for name in ("job_id", "run", "stage", "now", "updated_at")}
        facts |= self._read_events(cursor, where)
        if facts["status"].is_terminal:
            return facts
        where |= {"examples": _EXAMPLES, "groups": _GROUPS}
        # Where limits count, another attempt has a message of its own.
        where |= {
            "window_at": window_at,
            "window_after": window_after,
            "retries_until": None if limits else window_after,
        }
        (counts,) = self._select(cursor, _OPEN, where)
        facts["in_line"] = counts["in_line"]
        facts["held_back"], facts["held_back_until"] = counts["held_back"], counts["held_back_until"]
        facts["open_count"], facts["parked"] = counts["open_count"], counts["parked"]
        facts["waiting_queues"] = tuple(sorted({counts["first_queue"], counts["last_queue"]} - {None}))
        facts["unannounced"] = UnannouncedFacts(
            counts["unannounced"], counts["unannounced_since"], counts["held"], counts["held_until"]
        )
        if counts["retrying"]:
            examples = tuple(RetryingTask(**row) for row in self._select(cursor, _RETRIES, where))
            facts["retries"] = RetryFacts(counts["retrying"], counts["retry_at"], counts["retry_unannounced"], examples)
        if counts["interrupted"]:
            facts["interrupted_count"] = counts["interrupted"]
            facts["interrupted"] = tuple(InterruptedTask(**row) for row in self._select(cursor, _INTERRUPTED, where))
        if counts["strange"]:
            facts["unknown_tasks"] = tuple(UnknownFacts(**row) for row in self._select(cursor, _STRANGE, where))
        facts["leases"] = tuple(_as(LeaseFacts, row, "examples") for row in self._select(cursor, _LEASES, where))
        facts["queues"] = tuple(_as(QueueFacts, row, "owners") for row in self._select(cursor, _QUEUES, where))
        return facts

    def _read_events(self, cursor: Cursor[DictRow], where: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for row in self._select(cursor, _EVENT, where | {"event": "job_step_retry_scheduled"}):
            found["step_error"] = row["detail"]
        for row in self._select(cursor, _STEP_UNWRITTEN, where):
            found["step_unwritten"] = UnwrittenFacts(**row)
        for row in self._select(cursor, _EVENT, where | {"event": "cancel_requested"}):
            found |= {"cancel_requested_at": row["at"], "cancel_reason": row["detail"].get("reason")}
        for row in self._select(cursor, _EVENT, where | {"event": "job_paused"}):
            found |= {"paused_by": row["detail"].get("actor"), "pause_reason": row["detail"].get("reason")}
        return found

    def _select(self, cursor: Cursor[DictRow], query: SQL, parameters: dict[str, Any]) -> list[DictRow]:
        composed = query.format(
            clock=self._table("clock"),
            jobs=self._table("jobs"),
            stages=self._table("stages"),
            tasks=self._table("tasks"),
            events=self._table("job_events"),
            is_strange=_IS_STRANGE,
            is_in_line=_IS_IN_LINE,
            is_retry_in_line=_IS_RETRY_IN_LINE,
            is_held=_IS_HELD,
            **STATUS_SETS,
        )
        return cursor.execute(composed, parameters).fetchall()


def _as(kind: type[T], row: DictRow, listed: str) -> T:
    """A row as facts; the column `listed` is a list there."""
    return kind(**{**row, listed: tuple(row[listed])})


def _present_note(facts: dict[str, Any], name: str) -> dict[str, Any] | None:
    """What is noted in the column, if it is about the job's present step."""
    note: dict[str, Any] | None = facts.pop(name)
    at = {name: facts[name] for name in ("run", "stage", "status", "attempt")}
    return note if note is not None and note["at"] == at else None


def _step_lease(facts: dict[str, Any]) -> StepLeaseFacts | None:
    note = _present_note(facts, "step_lease")
    if note is None:
        return None
    expires_at = datetime.fromisoformat(note["expires_at"])
    # The release before noted no beginning.
    since = datetime.fromisoformat(note["since"]) if "since" in note else facts["updated_at"]
    return StepLeaseFacts(
        note["owner"],
        since,
        expires_at,
        interruptions=note.get("interruptions", 0),
        lost=note.get("lost"),
        has_ended="has_ended" in note,
    )


def _unknown_step(facts: dict[str, Any]) -> UnknownFacts | None:
    """What the job's step waits for."""
    note = _present_note(facts, "waiting_for")
    if note is None:
        return None
    fields = ("kind", "name", "times", "by", "waited_seconds", "patience_seconds")
    return UnknownFacts(
        **{name: note[name] for name in fields},
        count=1,
        since=datetime.fromisoformat(note["since"]),
        next_at=datetime.fromisoformat(note["due_at"]),
    )
