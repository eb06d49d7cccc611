"""What a page of jobs shows of each beside its progress: parameters, apps, and why it waits. One statement per page."""

from collections.abc import Sequence
from typing import Any

from psycopg.rows import DictRow
from psycopg.sql import SQL

from core.models.dashboard import JobBrief, OpenSample
from core.models.view import JobSummary
from core.schema.statuses import STATUS_SETS
from infrastructure.postgresql import PostgreSQLRepository

# Open tasks of a stage that are looked at, in the order of the index `tasks_open`.
MOST_SAMPLED = 100
# Of a job's parameters, as they are stored; larger ones are read on the job's own page.
MOST_PARAMETER_BYTES = 8192

_NOTE_COUNTS = SQL(
    "j.waiting_for -> 'at' = jsonb_build_object('run', j.run, 'stage', j.stage, 'status', j.status,"
    " 'attempt', j.attempt)"
)
_WAITS = SQL("t.status in ({waiting_tasks}) and t.parked_at is null").format(**STATUS_SETS)
_IS_STRANGE = SQL(
    "t.status = 'pending_retry' and (t.waiting_for -> 'at' ->> 'attempt')::integer is not distinct from t.attempt"
)
_IS_IN_LINE = SQL(
    "t.status = 'pending' and t.is_windowed and (t.task_id > s.window_after or t.announced_at is not null)"
)
_SAMPLE = SQL(
    "select count(*)::integer as count, count(*) filter (where t.status = 'processing')::integer as running,"
    " count(*) filter (where t.status = 'processing' and t.lease_expires_at <= {clock}())::integer as expired,"
    " min(concat(t.waiting_for ->> 'kind', ' ', t.waiting_for ->> 'name')) filter (where {is_strange}) as unknown,"
    " min(t.held_for) filter (where {waits}) as held_for,"
    " bool_or({is_in_line}) as is_in_line,"
    " min(coalesce(t.due_at, case when t.attempt = 0 then"
    "   greatest(t.created_at, case when t.is_windowed then s.window_at end) end)) filter (where t.status = 'pending'"
    "   and not coalesce({is_in_line}, false) and t.held_for is null"
    "   and (t.due_at is null or t.due_at <= {clock}())) as unannounced_since,"
    " min(t.due_at) filter (where t.status = 'pending_retry' and not ({is_strange}) and t.held_for is null)"
    "   as retry_at,"
    " (array_agg(jsonb_build_object('type', t.error -> 'type', 'message', left(t.error ->> 'message', 300)))"
    "   filter (where t.status = 'pending_retry' and t.error is not null))[1] as retry_error,"
    " (array_agg(t.queue order by t.announced_at, t.task_id) filter (where {waits}))[1] as queue,"
    " (array_agg(t.task_type order by t.announced_at, t.task_id) filter (where {waits}))[1] as task_type,"
    " min(coalesce(t.announced_at, t.created_at)) filter (where {waits}) as since,"
    " coalesce(bool_or(t.announced_at is not null) filter (where {waits}), false) as is_sent,"
    " coalesce(array_agg(distinct t.lease_owner) filter (where t.status = 'processing'), array[]::text[]) as owners,"
    " (select array_agg(l.value ->> 'name') from jsonb_array_elements("
    "   case when jsonb_typeof(s.settings -> 'limits') = 'array' then s.settings -> 'limits' end) l) as limits,"
    " (select array_agg(c.name order by c.name) from {limits} c where (c.at_once = 0 or c.rate_count = 0)"
    "   and c.name in (select l.value ->> 'name' from jsonb_array_elements("
    "   case when jsonb_typeof(s.settings -> 'limits') = 'array' then s.settings -> 'limits' end) l)) as closed_limits"
    " from (select x.* from {tasks} x where x.job_id = j.job_id and x.run = j.run and x.stage = j.stage"
    "   and x.status in ({open_tasks}) order by x.job_id, x.run, x.stage, x.task_id limit {sampled}) t"
)
_BRIEFS = SQL(
    "select j.job_id, {clock}() as now, case when pg_column_size(j.parameters) <= {bytes} then j.parameters end"
    "   as parameters,"
    " j.attempt, j.due_at, j.announced_at,"
    " case when {lease_seconds}(j.step_lease, j.run, j.stage, j.status, j.attempt) > 0"
    "   then j.step_lease ->> 'owner' end as step_owner,"
    " case when {note_counts} then concat(j.waiting_for ->> 'kind', ' ', j.waiting_for ->> 'name') end as unknown_step,"
    " case when j.attempt > 0 then (select jsonb_build_object('type', e.detail -> 'type', 'message',"
    "   left(e.detail ->> 'message', 300)) from {events} e where e.job_id = j.job_id and e.run = j.run"
    "   and e.event = 'job_step_retry_scheduled' order by e.event_id desc limit 1) end as step_error,"
    " case when j.status in ({waiting_jobs}) then (select left(coalesce(e.detail ->> 'reason', ''), 300)"
    "   from {events} e where e.job_id = j.job_id and e.run = j.run and e.stage = j.stage"
    "   and e.event = 'job_step_not_written' and e.at >= j.updated_at order by e.event_id desc limit 1)"
    "   end as step_unwritten,"
    " case when j.paused_at is not null then (select e.detail from {events} e where e.job_id = j.job_id"
    "   and e.run = j.run and e.event = 'job_paused' order by e.event_id desc limit 1) end as pause,"
    " case when j.status in ({open_jobs}) then (select concat_ws(': ', d.reason, left(d.description, 200))"
    "   from {letters} d where d.job_id = j.job_id and d.resolved_at is null limit 1) end as dead_letter,"
    " case when j.status in ({ended_jobs}) then (select jsonb_build_object("
    "   'type', f.error -> 'type', 'message', left(f.error ->> 'message', 300))"
    "   from {tasks} f where f.job_id = j.job_id and f.run = j.run"
    "   and f.status in ('failed') order by f.stage, f.task_index limit 1) end as failure,"
    " (select c.lease_owner from {tasks} c where c.job_id = j.job_id and c.run = j.run and c.status in ('completed')"
    "   order by c.stage desc, c.task_index desc limit 1) as last_owner,"
    " (select f.lease_owner from {tasks} f where f.job_id = j.job_id and f.run = j.run and f.status in ('failed')"
    "   order by f.stage desc, f.task_index desc limit 1) as failed_owner,"
    " o.* from unnest(%s::text[]) a(job_id) join {jobs} j on j.job_id = a.job_id"
    " left join {stages} s on s.job_id = j.job_id and s.run = j.run and s.stage = j.stage"
    "   and j.status in ({running_jobs})"
    " left join lateral ({sample}) o on s.job_id is not null"
)
_SAMPLE_FIELDS = tuple(name for name in OpenSample.__dataclass_fields__ if name not in {"limits", "closed_limits"})


