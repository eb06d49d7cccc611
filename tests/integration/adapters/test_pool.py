"""The pool when passwords expire, when the database is down, and when all connections are in use."""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL
from psycopg_pool import ConnectionPool

from core.basics.canonical import encode_storable
from core.basics.outage import OutageLog
from core.errors import StoreUnavailable
from coremachine.local.postgres import LocalPostgres
from infrastructure import postgresql
from infrastructure.adapters import JsonbArray, TextArray, UuidArray
from infrastructure.base import DatabaseUnavailable, ValuesRefused
from infrastructure.postgresql import PostgreSQLRepository, create_pool
from tests.databases import Engine, folder_of_server


def ask(pool):
    [row] = PostgreSQLRepository(pool)._execute_query("ask", SQL("select current_user as name"))
    return row["name"]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with folder_of_server() as folder:
        yield folder


@pytest.fixture(scope="module")
def url(folder):
    """A server where the role `identity` needs a password, which is `token-2`."""
    with LocalPostgres(folder, keep=False) as url:
        access = folder / "pg_hba.conf"
        access.write_text("local all identity scram-sha-256\n" + access.read_text())
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create role identity login password 'token-2'")
            connection.execute("select pg_reload_conf()")
        yield url


class Tokens:
    """A `PasswordSource` of numbered tokens; counts how many were refused. The pool asks from several threads."""

    def __init__(self):
        self.refusals = []
        self.lock = threading.Lock()

    def __call__(self, *, refused=None):
        with self.lock:
            if refused is not None:
                self.refusals.append(refused)
            return f"token-{1 + len(set(self.refusals))}"


def test_every_row_of_a_pool_is_a_dictionary_with_json_read(url):
    """Rows were tuples here and dictionaries there (lesson D40)."""
    query = "select 1 as number, '{\"a\": [1, null]}'::jsonb as document"
    expected = {"number": 1, "document": {"a": [1, None]}}
    with create_pool(url) as pool:
        assert PostgreSQLRepository(pool)._execute_query("ask", SQL(query)) == [expected]
        with pool.connection() as connection, connection.cursor() as cursor:
            assert connection.execute(query).fetchone() == expected
            assert cursor.execute(query).fetchall() == [expected]


@pytest.mark.parametrize(
    "values",
    [
        [],
        [None],
        [{"text": 'quotes " and \\ and é and \U0001f30a'}, None, {"numbers": [1, 1.5, 1e16, None, True]}],
        [{"n": number} for number in range(1000)],
    ],
)
def test_arrays_of_jsonb_arrive_as_they_were_sent(url, values):
    encoded = [None if value is None else encode_storable(value) for value in values]
    with create_pool(url) as pool:
        repository = PostgreSQLRepository(pool)
        for sent in (values, encoded):
            array = JsonbArray(sent)
            [row] = repository._execute_query(
                "ask", SQL("select %s as found, cardinality(%s) as count"), (array, array)
            )
            assert row == {"found": values, "count": len(values)}


def test_texts_and_ids_are_sent_as_typed_arrays(url):
    """Whatever is in them: psycopg would find out the type from the items, and of an empty list it is none."""
    texts = TextArray(["a", None, "", "NULL", '{"x, \\y"}', "\u00e9\u4e2d"])
    ids = UuidArray([uuid4(), uuid4()])
    query = SQL("select pg_typeof(%s)::text as texts, pg_typeof(%s)::text as ids, %s as found, %s as same")
    with create_pool(url) as pool:
        for sent, keys in ((texts, ids), (TextArray(), UuidArray())):
            [row] = PostgreSQLRepository(pool)._execute_query("ask", query, (sent, keys, sent, keys))
            assert row == {"texts": "text[]", "ids": "uuid[]", "found": list(sent), "same": list(keys)}
        with pytest.raises(ValuesRefused):
            PostgreSQLRepository(pool)._execute_query("ask", SQL("select %s"), (TextArray(["a\x00b"]),))
        with pytest.raises(ValuesRefused):
            PostgreSQLRepository(pool)._execute_query("ask", SQL("select %s"), (TextArray(["\ud800"]),))


def test_a_refused_token_is_renewed(url):
    """An expired token needed a restart every hour (lesson D28)."""
    tokens = Tokens()
    with create_pool(make_conninfo(url, user="identity", password=None), password=tokens) as pool:
        assert ask(pool) == "identity"
    assert set(tokens.refusals) == {"token-1"}


