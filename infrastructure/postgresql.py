"""PostgreSQL through one pool per process: few connections, a fresh password or token for each new one."""

import itertools
import logging
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol, Self, TypeVar, cast

import psycopg
from psycopg import Cursor
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Composed, Identifier, Placeholder
from psycopg_pool import ConnectionPool, PoolTimeout

from core.authors import forks
from core.basics.outage import outage
from core.basics.process_limits import restore_limits
from core.models.definition import FrozenModel
from infrastructure.base import (
    BaseRepository,
    ChangedMeanwhile,
    ChangeRefused,
    ConnectionsInUse,
    DatabaseReadOnly,
    DatabaseShort,
    DatabaseUnavailable,
    DatabaseUnsuitable,
    PreconditionFailed,
    RepositoryError,
    StatementCancelled,
    ValuesRefused,
)
from infrastructure.connections import (
    PreparedConnection,
    connect_with,
    connection_settings,
    left_to_libpq,
    with_environment,
)
from infrastructure.database_errors import (
    CANCELLED,
    NOT_READ_COMMITTED,
    POOLED,
    READ_ONLY,
    REFUSED_BY_OTHERS,
    STALE_PREPARATION,
    Fault,
    fault_of,
    first_line,
    reason_of,
    shortage_of,
)
from infrastructure.migrations import Migrator

C = TypeVar("C", bound="PooledConnection")
Parameters = Sequence[Any] | Mapping[str, Any]

CALLS_AT_MOST = 5
# The engine has about 60 statements; more come from the filters of lists.
MOST_CURSORS = 100

# After a failed attempt the pool waits 1 s, then 2, then 4, and so on: a long outage would be followed by a long wait.
# It gives up after this time instead, and the next caller who needs a connection starts again at once.
_RECONNECT_SECONDS = 5.0
# A connection that is so old and finds its server read-only was made before the server was demoted.
_WRITABLE_SECONDS = 5.0
# How long a renewal of leases waits for a connection of the pool, before it makes one of its own.
_URGENT_SECONDS = 1.0
# Distinguishes them from the pools of a handler, which shares the logger of the library.
_POOL_NAME = "coremachine-pool-"
_pool_numbers = itertools.count(1)


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


class PooledConnection(PreparedConnection):
    """A connection of the pool, which keeps a cursor for each of its statements."""

    _input: "select.poll | None" = None

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._cursors: dict[str, Cursor[DictRow]] = {}

    def run(self, text: str, parameters: Parameters) -> list[DictRow]:
        """Run one statement in a transaction of its own, at read committed; its rows, if it has any."""
        cursor = self._cursors.get(text) or self._cursor_for(text)
        if not self.needs_transaction:
            cursor.execute(cast("Any", text), parameters)
        else:
            # Begin, what is set, statement and commit travel together.
            with self.pipeline(), self.transaction():
                cursor.execute(cast("Any", text), parameters)
        # `description` would make an object of each column.
        result = cursor.pgresult
        if result is None or not result.nfields:
            return []
        rows = cursor.fetchall()
        # The cursor stays, its rows do not: they may be large.
        result.clear()
        return rows

    def _cursor_for(self, text: str) -> Cursor[DictRow]:
        """A statement's own cursor, which keeps how its parameters and columns are converted."""
        if len(self._cursors) >= MOST_CURSORS:
            self._cursors.clear()
        cursor = self._cursors[text] = self.cursor()
        return cursor

    def close(self) -> None:
        self._cursors.clear()
        super().close()

    def prepare(self, *, is_pooled: bool, needs_transaction: bool) -> None:
        if hasattr(select, "poll"):
            self._input = select.poll()
            self._input.register(self.fileno(), select.POLLIN)
        super().prepare(is_pooled=is_pooled, needs_transaction=needs_transaction)

    @property
    def is_usable(self) -> bool:
        """Whether the next statement is a transaction of its own, and the server is not about to close the connection.

        It announces that unasked, and nothing else: that is a look, and no call.
        """
        if not self.autocommit or self.pgconn.transaction_status != TransactionStatus.IDLE:
            return False
        if self._input is not None:
            return not self._input.poll(0)
        with socket.fromfd(self.fileno(), socket.AF_INET, socket.SOCK_STREAM) as copy:
            return not select.select([copy], [], [], 0)[0]


