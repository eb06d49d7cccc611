"""PostgreSQL through one pool a process: few connections, a fresh password or token for each new one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection, Cursor
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Composable, Composed, Identifier, Placeholder
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool, PoolTimeout

from core.models.definition import FrozenModel
from infrastructure.base import BaseRepository, DatabaseUnavailable, RepositoryError, StageClosedMeanwhile
from infrastructure.migrations import Migrator

STAGE_CLOSED_SQLSTATE = "CM001"
Pool = ConnectionPool[Connection[DictRow]]


def create_pool(
    conninfo: str,
    *,
    password: Callable[[], str] | None = None,
    max_size: int = 4,
    max_lifetime_seconds: float = 1800.0,
    timeout_seconds: float = 10.0,
) -> Pool:
    """Open a pool of autocommit connections whose rows are dicts.

    Args:
        conninfo: A libpq connection string or URL, without the password if `password` is given.
        password: Called for every new connection: an Entra token provider, for example.
        max_lifetime_seconds: Below the token's life (about an hour), so that no connection outlives its token.
        timeout_seconds: How long a caller waits for a connection.
    """

    def connection_settings() -> dict[str, Any]:
        settings: dict[str, Any] = {"autocommit": True, "row_factory": dict_row}
        if password is not None:
            settings["password"] = password()
        return settings

    return ConnectionPool(
        conninfo,
        kwargs=connection_settings,
        min_size=1,
        max_size=max_size,
        max_lifetime=max_lifetime_seconds,
        timeout=timeout_seconds,
        open=True,
    )


class PostgreSQLRepository(BaseRepository):
    """One call is one statement on an autocommit connection, unless a caller opens a transaction itself."""

    def __init__(self, pool: Pool, schema: str = "app") -> None:
        super().__init__()
        self._pool = pool
        self._schema = schema

    @contextmanager
    def _get_connection(self) -> Iterator[Connection[DictRow]]:
        with self._pool.connection() as connection:
            yield connection

    @contextmanager
    def _get_cursor(self, operation: str) -> Iterator[Cursor[DictRow]]:
        with self._error_context(operation), self._get_connection() as connection, connection.cursor() as cursor:
            yield cursor

    def _execute_query(self, operation: str, query: Composable, parameters: Sequence[Any] = ()) -> list[DictRow]:
        """Run one statement and return its rows; no rows when it has no result."""
        with self._get_cursor(operation) as cursor:
            cursor.execute(query.as_string(cursor), parameters)
            return cursor.fetchall() if cursor.description else []

    def _call(self, function: str, parameters: Sequence[Any]) -> list[DictRow]:
        """Call one of the schema's functions: a transition in one round trip."""
        places = SQL(", ").join(Placeholder() for _ in parameters)
        query = SQL("select * from {}({})").format(Identifier(self._schema, function), places)
        return self._execute_query(function, query, parameters)

    def _ensure_schema_exists(self) -> None:
        """Make an empty database ready, bring an older one up to date; `infrastructure.migrations` says how."""
        Migrator(self._pool, self._schema).migrate()

    def _translate(self, operation: str, error: Exception) -> Exception:
        if isinstance(error, psycopg.Error) and error.sqlstate == STAGE_CLOSED_SQLSTATE:
            return StageClosedMeanwhile(operation, str(error).splitlines()[0])
        if isinstance(error, PoolTimeout | psycopg.OperationalError):
            return DatabaseUnavailable(operation, str(error))
        if isinstance(error, psycopg.Error):
            return RepositoryError(operation, str(error))
        return error


def build_where_clause(conditions: Mapping[str, Any]) -> tuple[Composed, list[Any]]:
    """`{"job_type": "a", "status": ["x", "y"], "stage": None}` -> a where clause of what is not None, and its values.

    Returns:
        The clause (empty when nothing is left), and the parameters in its order. A list means any of its values.
    """
    parts: list[Composed] = []
    values: list[Any] = []
    for column, value in conditions.items():
        if value is None:
            continue
        template = "{} = any(%s)" if isinstance(value, list | tuple) else "{} = %s"
        parts.append(SQL(template).format(Identifier(column)))
        values.append(list(value) if isinstance(value, tuple) else value)
    if not parts:
        return Composed([]), []
    return SQL(" where ") + SQL(" and ").join(parts), values


def columns_of(model: type[FrozenModel]) -> Composed:
    """The model's columns for a select list. Never `*`: a later release may have added columns to the table."""
    return SQL(", ").join(Identifier(name) for name in model.model_fields)


def as_jsonb(value: Mapping[str, Any] | None) -> Jsonb | None:
    return None if value is None else Jsonb(dict(value))
