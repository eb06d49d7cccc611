"""Databases cloned from a migrated template, and the repositories on one."""

import itertools
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, LiteralString, cast
from uuid import UUID, uuid4

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composed, Identifier, Literal

from core.models import JobRecord, Lease, StageDefinition, StageRef, TaskRecord
from core.schema.statuses import compose_text
from coremachine.testing.database import folder_for_servers, prefix_of_folders
from infrastructure.connections import own_transaction
from infrastructure.jobs_tasks import JobRepository, StageCompletionRepository, TaskRepository
from infrastructure.postgresql import Pool, PooledConnection, create_pool
from infrastructure.verify import Violation, load_invariants, verify

_numbers = itertools.count(1)
FIRST_WITH_STRATEGIES = 150_000


def set_defaults(server_url: str) -> None:
    """Set what COREMACHINE_TEST_SETTINGS says (name=value;name=value) for the server: no answer depends on it."""
    for setting in filter(None, os.environ.get("COREMACHINE_TEST_SETTINGS", "").split(";")):
        name, _, value = setting.partition("=")
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(SQL("alter system set {} = {}").format(SQL(name), Literal(value)))  # type: ignore[arg-type]
            connection.execute("select pg_reload_conf()")


def connect(database_url: str, *, autocommit: bool = False) -> psycopg.Connection:
    """A connection of the test's own, at read committed whatever the server's default is."""
    options = "-c default_transaction_isolation=read\\ committed"
    return psycopg.connect(make_conninfo(database_url, options=options), autocommit=autocommit)


@contextmanager
def folder_of_server() -> Iterator[Path]:
    """Where the data of a server of a test's own are: in memory, as those of the session's."""
    with tempfile.TemporaryDirectory(prefix=prefix_of_folders(), dir=folder_for_servers()) as folder:
        yield Path(folder) / "data"


@contextmanager
def empty_database(server_url: str, name: str, options: LiteralString = "") -> Iterator[str]:
    """A database of this name, without a schema. A server of its own would take seconds."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(SQL("create database {} {}").format(Identifier(name), SQL(options)))
    yield make_conninfo(server_url, dbname=name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(SQL("drop database {} with (force)").format(Identifier(name)))


def make_template(server_url: str) -> str:
    """A migrated database on the server, to be cloned; returns the server's URL."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("drop database if exists template_engine")
        connection.execute("create database template_engine")
    with create_pool(make_conninfo(server_url, dbname="template_engine")) as pool:
        JobRepository(pool)._ensure_schema_exists()
    return server_url


