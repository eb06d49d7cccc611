"""Brings a database's schema to this release: one transaction, one process at a time, nothing destroyed."""

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import psycopg
from psycopg import Connection, Cursor
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Composed, Identifier, Literal
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from core.models.foreign import NOTHING_FOREIGN, ForeignFacts
from core.safety.safe_log import safe_logger
from core.schema.migration import Migration, in_order, load_migrations, text_checksum
from core.schema.sql_generator import generate_replaceable
from core.schema.tables import TABLES
from infrastructure.base import (
    ConnectionsInUse,
    DatabaseShort,
    DatabaseUnavailable,
    DatabaseUnsuitable,
    RepositoryError,
)
from infrastructure.connections import at_read_committed
from infrastructure.database_errors import Fault, fault_of, reason_of, shortage_of
from infrastructure.foreign_facts import find_foreign_facts
from infrastructure.schema_parts import ReplaceableParts, find_missing_parts

VERSIONS_TABLE = "schema_versions"
# The row of the functions and guards that were applied last; migrations count from 1.
FUNCTIONS_VERSION = 0
FUNCTIONS = "functions"
log = safe_logger(__name__)


class MigrationError(RepositoryError):
    """The schema was left as it was."""


class MigrationFailed(MigrationError):
    """A statement was refused; the database's own error is the cause."""

    def __init__(self, label: str, reason: str) -> None:
        self.label = label
        super().__init__("migrate", f"{label}: {reason}; nothing of this run was kept")


class MigrationChanged(MigrationError):
    """A migration that this database has was edited afterwards."""

    def __init__(self, version: int, found: str, expected: str) -> None:
        self.version = version
        super().__init__(
            "migrate",
            f"expected migration {version} as it was applied here ({found}), found another text ({expected}); "
            "published migrations are never edited: restore the file and write the change as a new migration",
        )


class SchemaWithoutVersions(MigrationError):
    """Tables are there, made by something else than migrations."""

    def __init__(self, schema: str, tables: Sequence[str]) -> None:
        self.schema, self.tables = schema, tuple(tables)
        super().__init__(
            "migrate",
            f"schema {schema!r} has {', '.join(tables)} but no {VERSIONS_TABLE}, so its state is unknown (a "
            "development version, schema.sql or another program made it); choose an empty schema, or drop this one",
        )


class MigrationBlocked(MigrationError):
    """Other transactions kept tables locked for too long; try again when they are through."""

    def __init__(self, attempts: int, lock_timeout_seconds: float) -> None:
        super().__init__(
            "migrate",
            f"a table's lock was not given within {lock_timeout_seconds} s, {attempts} times; "
            "look in pg_stat_activity for a transaction that stays open",
        )


@dataclass(frozen=True)
class SchemaStatus:
    """Which migrations of this release a database has.

    Args:
        database_version: Number of its last migration; 0 is an empty database. `code_version`: of this release's last.
        refuses_writes: Why it takes no writes now, and what to do; None where it takes them.
        foreign: What others did to the tables: triggers and rules, own triggers disabled, locks left behind.
    """

    database_version: int
    code_version: int
    pending: tuple[str, ...]
    functions_current: bool
    refuses_writes: str | None = None
    foreign: ForeignFacts = NOTHING_FOREIGN

    @property
    def is_newer(self) -> bool:
        """The database is ahead: another app of a later release migrated it. This release runs on it."""
        return self.database_version > self.code_version

    @property
    def is_current(self) -> bool:
        return self.is_newer or (not self.pending and self.functions_current)


@dataclass(frozen=True)
class _Step:
    label: str
    statement: Composed
    replaces_functions: bool = False