class Pool(ConnectionPool[PooledConnection]):
    """A pool of autocommit connections whose rows are dicts. It remembers why it could not connect last."""

    connect_error: Exception | None = None
    # There is a pooler in between: seen by what it did to a statement.
    is_pooled = False
    # Behind it, the default isolation is not what it was when a connection was made.
    needs_transaction = False
    # Connections that were made before are not used any more.
    _used_from = 0.0

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._made_in, self._pid = forks.process, os.getpid()

    def getconn(self, timeout: float | None = None) -> PooledConnection:
        """A connection that the server has not closed meanwhile, as far as it has said so: that is a look, no call.

        Nor is it one that somebody else in this process has begun a transaction on: what is written there is undone.

        Raises:
            NotThisProcess: This is a forked child: it would write into the parent's conversation.
        """
        if forks.process is not self._made_in:
            raise NotThisProcess(self._pid)
        while True:
            connection = super().getconn(timeout)
            if connection.connected_at >= self._used_from and connection.is_usable:
                return connection
            connection.close()
            # It makes another one in its place.
            self.putconn(connection)

    def connect_once(self) -> PooledConnection:
        """A connection beside those of the pool, for the caller to close."""
        return self.connection_class.connect(cast("str", self.conninfo), **cast("dict[str, Any]", self.kwargs))

    def judge(self, connection: PooledConnection, error: Exception) -> "Refused":
        """What a statement's error means, and whether the same call over another connection may do."""
        is_broken = connection.closed
        sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
        is_again = is_broken
        if sqlstate == READ_ONLY and connection.connected_at < time.monotonic() - _WRITABLE_SECONDS:
            # Demoted, as all others are that were made before. The connection string may find the new primary.
            self._used_from = time.monotonic()
            is_again = True
        elif sqlstate in STALE_PREPARATION:
            self.is_pooled = self.is_pooled or sqlstate in POOLED
            self._used_from = time.monotonic()
            is_again = True
        elif sqlstate == NOT_READ_COMMITTED:
            # The default changed behind a pooler, or another client's session left it so.
            self.needs_transaction = is_again = True
            self._used_from = time.monotonic()
        return Refused(fault_of(error, is_broken=is_broken), is_again=is_again)


# What a statement may meet: the server's answer, or a value that cannot be sent.
_REFUSALS = (psycopg.Error, UnicodeEncodeError, OverflowError)
_MEANINGS: dict[Fault, type[RepositoryError]] = {
    Fault.CHANGED: ChangedMeanwhile,
    Fault.NOT_AS_EXPECTED: PreconditionFailed,
    Fault.OUTAGE: DatabaseUnavailable,
    Fault.UNSUITABLE: DatabaseUnsuitable,
    Fault.DATA: ValuesRefused,
    Fault.OTHER: RepositoryError,
}


class Refused(Exception):
    """A statement's error, which is the cause, was sorted while its connection was at hand."""

    def __init__(self, fault: Fault, *, is_again: bool) -> None:
        self.fault, self.is_again = fault, is_again
        super().__init__(fault)


class _ToldByOutage(logging.Filter):
    """Drops what the library logs of each refused or lost connection: `core.basics.outage` gathers that."""

    _BEGINNINGS = (
        "error connecting in",
        "reconnection attempt in",
        "discarding closed connection",
        "discarding broken",
    )

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith(self._BEGINNINGS) or not isinstance(record.args, tuple) or not record.args:
            return True
        about = record.args[0]
        return not (isinstance(about, PooledConnection) or str(about).startswith(_POOL_NAME))


_told_by_outage = _ToldByOutage()


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
    variables = left_to_libpq()

    class OwnConnection(PooledConnection):
        @classmethod
        def connect(cls, conninfo: str = "", **settings: Any) -> Self:
            return _connect(pool, super().connect, conninfo, settings, password, variables)

    # Added once, however many pools there are.
    logging.getLogger("psycopg.pool").addFilter(_told_by_outage)
    pool = Pool(
        conninfo,
        name=f"{_POOL_NAME}{next(_pool_numbers)}",
        connection_class=OwnConnection,
        kwargs=connection_settings(conninfo),
        min_size=1,
        max_size=max_size,
        max_lifetime=max_lifetime_seconds,
        timeout=timeout_seconds,
        reconnect_timeout=_RECONNECT_SECONDS,
        open=False,
    )
    pool.open(wait=False)
    return pool


def _connect(
    pool: Pool,
    connect: Callable[..., C],
    conninfo: str,
    settings: dict[str, Any],
    password: PasswordSource | None,
    variables: frozenset[str],
) -> C:
    """A connection that is ready for the engine's statements; the pool learns why there is none.

    Args:
        variables: Of the environment, when the pool was made: `left_to_libpq`.
    """
    try:
        try:
            connection = connect_with(connect, conninfo, settings, password)
        except (psycopg.OperationalError, OSError, MemoryError):
            # libpq gives no code of what the system refused.
            if not restore_limits():
                raise
            connection = connect_with(connect, conninfo, settings, password)
        try:
            connection.prepare(is_pooled=pool.is_pooled, needs_transaction=pool.needs_transaction)
        except BaseException:
            connection.close()
            raise
    except Exception as error:
        pool.connect_error = with_environment(error, variables)
        outage.note(str(pool.connect_error))
        raise
    pool.connect_error = None
    if outage.is_on:
        outage.end()
    return connection


