"""What people and the API read: a job with its stages, and lists in pages that hold still while rows are added."""

import base64
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal, LiteralString, TypeVar

from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Composed, Identifier
from psycopg.sql import Literal as SqlLiteral
from pydantic import AwareDatetime, Field, TypeAdapter

from core.models import JobRef
from core.models.definition import FrozenModel
from core.models.fields import StorableText
from core.models.job_filter import JobFilter, JobSort
from core.models.record import JobEvent, JobId, JobRecord
from core.models.status import JobStatus, TaskStatus
from core.models.view import EventPosition, JobDetail, JobRun, JobSummary, NewEvents, Page, TaskSummary
from core.schema.statuses import STATUS_SETS, literals
from infrastructure.base import RepositoryError
from infrastructure.connections import own_transaction
from infrastructure.job_filter import ORDERS, PLACES, PlaceWord, conditions_of, in_statuses
from infrastructure.list_columns import brief_texts, list_columns
from infrastructure.postgresql import Pool, PostgreSQLRepository, columns_of, where_all
from infrastructure.stage_counts import StageCounts

MAX_LIMIT = 1000
Row = TypeVar("Row", bound=FrozenModel)
Place = TypeVar("Place", bound=tuple[Any, ...])

# A place in a list, after which the next page begins. The first word keeps the lists apart.
_JOB_PLACE = TypeAdapter(tuple[PlaceWord, AwareDatetime, JobId])
_TASK_PLACE = TypeAdapter(tuple[Literal["tasks"], Annotated[StorableText, Field(max_length=100)]])
_EVENT_PLACE = TypeAdapter(tuple[Literal["events"], Annotated[int, Field(ge=0, lt=2**63)]])
_LOG_PLACE = TypeAdapter(tuple[Literal["logs"], Annotated[int, Field(ge=0, lt=2**63)]])
_MOST_SINGLE_EVENTS = 50
# All up to a number, and those after it that are named singly, by their distance from it.
_FOLLOWED = TypeAdapter(
    tuple[
        Literal["followed"],
        Annotated[int, Field(ge=0, lt=2**63)],
        Annotated[list[Annotated[int, Field(ge=1, lt=2**40)]], Field(max_length=_MOST_SINGLE_EVENTS)],
    ]
)
# Of an attempt that did not succeed.
ATTEMPT_EVENTS = ("job_step_retry_scheduled", "retry_scheduled", "task_failed", "task_interrupted")

# Where a row of a list is read whole, as expressions.
_WHOLE_TASK = "'/api/jobs/' || job_id || '/tasks/' || task_id || '?run=' || run::text"
_WHOLE_RUN = "'/api/jobs/' || job_id || '/runs/' || run::text"


class InvalidCursor(ValueError):
    """It is not from this list."""

    def __init__(self, cursor: str) -> None:
        self.cursor = cursor
        super().__init__(
            f"cursor: expected the next_cursor of an earlier page of this list, found {cursor[:100]!r}; "
            "leave it out to begin at the first page"
        )


