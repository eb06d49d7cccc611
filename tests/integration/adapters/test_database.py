"""The database as it is in production: odd defaults, lost connections, demoted servers, refused values."""

import re
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL
from psycopg.types.string import TextLoader

from core.errors import DataRefused, StoreUnavailable
from core.models import JobRecord, StageRef
from coremachine.local.postgres import LocalPostgres
from infrastructure.base import DatabaseUnsuitable, RepositoryError
from infrastructure.database_errors import Fault, fault_of
from infrastructure.grants import GrantRepository
from infrastructure.jobs_tasks import JobRepository, TaskRepository
from infrastructure.migrations import Migrator
from infrastructure.postgresql import PostgreSQLRepository, create_pool
from infrastructure.queries import JobQueries
from tests.databases import folder_of_server

SQL_FILES = list((Path(__file__).resolve().parents[3] / "sql").glob("*/*.sql"))
FATES = [
    ("25006", Fault.OUTAGE),
    ("57P01", Fault.OUTAGE),
    ("57P02", Fault.OUTAGE),
    ("57P03", Fault.OUTAGE),
    ("57P05", Fault.OUTAGE),
    ("57014", Fault.OUTAGE),
    ("08006", Fault.OUTAGE),
    ("08P01", Fault.OUTAGE),
    ("53300", Fault.OUTAGE),
    ("53100", Fault.OUTAGE),
    ("55P03", Fault.OUTAGE),
    ("58030", Fault.OUTAGE),
    ("XX001", Fault.OUTAGE),
    ("40001", Fault.CHANGED),
    ("40P01", Fault.CHANGED),
    ("54000", Fault.DATA),
    ("54001", Fault.DATA),
    ("22P05", Fault.DATA),
    ("23505", Fault.DATA),
    ("42883", Fault.UNSUITABLE),
    ("42703", Fault.UNSUITABLE),
    ("42P01", Fault.UNSUITABLE),
    ("3F000", Fault.UNSUITABLE),
    ("42501", Fault.UNSUITABLE),
    ("42601", Fault.OTHER),
    ("25P02", Fault.OTHER),
]


@pytest.mark.parametrize(("sqlstate", "fault"), FATES)
def test_errors_are_sorted_by_their_code(sqlstate, fault):
    error = psycopg.errors.lookup(sqlstate)()
    assert fault_of(error, is_broken=False) is fault
    assert fault_of(error, is_broken=True) is Fault.OUTAGE


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (psycopg.OperationalError("no code: out of memory"), Fault.DATA),
        (psycopg.DataError("NUL"), Fault.DATA),
        (psycopg.ProgrammingError("no such placeholder"), Fault.OTHER),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), Fault.DATA),
    ],
)
def test_errors_without_a_code_are_sorted_by_the_connection(error, fault):
    assert fault_of(error, is_broken=False) is fault
    assert fault_of(error, is_broken=True) is Fault.OUTAGE


@pytest.fixture(scope="module")
def server():
    with folder_of_server() as folder:
        server = LocalPostgres(folder, keep=False)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def url(server):
    yield server.url
    options = "-c default_transaction_read_only=off -c idle_session_timeout=0"
    with psycopg.connect(server.url, autocommit=True, options=options) as connection:
        connection.execute("alter role postgres reset all")
        connection.execute("alter system reset all")
        connection.execute("select pg_reload_conf()")


@pytest.fixture
def admin(url):
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def ask(pool, text="select 1 as n"):
    (row,) = PostgreSQLRepository(pool)._execute_query("ask", SQL(text))
    return next(iter(row.values()))


