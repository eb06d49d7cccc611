"""Connections as the engine needs them, whatever server, database, role or a pooler in between were set to.

Direct: what differs is set once per connection. Behind a pooler that gives each transaction another server connection
(PgBouncer in transaction mode), a session has nothing of its own: statements are not prepared, and where the defaults
are other ones, each statement gets a transaction that names read committed and sets the rest for itself, sent with it
in one round trip.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import psycopg
from psycopg import Connection, IsolationLevel, Transaction
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row

from infrastructure.adapters import ADAPTERS
from infrastructure.base import DatabaseUnsuitable
from infrastructure.database_errors import PROTOCOL_VIOLATION

C = TypeVar("C")

PATH = "search_path"
ISOLATION = "default_transaction_isolation"
READ_COMMITTED = "read committed"
CATALOG = "pg_catalog"
ENCODING = "UTF8"


@dataclass(frozen=True)
class Wanted:
    """A session's setting.

    Args:
        value: What it is set to.
        fits: Beginnings of other values that do as well.
        is_tracked: Poolers keep it for each client, as PgBouncer does for what the server reports.
        is_list: Of names, which SQL writes without quotes.
        is_of_sessions: Left as it is where a session cannot set it.
    """

    name: str
    value: str
    fits: tuple[str, ...] = ()
    is_tracked: bool = False
    is_list: bool = False
    is_of_sessions: bool = False

    def is_met(self, found: str) -> bool:
        return found == self.value or found.startswith(self.fits)

    @property
    def in_sql(self) -> str:
        return self.value if self.is_list else f"'{self.value}'"


def has_catalog_first(path: str) -> bool:
    """Whether a `search_path` finds what PostgreSQL itself defines before the same of another schema."""
    names = [name.strip().strip('"') for name in path.split(",")]
    # Where it is not named, it is looked at first.
    return CATALOG not in names or names[0] == CATALOG


# All others that were tried change no answer; docs/reference/operations.md has them.
WANTED = (
    # Our own names have their schema; functions, operators and types of PostgreSQL have none. With any other schema in
    # the path, before or after its own, one there that fits the arguments better would be taken.
    Wanted(PATH, f"{CATALOG}, pg_temp", is_list=True),
    Wanted(ISOLATION, READ_COMMITTED),
    # psycopg reads no instants of another style.
    Wanted("DateStyle", "ISO, MDY", ("ISO",), is_tracked=True),
    Wanted("TimeZone", "UTC", ("Etc/UTC", "GMT", "Etc/GMT"), is_tracked=True),
    # Without it, `\` in the functions' texts would begin an escape.
    Wanted("standard_conforming_strings", "on", is_tracked=True),
    # Without it, the missing name of a task becomes the text 'NULL'.
    Wanted("array_nulls", "on"),
    # With a negative one, seconds come rounded: 4000 for 3600.
    Wanted("extra_float_digits", "1", ("0", "2", "3")),
    # With a limit, a list by tag has some of its jobs, another selection each time.
    Wanted("gin_fuzzy_search_limit", "0"),
    # Where policies of tables apply to the role, statements are refused: they would leave rows out in silence.
    Wanted("row_security", "off", is_of_sessions=True),
    # As a replica, the deadlines' triggers and the guards of transitions do not fire.
    Wanted("session_replication_role", "origin", ("local",)),
)
# With their schema, since the path is not set yet.
_SETTINGS = ", ".join(f"{CATALOG}.current_setting('{wanted.name}')" for wanted in WANTED)
_LOOK = (
    f"select {CATALOG}.pg_backend_pid() as pid, array[{_SETTINGS}] as settings, "
    f"{CATALOG}.current_schemas(true)::{CATALOG}.text[] as schemas"
)
# Whether schemas have a function or an operator that a call of PostgreSQL's own might mean: with its name, for types of
# PostgreSQL's alone, and not for just the same ones, which are found in `pg_catalog` first.
_IMPOSTORS = """
with others as (select oid from pg_namespace where nspname = any (%s) and nspname <> 'pg_catalog'),
  named as (
    select p.proname as name, p.proargtypes::oid[] as types, p.pronamespace = 'pg_catalog'::regnamespace as is_own
    from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace or p.pronamespace in (select oid from others)
    union all
    select o.oprname, array[o.oprleft, o.oprright], o.oprnamespace = 'pg_catalog'::regnamespace
    from pg_operator o where o.oprnamespace = 'pg_catalog'::regnamespace or o.oprnamespace in (select oid from others)
  )