def test_a_connection_lives_shorter_than_the_token_that_opened_it(url):
    """An expired token needed a restart every hour (lesson D28)."""
    with create_pool(url) as pool:
        assert 0 < pool.max_lifetime <= 0.9 * 3600
    with create_pool(url, max_lifetime_seconds=0.0) as pool:
        first, second = (backend_pid(pool) for _ in range(2))
        assert first != second


def backend_pid(pool):
    [row] = PostgreSQLRepository(pool)._execute_query("ask", SQL("select pg_backend_pid() as pid"))
    return row["pid"]


def test_a_token_that_stays_refused_is_said_so(url):
    """Each attempt of the pool asks for one more token, not for ever more."""
    asked = Counter()

    def tokens(*, refused=None):
        asked[refused] += 1
        return "wrong"

    conninfo = make_conninfo(url, user="identity", password=None)
    with (
        create_pool(conninfo, password=tokens, timeout_seconds=0.5) as pool,
        pytest.raises(DatabaseUnavailable, match=r"found that none can be made: .*password authentication failed"),
    ):
        ask(pool)
    assert 1 <= asked["wrong"] <= asked[None]


def test_a_token_provider_that_fails_is_said_so(url):
    def tokens(*, refused=None):
        raise RuntimeError("no identity endpoint")

    with (
        create_pool(url, password=tokens, timeout_seconds=0.5) as pool,
        pytest.raises(DatabaseUnavailable, match="found that none can be made: no identity endpoint"),
    ):
        ask(pool)


def test_a_token_is_not_renewed_when_the_server_is_out_of_reach():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    tokens = Tokens()
    conninfo = f"host=127.0.0.1 port={port} user=u dbname=d"
    with (
        create_pool(conninfo, password=tokens, timeout_seconds=0.5) as pool,
        pytest.raises(DatabaseUnavailable, match=r"ask: .* within 0.5 s, found that none .* refused"),
    ):
        ask(pool)
    assert tokens.refusals == []


