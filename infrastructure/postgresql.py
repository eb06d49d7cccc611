"""PostgreSQL through one pool a process: few connections, a fresh password or token for each new one."""

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol, Self, TypeVar

import psycopg
from psycopg import Connection, Cursor, adapters
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Composable, Composed, Identifier, Placeholder
from psycopg.types.json import Jsonb, set_json_loads
from psycopg_pool import ConnectionPool, PoolTimeout

from core.canonical import EncodedJson
from core.models.definition import FrozenModel
from infrastructure.base import BaseRepository, ChangedMeanwhile, DatabaseUnavailable, NotAsExpected, RepositoryError
from infrastructure.migrations import Migrator

C = TypeVar("C")

# Our own "changed between look and lock", a deadlock, a serialization failure: all were rolled back.
CHANGED_SQLSTATES = frozenset({"CM001", "40P01", "40001"})
NOT_AS_EXPECTED_SQLSTATE = "CM004"
CALLS_AT_MOST = 5

# After a failed attempt the pool waits 1 s, then 2, then 4, and so on: a long outage would be followed by a long wait.
# It gives up after this time instead, and the next caller who needs a connection starts again at once.
_RECONNECT_SECONDS = 5.0


class PasswordSource(Protocol):
    """Gives a password, such as an Entra token, for a new connection; another one than that which was refused."""

    def __call__(self, *, refused: str | None = None) -> str: ...


class NotThisProcess(RuntimeError):
    """A forked child asked for a connection of its parent's."""

    def __init__(self, parent: int) -> None:
        super().__init__(
            f"expected process {parent}, which made these connections, found its forked child {os.getpid()}; open a "
            "connection of the child's own, or do this in the parent"
        )


class Pool(ConnectionPool[Connection[DictRow]]):
    """A pool of autocommit connections whose rows are dicts. It remembers why it could not connect last."""

    connect_error: Exception | None = None

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._made_in = os.getpid()

    def getconn(self, timeout: float | None = None) -> Connection[DictRow]:
        """As the library's.

        Raises:
            NotThisProcess: This is a forked child: it would write into the parent's conversation.
        """
        if os.getpid() != self._made_in:
            raise NotThisProcess(self._made_in)
        return super().getconn(timeout)


def create_pool(
    conninfo: str,
    *,
    password: PasswordSource | None = None,
    max_size: int = 4,
    max_lifetime_seconds: float = 1800.0,
    timeout_seconds: float = 10.0,
) -> Pool:
    """Make a pool and return at once; it connects in the background, and again whenever a caller needs it.

    Args:
        conninfo: A libpq connection string or URL, without the password if `password` is given.
        password: Asked for every new connection, and once more when the database refuses what it gave.
        max_lifetime_seconds: Below the token's life (about an hour), so that no connection outlives its token.
        timeout_seconds: How long a caller waits for a connection, whether all are in use or none can be made.
    """

    class PooledConnection(Connection[DictRow]):
        @classmethod
        def connect(cls, conninfo: str = "", **settings: Any) -> Self:
            try:
                connection = _connect(super().connect, conninfo, settings, password)
            except Exception as error:
                pool.connect_error = error
                raise
            pool.connect_error = None
            return connection

    pool = Pool(
        conninfo,
        connection_class=PooledConnection,
        kwargs={"autocommit": True, "row_factory": dict_row},
        min_size=1,
        max_size=max_size,
        max_lifetime=max_lifetime_seconds,
        timeout=timeout_seconds,
        reconnect_timeout=_RECONNECT_SECONDS,
        open=False,
    )
    pool.open(wait=False)
    return pool


