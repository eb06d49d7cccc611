"""The database of tests: a real PostgreSQL, started once per process, whose clock tests turn.

A server of its own starts in a temporary folder at the first use and ends with the process.
`COREMACHINE_TEST_POSTGRES` names another one, in which a database is made and dropped.
"""

import atexit
import itertools
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from core.schema.tables import TABLES
from coremachine.local.postgres import LocalPostgres
from infrastructure.connections import own_transaction
from infrastructure.migrations import Migrator
from infrastructure.postgresql import Pool, create_pool

SERVER_VARIABLE = "COREMACHINE_TEST_POSTGRES"
_MEMORY = Path("/dev/shm")  # noqa: S108 - of a folder with a name of its own in it
_NEEDED_BYTES = 1 << 30
_FOLDERS = "coremachine-tests-"
# Nobody needs a test's data after a crash of the machine.
_FAST_SETTINGS = ("fsync = off", "full_page_writes = off", "synchronous_commit = off", "max_wal_size = '256MB'")
_CLOCK = """
create schema testing;
create table testing.clock as select interval '0' as ahead;
create or replace function app.clock() returns timestamptz language sql stable as $$
  select coalesce(nullif(current_setting('app.fake_now', true), '')::timestamptz,
    clock_timestamp() + (select ahead from testing.clock))
$$;
"""
# Deleted: new files for each table would cost a test more than its job does.
_EMPTY = "".join(f"delete from app.{table.name};" for table in TABLES)  # noqa: S608 - of the schema's own tables
# Of this process's databases: a second one must not drop the first.
_numbers = itertools.count(1)
_RESTART_CLOCK = "update testing.clock set ahead = interval '0';"


class EngineDatabase:
    """One migrated database, emptied for each test. Use `session_database`, which makes one per process."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        try:
            server_url = os.environ.get(SERVER_VARIABLE) or self._start_server()
            self.url = self._make_database(server_url)
            self.pool: Pool = self._opened.enter_context(create_pool(self.url, max_size=20))
            Migrator(self.pool).migrate()
            self._execute(_CLOCK)
        except BaseException:
            self.close()
            raise

    def empty(self) -> None:
        """Remove all jobs, and turn the clock back to the present."""
        self._execute(_EMPTY + _RESTART_CLOCK)

    def turn_clock(self, ahead_seconds: float) -> None:
        with self.pool.connection() as connection, own_transaction(connection):
            connection.execute("update testing.clock set ahead = make_interval(secs => %s)", (ahead_seconds,))

    def close(self) -> None:
        self._opened.close()

    def _execute(self, text: str) -> None:
        with self.pool.connection() as connection, own_transaction(connection):
            connection.execute(text.encode())

    def _start_server(self) -> str:
        made = tempfile.TemporaryDirectory(prefix=prefix_of_folders(), dir=folder_for_servers())
        folder = self._opened.enter_context(made)
        url = self._opened.enter_context(LocalPostgres(Path(folder) / "data", keep=False))
        with psycopg.connect(url, autocommit=True) as connection:
            for setting in _FAST_SETTINGS:
                connection.execute(SQL("alter system set ") + SQL(setting))
            connection.execute("select pg_reload_conf()")
        return url

    def _make_database(self, server_url: str) -> str:
        name = f"coremachine_test_{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(SQL("drop database if exists {} with (force)").format(Identifier(name)))
            connection.execute(SQL("create database {}").format(Identifier(name)))
        self._opened.callback(_drop_database, server_url, name)
        return make_conninfo(server_url, dbname=name)


_databases: dict[int, EngineDatabase] = {}


def session_database() -> EngineDatabase:
    """The database of this process, which is made at the first call and removed when the process ends."""
    process = os.getpid()
    if process not in _databases:
        _databases[process] = EngineDatabase()
        atexit.register(close_session_database)
    return _databases[process]


def close_session_database() -> None:
    """Remove this process's database, and the server if it was started for it."""
    database = _databases.pop(os.getpid(), None)
    if database is not None:
        database.close()


def _drop_database(server_url: str, name: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(SQL("drop database if exists {} with (force)").format(Identifier(name)))


def folder_for_servers(servers: int = 1) -> Path | None:
    """In memory, where there is enough of it: a database is 300 files, and making them is what a test waits for."""
    remove_leftovers()
    is_large = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > servers * _NEEDED_BYTES
    return _MEMORY if is_large else None


def prefix_of_folders() -> str:
    """How the names of this process's folders begin, so that others know whose they were."""
    return f"{_FOLDERS}{os.getpid()}-"


def remove_leftovers() -> None:
    """Data of processes that were killed would fill the memory until the machine starts anew."""
    import psutil  # noqa: PLC0415 - extra `local`

    for folder in _MEMORY.glob(f"{_FOLDERS}*-*"):
        pid = folder.name.removeprefix(_FOLDERS).split("-", 1)[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
