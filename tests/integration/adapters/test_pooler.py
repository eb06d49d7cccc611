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

from core.models import JobRecord, StageRef
from coremachine.local.postgres import LocalPostgres
from coremachine.testing.database import SERVER_VARIABLE
from infrastructure.base import DatabaseUnsuitable
from infrastructure.connections import snapshot
from infrastructure.jobs_tasks import JobRepository, TaskRepository
from infrastructure.migrations import Migrator
from infrastructure.postgresql import PostgreSQLRepository, create_pool
from infrastructure.queries import JobQueries
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


def test_what_no_session_keeps_behind_it_is_set_in_each_transaction(address, database):
    set_default(database, "array_nulls", "off")
    set_default(database, "extra_float_digits", "-15")
    with create_pool(through(database, address)) as pool:
        for _ in range(8):
            assert ask(pool, "select array['{null}'::text[]::text, 3599.9::float8::text]") == ["{NULL}", "3599.9"]


# Each fits a call of ours better than what PostgreSQL has, and is found though its schema comes after `pg_catalog`.
IMPOSTORS = """
create function public.hashtextextended(text, integer) returns bigint language sql immutable as 'select 1 / 0';
create function public.join_number(text, integer) returns text language sql immutable as 'select (1 / 0)::text';
create operator public.|| (leftarg = text, rightarg = integer, function = public.join_number);
create function public.to_jsonb(text) returns jsonb language sql immutable as 'select (1 / 0)::text::jsonb';
create function public.jsonb_build_object(text, integer) returns jsonb language sql as 'select (1 / 0)::text::jsonb';
"""


HARMLESS = """
create type public.geometry as (x integer);
create function public.length(public.geometry) returns integer language sql immutable as 'select 1';
create function public.of_no_name_of_postgresql(text) returns integer language sql immutable as 'select 1';
create function public.gen_random_uuid() returns uuid language sql as 'select null::uuid';
"""


def test_a_path_with_nothing_that_takes_a_place_costs_nothing_behind_it(address, database):
    """Such as that of most databases, with the functions of an extension for its own types."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(HARMLESS)
    with create_pool(through(database, address)) as pool:
        assert ask(pool, "select current_setting('search_path')") == '"$user", public'
        with pool.connection() as connection:
            assert not connection.needs_transaction


@pytest.mark.parametrize("path", ['"$user", public', "public, pg_catalog", "pg_catalog, public"])
def test_functions_of_others_take_the_place_of_none_behind_it(address, database, path):
    """One of a later schema was called in PostgreSQL's place where it fitted the arguments better."""
    stage = {"number": 1, "name": "one", "task_type": "t", "parallelism": "single"}
    job = JobRecord(job_id="ef" * 32, job_type="t", total_stages=1, definition={"stages": [stage]}, correlation_id="c")
    set_default(database, "search_path", path)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(IMPOSTORS)
    with create_pool(through(database, address)) as pool:
        Migrator(pool).migrate()
        assert ask(pool, "select current_setting('search_path')") == "pg_catalog, pg_temp"
        assert JobRepository(pool).submit_job(job).job_id == job.job_id
        assert TaskRepository(pool).plan_stage(StageRef(job.job_id, 1, 1), []) == ("planned", 0)
        assert JobQueries(pool).get_job_detail(job.job_id).job.status == "finalizing"
        with pool.connection() as connection, snapshot(connection):
            row = connection.execute("select hashtextextended('a', 0) is not null as found").fetchone()
        assert row == {"found": True}


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
    # The server of this run, and its place among others that run beside each other, are not that process's.
    mine = {name for name in os.environ if name == SERVER_VARIABLE or name.startswith("PYTEST_")}
    environment = {name: value for name, value in os.environ.items() if name not in mine}
    environment |= {"COREMACHINE_TEST_POOLER": "pgbouncer", "COREMACHINE_TEST_SETTINGS": settings}
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
