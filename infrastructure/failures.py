"""Failed tasks, one by one or grouped by what went wrong."""

from typing import Annotated, Any, Literal

from psycopg.sql import SQL, Composable, Composed
from pydantic import Field, TypeAdapter

from core.models.dead_letter import FailedTaskSummary, FailureGroup
from core.models.record import JobId
from core.models.view import Page
from infrastructure.list_columns import MOST_TEXT_CHARACTERS, brief_texts
from infrastructure.postgresql import PostgreSQLRepository
from infrastructure.queries import check_limit, make_page, read_cursor

_Number = Annotated[int, Field(ge=0, lt=2**31)]
_PLACE = TypeAdapter(tuple[Literal["failures"], JobId, _Number, _Number, _Number])
_EXAMPLES = 3
# The number of failed tasks that are read to group them: about 2 s.
GROUPED_ROWS = 100_000


class FailureQueries(PostgreSQLRepository):
    """Failed tasks of the current runs of jobs, read over the partial index of failed tasks alone."""

    def group_failures(
        self, *, job_id: str | None = None, job_type: str | None = None, limit: int = 100, rows: int = GROUPED_ROWS
    ) -> list[FailureGroup]:
        """Failed tasks by fingerprint, the largest group first; at most `rows` tasks are looked at."""
        where, parameters = _where(job_id, job_type)
        query = SQL(
            "select fingerprint, (array_agg(error_type))[1] as error_type, (array_agg(message))[1] as message,"
            " bool_or(retryable) as retryable, count(*)::integer as count,"
            " count(distinct job_id)::integer as job_count,"
            " array_agg(distinct job_type) as job_types, array_agg(distinct task_type) as task_types,"
            " array_agg(distinct stage) as stages, min(finished_at) as first_at, max(finished_at) as last_at,"
            " (array_agg(jsonb_build_object('job_id', job_id, 'run', run, 'stage', stage, 'task_id', task_id,"
            "   'name', name) order by finished_at desc, task_id) filter (where place <= {examples})) as examples"
            " from (select f.*,"
            "   row_number() over (partition by fingerprint order by finished_at desc, task_id) as place"
            "   from ({failures}) f) p"
            " group by fingerprint order by count desc, last_at desc limit %s"
        ).format(examples=_EXAMPLES, failures=self._failures(where, rows))
        found = self._execute_query("group_failures", query, [*parameters, limit])
        return [FailureGroup.model_validate(row) for row in found]

    def list_failures(
        self,
        *,
        job_id: str | None = None,
        job_type: str | None = None,
        fingerprint: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[FailedTaskSummary]:
        """Failed tasks by job, stage and index.

        Raises:
            InvalidCursor, ValueError: As for `JobQueries.find_jobs`.
        """
        check_limit(limit)
        where, parameters = _where(job_id, job_type)
        if fingerprint is not None:
            where.append(self._fingerprint() + SQL(" = %s"))
            parameters.append(fingerprint)
        if cursor is not None:
            _, *place = read_cursor(_PLACE, cursor)
            where.append(SQL("(t.job_id, t.run, t.stage, t.task_index) > (%s, %s, %s, %s)"))
            parameters += place
        query = SQL(
            "select t.job_id, j.job_type, t.run, t.stage, t.task_id, t.task_index, t.task_type, t.name, t.attempt,"
            " {fingerprint} as fingerprint, coalesce({error}, '{{}}') as error, t.finished_at"
            " from {tasks} t join {jobs} j on j.job_id = t.job_id and j.run = t.run where {where}"
            " order by t.job_id, t.run, t.stage, t.task_index limit %s"
        ).format(
            fingerprint=self._fingerprint(),
            error=brief_texts(SQL("t.error")),
            tasks=self._table("tasks"),
            jobs=self._table("jobs"),
            where=SQL(" and ").join(where),
        )
        rows = self._execute_query("list_failures", query, [*parameters, limit + 1])
        return make_page(
            rows,
            FailedTaskSummary,
            limit,
            lambda row: _PLACE.dump_json(("failures", row["job_id"], row["run"], row["stage"], row["task_index"])),
        )

    def _failures(self, where: list[Composable], rows: int) -> Composed:
        return SQL(
            "select t.job_id, j.job_type, t.run, t.stage, t.task_id, t.task_type, t.name, t.finished_at,"
            " t.error ->> 'type' as error_type, left(t.error ->> 'message', {most}) as message,"
            " (t.error ->> 'retryable')::boolean as retryable, {fingerprint} as fingerprint"
            " from {tasks} t join {jobs} j on j.job_id = t.job_id and j.run = t.run where {where} limit {rows}"
        ).format(
            fingerprint=self._fingerprint(),
            most=MOST_TEXT_CHARACTERS,
            tasks=self._table("tasks"),
            jobs=self._table("jobs"),
            where=SQL(" and ").join(where),
            rows=rows,
        )

    def _fingerprint(self) -> Composed:
        return SQL("{}(t.error ->> 'type', t.error ->> 'message')").format(self._table("error_fingerprint"))


def _where(job_id: str | None, job_type: str | None) -> tuple[list[Composable], list[Any]]:
    where: list[Composable] = [SQL("t.status = 'failed'")]
    parameters: list[Any] = []
    if job_id is not None:
        where.append(SQL("t.job_id = %s"))
        parameters.append(job_id)
    if job_type is not None:
        where.append(SQL("j.job_type = %s"))
        parameters.append(job_type)
    return where, parameters