def test_a_database_that_is_down_is_told_in_time_and_by_type():
    """Making the pool does not wait; a call does, as long as it was told to."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    started = time.monotonic()
    with create_pool(f"postgresql://u:v3ry-s3cret@127.0.0.1:{port}/d", timeout_seconds=60) as pool:
        pool.timeout = 0.5
        with pytest.raises(StoreUnavailable) as caught:
            ask(pool)
    # Far below what one that waits takes, and far above what a busy machine does.
    assert time.monotonic() - started < 30
    assert "v3ry-s3cret" not in str(caught.value)


def test_a_database_that_is_away_is_told_at_once_and_once(monkeypatch, caplog):
    """The library wrote several lines for each refused connection; ours came when the first caller gave up."""
    monkeypatch.setattr(postgresql, "outage", OutageLog())
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    conninfo = f"host=127.0.0.1 port={port} user=u dbname=d"
    gave_up = threading.Event()
    monkeypatch.setattr(postgresql, "_RECONNECT_SECONDS", 0.0)
    monkeypatch.setattr(postgresql.Pool, "reconnect_failed", lambda _: gave_up.set())
    with create_pool(conninfo, timeout_seconds=60):
        # Nobody asks: the pool alone met it.
        assert gave_up.wait(60)
    [record] = caplog.records
    assert (record.message, record.name) == ("database_away", "core.basics.outage")
    assert "refused" in record.reason
    assert "\n" not in record.reason


def test_another_pool_of_the_process_keeps_its_log(caplog):
    """A handler may have pools of its own."""
    gave_up = threading.Event()
    with create_pool("host=127.0.0.1 port=1 user=u dbname=d"):
        other = ConnectionPool(
            "host=127.0.0.1 port=1 user=u dbname=d",
            name="mine",
            min_size=1,
            open=False,
            reconnect_timeout=0.0,
            reconnect_failed=lambda _: gave_up.set(),
        )
        with other:
            assert gave_up.wait(60)
    told = [record.message.split(" failed")[0] for record in caplog.records if record.name == "psycopg.pool"]
    assert [text for text in told if "'mine'" in text][-1] == "reconnection attempt in pool 'mine'"
    assert all("'mine'" in text for text in told)


def test_a_pool_in_use_says_which_setting_helps(url):
    with (
        create_pool(url, max_size=1, timeout_seconds=0.2) as pool,
        pool.connection(),
        pytest.raises(DatabaseUnavailable, match="found all 1 in use; COREMACHINE_POOL_SIZE sets"),
    ):
        ask(pool)


def test_a_renewal_of_leases_does_not_wait_for_the_pool(database_url, monkeypatch):
    """While other calls held all connections, leases ran out, and healthy tasks began anew elsewhere."""
    monkeypatch.setattr(postgresql, "_URGENT_SECONDS", 0.0)
    with create_pool(database_url, max_size=1) as pool:
        engine = Engine(pool)
        job_id = engine.submit(stages=1)
        step = engine.jobs.find_job(job_id).step_ref
        with pool.connection() as connection:
            assert engine.tasks.renew_step_lease(step, "me")
            assert engine.tasks.renew_leases([]) == {}
            assert connection.execute("select step_lease ->> 'owner' as name from app.jobs").fetchone()["name"] == "me"
        assert pool.get_stats()["pool_size"] == 1


def test_a_closed_pool_is_unavailable(url):
    pool = create_pool(url)
    assert ask(pool) == "postgres"
    pool.close()
    with pytest.raises(DatabaseUnavailable, match="closed"):
        ask(pool)


def test_the_pool_comes_back_with_the_database(tmp_path, monkeypatch):
    """After an outage longer than the pool tries by itself, the next caller makes it try again."""
    monkeypatch.setattr(postgresql, "_RECONNECT_SECONDS", 0.5)
    server = LocalPostgres(tmp_path / "data", keep=True)
    url = server.start()
    with create_pool(url, timeout_seconds=0.3) as pool:
        gave_up = threading.Event()
        monkeypatch.setattr(pool, "_reconnect_failed", lambda _: gave_up.set())
        assert ask(pool) == "postgres"
        server.stop()
        while not gave_up.is_set():
            with pytest.raises(DatabaseUnavailable):
                ask(pool)
        server = LocalPostgres(tmp_path / "data", keep=False)
        assert server.start() == url
        pool.timeout = 10.0
        assert ask(pool) == "postgres"
    server.stop()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_gets_no_connection_of_its_parents(url):
    """Two processes that write into one conversation spoil both; the child's end would end the parent's session."""
    with create_pool(url, max_size=1) as pool:
        [before] = PostgreSQLRepository(pool)._execute_query("ask", SQL("select pg_backend_pid() as pid"))
        pid = os.fork()
        if pid == 0:
            try:
                ask(pool)
            except postgresql.NotThisProcess:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        [after] = PostgreSQLRepository(pool)._execute_query("ask", SQL("select pg_backend_pid() as pid"))
    assert before == after


def take(pool, spoil):
    connection = pool.getconn()
    spoil(connection)
    ConnectionPool.putconn(pool, connection)


@pytest.mark.parametrize(
    "spoil",
    [lambda connection: connection.set_autocommit(False), lambda connection: connection.close()],
    ids=["autocommit_off", "closed"],
)
def test_connection_that_a_handler_spoiled_loses_no_write(url, spoil):
    """Without autocommit, what the engine wrote there was undone when the connection came back, without an error."""
    with create_pool(url, max_size=1) as pool:
        repository = PostgreSQLRepository(pool)
        repository._execute_query("make", SQL("create table if not exists public.kept (n integer)"))
        take(pool, spoil)
        repository._execute_query("write", SQL("insert into public.kept values (1)"))
        assert repository._execute_query("read", SQL("select n from public.kept")) == [{"n": 1}]
        repository._execute_query("drop", SQL("drop table public.kept"))


def test_transaction_that_a_handler_left_open_in_the_pool_loses_no_write(url):
    """Through a reference of its own, while the connection is in the pool."""
    with create_pool(url, max_size=1) as pool:
        repository = PostgreSQLRepository(pool)
        repository._execute_query("make", SQL("create table if not exists public.kept (n integer)"))
        connection = pool.getconn()
        pool.putconn(connection)
        connection.execute("begin")
        repository._execute_query("write", SQL("insert into public.kept values (1)"))
        assert repository._execute_query("read", SQL("select n from public.kept")) == [{"n": 1}]
        repository._execute_query("drop", SQL("drop table public.kept"))
