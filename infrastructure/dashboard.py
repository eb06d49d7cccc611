"""What the dashboard counts and draws. Each read is bounded, whatever the number of jobs and tasks."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Composed
from pydantic import Field, TypeAdapter

from core.models.dashboard import (
    AttemptMark,
    JobCounts,
    OpenTasks,
    PulseCell,
    PulseWindow,
    StageProgress,
    TaskBar,
    WebhookState,
)
from core.models.record import JobEvent, JobRecord
from core.models.refs import JobRef
from core.models.status import JobStatus, TaskStatus
from core.models.view import JobSummary, Page
from core.schema.statuses import ACTIVE_JOBS, STATUS_SETS, literals
from infrastructure.job_briefs import JobBriefs
from infrastructure.job_search import JobSearch
from infrastructure.list_columns import list_columns
from infrastructure.postgresql import Pool, PostgreSQLRepository
from infrastructure.queries import ATTEMPT_EVENTS, make_page, read_cursor

# A status with more jobs is shown as this number and a plus sign.
MOST_COUNTED = 10_000
# Tasks of the stages in one page of jobs: beyond them bars have no numbers.
_MOST_TASKS = 500_000
_OPEN_ROWS = 200_000
_MOST_EVENTS = 20_000
_EVENT_PLACE = TypeAdapter(tuple[Literal["latest_events"], Annotated[int, Field(ge=0, lt=2**63)]])

_OPEN_COUNT = SQL(
    "(select count(*) from {tasks} t where t.job_id = s.job_id and t.run = s.run and t.stage = s.stage"
    " and t.status in ({open_tasks}))"
)
_COMPLETED_COUNT = SQL(
    "(select count(*) from {tasks} t where t.job_id = s.job_id and t.run = s.run and t.stage = s.stage"
    " and t.status in ('completed'))"
)
_STAGES = SQL(
    "select s.job_id, s.stage, s.settings ->> 'name' as name, s.status, s.expected_count, s.failed_count"
    " from unnest(%s::text[], %s::integer[], %s::integer[]) w(job_id, run, stage)"
    " join {stages} s on s.job_id = w.job_id and s.run = w.run and s.stage = w.stage"
)
# Few: each is an attempt that a process has.
_RUNNING = SQL(
    "select job_id, stage, count(*)::integer as count from {tasks}"
    " where status in ('processing') and job_id = any(%s) group by job_id, stage"
)
_TOTALS = SQL(
    "select s.job_id, sum(s.expected_count)::integer as expected, sum(s.failed_count)::integer as failed"
    " from {stages} s join {jobs} j on j.job_id = s.job_id and j.run = s.run"
    " where s.job_id = any(%s) group by s.job_id"
)
_BAR_COLUMNS = SQL(
    "task_id, stage, name, status, attempt, interruptions, created_at, started_at, finished_at, due_at, from_run"
)
_BARS = SQL("select {columns} from {tasks} where job_id = %s and run = %s order by stage, task_index limit %s")
_MARKS = SQL(
    "select task_id, event, at, detail ->> 'type' as error_type from {events}"
    " where job_id = %s and run = %s and event in ({attempts}) and task_id is not null order by event_id limit %s"
)
# A stage is a range of ids, so each look reads its rows once and keeps the first.
_UNUSUAL = SQL(
    "select {columns} from (select distinct t.task_id as id from {stages} s"
    " cross join lateral ((select task_id from ({of_stage}) x where x.status = 'failed' or x.attempt > 1"
    "     order by x.status = 'failed' desc, x.interruptions desc, x.attempt desc, x.task_id limit %(limit)s)"
    "   union (select task_id from ({of_stage}) y where y.started_at is not null"
    "     order by coalesce(y.finished_at, {clock}()) - y.started_at desc, y.task_id limit 3)) t"
    " where s.job_id = %(job_id)s and s.run = %(run)s) u join {tasks} b on b.job_id = %(job_id)s"
    " and b.run = %(run)s and b.task_id = u.id order by b.stage, b.task_index"
)
_OF_STAGE = SQL(
    "select * from {tasks} r where r.job_id = %(job_id)s and r.run = %(run)s and r.from_run is null"
    " and r.task_id >= 's' || s.stage::text || '-' and r.task_id < 's' || s.stage::text || '.'"
)
_MARKS_OF = SQL(
    "select task_id, event, at, detail ->> 'type' as error_type from (select task_id, event, at, detail from {events}"
    " where job_id = %s and run = %s order by event_id desc limit {looked_at}) e"
    " where e.event in ({attempts}) and e.task_id = any(%s) order by e.at"
)
_PULSE = SQL(
    "select stage, greatest(0, least(%(cells)s - 1, floor(%(cells)s * extract(epoch from finished_at - %(begin)s)"
    " / %(seconds)s)))::integer as cell, count(*) filter (where status = 'completed')::integer as completed,"
    " count(*) filter (where status = 'failed')::integer as failed,"
    " count(*) filter (where finished_at > %(end)s - interval '1 minute')::integer as recent,"
    " coalesce(sum(extract(epoch from finished_at - started_at)), 0)::double precision as seconds"
    " from {tasks} where job_id = %(job_id)s and run = %(run)s and finished_at is not null and from_run is null"
    " group by 1, 2 order by 1, 2"
)
_WEBHOOKS = SQL(
    "select w.name, count(*) filter (where d.status = 'delivered')::integer as delivered,"
    " count(*) filter (where d.status = 'pending')::integer as pending,"
    " count(*) filter (where d.status = 'dead')::integer as dead, max(d.created_at) as latest_at"
    " from unnest(%s::text[]) w(name) cross join lateral (select x.status, x.created_at from {deliveries} x"
    "   where x.webhook = w.name order by x.created_at desc, x.delivery_id desc limit 200) d group by w.name"
)
_OPEN_TASKS = SQL(
    "select queue, count(*) filter (where status = 'pending_retry')::integer as retrying,"
    " count(*) filter (where status = 'pending')::integer as unannounced,"
    " coalesce(array_agg(distinct lease_owner) filter (where status = 'processing' and lease_owner is not null),"
    "   array[]::text[]) as owners"
    " from (select * from {tasks} where status in ({open_tasks}) limit {rows}) t group by queue order by queue"
)


class DashboardQueries(PostgreSQLRepository):
    """Reads only. `briefs`: what a page of jobs shows of each beside its progress. `search`: jobs by a text."""

    def __init__(self, pool: Pool, schema: str = "app") -> None:
        super().__init__(pool, schema)
        self.briefs = JobBriefs(pool, schema)
        self.search = JobSearch(pool, schema)

    def count_jobs(self) -> JobCounts:
        """By an index, and not beyond MOST_COUNTED for each status. A job that is paused counts as that alone."""
        statuses = [status.value for status in JobStatus]
        one = "(select count(*) from (select 1 from {jobs} where status = {status}{other} limit {most}) c)::integer"
        columns = [
            self._filled(
                SQL(one),
                status=SQL("{}").format(status),
                # Of those that may be paused there are few: a look at each is cheap.
                other=SQL(" and paused_at is null" if status in ACTIVE_JOBS else ""),
            )
            for status in statuses
        ]
        paused = self._filled(
            SQL(
                "(select count(*) from (select 1 from {jobs} where paused_at is not null"
                " and status in ({active_jobs}) limit {most}) c)::integer"
            )
        )
        query = SQL("select array[{}] as counts, {} as paused").format(SQL(", ").join(columns), paused)
        (row,) = self._execute_query("count_jobs", query)
        return JobCounts(dict(zip(statuses, row["counts"], strict=True)), row["paused"], MOST_COUNTED)

    def count_dead_letters(self, most: int) -> int:
        """Those that nobody dealt with, up to `most`."""
        query = self._filled(
            SQL("select count(*) as count from (select 1 from {dead_letters} where resolved_at is null limit %s) c")
        )
        return int(self._execute_query("count_dead_letters", query, (most,))[0]["count"])

    def list_relatives(self, job: JobRecord, limit: int) -> list[JobSummary]:
        """Other jobs with the job's type and parameters, the newest first; the one without a nonce is the last."""
        base = job.forced_from or job.job_id
        query = self._filled(
            SQL(
                "(select {columns} from {jobs} where forced_from = %s and job_id <> %s"
                "   order by created_at desc, job_id limit %s)"
                " union all (select {columns} from {jobs} where job_id = %s and job_id <> %s)"
            ),
            columns=list_columns(JobSummary),
        )
        rows = self._execute_query("list_relatives", query, (base, job.job_id, limit, base, job.job_id))
        return [JobSummary.model_validate(row) for row in rows]

    def read_progress(self, jobs: Collection[JobSummary]) -> dict[str, StageProgress]:
        """Where each job is, by job id; a job whose first stage is still to be written is left out."""
        ids = [job.job_id for job in jobs]
        rows = self._execute_query(
            "read_progress",
            self._filled(_STAGES),
            (ids, [job.run for job in jobs], [job.stage for job in jobs]),
        )
        running = {
            (row["job_id"], row["stage"]): row["count"]
            for row in self._execute_query("read_progress", self._filled(_RUNNING), (ids,))
        }
        counted = self._count_ended([row for row in rows if row["expected_count"]])
        return {
            row["job_id"]: StageProgress(
                row["stage"],
                row["name"],
                row["expected_count"],
                completed,
                row["failed_count"],
                ended,
                running.get((row["job_id"], row["stage"]), 0),
                is_counted=not row["expected_count"] or row["job_id"] in counted,
            )
            for row in rows
            for completed, ended in [counted.get(row["job_id"], (0, 0))]
        }

    def read_totals(self, job_ids: Collection[str]) -> dict[str, tuple[int, int]]:
        """Expected and failed tasks of all stages of the present run, by job id."""
        rows = self._execute_query("read_totals", self._filled(_TOTALS), (list(job_ids),))
        return {row["job_id"]: (row["expected"] or 0, row["failed"] or 0) for row in rows}

    def _count_ended(self, stages: Sequence[DictRow]) -> dict[str, tuple[int, int]]:
        """Completed and ended tasks by job id. A completed stage needs no count; others are counted by what is left."""
        done = {
            row["job_id"]: (row["expected_count"] - row["failed_count"], row["expected_count"])
            for row in stages
            if row["status"] in {"completed", "completed_with_errors"}
        }
        left, room = [], _MOST_TASKS
        for row in sorted(stages, key=lambda row: int(row["expected_count"])):
            room -= row["expected_count"]
            if row["job_id"] not in done and room >= 0:
                left.append(row)
        if left:
            query = self._filled(
                SQL(
                    "select s.job_id, case when s.status in ({open_stages}) and j.status <> 'cancelling'"
                    " then s.expected_count - s.failed_count - o.open else {completed} end::integer as completed,"
                    " (s.expected_count - o.open)::integer as ended"
                    " from unnest(%s::text[], %s::integer[]) w(job_id, stage) join {jobs} j on j.job_id = w.job_id"
                    " join {stages} s on s.job_id = w.job_id and s.run = j.run and s.stage = w.stage"
                    " cross join lateral (select {open} as open) o"
                ),
                open=self._filled(_OPEN_COUNT),
                completed=self._filled(_COMPLETED_COUNT),
            )
            parameters = ([row["job_id"] for row in left], [row["stage"] for row in left])
            found = self._execute_query("read_progress", query, parameters)
            done |= {row["job_id"]: (max(0, row["completed"]), max(0, row["ended"])) for row in found}
        return done

    def list_bars(self, ref: JobRef, limit: int) -> list[TaskBar]:
        """The first tasks of a run, by stage and place."""
        query = self._filled(_BARS, columns=_BAR_COLUMNS)
        return [_bar_of(row) for row in self._execute_query("list_bars", query, (ref.job_id, ref.run, limit))]

    def list_unusual(self, ref: JobRef, limit: int) -> tuple[list[TaskBar], list[AttemptMark]]:
        """Of each stage of a run: tasks that failed, were interrupted or needed more attempts, and the three slowest.

        Marks are looked for among the latest 20,000 events.

        Args:
            limit: The largest number of those that went wrong, for each stage.
        """
        query = self._filled(
            _UNUSUAL,
            columns=_BAR_COLUMNS,
            of_stage=self._filled(_OF_STAGE),
            clock=self._table("clock"),
        )
        values = {"job_id": ref.job_id, "run": ref.run, "limit": limit}
        bars = [_bar_of(row) for row in self._execute_query("list_unusual", query, values)]
        looked_at = SQL("{}").format(_MOST_EVENTS)
        of_them = self._filled(_MARKS_OF, attempts=literals(ATTEMPT_EVENTS), looked_at=looked_at)
        ids = [bar.task_id for bar in bars]
        rows = self._execute_query("list_marks", of_them, (ref.job_id, ref.run, ids))
        return bars, [AttemptMark(**row) for row in rows]

    def list_marks(self, ref: JobRef, limit: int) -> list[AttemptMark]:
        """The ends of attempts that did not succeed, the oldest first."""
        query = self._filled(_MARKS, attempts=literals(ATTEMPT_EVENTS))
        return [AttemptMark(**row) for row in self._execute_query("list_marks", query, (ref.job_id, ref.run, limit))]

    def read_pulse(self, ref: JobRef, window: PulseWindow) -> list[PulseCell]:
        """How many tasks of each stage ended when; tasks that a rerun kept do not count."""
        seconds = max(0.001, (window.end - window.begin).total_seconds())
        parameters: Mapping[str, Any] = {
            "job_id": ref.job_id,
            "run": ref.run,
            "begin": window.begin,
            "end": window.end,
            "cells": window.cells,
            "seconds": seconds,
        }
        rows = self._execute_query("read_pulse", self._filled(_PULSE), parameters)
        return [PulseCell(**row) for row in rows]

    def list_latest_events(self, job_id: str, *, limit: int, cursor: str | None = None) -> Page[JobEvent]:
        """The job's timeline over all its runs, the newest first.

        Raises:
            InvalidCursor: A `cursor` that this list did not give.
        """
        before = 2**63 - 1 if cursor is None else read_cursor(_EVENT_PLACE, cursor)[1]
        query = self._filled(
            SQL("select {columns} from {events} where job_id = %s and event_id < %s order by event_id desc limit %s"),
            columns=list_columns(JobEvent),
        )
        rows = self._execute_query("list_latest_events", query, (job_id, before, limit + 1))
        return make_page(rows, JobEvent, limit, lambda row: _EVENT_PLACE.dump_json(("latest_events", row["event_id"])))

    def read_open_tasks(self) -> list[OpenTasks]:
        """By queue; of at most 200,000 open tasks."""
        rows = self._execute_query("read_open_tasks", self._filled(_OPEN_TASKS, rows=SQL("{}").format(_OPEN_ROWS)))
        return [OpenTasks(**{**row, "owners": tuple(row["owners"])}) for row in rows]

    def read_webhook_states(self, names: Sequence[str]) -> dict[str, WebhookState]:
        """By name, of at most 200 deliveries each."""
        rows = self._execute_query(
            "read_webhook_states", self._filled(_WEBHOOKS, deliveries=self._table("webhook_deliveries")), (list(names),)
        )
        found = {row.pop("name"): WebhookState(**row) for row in map(dict, rows)}
        return {name: found.get(name, WebhookState()) for name in names}

    def _filled(self, query: SQL, **more: Composable) -> Composed:
        names: dict[str, Composable] = {
            "jobs": self._table("jobs"),
            "stages": self._table("stages"),
            "tasks": self._table("tasks"),
            "events": self._table("job_events"),
            "dead_letters": self._table("dead_letters"),
            "most": SQL("{}").format(MOST_COUNTED),
            **STATUS_SETS,
            **more,
        }
        return query.format(**names)


def _bar_of(row: DictRow) -> TaskBar:
    return TaskBar(**{**row, "status": TaskStatus.stored(row["status"])})
