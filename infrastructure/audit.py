"""The audit log: what people did, the latest first. Most rows are written by the functions that do it."""

from typing import Annotated, Any, Literal

from psycopg.sql import SQL, Composable
from pydantic import Field, TypeAdapter

from core.models.record import AuditRecord
from core.models.view import Page
from infrastructure.adapters import as_jsonb
from infrastructure.postgresql import PostgreSQLRepository, columns_of, where_all
from infrastructure.queries import check_limit, make_page, read_cursor

_PLACE = TypeAdapter(tuple[Literal["audit"], Annotated[int, Field(ge=0, lt=2**63)]])


class AuditRepository(PostgreSQLRepository):
    """Reads, and the row of an action on many."""

    def record_bulk(self, actor: str | None, reason: str | None, detail: dict[str, Any]) -> None:
        """The request for an action on many jobs; each of them has its own row."""
        self._call("record_audit", ("bulk", "", actor, reason, as_jsonb(detail)))

    def record_read(self, job_id: str, actor: str | None, path: str) -> None:
        """Somebody looked at a job; empty: at the list of jobs with their parameters."""
        self._call("record_audit", ("read", job_id, actor, None, as_jsonb({"path": path})))

    def list_audit(
        self,
        *,
        job_id: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[AuditRecord]:
        """Rows, the latest first.

        Raises:
            InvalidCursor: A `cursor` that this list did not give.
            ValueError: A `limit` out of bounds.
        """
        check_limit(limit)
        conditions: list[Composable] = []
        parameters: list[Any] = []
        before = None if cursor is None else read_cursor(_PLACE, cursor)[1]
        asked = (("job_id = %s", job_id), ("actor = %s", actor), ("action = %s", action), ("audit_id < %s", before))
        for text, value in asked:
            if value is not None:
                conditions.append(SQL(text))
                parameters.append(value)
        where = where_all(conditions)
        query = SQL("select {} from {}{} order by audit_id desc limit %s").format(
            columns_of(AuditRecord), self._table("audit_log"), where
        )
        rows = self._execute_query("list_audit", query, [*parameters, limit + 1])
        return make_page(rows, AuditRecord, limit, lambda row: _PLACE.dump_json(("audit", row["audit_id"])))