ODD = [
    ("default_transaction_isolation", "serializable", "select current_setting('transaction_isolation')"),
    ("default_transaction_isolation", "repeatable read", "select current_setting('transaction_isolation')"),
    ("DateStyle", "SQL, DMY", "select ('2026-01-02 03:04+00'::timestamptz)"),
    ("DateStyle", "Postgres, MDY", "select ('2026-01-02 03:04+00'::timestamptz)"),
    ("TimeZone", "Asia/Kathmandu", "select ('2026-01-02 03:04+00'::timestamptz)"),
    ("client_encoding", "LATIN1", r"select U&'\20AC \3042'"),
    ("client_encoding", "SQL_ASCII", r"select U&'\20AC \3042'"),
    ("array_nulls", "off", "select '{null}'::text[]"),
    ("extra_float_digits", "-15", "select 3599.9::float8"),
    ("gin_fuzzy_search_limit", "5", "select current_setting('gin_fuzzy_search_limit')"),
    ("session_replication_role", "replica", "select current_setting('session_replication_role')"),
    ("standard_conforming_strings", "off", r"select length('\\')"),
    # These change nothing that is read or written; nothing is done about them.
    ("IntervalStyle", "sql_standard", "select ('2026-01-02 03:04+00'::timestamptz - interval '1 day')"),
    ("bytea_output", "escape", r"select '\x00ff'::bytea"),
    ("search_path", "", "select current_setting('search_path')"),
    ("jit", "on", "select 1"),
    ("lc_messages", "C", "select 1"),
    ("client_min_messages", "debug5", "select 1"),
    ("plan_cache_mode", "force_custom_plan", "select 1"),
    ("default_transaction_deferrable", "on", "select current_setting('transaction_isolation')"),
    ("synchronous_commit", "off", "select 1"),
    ("row_security", "on", "select 1"),
]


@pytest.mark.parametrize(("name", "value", "question"), ODD)
def test_answers_do_not_depend_on_a_role_s_settings(url, admin, name, value, question):
    with create_pool(url) as pool:
        usual = ask(pool, question)
    admin.execute(f"alter role postgres set {name} = '{value}'")
    with create_pool(url) as pool:
        assert ask(pool, question) == usual


# For each function of PostgreSQL whose name is in our SQL, one of the same name and arguments that must not be called.
IMPOSTORS = """
create schema evil;
do $$
declare
  v_real record;
begin
  for v_real in
    select p.proname, pg_get_function_identity_arguments(p.oid) as arguments, pg_get_function_result(p.oid) as result
    from pg_proc p
    where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
      and p.proname = any (current_setting('t.names')::text[])
  loop
    begin
      execute format(
        $f$create function evil.%I(%s) returns %s language plpgsql as 'begin raise exception $m$impostor %I$m$; end'$f$,
        v_real.proname, v_real.arguments, v_real.result, v_real.proname);
    exception when others then null;  -- of a type that only PostgreSQL's own functions have
    end;
  end loop;
end $$;
create function evil.never(a text, b text) returns boolean language sql immutable as 'select false';
create operator evil.= (leftarg = text, rightarg = text, function = evil.never);
-- Fits a call with an integer better than PostgreSQL's own, which has bigint.
create function evil.hashtextextended(text, integer) returns bigint language sql immutable as 'select 1 / 0';
"""


@pytest.fixture
def evil(url, admin):
    """A role of its own, in whose path a schema comes before PostgreSQL's own, and a migrated schema."""
    text = " ".join(path.read_text() for path in SQL_FILES)
    names = sorted(set(re.findall(r"\b([a-z_0-9]+)\(", text)))
    admin.execute("select set_config('t.names', %s::text[]::text, false)", (names,))
    admin.execute(IMPOSTORS)
    assert admin.execute("select count(*) > 40 from pg_proc where pronamespace = 'evil'::regnamespace").fetchone()[0]
    yield "evil, pg_catalog"
    admin.execute("drop schema evil cascade")
    admin.execute("drop schema if exists app cascade")