@contextmanager
def clone_template(server_url: str) -> Iterator[str]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        # Files as they are; block by block through the log takes twice as long. Older servers have one way alone.
        strategy = "strategy file_copy" if connection.info.server_version >= FIRST_WITH_STRATEGIES else ""
        connection.execute(f"create database {name} template template_engine {strategy}")
    yield make_conninfo(server_url, dbname=name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


class LastFirst(deque[PooledConnection]):
    """What came back last is taken first.

    In turns, a crowd's sixteen connections would each compile and plan all that later tests run.
    """

    append = deque.appendleft


def create_shared_pool(database_url: str) -> Pool:
    pool = create_pool(database_url, max_size=20)
    with pool._lock:
        pool._pool = LastFirst(pool._pool)
    return pool


def pool_at(pool: Pool, now: datetime) -> Pool:
    """A pool whose clock stands still. Many share one pool, since other connections would prepare all statements anew.

    Whoever uses the pool below without a clock may find any.
    """
    return cast("Pool", _PoolAt(pool, now))


class _PoolAt:
    def __init__(self, pool: Pool, now: datetime) -> None:
        self._pool, self._now = pool, now.isoformat()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def getconn(self, timeout: float | None = None) -> PooledConnection:
        return self._turn_clock(self._pool.getconn(timeout))

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[PooledConnection]:
        with self._pool.connection(timeout) as connection:
            yield self._turn_clock(connection)

    def connect_once(self) -> PooledConnection:
        return self._turn_clock(self._pool.connect_once())

    def _turn_clock(self, connection: PooledConnection) -> PooledConnection:
        if connection.__dict__.get("now") != self._now:
            connection.execute("select set_config('app.fake_now', %s, false)", (self._now,), prepare=True)
            connection.__dict__["now"] = self._now
        return connection


class LentDatabase:
    """One database and its pool for one test after another; making both for each would cost half of a test.

    It is emptied in between, and what a test made in the schema `public` is removed, with the triggers that use it. A
    test that left more than that (changed tables, statistics, a connection in use or one of its own) had its last use:
    the next test gets another.
    """

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._opened = ExitStack()
        self._url = ""
        self.pool: Pool | None = None
        self._clocked_pool: Pool | None = None
        self._watcher: psycopg.Connection | None = None
        self._schema = ""
        self._times_lent = 0

    def lend(self) -> Pool:
        if self.pool is None:
            self._url = self._opened.enter_context(clone_template(self._server_url))
            self._watcher = self._opened.enter_context(connect(self._url, autocommit=True))
            self._watcher.execute(NOTE_CHANGES)
            self._schema = self._look_at_schema()
            self.pool = self._opened.enter_context(create_shared_pool(self._url))
            self._times_lent = 0
        self._times_lent += 1
        return self.pool

    @property
    def clocked_pool(self) -> Pool:
        """Another pool of the database that is lent, for `pool_at`."""
        if self._clocked_pool is None:
            self._clocked_pool = self._opened.enter_context(create_shared_pool(self._url))
        return self._clocked_pool

    def verify(self) -> list[Violation]:
        """As `verify`, which is asked if something is found, or cannot be read.

        Nearly always nothing is, by a statement that was planned once for many tests.
        """
        assert self.pool is not None
        assert self._watcher is not None
        if not self._watcher.closed and not self._watcher.broken:
            with suppress(psycopg.Error):
                if self._watcher.execute(look_at_invariants(), prepare=True).fetchone() is None:
                    return []
        return verify(self.pool)

    def take_back(self) -> None:
        if not self._is_as_lent():
            self.close()
            return
        assert self._watcher is not None
        # Deleting the rows of one test costs a third of new files for all tables; what is deleted stays in the files.
        with self._watcher.pipeline():
            for statement in EMPTY if self._times_lent % USES_OF_ITS_FILES == 0 else DELETE:
                self._watcher.execute(statement, prepare=True)

    def close(self) -> None:
        self.pool = self._clocked_pool = self._watcher = None
        self._opened.close()

    def _is_as_lent(self) -> bool:
        """Read over a connection of its own, since the pool may be what the test broke."""
        pools = [pool for pool in (self.pool, self._clocked_pool) if pool is not None]
        stats = [pool.get_stats() for pool in pools]
        if self._watcher is None or any(pool.closed for pool in pools):
            return False
        if any(each["pool_size"] != each["pool_available"] for each in stats):
            return False
        try:
            own = sum(each["pool_size"] for each in stats)
            changes, remains = self._watcher.execute(COUNT_REMAINS, {"own": own}).fetchone() or (0, 1)
            return remains == 0 and (changes == 0 or self._undo())
        except psycopg.OperationalError:  # the test broke the server's connections
            return False

    def _undo(self) -> bool:
        """Remove what the test made beside the schema; whether all is then as it was."""
        assert self._watcher is not None
        for statement in UNDO:
            self._watcher.execute(statement)
        return self._look_at_schema() == self._schema

    def _look_at_schema(self) -> str:
        assert self._watcher is not None
        (found,) = self._watcher.execute(LOOK_AT_SCHEMA, prepare=True).fetchone() or ("",)
        return str(found)


@cache
def look_at_invariants() -> bytes:
    """One statement for all invariants, which has a row where any of them is broken."""
    looks = (SQL("exists (select 1 from ({}) broken)").format(text) for text in statements_of_invariants())
    return SQL("select 1 where {}").format(SQL(" or ").join(looks)).as_bytes()


def statements_of_invariants() -> list[Composed]:
    return [compose_text(each.statement, "app") for each in load_invariants()]


# A test that changes tables is seen, whichever change it is.
NOTE_CHANGES = """
create schema watch;
create table watch.changes (tag text);
create function watch.note_change() returns event_trigger language plpgsql as
  $$ begin insert into watch.changes values (tg_tag); end $$;
create event trigger note_change on ddl_command_end execute function watch.note_change();
-- Also as a replica.
alter event trigger note_change enable always;
"""
# Tests have functions and tables of their own in `public`, and triggers and foreign keys on the engine's that use them.
UNDO = (
    "set client_min_messages = warning",
    "drop schema public cascade",
    "create schema public authorization pg_database_owner",
    "grant usage on schema public to public",
    "truncate watch.changes",
)
# What a migration or a test may change of the schema's tables and functions, but for their rows and statistics.
LOOK_AT_SCHEMA = """
with relations as (select * from pg_class where relnamespace = 'app'::regnamespace)
select md5(string_agg(line, chr(10) order by line)) from (
  select (nspname, nspacl)::text from pg_namespace
  union all select (relname, relkind, reloptions, relacl, relrowsecurity, relpersistence)::text from relations
  union all select (r.relname, a.attname, a.atttypid, a.attnotnull, a.attoptions, a.attacl, a.attisdropped)::text
    from pg_attribute a join relations r on r.oid = a.attrelid
  union all select (r.relname, pg_get_expr(d.adbin, d.adrelid))::text
    from pg_attrdef d join relations r on r.oid = d.adrelid
  union all select (r.relname, c.conname, c.convalidated, pg_get_constraintdef(c.oid))::text
    from pg_constraint c join relations r on r.oid in (c.conrelid, c.confrelid)
  union all select (r.relname, t.tgname, t.tgenabled, t.tgtype, t.tgqual, t.tgfoid)::text
    from pg_trigger t join relations r on r.oid = t.tgrelid
  union all select (r.relname, e.rulename, e.ev_enabled, e.ev_action)::text
    from pg_rewrite e join relations r on r.oid = e.ev_class
  union all select (r.relname, pg_get_indexdef(i.indexrelid), i.indisvalid)::text
    from pg_index i join relations r on r.oid = i.indrelid
  union all select (r.relname, p.polname)::text from pg_policy p join relations r on r.oid = p.polrelid
  union all select (proname, proargtypes, prosrc, proconfig, provolatile, proacl)::text
    from pg_proc where pronamespace = 'app'::regnamespace
  union all select (evtname, evtenabled)::text from pg_event_trigger
  union all select (setdatabase, setrole, setconfig)::text from pg_db_role_setting
) as lines (line)
"""
TABLES = (
    "app.jobs",
    "app.job_runs",
    "app.stages",
    "app.tasks",
    "app.job_events",
    "app.dead_letters",
    "app.idempotency_keys",
    "app.schedules",
    "app.schedule_ticks",
    "app.audit_log",
    "app.app_instances",
    "app.limits",
    "app.limit_places",
    "app.limit_starts",
    "app.limit_waiters",
    "app.webhooks",
    "app.webhook_deliveries",
)
EMPTY = [f"truncate {', '.join(TABLES)} restart identity"]
RESTART = """
select setval(pg_get_serial_sequence('app.job_events', 'event_id'), 1, false),
  setval(pg_get_serial_sequence('app.dead_letters', 'dead_letter_id'), 1, false),
  setval(pg_get_serial_sequence('app.audit_log', 'audit_id'), 1, false)
"""
DELETE = [*(f"delete from {table}" for table in TABLES), RESTART]  # noqa: S608 - of these
# After this number of tests the files are new: dead rows would be read by all later ones.
USES_OF_ITS_FILES = 20
COUNT_REMAINS = """
select (select count(*) from watch.changes),
  (select count(*) from pg_statistic s join pg_class c on c.oid = s.starelid
     where c.relnamespace = 'app'::regnamespace)
  + (select abs(count(*) - %(own)s) from pg_stat_activity
     where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid())
"""


@dataclass
class Engine:
    """The repositories, and short ways to reach a state."""

    pool: Pool
    jobs: JobRepository = field(init=False)
    tasks: TaskRepository = field(init=False)
    stages: StageCompletionRepository = field(init=False)
    # When the rows were made older by hand, and by how many seconds.
    aged: list[tuple[datetime, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.jobs, self.tasks = JobRepository(self.pool), TaskRepository(self.pool)
        self.stages = StageCompletionRepository(self.pool)

    def submit(self, *, stages: int = 2, job_timeout_seconds: float | None = None, **stage_settings: Any) -> str:
        job_id = uuid4().hex * 2
        definition = {
            "job_type": "test",
            "timeout_seconds": job_timeout_seconds,
            "stages": [
                StageDefinition.model_validate(
                    {"number": number, "name": f"s{number}", "task_type": "t", "parallelism": "single"} | stage_settings
                ).model_dump(mode="json")
                for number in range(1, stages + 1)
            ],
        }
        job = JobRecord(
            job_id=job_id, job_type="test", total_stages=stages, definition=definition, correlation_id="corr"
        )
        assert self.jobs.submit_job(job).created
        return job_id

    def plan(
        self,
        job_id: str,
        stage: int,
        count: int,
        *,
        run: int = 1,
        first_window: int | None = None,
        is_limited: bool = False,
    ) -> tuple[str, int]:
        rows = (
            TaskRecord(
                job_id=job_id,
                run=run,
                task_id=f"s{stage}-{index:05d}",
                stage=stage,
                task_index=index,
                task_type="t",
                queue="q",
                parameters={"index": index},
            )
            for index in range(count)
        )
        return self.tasks.plan_stage(
            StageRef(job_id, run, stage), rows, first_window=first_window, is_limited=is_limited
        )

    def claim(self, job_id: str, stage: int, *task_ids: str) -> UUID:
        lease_id = uuid4()
        rows = self.tasks.claim_tasks(StageRef(job_id, 1, stage), task_ids, lease=Lease(lease_id, "test"))
        assert {row.outcome for row in rows} == {"claimed"}
        return lease_id

    def job_status(self, job_id: str) -> str:
        job = self.jobs.find_job(job_id)
        assert job is not None
        return job.status.value

    def task(self, job_id: str, task_id: str) -> dict[str, Any]:
        (row,) = self.query("select * from app.tasks where job_id = %s and task_id = %s", job_id, task_id)
        return row

    def query(self, text: str, *values: Any) -> list[dict[str, Any]]:
        with self.pool.connection() as connection, own_transaction(connection), connection.cursor() as cursor:
            return cursor.execute(text, values).fetchall()  # type: ignore[arg-type]

    def execute(self, text: str, *values: Any) -> None:
        with self.pool.connection() as connection, own_transaction(connection):
            connection.execute(text, values)  # type: ignore[arg-type]

    def rows_of(self, job_id: str) -> list[list[str]]:
        """Everything that is written of a job, in an order of its own."""
        tables = ("jobs", "stages", "tasks", "job_events")
        return [
            sorted(map(str, self.query(f"select * from app.{table} where job_id = %s", job_id)))  # noqa: S608 - of these
            for table in tables
        ]

    def wait_for_lock(self, kind: str | None = None, *, waiting: int = 1) -> None:
        """Until so many other connections wait for a lock, of a kind if given (advisory, transactionid, tuple)."""
        query = (
            "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() "
            "and (%s::text is null or wait_event = %s)"
        )
        for _ in range(10_000):
            if len(self.query(query, kind, kind)) >= waiting:
                return
        raise AssertionError("nobody waits")
