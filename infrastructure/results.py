"""A stage's results and failures as streams, for later stages, fan-in and the job's own summary."""

from collections.abc import Iterator
from typing import Any

from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier, Literal

from core.models import JobRef, StageRef
from core.models.context import CompletedTask, FailedTask, StageSummary
from core.schema.statuses import STATUS_SETS
from infrastructure.postgresql import PostgreSQLRepository

ROWS_PER_PAGE = 1000


class ResultRepository(PostgreSQLRepository):
    """Reads page by page along the unique index (job_id, run, stage, task_index).

    Memory holds one page, and no connection or transaction is held between pages: a slow consumer of a stream
    keeps nobody waiting, and a pooler in transaction mode may stand in between.
    """

    def stream_results(self, ref: StageRef) -> Iterator[CompletedTask]:
        """The completed tasks of a stage, in order of their index."""
        for row in self._pages(ref, "completed", "result"):
            yield CompletedTask(row["task_id"], row["task_index"], row["name"], row["parameters"], row["result"] or {})

    def stream_failures(self, ref: StageRef) -> Iterator[FailedTask]:
        """The failed tasks of a stage, in order of their index."""
        for row in self._pages(ref, "failed", "error"):
            yield FailedTask(row["task_id"], row["task_index"], row["name"], row["parameters"], row["error"] or {})

    def expected_count(self, ref: StageRef) -> int:
        """How many tasks a planned stage has; 0 for one that is not planned."""
        query = SQL("select expected_count from {} where job_id = %s and run = %s and stage = %s").format(
            Identifier(self._schema, "stages")
        )
        rows = self._execute_query("expected_count", query, ref)
        return (rows[0]["expected_count"] or 0) if rows else 0

    def mean_task_seconds(self, job_type: str, stage: int) -> float | None:
        """How long tasks of this stage lasted in the last job of the type that ended well: the mean of the first."""
        query = SQL(
            "select {mean}(j.job_id, j.run, s.stage, 's' || s.stage::text || '-', 's' || s.stage::text || '.',"
            " coalesce((s.settings ->> 'tasks_per_message')::integer, 1), %s) as mean from ("
            " select job_id, run from {jobs} where job_type = %s and status in ({completed_jobs})"
            " order by created_at desc, job_id desc limit 1) j"
            " join {stages} s on s.job_id = j.job_id and s.run = j.run and s.stage = %s"
        ).format(
            mean=Identifier(self._schema, "mean_task_seconds"),
            jobs=Identifier(self._schema, "jobs"),
            stages=Identifier(self._schema, "stages"),
            **STATUS_SETS,
        )
        rows = self._execute_query("mean_task_seconds", query, (ROWS_PER_PAGE, job_type, stage))
        return next((row["mean"] for row in rows), None)

    def stage_summaries(self, ref: JobRef) -> list[StageSummary]:
        """How each stage of a run ended, in numbers of tasks. Those of a completed stage stand in its own row."""
        query = SQL(
            "select s.stage, s.status, s.failed_count as failed,"
            " case when s.status in ({completed_stages}) then s.expected_count - s.failed_count"
            " else (select count(*) from {tasks} t where t.job_id = s.job_id and t.run = s.run and t.stage = s.stage"
            "  and t.status = 'completed')::integer end as completed"
            " from {stages} s where s.job_id = %s and s.run = %s order by s.stage"
        ).format(stages=Identifier(self._schema, "stages"), tasks=Identifier(self._schema, "tasks"), **STATUS_SETS)
        rows = self._execute_query("stage_summaries", query, ref)
        return [StageSummary(row["stage"], row["status"], row["completed"], row["failed"]) for row in rows]

    def _pages(self, ref: StageRef, status: str, payload: str) -> Iterator[DictRow]:
        query = SQL(
            "select task_id, task_index, name, parameters, {} from {} where job_id = %s and run = %s and stage = %s"
            " and task_index > %s and status = {} order by task_index limit %s"
        ).format(Identifier(payload), Identifier(self._schema, "tasks"), Literal(status))
        after = -1
        while True:
            parameters: tuple[Any, ...] = (*ref, after, ROWS_PER_PAGE)
            rows = self._execute_query(f"stream_{status}", query, parameters)
            yield from rows
            if len(rows) < ROWS_PER_PAGE:
                return
            after = rows[-1]["task_index"]