def test_a_schema_before_postgresql_s_own_changes_no_answer(url, admin, evil):
    """With `now()` or `=` of another schema in the path, jobs would have been lost or run twice."""
    stage = {"number": 1, "name": "one", "task_type": "t", "parallelism": "single"}
    job = JobRecord(job_id="ef" * 32, job_type="t", total_stages=1, definition={"stages": [stage]}, correlation_id="c")
    admin.execute(f"alter role postgres set search_path = {evil}")
    for way in (url, make_conninfo(url, options="-c search_path=evil,pg_catalog")):
        with create_pool(way) as pool:
            Migrator(pool).migrate()
            assert ask(pool, "select 'a'::text = 'a'::text and now() is not null")
            assert JobRepository(pool).submit_job(job).job_id == job.job_id
            assert JobRepository(pool).submit_job(job).outcome == "existing"
            assert TaskRepository(pool).plan_stage(StageRef(job.job_id, 1, 1), []) == ("planned", 0)
            assert JobQueries(pool).get_job_detail(job.job_id).job.status == "finalizing"
            admin.execute("delete from app.jobs")


def test_options_of_the_connection_string_do_not_change_the_isolation(url):
    odd = make_conninfo(url, options="-c default_transaction_isolation=serializable")
    with create_pool(odd) as pool:
        assert ask(pool, "select current_setting('transaction_isolation')") == "read committed"


OF_A_HANDLER = {
    "PGOPTIONS": "-c default_transaction_read_only=on",
    "PGPORT": "6666",
    "PGPASSWORD": "wrong",
    "PGSSLMODE": "bogus",
    "PGTARGETSESSIONATTRS": "standby",
    "PGSSLROOTCERT": "nowhere",
    "PGHOSTADDR": "nowhere",
    "PGREQUIREPEER": "nobody",
    "PGSSLMAXPROTOCOLVERSION": "none",
}


def test_what_a_handler_sets_for_its_own_connections_is_not_the_engines(url, monkeypatch):
    """With PGOPTIONS for `psql`, each new connection of the worker was read-only until it was restarted."""
    with create_pool(url, timeout_seconds=5) as pool:
        for name, value in OF_A_HANDLER.items():
            monkeypatch.setenv(name, value)
        with pool.connect_once() as connection:
            connection.execute("create temporary table t ()")


def test_server_of_the_engine_is_not_the_one_that_a_handler_names(monkeypatch):
    with create_pool("dbname=x", timeout_seconds=5) as pool:
        monkeypatch.setenv("PGHOST", "256.0.0.1")
        with pytest.raises(psycopg.OperationalError, match="on socket"):
            pool.connect_once()


def test_variable_that_counts_for_all_connections_is_named_as_the_reason(monkeypatch):
    """`definition of service "gis" not found` named nobody, and the process stayed without a database."""
    with create_pool("host=127.0.0.1 port=1", timeout_seconds=0.2) as pool:
        monkeypatch.setenv("PGSERVICE", "gis")
        with pytest.raises(psycopg.OperationalError):
            pool.connect_once()
        assert re.search(
            r'"gis" not found.*; PGSERVICE was set in this process after its start', str(pool.connect_error)
        )
        monkeypatch.delenv("PGSERVICE")
        with pytest.raises(psycopg.OperationalError):
            pool.connect_once()
        assert "PGSERVICE" not in str(pool.connect_error)


def test_what_libpq_has_from_the_environment_at_the_start_stays(url, monkeypatch):
    monkeypatch.setenv("PGAPPNAME", "mine")
    with create_pool(url) as pool:
        monkeypatch.setenv("PGAPPNAME", "other")
        assert ask(pool, "select current_setting('application_name')") == "mine"


def test_loader_that_a_handler_registers_reads_none_of_the_engine_s_values(url, monkeypatch):
    monkeypatch.setattr(psycopg, "adapters", AdaptersMap(psycopg.adapters))
    psycopg.adapters.register_loader("timestamptz", TextLoader)
    with create_pool(url) as pool:
        assert ask(pool, "select '2026-01-01T00:00Z'::timestamptz").year == 2026


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text_is_refused(url, admin, encoding):
    admin.execute(f"create database d_{encoding} encoding '{encoding}' template template0")
    with create_pool(make_conninfo(url, dbname=f"d_{encoding.lower()}"), timeout_seconds=0.5) as pool:
        for call in (lambda: ask(pool), Migrator(pool).status, Migrator(pool).migrate):
            with pytest.raises(DatabaseUnsuitable, match=rf"expected a database with encoding UTF8, found {encoding}"):
                call()