class PostgreSQLRepository(BaseRepository):
    """One call is one statement on an autocommit connection, unless a caller opens a transaction itself."""

    def __init__(self, pool: Pool, schema: str = "app") -> None:
        super().__init__()
        self._pool = pool
        self._schema = schema

    @contextmanager
    def _get_cursor(self, operation: str) -> Iterator[Cursor[DictRow]]:
        with self._error_context(operation), self._pool.connection() as connection, connection.cursor() as cursor:
            try:
                yield cursor
            except _REFUSALS as error:
                raise self._pool.judge(connection, error) from error

    def _execute_query(self, operation: str, query: Composable, parameters: Parameters = ()) -> list[DictRow]:
        """Run one statement and return its rows; no rows when it has no result."""
        return self._execute(operation, query.as_string(), parameters)

    def _execute(
        self, operation: str, text: str, parameters: Parameters, timeout: float | None = None
    ) -> list[DictRow]:
        """Run one statement; once more over another connection if this one was lost, or is of no use any more.

        Nobody knows then whether the first was committed. Each of our statements either only reads, or is fenced so
        that the second finds the first done and changes nothing; docs/reference/operations.md has the answers.
        """
        is_second = False
        while True:
            try:
                # Without the pool's own `with`, which also commits: this connection has no open transaction.
                connection = self._pool.getconn(timeout)
                try:
                    rows = connection.run(text, parameters)
                except _REFUSALS as error:
                    raise self._pool.judge(connection, error) from error
                finally:
                    self._pool.putconn(connection)
            except Exception as error:  # noqa: BLE001 - raised again as what it means
                if is_second or not (isinstance(error, Refused) and error.is_again):
                    self._raise_translated(operation, error)
                details = {"operation": operation, "reason": first_line(error.__cause__)}
                self._log.info("called_over_another_connection", extra=details)
                is_second = True
            else:
                if outage.is_on:
                    outage.end()
                return rows

    def _table(self, name: str) -> Identifier:
        """A table, or a function, of the schema."""
        return Identifier(self._schema, name)

    def _call(self, function: str, parameters: Sequence[Any], timeout: float | None = None) -> list[DictRow]:
        """Call one of the schema's functions: a transition in one round trip, again if another came in between.

        Args:
            timeout: Seconds to wait for a connection; None: those of the pool.
        """
        query = _call_of(self._schema, function, len(parameters))
        for _ in range(CALLS_AT_MOST - 1):
            try:
                return self._execute(function, query, parameters, timeout)
            except ChangedMeanwhile as error:
                self._log.info("called_again", extra={"operation": function, "reason": error.reason})
        return self._execute(function, query, parameters, timeout)

    def _call_at_once(self, function: str, parameters: Sequence[Any]) -> list[DictRow]:
        """As `_call`, for what must not wait: while all connections stay in use, over one more, for this call."""
        try:
            return self._call(function, parameters, _URGENT_SECONDS)
        except ConnectionsInUse:
            with self._error_context(function), self._pool.connect_once() as connection:
                try:
                    return connection.run(_call_of(self._schema, function, len(parameters)), parameters)
                except _REFUSALS as error:
                    raise self._pool.judge(connection, error) from error

    def _ensure_schema_exists(self) -> None:
        """Make an empty database ready, bring an older one up to date; see `infrastructure.migrations`."""
        Migrator(self._pool, self._schema).migrate()

    def _translate(self, operation: str, error: Exception) -> Exception:
        if isinstance(error, PoolTimeout):
            return _explain_timeout(self._pool, operation)
        if isinstance(error, psycopg.OperationalError):
            return DatabaseUnavailable(operation, str(error))  # the pool's own: it is closed
        if not isinstance(error, Refused):
            return error
        cause = error.__cause__
        if (shortage := shortage_of(cause)) is not None:
            return DatabaseShort(operation, str(cause), shortage)
        is_short = error.fault in {Fault.CHANGED, Fault.NOT_AS_EXPECTED}
        return _meaning_of(error.fault, cause)(operation, first_line(cause) if is_short else reason_of(cause))


def _meaning_of(fault: Fault, cause: BaseException | None) -> type[RepositoryError]:
    sqlstate = cause.sqlstate if isinstance(cause, psycopg.Error) else None
    if sqlstate in CANCELLED:
        return StatementCancelled
    if sqlstate == READ_ONLY:
        return DatabaseReadOnly
    return ChangeRefused if fault is Fault.OTHER and sqlstate in REFUSED_BY_OTHERS else _MEANINGS[fault]


def _explain_timeout(pool: "Pool", operation: str) -> DatabaseUnavailable:
    """Why the pool gave no connection in time."""
    expected = f"expected a connection within {pool.timeout:g} s"
    found = pool.connect_error
    if isinstance(found, DatabaseUnsuitable):
        return DatabaseUnsuitable(operation, found.reason)
    if found is not None:
        return DatabaseUnavailable(operation, f"{expected}, found that none can be made: {found}")
    return ConnectionsInUse(operation, expected, pool.max_size)


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
    return where_all(parts), values


def where_all(conditions: Sequence[Composable]) -> Composed:
    """A where clause of all these conditions; empty where there is none."""
    return SQL(" where ") + SQL(" and ").join(conditions) if conditions else Composed([])


def columns_of(model: type[FrozenModel]) -> Composed:
    """The model's columns for a select list. Never `*`: a later release may have added columns to the table."""
    return SQL(", ").join(Identifier(name) for name in model.model_fields)