def _connect(connect: Callable[..., C], conninfo: str, settings: dict[str, Any], password: PasswordSource | None) -> C:
    if password is None:
        return connect(conninfo, **settings)
    first = password()
    try:
        return connect(conninfo, **settings | {"password": first})
    except psycopg.OperationalError as error:
        # libpq tells no SQLSTATE (28P01, 28000) of a refused connection. That the server had asked for the password
        # is what tells an expired token from a server out of reach.
        if error.pgconn is None or not error.pgconn.used_password:
            raise
    return connect(conninfo, **settings | {"password": password(refused=first)})


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
        return self._execute(operation, query.as_string(), parameters)

    def _execute(self, operation: str, text: str, parameters: Sequence[Any]) -> list[DictRow]:
        with self._get_cursor(operation) as cursor:
            cursor.execute(text, parameters)
            return cursor.fetchall() if cursor.description else []

    def _table(self, name: str) -> Identifier:
        """A table, or a function, of the schema."""
        return Identifier(self._schema, name)

    def _call(self, function: str, parameters: Sequence[Any]) -> list[DictRow]:
        """Call one of the schema's functions: a transition in one round trip, again if another came in between."""
        query = _call_of(self._schema, function, len(parameters))
        for _ in range(CALLS_AT_MOST - 1):
            try:
                return self._execute(function, query, parameters)
            except ChangedMeanwhile as error:
                self._log.info("called_again", extra={"operation": function, "reason": error.reason})
        return self._execute(function, query, parameters)

    def _ensure_schema_exists(self) -> None:
        """Make an empty database ready, bring an older one up to date; `infrastructure.migrations` says how."""
        Migrator(self._pool, self._schema).migrate()

    def _translate(self, operation: str, error: Exception) -> Exception:
        if isinstance(error, psycopg.Error) and error.sqlstate in CHANGED_SQLSTATES:
            return ChangedMeanwhile(operation, str(error).splitlines()[0])
        if isinstance(error, psycopg.Error) and error.sqlstate == NOT_AS_EXPECTED_SQLSTATE:
            return NotAsExpected(operation, str(error).splitlines()[0])
        if isinstance(error, PoolTimeout):
            return DatabaseUnavailable(operation, self._explain_timeout())
        if isinstance(error, psycopg.OperationalError):
            return DatabaseUnavailable(operation, str(error))
        if isinstance(error, psycopg.Error):
            return RepositoryError(operation, str(error))
        return error

    def _explain_timeout(self) -> str:
        expected = f"expected a connection within {self._pool.timeout:g} s"
        if self._pool.connect_error is not None:
            return f"{expected}, found that none can be made: {self._pool.connect_error}"
        return f"{expected}, found all {self._pool.max_size} in use; COREMACHINE_POOL_SIZE sets how many there are"


@cache
def _call_of(schema: str, function: str, parameter_count: int) -> str:
    places = SQL(", ").join([Placeholder()] * parameter_count)
    return SQL("select * from {}({})").format(Identifier(schema, function), places).as_string()


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


class JsonbArray(list[Jsonb | None]):
    """Values for a parameter of type jsonb[]."""


class _JsonbArrayDumper(Dumper):
    """In the binary format: as text each quote of each value is escaped, which takes four times as long."""

    format = Format.BINARY
    oid = adapters.types["jsonb"].array_oid

    _HEAD = struct.Struct("!5i")
    _LENGTH = struct.Struct("!i")
    _NULL = _LENGTH.pack(-1)
    _VERSION = b"\x01"

    def dump(self, obj: JsonbArray) -> bytes:
        if not obj:
            return struct.pack("!3i", 0, 0, adapters.types["jsonb"].oid)
        parts = [self._HEAD.pack(1, None in obj, adapters.types["jsonb"].oid, len(obj), 1)]
        for value in obj:
            if value is None:
                parts.append(self._NULL)
                continue
            text = (value.dumps or json.dumps)(value.obj)
            data = text.encode() if isinstance(text, str) else text
            parts += (self._LENGTH.pack(len(data) + 1), self._VERSION, data)
        return b"".join(parts)


def _read_json(data: str | bytes) -> Any:
    """What PostgreSQL writes is UTF-8 and begins at once; `json.loads` would look for both, for as long as it reads."""
    return _JSON_DECODER.raw_decode(data if isinstance(data, str) else data.decode())[0]


_JSON_DECODER = json.JSONDecoder()
adapters.register_dumper(JsonbArray, _JsonbArrayDumper)
set_json_loads(_read_json)


def as_jsonb(value: Mapping[str, Any] | EncodedJson | None) -> Jsonb | None:
    if value is None:
        return None
    return Jsonb(value, dumps=str) if isinstance(value, EncodedJson) else Jsonb(dict(value))