def test_a_setting_that_the_role_may_not_change_is_refused(url, admin):
    admin.execute("create role clerk login")
    admin.execute("alter role clerk set session_replication_role = 'replica'")
    with (
        create_pool(make_conninfo(url, user="clerk"), timeout_seconds=0.5) as pool,
        pytest.raises(
            DatabaseUnsuitable, match=r"expected session_replication_role = origin, found replica.*alter role"
        ),
    ):
        ask(pool)


def test_rows_that_policies_hide_are_not_missed_in_silence(url, admin):
    """A list was empty, and a job unknown, without an error."""
    with create_pool(url) as pool:
        Migrator(pool).migrate()
    admin.execute("drop role if exists hidden")
    admin.execute("create role hidden login")
    admin.execute("grant usage on schema app to hidden")
    admin.execute("grant select on all tables in schema app to hidden")
    admin.execute("alter table app.jobs enable row level security")
    try:
        with create_pool(make_conninfo(url, user="hidden"), timeout_seconds=2) as pool:
            with pytest.raises(DatabaseUnsuitable, match="row-level security policy for table"):
                JobRepository(pool).find_job("ef" * 32)
            with pytest.raises(DatabaseUnsuitable, match="found row-level security on jobs of schema 'app'"):
                Migrator(pool).status()
        with create_pool(url) as pool:
            assert Migrator(pool).status().is_current
    finally:
        admin.execute("drop schema app cascade")
        admin.execute("drop owned by hidden")


def fill(pool, size=4):
    """Open all connections of the pool, and give them back."""
    taken = [pool.getconn() for _ in range(size)]
    for connection in taken:
        pool.putconn(connection)
    return {connection.info.backend_pid for connection in taken}


def wait_until_closed(pool):
    for connection in list(pool._pool):
        assert select.select([connection.fileno()], [], [], 30)[0]


def test_connections_that_the_server_closed_cost_no_call(url, admin):
    """Each pooled connection refused one submission after `idle_session_timeout` or a failover."""
    with create_pool(url) as pool:
        pids = fill(pool)
        admin.execute("select pg_terminate_backend(pid, 10000) from unnest(%s::int[]) pid", (list(pids),))
        wait_until_closed(pool)
        assert [ask(pool) for _ in range(8)] == [1] * 8


def test_idle_session_timeout_costs_no_call(url, admin):
    admin.execute("alter role postgres set idle_session_timeout = '50ms'")
    with create_pool(url) as pool:
        fill(pool)
        wait_until_closed(pool)
        assert [ask(pool) for _ in range(4)] == [1] * 4


def test_a_restarted_server_costs_no_call(server, url):
    with create_pool(url) as pool:
        fill(pool)
        restart(server)
        assert [ask(pool) for _ in range(8)] == [1] * 8


def restart(server):
    server._keep = True
    server.stop()
    server._keep = False
    server.start()


class CuttingProxy:
    """Between a client and the server: it hands over all but the answer to a statement that holds a word, and cuts."""

    def __init__(self, socket_path: str, word: bytes) -> None:
        self._path, self._word = socket_path, word
        self.cuts = 1
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._path)
            is_cut = False
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data or (source is server and is_cut):
                        # The server has answered: what it did is committed.
                        return
                    if source is client and self._word in data and self.cuts:
                        self.cuts -= 1
                        is_cut = True
                    (server if source is client else client).sendall(data)