class JobBriefs(PostgreSQLRepository):
    """Reads only."""

    def read_briefs(self, jobs: Sequence[JobSummary]) -> dict[str, JobBrief]:
        """By job id; a job that was deleted meanwhile is left out."""
        query = _BRIEFS.format(
            **STATUS_SETS,
            clock=self._table("clock"),
            lease_seconds=self._table("step_lease_seconds"),
            jobs=self._table("jobs"),
            stages=self._table("stages"),
            tasks=self._table("tasks"),
            events=self._table("job_events"),
            letters=self._table("dead_letters"),
            bytes=SQL("{}").format(MOST_PARAMETER_BYTES),
            note_counts=_NOTE_COUNTS,
            sample=_SAMPLE.format(
                **STATUS_SETS,
                clock=self._table("clock"),
                tasks=self._table("tasks"),
                limits=self._table("limits"),
                waits=_WAITS,
                is_in_line=_IS_IN_LINE,
                is_strange=_IS_STRANGE,
                sampled=SQL("{}").format(MOST_SAMPLED),
            ),
        )
        by_id = {job.job_id: job for job in jobs}
        rows = self._execute_query("read_briefs", query, (list(by_id),)) if by_id else []
        return {row["job_id"]: _brief_of(row, by_id[row["job_id"]]) for row in rows}


def _brief_of(row: DictRow, job: JobSummary) -> JobBrief:
    sample: OpenSample | None = None
    if row["count"] is not None:
        limits = tuple(row["limits"] or ()) if row["is_in_line"] else ()
        closed = tuple(row["closed_limits"] or ())
        sample = OpenSample(**{name: row[name] for name in _SAMPLE_FIELDS}, limits=limits, closed_limits=closed)
    fields: dict[str, Any] = {
        name: row[name] for name in JobBrief.__dataclass_fields__ if name in row and name not in {"sample", "apps"}
    }
    return JobBrief(job=job, apps=_apps_of(row), sample=sample, **fields)


def _apps_of(row: DictRow) -> tuple[str, ...]:
    """A process is named `app:host:...`."""
    owners = row["owners"] or [row["last_owner"] or row["failed_owner"]]
    return tuple(dict.fromkeys(owner.split(":", 1)[0] for owner in owners if owner))
