"""Dead messages as people, the API and redrives read them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from psycopg.sql import SQL, Composable, Composed
from pydantic import Field, TypeAdapter

from core.models.dead_letter import (
    DeadLetterDetail,
    DeadLetterGroup,
    DeadLetterSummary,
    Selection,
    WaitingRows,
)
from core.models.definition import FrozenModel
from core.models.view import Page
from core.schema.statuses import STATUS_SETS
from infrastructure.postgresql import PostgreSQLRepository, where_all
from infrastructure.queries import check_limit, make_page, read_cursor

_PLACE = TypeAdapter(tuple[Literal["dead_letters"], Annotated[int, Field(ge=0, lt=2**63)]])
# Groups are few; this number of newest messages is read for them.
GROUPED_ROWS = 100_000
_EXAMPLES = 3


class DeadLetterRepository(PostgreSQLRepository):
    """The table `dead_letters`."""

    def list_dead_letters(
        self,
        *,
        queue: str | None = None,
        job_id: str | None = None,
        fingerprint: str | None = None,
        resolved: bool | None = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[DeadLetterSummary]:
        """Dead messages, newest first.

        Args:
            resolved: None is both.

        Raises:
            InvalidCursor, ValueError: As for `JobQueries.find_jobs`.
        """
        conditions, parameters = _conditions(queue=queue, job_id=job_id, fingerprint=fingerprint, resolved=resolved)
        if cursor is not None:
            _, dead_letter_id = read_cursor(_PLACE, cursor)
            conditions.append(SQL("dead_letter_id < %s"))
            parameters.append(dead_letter_id)
        check_limit(limit)
        query = SQL("select {} from {}{} order by dead_letter_id desc limit %s").format(
            _columns(DeadLetterSummary), self._table("dead_letters"), where_all(conditions)
        )
        rows = self._execute_query("list_dead_letters", query, [*parameters, limit + 1])
        return make_page(
            rows, DeadLetterSummary, limit, lambda row: _PLACE.dump_json(("dead_letters", row["dead_letter_id"]))
        )

    def find_dead_letter(self, dead_letter_id: int) -> DeadLetterDetail | None:
        """One with its body."""
        query = SQL("select {} from {} where dead_letter_id = %s").format(
            _columns(DeadLetterDetail), self._table("dead_letters")
        )
        rows = self._execute_query("find_dead_letter", query, (dead_letter_id,))
        return DeadLetterDetail.model_validate(rows[0]) if rows else None

    def group_dead_letters(
        self, *, queue: str | None = None, job_id: str | None = None, resolved: bool | None = False
    ) -> list[DeadLetterGroup]:
        """Dead messages by fingerprint, the largest group first; of the newest GROUPED_ROWS."""
        conditions, parameters = _conditions(queue=queue, job_id=job_id, resolved=resolved)
        query = SQL(
            "select fingerprint, (array_agg(reason order by dead_letter_id desc))[1] as reason,"
            " (array_agg(description order by dead_letter_id desc))[1] as description, count(*)::integer as count,"
            " array_agg(distinct queue) as queues, count(distinct nullif(job_id, ''))::integer as job_count,"
            " min(received_at) as first_at, max(received_at) as last_at,"
            " (array_agg(dead_letter_id order by dead_letter_id desc))[1:{examples}] as examples"
            " from (select * from {letters}{where} order by dead_letter_id desc limit {rows}) d"
            " group by fingerprint order by count desc, last_at desc"
        ).format(
            examples=_EXAMPLES, letters=self._table("dead_letters"), where=where_all(conditions), rows=GROUPED_ROWS
        )
        rows = self._execute_query("group_dead_letters", query, parameters)
        return [DeadLetterGroup.model_validate(row) for row in rows]

    def select_dead_letters(self, selection: Selection, limit: int) -> tuple[list[DeadLetterDetail], int]:
        """Those that a redrive is about, oldest first, and how many unresolved ones there are beyond the limit.

        Resolved ones are among them only where the selection names them by id.
        """
        conditions, parameters = _conditions(
            queue=selection.queue,
            job_id=selection.job_id,
            fingerprint=selection.fingerprint,
            resolved=None if selection.ids else False,
        )
        if selection.ids:
            conditions.append(SQL("dead_letter_id = any(%s)"))
            parameters.append(list(selection.ids))
        table, where = self._table("dead_letters"), where_all(conditions)
        query = SQL("select {} from {}{} order by dead_letter_id limit %s").format(
            _columns(DeadLetterDetail), table, where
        )
        rows = self._execute_query("select_dead_letters", query, [*parameters, limit])
        letters = [DeadLetterDetail.model_validate(row) for row in rows]
        if len(letters) < limit:
            return letters, 0
        count = SQL("select count(*)::integer as n from {}{} and resolved_at is null and dead_letter_id > %s").format(
            table, where
        )
        last_id = letters[-1].dead_letter_id if letters else 0
        (row,) = self._execute_query("select_dead_letters", count, [*parameters, last_id])
        return letters, row["n"]

    def find_waiting_rows(self, letters: Sequence[DeadLetterDetail]) -> dict[int, WaitingRows]:
        """What waits for each of these messages now: its job for a step, which of its tasks for a claim."""
        query = SQL(
            "select d.dead_letter_id,"
            " exists (select 1 from {jobs} j where j.job_id = d.job_id and j.run = d.run"
            "   and j.status in ({waiting_jobs})) as job_waits,"
            " array(select named.id from {ids_in_order}(d.task_ids) as named"
            "   join {jobs} j on j.job_id = d.job_id and j.run = d.run and j.status = 'processing'"
            "   cross join lateral (select from {tasks} t"
            "     where t.job_id = d.job_id and t.run = d.run and t.task_id = named.id and t.stage = d.stage"
            "     and t.status in ({waiting_tasks}) offset 0) w"
            "   order by named.id) as task_ids"
            " from {letters} d where d.dead_letter_id = any(%s)"
        ).format(
            jobs=self._table("jobs"),
            tasks=self._table("tasks"),
            letters=self._table("dead_letters"),
            ids_in_order=self._table("ids_in_order"),
            **STATUS_SETS,
        )
        rows = self._execute_query("find_waiting_rows", query, ([letter.dead_letter_id for letter in letters],))
        return {row["dead_letter_id"]: WaitingRows(row["job_waits"], tuple(row["task_ids"])) for row in rows}

    def resolve_dead_letters(self, ids: Sequence[int], resolution: str, *, actor: str | None = None) -> int:
        """Say how these were dealt with; those that were already stay as they are. Returns how many changed."""
        (row,) = self._call("resolve_dead_letters", (list(ids), resolution, actor))
        return int(row["resolve_dead_letters"])


def _conditions(
    *,
    queue: str | None = None,
    job_id: str | None = None,
    fingerprint: str | None = None,
    resolved: bool | None = None,
) -> tuple[list[Composable], list[Any]]:
    equal = {"queue": queue, "job_id": job_id, "fingerprint": fingerprint}
    conditions: list[Composable] = [SQL(name + " = %s") for name, value in equal.items() if value is not None]
    if resolved is not None:
        conditions.append(SQL("resolved_at is not null" if resolved else "resolved_at is null"))
    return conditions, [value for value in equal.values() if value is not None]


def _columns(model: type[FrozenModel]) -> Composed:
    """The model's columns; an empty job_id is none."""
    columns = [SQL("nullif(job_id, '') as job_id") if name == "job_id" else SQL(name) for name in model.model_fields]
    return SQL(", ").join(columns)