def test_an_answer_lost_after_the_commit_is_asked_for_again(server, url):
    """The job was written, its answer never came: the second call finds it, and the caller is told of one job."""
    with create_pool(url) as pool:
        JobRepository(pool)._ensure_schema_exists()
    proxy = CuttingProxy(f"{psycopg.conninfo.conninfo_to_dict(url)['host']}/.s.PGSQL.5432", b"submit_job")
    definition = {"job_type": "t", "stages": [{"number": 1}]}
    job = JobRecord(job_id="ab" * 32, job_type="t", total_stages=1, definition=definition, correlation_id="c")
    through = make_conninfo(url, host="127.0.0.1", port=proxy.port, sslmode="disable", gssencmode="disable")
    with create_pool(through) as pool:
        submitted = JobRepository(pool).submit_job(job)
        assert (submitted.job_id, submitted.outcome) == (job.job_id, "existing")
        assert ask(pool, "select count(*) from app.jobs") == 1
    assert proxy.cuts == 0
    proxy.close()


def test_a_demoted_server_is_left_and_the_call_made_over_a_new_connection(url, admin):
    """25006 was taken for a failure of the job. A connection made long before does not know the new primary."""
    with create_pool(url) as pool:
        admin.execute("create table if not exists written (n int)")
        fill(pool)
        for connection in pool._pool:
            connection.execute("set default_transaction_read_only = on")
            connection.connected_at -= 60
        for _ in range(4):
            assert ask(pool, "insert into public.written values (1) returning n") == 1


def test_a_server_that_stays_read_only_is_an_outage(url, admin):
    admin.execute("create table if not exists written (n int)")
    admin.execute("alter system set default_transaction_read_only = on")
    admin.execute("select pg_reload_conf()")
    with create_pool(url) as pool:
        # The server takes the new default in a moment.
        while ask(pool, "select current_setting('default_transaction_read_only')") == "off":
            pass
        with pytest.raises(StoreUnavailable, match="read-only transaction"):
            ask(pool, "insert into public.written values (1) returning n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select repeat('[', 100000)::jsonb as x", DataRefused),
        ("select '1e400'::float8 as x", DataRefused),
        ("select 1 as x from", RepositoryError),
        ("select pg_sleep(60)::text as x", StoreUnavailable),
    ],
)
def test_refusals_are_told_apart(url, admin, text, expected):
    admin.execute("alter role postgres set statement_timeout = '300ms'")
    with create_pool(url) as pool:
        with pytest.raises(expected) as caught:
            ask(pool, text)
        assert isinstance(caught.value, StoreUnavailable) is (expected is StoreUnavailable)
        assert isinstance(caught.value, DataRefused) is (expected is DataRefused)


def test_a_pooler_that_hides_itself_is_known_by_what_it_does(url):
    """The statement is not there, since another server connection has it: from then on the pool prepares nothing."""
    with create_pool(url, max_size=1) as pool:
        for _ in range(10):
            ask(pool)
        with pool.connection() as connection:
            connection.execute("do $$ begin execute 'deallocate all'; end $$")
            assert not connection.is_pooled
        assert ask(pool) == 1
        with pool.connection() as connection:
            assert (connection.is_pooled, connection.prepare_threshold) == (True, None)


def test_a_function_whose_result_a_migration_changed_is_called_again(url, admin):
    """`cached plan must not change result type`, on each connection that had prepared the call, until it was closed."""
    admin.execute("create function changing() returns table (a int) language sql as 'select 1'")
    with create_pool(url, max_size=1) as pool:
        for _ in range(10):
            assert ask(pool, "select * from public.changing()") == 1
        admin.execute("drop function changing()")
        admin.execute("create function changing() returns table (a text) language sql as $$select 'x'$$")
        assert ask(pool, "select * from public.changing()") == "x"


