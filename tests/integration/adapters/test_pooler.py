"""PgBouncer in transaction mode: each transaction may meet another server connection, as another client left it."""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL

from coremachine.local.postgres import LocalPostgres
from infrastructure.base import DatabaseUnavailable, DatabaseUnsuitable
from infrastructure.postgresql import PostgreSQLRepository, create_pool
from tests.pgbouncer import PROGRAM, REASON, pgbouncer

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=REASON)
ROOT = Path(__file__).resolve().parents[3]
# Where tasks, stages and jobs decide, as statements of their own and in transactions that name their isolation.
CORES = [
    ("", ["test_machine.py", "test_submission.py"]),
    ("default_transaction_isolation=repeatable read", ["test_transitions.py", "test_control.py"]),
]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory(prefix="coremachine-") as folder,
        LocalPostgres(Path(folder) / "data", keep=False) as url,
    ):
        yield url


@pytest.fixture(scope="module")
def address(server_url) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="coremachine-") as folder, pgbouncer(server_url, Path(folder)) as address:
        yield address


@pytest.fixture
def database(server_url) -> Iterator[str]:
    """A database of the test's own: what it sets for it, new server connections of the pooler get."""
    name = f"pooled_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(SQL("create database {}").format(SQL(name)))
    return make_conninfo(server_url, dbname=name)


def set_default(database, name, value):
    with psycopg.connect(database, autocommit=True) as connection:
        dbname = conninfo_to_dict(database)["dbname"]
        quoted = value if name == "search_path" else f"'{value}'"
        connection.execute(f"alter database {dbname} set {name} = {quoted}")


def ask(pool, text, parameters=()):
    (row,) = PostgreSQLRepository(pool)._execute("ask", text, parameters)
    return next(iter(row.values()))


def through(database, address):
    return make_conninfo(database, **conninfo_to_dict(address))


def test_statements_are_not_prepared_behind_it(address, database):
    """psycopg prepares what it has sent five times; another client's server connection then had it, or had it not."""
    with create_pool(through(database, address)) as pool:
        assert [ask(pool, "select %s::int", (n,)) for n in range(20)] == list(range(20))
        with pool.connection() as connection:
            assert connection.is_pooled
            assert connection.execute("select count(*) as n from pg_prepared_statements").fetchone() == {"n": 0}
    with create_pool(database) as pool, pool.connection() as connection:
        assert not connection.is_pooled


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_each_transaction_is_read_committed_behind_it(address, database, isolation):
    set_default(database, "default_transaction_isolation", isolation)
    with create_pool(through(database, address)) as pool:
        for _ in range(8):
            assert ask(pool, "select current_setting('transaction_isolation')") == "read committed"
        with pytest.raises(Exception, match="division by zero"):
            ask(pool, "select 1 / 0")
        assert ask(pool, "select 7") == 7
        with pool.connection() as connection, connection.transaction():
            row = connection.execute("select current_setting('transaction_isolation') as found").fetchone()
        assert row == {"found": "read committed"}


def test_what_no_session_can_set_behind_it_is_refused_and_named(address, database):
    set_default(database, "array_nulls", "off")
    with (
        create_pool(through(database, address), timeout_seconds=0.5) as pool,
        pytest.raises(DatabaseUnavailable, match="expected array_nulls = on, found off, and a pooler") as caught,
    ):
        ask(pool, "select 1")
    assert "alter role" in str(caught.value)


def test_a_path_that_hides_what_postgresql_defines_is_refused_behind_it(address, database):
    set_default(database, "search_path", "public, pg_catalog")
    with (
        create_pool(through(database, address), timeout_seconds=0.5) as pool,
        pytest.raises(
            DatabaseUnsuitable, match=r"found public, pg_catalog, and a pooler.* set search_path = pg_catalog"
        ),
    ):
        ask(pool, "select 1")


def test_the_usual_path_is_accepted_behind_it(address, database):
    with create_pool(through(database, address)) as pool:
        assert ask(pool, "select current_setting('search_path')") == '"$user", public'


def test_dates_are_read_whatever_their_style_behind_it(address, database):
    set_default(database, "DateStyle", "German, DMY")
    with create_pool(through(database, address)) as pool:
        for _ in range(8):
            assert ask(pool, "select '2026-01-02 03:04+00'::timestamptz").isoformat() == "2026-01-02T03:04:00+00:00"


def test_statement_mode_is_refused_and_named(server_url, database):
    with (
        tempfile.TemporaryDirectory(prefix="coremachine-") as folder,
        pgbouncer(server_url, Path(folder), mode="statement") as address,
        create_pool(through(database, address), timeout_seconds=0.5) as pool,
        pytest.raises(DatabaseUnsuitable, match="found PgBouncer in statement mode; set pool_mode = transaction"),
    ):
        ask(pool, "select 1")


@pytest.mark.parametrize(("settings", "core"), CORES)
def test_the_engine_works_behind_it(settings, core):
    """The engine suite's core, once more: in a process of its own, whose server is reached through a pooler."""
    environment = os.environ | {"COREMACHINE_TEST_POOLER": "pgbouncer", "COREMACHINE_TEST_SETTINGS": settings}
    files = [str(Path("tests/integration/engine") / name) for name in core]
    options = ["-q", "-x", "-p", "no:cacheprovider", "-k", "not broker and not emulator"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
