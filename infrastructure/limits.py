"""Limits that stages share: what people read of them, and change."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from psycopg.rows import DictRow
from psycopg.sql import SQL
from pydantic import Field, TypeAdapter

from core.models.limit import LimitFacts, LimitHolder, LimitWaiter, Rate
from core.models.view import Page
from core.schema.statuses import STATUS_SETS
from infrastructure.connections import snapshot
from infrastructure.postgresql import PostgreSQLRepository
from infrastructure.queries import check_limit, encode_cursor, read_cursor

_PLACE = TypeAdapter(tuple[Literal["limits"], Annotated[str, Field(max_length=1000)]])
# Of those who hold places of a limit, those with most of them are shown.
_HOLDERS = 20

_NAMES = SQL("select name from {limits} where (%s::text is null or name > %s) order by name limit %s")
_FACTS = SQL(
    "select l.name, l.at_once, l.rate_count, l.rate_seconds, r.is_edited, l.held, l.reserved, l.begun,"
    " l.frees_at as next_at, r.edited_by, r.edited_at, r.reason,"
    " (select count(*)::integer from {waiters} w where w.limit_name = l.name) as waiting"
    " from {look}(%(names)s::text[], null, null, null, {clock}()) l join {limits} r on r.name = l.name order by l.name"
)
_HELD = SQL(
    "select limit_name, job_id, run, stage, count from ("
    " select s.limit_name, s.job_id, s.run, s.stage, count(*)::integer as count,"
    "   row_number() over (partition by s.limit_name order by count(*) desc, s.job_id, s.stage) as place"
    " from {slots} s where s.limit_name = any(%(names)s) and s.has_begun"
    " and (s.ends_at is null or s.ends_at > {clock}())"
    " group by 1, 2, 3, 4) h where place <= %(holders)s order by limit_name, place"
)


class LimitRepository(PostgreSQLRepository):
    """`sql/functions/limits.sql`, and reads."""

    def set_limit(
        self, name: str, at_once: int | None, rate: Rate | None, *, reason: str | None, actor: str | None
    ) -> None:
        """Choose a limit's numbers, None for any number; it need not be there."""
        numbers = (None, None) if rate is None else (rate.count, rate.seconds)
        self._call("set_limit", (name, at_once, *numbers, reason, actor))

    def forget_limit(self, name: str, *, reason: str | None, actor: str | None) -> bool:
        """Leave a limit's numbers to the stages that declare it. Whether somebody had chosen any."""
        (row,) = self._call("forget_limit", (name, reason, actor))
        return bool(row["forget_limit"])

    def read_limits(self, names: Sequence[str]) -> tuple[LimitFacts, ...]:
        """Those of these limits that are there, by name, with who holds them."""
        with self._get_cursor("read_limits") as cursor, snapshot(cursor.connection):
            facts = cursor.execute(self._compose(_FACTS), {"names": list(names)}).fetchall()
            held = cursor.execute(self._compose(_HELD), {"names": list(names), "holders": _HOLDERS}).fetchall()
        return tuple(_facts_of(row, held) for row in facts)

    def list_limits(self, *, limit: int = 50, cursor: str | None = None) -> Page[LimitFacts]:
        """Limits by name.

        Raises:
            InvalidCursor: A `cursor` that this list did not give.
            ValueError: A `limit` out of bounds.
        """
        check_limit(limit)
        after = None if cursor is None else read_cursor(_PLACE, cursor)[1]
        names = [
            row["name"] for row in self._execute_query("list_limits", self._compose(_NAMES), (after, after, limit + 1))
        ]
        next_cursor = None
        if len(names) > limit:
            names = names[:limit]
            next_cursor = encode_cursor(_PLACE.dump_json(("limits", names[-1])))
        return Page(self.read_limits(names), next_cursor)

    def list_waiters(self, name: str, *, limit: int) -> list[LimitWaiter]:
        """Stages with tasks that wait for a limit, the next one first."""
        query = SQL(
            "select w.job_id, j.job_type, w.run, w.stage from {waiters} w join {jobs} j on j.job_id = w.job_id"
            " where w.limit_name = %s and exists (select from {tasks} t where t.job_id = w.job_id and t.run = w.run"
            "   and t.stage = w.stage and t.status in ({open_tasks}) and t.status in ({waiting_tasks}))"
            " order by w.turn, w.job_id, w.stage limit %s"
        ).format(
            waiters=self._table("limit_waiters"), jobs=self._table("jobs"), tasks=self._table("tasks"), **STATUS_SETS
        )
        return [LimitWaiter(**row) for row in self._execute_query("list_waiters", query, (name, limit))]

    def _compose(self, query: SQL) -> Any:
        return query.format(
            limits=self._table("limits"),
            slots=self._table("limit_places"),
            waiters=self._table("limit_waiters"),
            look=self._table("look_at_limits"),
            clock=self._table("clock"),
        )


def _facts_of(row: DictRow, held: Sequence[DictRow]) -> LimitFacts:
    fields = dict(row)
    count, seconds = fields.pop("rate_count"), fields.pop("rate_seconds")
    return LimitFacts(
        **fields,
        rate=None if count is None else Rate(count=count, seconds=seconds),
        holders=tuple(
            LimitHolder(each["job_id"], each["run"], each["stage"], each["count"])
            for each in held
            if each["limit_name"] == row["name"]
        ),
    )