def test_importing_changes_nothing_for_a_handler_s_own_connections(url):
    """`set_json_loads` replaced the loader of the whole process: leading white space was an error then."""
    program = """
import pkgutil, sys, importlib, psycopg
def state():
    adapters = psycopg.adapters
    return [repr(each) for each in (adapters._dumpers, adapters._loaders, adapters._dumpers_by_oid)]
before = state()
for package in ("core", "coremachine.cli", "infrastructure", "jobs", "triggers"):
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
assert state() == before
from infrastructure.postgresql import create_pool
with create_pool(sys.argv[1]) as pool, psycopg.connect(sys.argv[1]) as own:
    with pool.connection() as ours:
        ours.execute("select '{}'::jsonb").fetchone()
    assert own.execute("select E'\\\\n {\\"a\\": 1}'::json").fetchone() == ({"a": 1},)
assert state() == before
"""
    root = Path(__file__).resolve().parents[3]
    ran = subprocess.run([sys.executable, "-c", program, url], cwd=root, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


NOT_OURS = [
    ("select app.no_such_function()", "no_such_function.*db migrate"),
    ("select no_such_column from app.jobs", "no_such_column.*db migrate"),
    ("select 1 from app.no_such_table", "no_such_table.*db migrate"),
    ("select nowhere.submit_job()", "nowhere.*db migrate"),
]


@pytest.mark.parametrize(("text", "reason"), NOT_OURS)
def test_a_schema_of_another_release_keeps_the_message_and_says_what_to_do(url, text, reason):
    with create_pool(url) as pool:
        Migrator(pool).migrate()
        with pytest.raises(DatabaseUnsuitable, match=reason) as caught:
            ask(pool, text)
    assert isinstance(caught.value, StoreUnavailable)


def test_a_role_that_lacks_a_grant_is_told_which_and_works_with_those_of_the_command(url, admin):
    with create_pool(url) as pool:
        Migrator(pool).migrate()
    admin.execute("create role app_role login")
    with create_pool(make_conninfo(url, user="app_role")) as pool:
        with pytest.raises(DatabaseUnsuitable, match=r"permission denied for schema app.*grant .*usage on"):
            ask(pool, "select count(*) from app.jobs")
        with pytest.raises(DatabaseUnsuitable, match="permission denied for schema app"):
            Migrator(pool).status()
        with create_pool(url) as own:
            GrantRepository(own).grant_app("app_role")
        assert Migrator(pool).status().is_current
        fields = {"job_type": "t", "total_stages": 1, "definition": {"stages": [1]}, "correlation_id": "c"}
        assert JobRepository(pool).submit_job(JobRecord(job_id="cd" * 32, **fields)).created


@pytest.mark.parametrize(
    "how", ["alter role postgres set default_transaction_read_only = on", "alter database read_only set {}"]
)
def test_a_database_that_refuses_writes_says_so_where_its_schema_is_looked_at(url, admin, how):
    admin.execute("drop database if exists read_only")
    admin.execute("create database read_only")
    database = make_conninfo(url, dbname="read_only")
    admin.execute(how.format("default_transaction_read_only = on"))
    with create_pool(database) as pool:
        told = Migrator(pool).status().refuses_writes
        assert told is not None
        assert "default_transaction_read_only = on" in told
        assert "disk is full" in told
        with pytest.raises(DatabaseUnsuitable, match="default_transaction_read_only = on"):
            Migrator(pool).migrate()


@pytest.mark.parametrize(
    ("instant", "read"),
    [
        ("0001-12-31 10:00+00 BC", "0001-01-02"),
        ("-infinity", "0001-01-02"),
        ("10000-01-01 00:00+00", "9999-12-30"),
        ("infinity", "9999-12-30"),
        ("2026-01-02 03:04+00", "2026-01-02"),
    ],
)
def test_instants_beyond_the_years_of_python_hide_no_list(url, instant, read):
    with create_pool(url) as pool:
        assert ask(pool, f"select '{instant}'::timestamptz").date().isoformat() == read


def test_a_standby_is_told_as_one(tmp_path):
    server = LocalPostgres(tmp_path / "data")
    with server as url, create_pool(url) as pool:
        Migrator(pool).migrate()
    (tmp_path / "data" / "standby.signal").touch()
    with server as url, create_pool(url) as pool:
        status = Migrator(pool).status()
    assert status.is_current
    assert "found a standby" in str(status.refuses_writes)