class JobNotFound(RepositoryError):
    """No job has this id."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__("get_job_detail", f"no job has the id {job_id!r}")


class TaskNotFound(RepositoryError):
    """The run of the job has no such task."""

    def __init__(self, job_id: str, task_id: str, run: int | None) -> None:
        self.job_id, self.task_id, self.run = job_id, task_id, run
        of_run = "the current run" if run is None else f"run {run}"
        advice = f"GET /api/jobs/{job_id}/tasks (`coremachine tasks {job_id[:12]}`) lists them"
        super().__init__("get_task", f"{of_run} of job {job_id} has no task {task_id!r}; {advice}")


class RunNotFound(RepositoryError):
    """The job has no such run."""

    def __init__(self, job_id: str, run: int) -> None:
        self.job_id, self.run = job_id, run
        super().__init__("get_run", f"job {job_id} has no run {run}")


class JobQueries(PostgreSQLRepository):
    """Reads only. A page costs the same anywhere in its list: it begins at a key, not at an offset."""

    def __init__(self, pool: Pool, schema: str = "app") -> None:
        super().__init__(pool, schema)
        self._counts = StageCounts(pool, schema)

    def get_job_detail(self, job_id: str) -> JobDetail:
        """The job and the stages of its current run, with tasks counted by status; see `infrastructure.stage_counts`.

        Raises:
            JobNotFound: No such job.
        """
        detail = self._read_detail(job_id, only_ended=False)
        assert detail is not None  # noqa: S101 - only for a job that has not ended
        return detail

    def find_ended_job_detail(self, job_id: str) -> JobDetail | None:
        """As `get_job_detail`; None, after a look at one row, while the job has not ended."""
        return self._read_detail(job_id, only_ended=True)

    def _read_detail(self, job_id: str, *, only_ended: bool) -> JobDetail | None:
        with self._get_cursor("get_job_detail") as cursor, own_transaction(cursor.connection):
            row = cursor.execute(self._job_text, (job_id,)).fetchone()
            if row is None:
                raise JobNotFound(job_id)
            if only_ended and not JobStatus.stored(row["status"]).is_terminal:
                return None
            stages = self._counts.read_stages(cursor, JobRef(job_id, row["run"]), row["status"])
        return JobDetail(JobRecord.model_validate(row), stages)

    def find_job_status(self, job_id: str) -> JobStatus | None:
        """One look at one row; None for an unknown job."""
        query = SQL("select status from {} where job_id = %s").format(self._table("jobs"))
        rows = self._execute_query("find_job_status", query, (job_id,))
        return JobStatus.stored(rows[0]["status"]) if rows else None

    def find_job_type(self, job_id: str) -> str | None:
        """One look at one row; None for an unknown job."""
        query = SQL("select job_type from {} where job_id = %s").format(self._table("jobs"))
        rows = self._execute_query("find_job_type", query, (job_id,))
        return str(rows[0]["job_type"]) if rows else None

    def find_ended_jobs(self, job_ids: Collection[str]) -> set[str]:
        """Those of the jobs that have ended, or are not there, for those who wait: one query for all of them."""
        rows = self._execute("find_ended_jobs", self._ended_text, (list(job_ids),))
        return {row["job_id"] for row in rows}

    def find_jobs(
        self, wanted: JobFilter, *, sort: JobSort = JobSort.NEWEST, limit: int = 50, cursor: str | None = None
    ) -> Page[JobSummary]:
        """Jobs in order. Newest first, a job submitted later comes before the first page and moves no other job.

        Args:
            limit: The largest number, 1 to 1,000.

        Raises:
            InvalidCursor: A `cursor` that this list did not give.
            ValueError: A `limit` out of bounds.
        """
        conditions, parameters = _conditions_from(wanted, sort, cursor)
        column, direction = ORDERS[sort]
        order: LiteralString = f"{column} {direction}, job_id {direction}"
        rows = self._list("jobs", JobSummary, conditions, order, limit, parameters)
        return make_page(rows, JobSummary, limit, lambda row: _job_place(sort, row[column], row["job_id"]))

    def cursor_after(self, job: JobSummary) -> str:
        """The cursor of those that were submitted after this job, for `JobSort.OLDEST`."""
        return encode_cursor(_job_place(JobSort.OLDEST, job.created_at, job.job_id))

    def count_jobs(self, wanted: JobFilter, *, cursor: str | None = None) -> int:
        """How many jobs are like that; with a cursor of `JobSort.OLDEST`, only those that come after it.

        Raises:
            InvalidCursor: A `cursor` that no list in that order gave.
        """
        conditions, parameters = _conditions_from(wanted, JobSort.OLDEST, cursor)
        where = where_all(conditions)
        query = SQL("select count(*)::integer as count from {}{}").format(self._table("jobs"), where)
        return int(self._execute_query("count_jobs", query, parameters)[0]["count"])

    def list_tasks(
        self,
        job_id: str,
        *,
        run: int | None = None,
        stage: int | None = None,
        statuses: Iterable[TaskStatus] = (),
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[TaskSummary]:
        """Tasks of one run of a job, by their id; none for an unknown job. Large values are cut: `list_columns`.

        Args:
            run: None is the job's current run.
            stage: None is all stages.

        Raises:
            InvalidCursor, ValueError: As for `find_jobs`.
        """
        of_run, parameters = self._of_run(job_id, run)
        conditions: list[Composable] = [of_run]
        if stage is not None:
            # A stage is a range of ids: "s2-" to "s2.", the character after the hyphen.
            conditions.append(SQL("stage = %s and task_id >= %s and task_id < %s"))
            parameters += [stage, f"s{stage}-", f"s{stage}."]
        conditions += in_statuses(statuses)
        if cursor is not None:
            _, task_id = read_cursor(_TASK_PLACE, cursor)
            conditions.append(SQL("task_id > %s"))
            parameters.append(task_id)
        rows = self._list("tasks", TaskSummary, conditions, "task_id", limit, parameters, whole=_WHOLE_TASK)
        return make_page(rows, TaskSummary, limit, lambda row: _TASK_PLACE.dump_json(("tasks", row["task_id"])))

    def _of_run(self, job_id: str, run: int | None) -> tuple[Composable, list[Any]]:
        if run is not None:
            return SQL("job_id = %s and run = %s"), [job_id, run]
        current = SQL("job_id = %s and run = (select run from {} where job_id = %s)").format(self._table("jobs"))
        return current, [job_id, job_id]

    def get_task(self, job_id: str, task_id: str, *, run: int | None = None) -> TaskSummary:
        """One task with its values whole.

        Args:
            run: None is the job's current run.

        Raises:
            TaskNotFound: No such task, run or job.
        """
        of_run, parameters = self._of_run(job_id, run)
        query = SQL("select {} from {} where {} and task_id = %s").format(
            columns_of(TaskSummary), self._table("tasks"), of_run
        )
        rows = self._execute_query("get_task", query, [*parameters, task_id])
        if not rows:
            raise TaskNotFound(job_id, task_id, run)
        return TaskSummary.model_validate(rows[0])

    def list_runs(self, job_id: str) -> tuple[JobRun, ...]:
        """All runs of a job, the latest first; none for an unknown job. Large values are cut: `list_columns`."""
        query = SQL("select {} from ({}) r order by run desc").format(
            list_columns(JobRun, whole=_WHOLE_RUN), self._runs
        )
        return tuple(JobRun.model_validate(row) for row in self._execute_query("list_runs", query, (job_id,)))

    def get_run(self, job_id: str, run: int) -> JobRun:
        """One run with its values whole.

        Raises:
            RunNotFound: No such run, or job.
        """
        query = SQL("select {} from ({}) r where run = %s").format(columns_of(JobRun), self._runs)
        rows = self._execute_query("get_run", query, (job_id, run))
        if not rows:
            raise RunNotFound(job_id, run)
        return JobRun.model_validate(rows[0])

    @cached_property
    def _runs(self) -> Composed:
        return SQL(
            "select j.job_id, r.run, r.status, r.parameters, r.result, r.error, r.finished_at, "
            "coalesce(lag(r.followed_at) over (order by r.run), j.created_at) as started_at "
            "from {jobs} j cross join lateral ("
            "select run, status, parameters, result, error, finished_at, followed_at from {runs} "
            "where job_id = j.job_id "
            "union all select j.run, j.status, j.parameters, j.result, j.error, j.finished_at, null) r "
            "where j.job_id = %s"
        ).format(jobs=self._table("jobs"), runs=self._table("job_runs"))

    def list_events(self, job_id: str, *, limit: int = 50, cursor: str | None = None) -> Page[JobEvent]:
        """The job's timeline over all its runs, oldest first; none for an unknown job.

        Raises:
            InvalidCursor, ValueError: As for `find_jobs`.
        """
        conditions: list[Composable] = [SQL("job_id = %s")]
        parameters: list[Any] = [job_id]
        if cursor is not None:
            _, event_id = read_cursor(_EVENT_PLACE, cursor)
            conditions.append(SQL("event_id > %s"))
            parameters.append(event_id)
        rows = self._list("job_events", JobEvent, conditions, "event_id", limit, parameters)
        return make_page(rows, JobEvent, limit, lambda row: _EVENT_PLACE.dump_json(("events", row["event_id"])))

    def follow_events(self, job_id: str, *, limit: int = 50, cursor: str | None = None) -> NewEvents:
        """What came to the job's timeline after the cursor, oldest first; none for an unknown job.

        Events get their number before they are committed, so one with a smaller number may come later. The cursor
        therefore names the latest ones singly: those of the last half minute, at most fifty.

        Raises:
            InvalidCursor, ValueError: As for `find_jobs`.
        """
        check_limit(limit)
        floor, seen = (0, set[int]()) if cursor is None else _read_event_cursor(cursor)
        query = SQL(
            "select {columns}, at < {clock}() - interval '30 s' as is_old from {events}"
            " where job_id = %s and event_id > %s order by event_id limit %s"
        ).format(columns=list_columns(JobEvent), clock=self._table("clock"), events=self._table("job_events"))
        rows = self._execute_query("follow_events", query, (job_id, floor, limit + len(seen)))
        new = [row for row in rows if row["event_id"] not in seen][:limit]
        given = seen | {row["event_id"] for row in new}
        known = [row["event_id"] for row in rows if row["event_id"] in given]
        old = (row["event_id"] for row in rows if row["is_old"] and row["event_id"] in given)
        floor = max([floor, *old, *known[:-_MOST_SINGLE_EVENTS]])
        later = [event_id - floor for event_id in known if event_id > floor]
        items = tuple(
            JobEvent.model_validate({name: value for name, value in row.items() if name != "is_old"}) for row in new
        )
        text = encode_cursor(_FOLLOWED.dump_json(("followed", floor, later)))
        return NewEvents(items, text, EventPosition(job_id, floor, len(later)))

    def find_jobs_with_events(self, positions: Collection[EventPosition]) -> set[EventPosition]:
        """Those after which something happened, for those who wait: one query for all of them."""
        wanted = list(positions)
        query = SQL(
            "select w.job_id, w.floor, w.count"
            " from unnest(%s::text[], %s::bigint[], %s::integer[]) w(job_id, floor, count)"
            " where (select count(*) from (select from {} e where e.job_id = w.job_id and e.event_id > w.floor"
            " limit w.count + 1) n) > w.count"
        ).format(self._table("job_events"))
        columns = [[getattr(each, name) for each in wanted] for name in ("job_id", "floor", "count")]
        return {EventPosition(**row) for row in self._execute_query("find_jobs_with_events", query, columns)}

    def list_logs(
        self,
        job_id: str,
        *,
        task_id: str | None = None,
        run: int | None = None,
        after: int | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[JobEvent]:
        """Events of attempts that did not succeed, oldest first, with `log` in their detail whole.

        Args:
            run: None is all runs.
            after: The event after which the list begins.

        Raises:
            InvalidCursor, ValueError: As for `find_jobs`.
        """
        conditions: list[Composable] = [SQL("job_id = %s and event in ({})").format(literals(ATTEMPT_EVENTS))]
        parameters: list[Any] = [job_id]
        if cursor is not None:
            _, after = read_cursor(_LOG_PLACE, cursor)
        for column, value in (("task_id = %s", task_id), ("run = %s", run), ("event_id > %s", after)):
            if value is not None:
                conditions.append(SQL(column))
                parameters.append(value)
        check_limit(limit)
        query = SQL(
            "select job_id, event_id, run, stage, task_id, event, {detail}"
            " || case when jsonb_typeof(detail -> 'log') = 'string' then jsonb_build_object('log', detail -> 'log')"
            " else '{{}}' end as detail, at from {events} where {where} order by event_id limit %s"
        ).format(
            detail=brief_texts(SQL("detail")), events=self._table("job_events"), where=SQL(" and ").join(conditions)
        )
        rows = self._execute_query("list_logs", query, [*parameters, limit + 1])
        return make_page(rows, JobEvent, limit, lambda row: _LOG_PLACE.dump_json(("logs", row["event_id"])))

    def _list(
        self,
        table: str,
        model: type[FrozenModel],
        conditions: list[Composable],
        order: str,
        limit: int,
        parameters: list[Any],
        *,
        whole: LiteralString | None = None,
    ) -> list[DictRow]:
        """One row more than the page holds, to see whether another page follows."""
        check_limit(limit)
        where = where_all(conditions)
        query = SQL("select {} from {}{} order by {} limit %s").format(
            list_columns(model, whole=whole), self._table(table), where, SQL(order)
        )
        return self._execute_query(f"list_{table}", query, [*parameters, limit + 1])

    # Composed once: each costs more to write than a row to read.

    @cached_property
    def _job_text(self) -> str:
        query = SQL("select {} from {} where job_id = %s").format(columns_of(JobRecord), self._table("jobs"))
        return query.as_string()

    @cached_property
    def _ended_text(self) -> str:
        # A look by key for each, whatever the plan makes of the number of ids.
        ended = SQL(", ").join(SqlLiteral(status.value) for status in JobStatus if status.is_terminal)
        return (
            SQL(
                "select w.job_id from unnest(%s::text[]) w(job_id) "
                "where coalesce((select j.status in ({}) from {} j where j.job_id = w.job_id), true)"
            )
            .format(ended, self._table("jobs"))
            .as_string()
        )


def _conditions_from(wanted: JobFilter, sort: JobSort, cursor: str | None) -> tuple[list[Composable], list[Any]]:
    """Of jobs that are wanted, and come after the cursor's."""
    conditions, parameters = conditions_of(wanted)
    column, direction = ORDERS[sort]
    if column == "finished_at":
        conditions.append(SQL("status in ({})").format(STATUS_SETS["ended_jobs"]))
    if cursor is not None:
        word, at, job_id = read_cursor(_JOB_PLACE, cursor)
        if word != PLACES[sort]:
            raise InvalidCursor(cursor)
        sign: LiteralString = "<" if direction == "desc" else ">"
        conditions.append(SQL("({}, job_id) {} (%s, %s)").format(Identifier(column), SQL(sign)))
        parameters += [at, job_id]
    return conditions, parameters