class Migrator:
    """Applies pending migrations, then the SQL functions, transition guards and comments if they changed.

    Args:
        database: A pool, or a connection; a connection's open transaction becomes the migration's.
        lock_timeout_seconds: How long a statement waits for a table, and keeps everybody else waiting behind it.
        attempts: How often the whole is tried when a lock was not given.
        functions: The statements to apply again, for a schema name.
    """

    def __init__(
        self,
        database: ConnectionPool[Any] | Connection[Any],
        schema: str = "app",
        *,
        migrations: Iterable[Migration] | None = None,
        functions: Callable[[str], Iterable[Composed]] | None = None,
        lock_timeout_seconds: float = 3.0,
        attempts: int = 10,
    ) -> None:
        self._database = database
        self._schema = schema
        self._migrations = load_migrations() if migrations is None else in_order(migrations)
        if sys.flags.optimize > 1:
            raise MigrationError(
                "migrate",
                "expected Python with docstrings, which describe the tables, found -OO or PYTHONOPTIMIZE=2: start it "
                "with -O, or without",
            )
        # Text is made of their parts once, and not at each use.
        texts = [statement.as_string(None) for statement in (functions or generate_replaceable)(schema)]
        self._functions = tuple(Composed([SQL(text)]) for text in texts)
        self._parts = ReplaceableParts(texts, schema)
        self._checksum = text_checksum(texts)
        self._lock_timeout_seconds = lock_timeout_seconds
        self._attempts = attempts

    def status(self, *, patience_seconds: float | None = None) -> SchemaStatus:
        """Read which migrations the database has; changes nothing.

        Args:
            patience_seconds: How long to wait for a connection of a pool; None: the pool's own time.

        Raises:
            MigrationChanged, SchemaWithoutVersions: As in `migrate`.
        """
        with self._transaction(patience_seconds) as cursor:
            self._expect_all_rows(cursor)
            status = self._status(cursor, self._history(cursor))
            foreign = find_foreign_facts(cursor, self._schema)
            if not status.pending and not status.is_newer:
                foreign = replace(foreign, missing=find_missing_parts(cursor, self._schema))
            return replace(status, refuses_writes=_why_read_only(cursor), foreign=foreign)

    def _expect_all_rows(self, cursor: Cursor[DictRow]) -> None:
        rows = cursor.execute(
            "select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where n.nspname = %s and c.relrowsecurity and row_security_active(c.oid) order by c.relname",
            (self._schema,),
        ).fetchall()
        if rows:
            names = ", ".join(row["name"] for row in rows)
            raise DatabaseUnsuitable(
                "migrate",
                f"expected a role that sees all rows, found row-level security on {names} of schema {self._schema!r}; "
                "run: alter table ... disable row level security (or alter role ... bypassrls)",
            )

    def plan(self) -> list[Composed]:
        """What `migrate` would run, in order, its bookkeeping included; empty when nothing is to be done.

        A function whose arguments or result changed is dropped first as well; that is decided while it runs.
        """
        with self._transaction() as cursor:
            return [step.statement for step in self._steps(cursor, self._history(cursor))]

    def migrate(self) -> tuple[str, ...]:
        """Bring the schema to this release and say what was applied: labels of migrations, `functions`.

        Any number of processes may call it at once: one works, the others wait and find it done. A database that is
        newer than this release is left as it is, with a warning.

        Raises:
            MigrationChanged: A published migration was edited.
            SchemaWithoutVersions: The schema holds tables that no migration made.
            MigrationBlocked: A table stayed locked.
            MigrationFailed: A statement was refused.
            DatabaseUnavailable: The database cannot be reached.
            DatabaseUnsuitable: It takes no writes, or the role may not look at the schema.
        """
        status = self.status()
        if status.is_newer:
            log.warning("schema_newer_than_code", extra={"checkpoint": "SCHEMA_NEWER", "schema": self._schema})
        if status.is_current:
            return ()
        if status.refuses_writes is not None:
            raise DatabaseUnsuitable("migrate", status.refuses_writes)
        for attempt in range(1, self._attempts + 1):
            try:
                return self._migrate_once()
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
                if attempt == self._attempts:
                    raise MigrationBlocked(attempt, self._lock_timeout_seconds) from error
                log.warning("migration_waits", extra={"checkpoint": "MIGRATION_WAITS", "attempt": attempt})
                # Those who queued behind the wanted lock go first.
                time.sleep(min(0.1 * 2**attempt, 5.0))
        raise ValueError(f"attempts: expected at least 1, found {self._attempts}")

    def _migrate_once(self) -> tuple[str, ...]:
        lock = "select pg_advisory_xact_lock(hashtextextended(%s, 0))"
        timeout = "select set_config('lock_timeout', %s, true)"
        # An index on a large table takes its time, whatever the operator allows a query.
        patience = "select set_config(name, '0', true) from pg_settings where name = any(%s)"
        with self._transaction() as cursor:
            cursor.execute(patience, (["statement_timeout", "transaction_timeout", "lock_timeout"],))
            cursor.execute(lock, (f"coremachine:migrate:{self._schema}",))
            # Only now: the wait for another process that migrates has no limit, the wait for a table has.
            cursor.execute(timeout, (f"{self._lock_timeout_seconds * 1000:.0f}ms",))
            steps = self._steps(cursor, self._history(cursor))
            before = self._function_rows(cursor)
            for step in steps:
                self._run(cursor, step)
            self._drop_outlived(cursor, before)
        labels = tuple(dict.fromkeys(step.label for step in steps))
        if labels:
            details = {"checkpoint": "SCHEMA_MIGRATED", "schema": self._schema, "applied": labels}
            log.info("schema_migrated", extra=details)
        return labels

    @contextmanager
    def _transaction(self, patience_seconds: float | None = None) -> Iterator[Cursor[DictRow]]:
        with self._connection(patience_seconds) as connection:
            try:
                with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
                    yield cursor
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                raise
            except psycopg.Error as error:
                raise _translated(None, error, connection) from error

    @contextmanager
    def _connection(self, patience_seconds: float | None) -> Iterator[Connection[Any]]:
        if isinstance(self._database, Connection):
            with at_read_committed(self._database):
                yield self._database
            return
        try:
            with self._database.connection(patience_seconds) as connection:
                yield connection
        except PoolTimeout as error:
            raise self._explain(patience_seconds) from error
        except PoolClosed as error:
            raise DatabaseUnavailable("migrate", str(error)) from error

    def _explain(self, patience_seconds: float | None) -> DatabaseUnavailable:
        """Why no connection came: all are in use, or what a pool of ours found wrong with the database."""
        pool = cast("ConnectionPool[Any]", self._database)
        found = getattr(pool, "connect_error", None)
        if isinstance(found, DatabaseUnsuitable):
            return DatabaseUnsuitable("migrate", found.reason)
        if found is not None:
            return DatabaseUnavailable("migrate", str(found))
        seconds = pool.timeout if patience_seconds is None else patience_seconds
        return ConnectionsInUse("migrate", f"expected a connection within {seconds:g} s", pool.max_size)

    def _history(self, cursor: Cursor[DictRow]) -> dict[int, DictRow]:
        """What was applied here, by version, each with its name and checksum."""
        wanted = [VERSIONS_TABLE, *(table.name for table in TABLES)]
        tables = cursor.execute(
            "select tablename from pg_tables where schemaname = %s and tablename = any(%s) order by tablename",
            (self._schema, wanted),
        ).fetchall()
        found = [row["tablename"] for row in tables]
        if VERSIONS_TABLE not in found:
            if found:
                raise SchemaWithoutVersions(self._schema, found)
            return {}
        query = SQL("select version, name, checksum from {}").format(self._versions_table)
        history = {row["version"]: row for row in cursor.execute(query).fetchall()}
        for migration in self._migrations:
            row = history.get(migration.version)
            if row is not None and row["checksum"] != migration.checksum:
                raise MigrationChanged(migration.version, row["name"], migration.name)
        return history

    def _status(self, cursor: Cursor[DictRow], history: Mapping[int, DictRow]) -> SchemaStatus:
        functions = history.get(FUNCTIONS_VERSION)
        is_applied = functions is not None and functions["checksum"] == self._checksum
        return SchemaStatus(
            database_version=max(history, default=0),
            code_version=len(self._migrations),
            pending=tuple(migration.label for migration in self._migrations if migration.version not in history),
            # Somebody may have dropped one.
            functions_current=is_applied and not self._parts.is_any_missing(cursor),
        )

    def _steps(self, cursor: Cursor[DictRow], history: Mapping[int, DictRow]) -> list[_Step]:
        if self._status(cursor, history).is_current:
            return []
        steps = self._foundation(cursor) if not history else []
        for migration in self._migrations:
            if migration.version not in history:
                steps.append(_Step(migration.label, migration.compose(self._schema)))
                record = self._record(migration.version, migration.name, migration.checksum)
                steps.append(_Step(migration.label, record))
        steps.extend(_Step(FUNCTIONS, statement, replaces_functions=True) for statement in self._functions)
        steps.append(_Step(FUNCTIONS, self._record(FUNCTIONS_VERSION, FUNCTIONS, self._checksum)))
        return steps

    def _foundation(self, cursor: Cursor[DictRow]) -> list[_Step]:
        """The schema, unless somebody with the right to make it has done so, and the version table."""
        steps = []
        if not cursor.execute("select from pg_namespace where nspname = %s", (self._schema,)).fetchall():
            steps.append(_Step("schema", SQL("create schema {}").format(Identifier(self._schema))))
        table = SQL(
            "create table if not exists {} (version integer primary key, name text not null, checksum text not null, "
            "applied_at timestamptz not null default now())"
        ).format(self._versions_table)
        return [*steps, _Step("schema", table)]

    def _record(self, version: int, name: str, checksum: str) -> Composed:
        return SQL(
            "insert into {} (version, name, checksum) values ({}, {}, {}) on conflict (version) "
            "do update set checksum = excluded.checksum, applied_at = excluded.applied_at"
        ).format(self._versions_table, Literal(version), Literal(name), Literal(checksum))

    def _run(self, cursor: Cursor[DictRow], step: _Step) -> None:
        try:
            if step.replaces_functions:
                self._replace_functions(cursor, step.statement)
            else:
                cursor.execute(step.statement)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            raise
        except psycopg.Error as error:
            raise _translated(step.label, error, cursor.connection) from error

    def _replace_functions(self, cursor: Cursor[DictRow], statement: Composed) -> None:
        """Create or replace; where PostgreSQL cannot replace (another result, other argument names), drop before."""
        try:
            with cursor.connection.transaction():
                cursor.execute(statement)
        except (psycopg.errors.InvalidFunctionDefinition, psycopg.errors.WrongObjectType):
            names = self._names_in(statement)
            rows = [row for row in self._function_rows(cursor).values() if row["name"] in names]
            self._drop(cursor, rows)
            cursor.execute(statement)

    def _drop_outlived(self, cursor: Cursor[DictRow], before: Mapping[int, DictRow]) -> None:
        """Drop what a function of the same name with other arguments has replaced: the rows that nothing rewrote."""
        after = self._function_rows(cursor)
        untouched = [row for oid, row in after.items() if oid in before and before[oid]["place"] == row["place"]]
        renewed = {row["name"] for row in after.values() if row not in untouched}
        self._drop(cursor, [row for row in untouched if row["name"] in renewed])

    def _drop(self, cursor: Cursor[DictRow], rows: Iterable[DictRow]) -> None:
        for row in rows:
            # The signature is PostgreSQL's own, quoted by it. Never cascade: what depends on it is not ours.
            signature = SQL(row["signature"])
            try:
                cursor.execute(SQL("drop routine ") + signature)
            except psycopg.errors.DependentObjectsStillExist as error:
                reason = f"a new {row['name']} takes the place of one that is in use: {error.diag.message_detail}"
                raise MigrationFailed(FUNCTIONS, reason) from error
            log.info("function_dropped", extra={"checkpoint": "FUNCTION_DROPPED", "function": row["signature"]})

    def _function_rows(self, cursor: Cursor[DictRow]) -> dict[int, DictRow]:
        """Functions of the schema by oid, without those of extensions. `place` changes when one is replaced."""
        rows = cursor.execute(
            "select p.oid::bigint as oid, p.proname as name, p.oid::regprocedure::text as signature, "
            "p.ctid::text as place from pg_proc p join pg_namespace n on n.oid = p.pronamespace "
            "where n.nspname = %s and p.prokind in ('f', 'p') and not exists (select from pg_depend d "
            "where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e') order by p.oid",
            (self._schema,),
        ).fetchall()
        return {row["oid"]: row for row in rows}

    def _names_in(self, statement: Composed) -> set[str]:
        schema = re.escape(Identifier(self._schema).as_string(None))
        pattern = rf'create or replace (?:function|procedure) {schema}\."?(\w+)"?\s*\('
        return set(re.findall(pattern, statement.as_string(None)))

    @property
    def _versions_table(self) -> Identifier:
        return Identifier(self._schema, VERSIONS_TABLE)