select exists (
  select from named n
  where not n.is_own and n.name in (select name from named where is_own)
    and (n.name, n.types) not in (select name, types from named where is_own)
    and not exists (
      select from pg_type t where t.oid = any (n.types) and t.typnamespace <> 'pg_catalog'::regnamespace
    )
) as is_found
"""
_SET = f"select {CATALOG}.set_config(%s, %s, %s)"

# A server that vanished without a word is noticed after about half a minute, not after a quarter of an hour.
_CONNINFO_DEFAULTS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# Of what libpq reads from the environment: without a value, as if it were not set. Not so `service`, `sslcertmode` and
# the versions of the protocol: an empty one is refused; and not `require_auth`: an empty one refuses all methods.
_MAY_BE_EMPTY = (
    *("host", "hostaddr", "dbname", "password", "passfile", "application_name", "requirepeer"),
    *("sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir", "ssl_max_protocol_version", "gsslib"),
)


# What libpq takes from nowhere but the environment, at each connection; see docs/reference/operations.md.
_LEFT_TO_LIBPQ = ("PGSERVICE", "PGREQUIREAUTH", "PGSSLCERTMODE", "PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION")
UNREADABLE = "expected a PostgreSQL URL or libpq connection string, found one that cannot be read"


class PreparedConnection(Connection[DictRow]):
    """Autocommit; rows are dicts; each transaction is read committed."""

    connected_at: float
    # Behind a pooler, session settings and prepared statements are another client's as well.
    is_pooled = False
    # A statement needs a transaction that names its isolation, and sets first what no session keeps.
    needs_transaction = False
    _set_in_each: tuple[str, ...] = ()

    @contextmanager
    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> Iterator[Transaction]:  # noqa: FBT001, FBT002 - psycopg's
        with super().transaction(savepoint_name, force_rollback) as transaction:
            for setting in self._set_in_each:
                self.execute(cast("Any", setting), prepare=False)
            yield transaction

    def prepare(self, *, is_pooled: bool, needs_transaction: bool) -> None:
        """Look at the session, and set what has to be set.

        Args:
            is_pooled: That there is a pooler is known already.
            needs_transaction: Each statement does behind a pooler, whatever is found now.

        Raises:
            DatabaseUnsuitable: The engine cannot work on this database.
        """
        self.connected_at = time.monotonic()
        self.isolation_level = IsolationLevel.READ_COMMITTED
        self._expect_encoding()
        # Not prepared, here and behind a pooler: who prepares it there may find it prepared.
        found = self.execute(_LOOK, prepare=False).fetchone()
        assert found is not None  # noqa: S101 - a select without a from clause
        self.is_pooled = is_pooled or found["pid"] != self.info.backend_pid
        if self.is_pooled:
            self.prepare_threshold = None
            self.needs_transaction = needs_transaction
            self._expect_transactions()
        for wanted, value in zip(WANTED, found["settings"], strict=True):
            if not (wanted.is_met(value) or self._is_harmless(wanted, value, found["schemas"])):
                self._meet(wanted, value)

    def _is_harmless(self, wanted: Wanted, found: str, schemas: Sequence[str]) -> bool:
        """Whether it needs not be set in each transaction, as a path whose schemas have no impostors."""
        if not self.is_pooled or wanted.is_of_sessions:
            return self.is_pooled
        if wanted.name != PATH or not has_catalog_first(found):
            return False
        with self.transaction():
            self.execute(cast("Any", f"set local {PATH} = {wanted.value}"), prepare=False)
            row = self.execute(_IMPOSTORS, (list(schemas),), prepare=False).fetchone()
        return row is not None and not row["is_found"]

    def _meet(self, wanted: Wanted, found: str) -> None:
        is_lasting = wanted.is_tracked or not self.is_pooled
        self.needs_transaction = self.needs_transaction or not is_lasting
        if wanted.name == ISOLATION and not is_lasting:
            return
        try:
            with nullcontext() if is_lasting else self.transaction():
                self.execute(_SET, (wanted.name, wanted.value, not is_lasting), prepare=False)
        except psycopg.errors.InsufficientPrivilege as error:
            raise _unsuitable(wanted, found) from error
        if not is_lasting:
            self._set_in_each += (f"set local {wanted.name} = {wanted.in_sql}",)

    def _expect_encoding(self) -> None:
        found = self.info.parameter_status("server_encoding")
        if found not in {ENCODING, None}:
            raise DatabaseUnsuitable(
                "connect",
                f"expected a database with encoding {ENCODING}, found {found} in {self.info.dbname!r}, which cannot "
                f"hold every text; make one with: create database ... encoding '{ENCODING}' template template0",
            )

    def _expect_transactions(self) -> None:
        try:
            self.execute("begin", prepare=False)
            self.execute("commit", prepare=False)
        except psycopg.OperationalError as error:
            # The one code that PgBouncer has for all that goes wrong; its words are never translated.
            if error.sqlstate != PROTOCOL_VIOLATION or "statement pooling" not in str(error):
                raise
            raise DatabaseUnsuitable(
                "connect",
                "expected a pooler that gives each transaction a server connection, found PgBouncer in statement mode; "
                "set pool_mode = transaction (or session) for this database, and reload it",
            ) from error


def _unsuitable(wanted: Wanted, found: str) -> DatabaseUnsuitable:
    return DatabaseUnsuitable(
        "connect",
        f"expected {wanted.name} = {wanted.value}, found {found}, and this role may not set it; run: alter role ... "
        f"set {wanted.name} = {wanted.in_sql} (or the same for the database or the server), and reload the pooler if "
        "there is one",
    )


def connection_settings(conninfo: str) -> dict[str, Any]:
    """What each connection is made with; timeouts of the connection string are left as they are."""
    given: Mapping[str, Any] = conninfo_to_dict(conninfo)
    return {
        **_surroundings(given),
        "autocommit": True,
        "row_factory": dict_row,
        "context": ADAPTERS,
        "client_encoding": "utf8",
        **{name: value for name, value in _CONNINFO_DEFAULTS.items() if name not in given},
    }


def _surroundings(given: Mapping[str, Any]) -> dict[str, str]:
    """What libpq would take from the environment at each connection, as it is now.

    A handler that sets PGOPTIONS or PGPORT means its own connections. Left to libpq: what a service file gives.
    """
    if "service" in given or "PGSERVICE" in os.environ:
        return {}
    # Its default depends on the certificate.
    is_system = "system" in {given.get("sslrootcert"), os.environ.get("PGSSLROOTCERT")}
    left = {*given, "sslmode"} if is_system else set(given)
    found = {
        option.keyword.decode(): option.val.decode() if option.val is not None else None
        for option in psycopg.pq.Conninfo.get_defaults()
        if option.envvar
    }
    settled = {name: value for name, value in found.items() if value is not None and name not in left}
    # An older libpq knows fewer.
    return {name: "" for name in _MAY_BE_EMPTY if name in found and name not in left} | settled


def left_to_libpq() -> frozenset[str]:
    """Variables of the environment, set now, that no connection of ours can be kept from."""
    return frozenset(name for name in _LEFT_TO_LIBPQ if name in os.environ)


def with_environment(error: Exception, at_start: frozenset[str]) -> Exception:
    """The reason why there is no connection; with the variables that were set since, if that may be why."""
    later = sorted(left_to_libpq() - at_start)
    if not later or not isinstance(error, psycopg.OperationalError):
        return error
    return psycopg.OperationalError(
        f"{str(error).strip()}; {', '.join(later)} was set in this process after its start, perhaps by a handler, and "
        "counts for each connection: restart the process, and have the handler give it to its own connection as a "
        "parameter"
    )


def own_transaction(connection: Connection[Any]) -> AbstractContextManager[object]:
    """For several statements that need no common snapshot: a transaction where a statement needs one, else none."""
    needs_one = isinstance(connection, PreparedConnection) and connection.needs_transaction
    return connection.transaction() if needs_one else nullcontext()


@contextmanager
def at_read_committed(connection: Connection[Any]) -> Iterator[None]:
    """Transactions that begin here are read committed; one that is open already is its owner's."""
    if connection.closed or connection.info.transaction_status != TransactionStatus.IDLE:
        yield
        return
    usual, connection.isolation_level = connection.isolation_level, IsolationLevel.READ_COMMITTED
    try:
        yield
    finally:
        if not connection.closed:
            connection.isolation_level = usual


@contextmanager
def snapshot(connection: Connection[Any]) -> Iterator[None]:
    """A read-only transaction all of whose statements see the data of one moment."""
    usual = connection.isolation_level
    connection.isolation_level, connection.read_only = IsolationLevel.REPEATABLE_READ, True
    try:
        with connection.transaction():
            yield
    finally:
        if not connection.closed:
            connection.isolation_level, connection.read_only = usual, None


def connect_with(connect: Callable[..., C], conninfo: str, settings: dict[str, Any], password: Any) -> C:
    """Connect, and once more with another password if the first was refused."""
    if password is None:
        return connect(conninfo, **settings)
    first = password()
    try:
        return connect(conninfo, **settings | {"password": first})
    except psycopg.OperationalError as error:
        # libpq gives no SQLSTATE (28P01, 28000) of a refused connection. Only a server that was reached asks for the
        # password: this distinguishes an expired token from a server out of reach.
        if error.pgconn is None or not error.pgconn.used_password:
            raise
    return connect(conninfo, **settings | {"password": password(refused=first)})