def _job_place(sort: JobSort, at: datetime, job_id: str) -> bytes:
    return _JOB_PLACE.dump_json((PLACES[sort], at, job_id))


def check_limit(limit: int) -> None:
    """Raises ValueError where a list was asked for with another limit than there is."""
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit: expected 1 to {MAX_LIMIT}, found {limit}")


def make_page(rows: list[DictRow], model: type[Row], limit: int, place: Callable[[DictRow], bytes]) -> Page[Row]:
    """The rows as a page, of which there is one more than it holds if another page follows.

    Args:
        place: A row's place in its list, as JSON.
    """
    items = tuple(model.model_validate(row) for row in rows[:limit])
    if len(rows) <= limit:
        return Page(items, None)
    return Page(items, encode_cursor(place(rows[limit - 1])))


def encode_cursor(place: bytes) -> str:
    """A cursor for the rows after this place, which is JSON."""
    return base64.urlsafe_b64encode(place).decode().rstrip("=")


def _read_event_cursor(cursor: str) -> tuple[int, set[int]]:
    _, floor, later = read_cursor(_FOLLOWED, cursor)
    return floor, {floor + each for each in later}


def read_cursor(kind: TypeAdapter[Place], cursor: str) -> Place:
    """The place of a cursor. Raises InvalidCursor for one of another list."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return kind.validate_json(text)
    except ValueError as error:  # not base64, not JSON, or not such a place
        raise InvalidCursor(cursor) from error