def _translated(label: str | None, error: psycopg.Error, connection: Connection[Any]) -> RepositoryError:
    """An outage, or what a person must look at; `label` is the step's, None for a look at the schema."""
    fault = fault_of(error, is_broken=connection.closed)
    if (shortage := shortage_of(error)) is not None:
        return DatabaseShort("migrate", str(error), shortage)
    if fault is Fault.OUTAGE:
        return DatabaseUnavailable("migrate", str(error))
    if label is None and fault is Fault.UNSUITABLE:
        return DatabaseUnsuitable("migrate", reason_of(error))
    return MigrationFailed(label or "schema", str(error))


def _why_read_only(cursor: Cursor[DictRow]) -> str | None:
    """Why this database takes no writes, and what to do; None where it takes them. It is never set otherwise here."""
    row = cursor.execute(
        "select pg_is_in_recovery() as is_standby, current_setting('transaction_read_only')::boolean as is_read_only, "
        "(select source from pg_settings where name = 'default_transaction_read_only') as source"
    ).fetchone()
    if row is None or not (row["is_read_only"] or row["is_standby"]):
        return None
    if row["is_standby"]:
        return (
            "expected a server that takes writes, found a standby; name the primary in the connection string, or both "
            "and target_session_attrs=read-write"
        )
    return (
        "expected a database that takes writes, found default_transaction_read_only = on (source: "
        f"{row['source']}); Azure sets it when the disk is full: make room or take a larger one; if somebody set it, "
        "run: alter database ... reset default_transaction_read_only (or alter role, alter system)"
    )
