"""The migrator on a real PostgreSQL."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from core.models import JobRecord, JobRef, Lease, StageDefinition, StageRef, TaskRecord
from core.models.lease import HeldTask
from core.schema.migration import Migration, load_migrations
from core.schema.sql_generator import generate_schema
from infrastructure.base import DatabaseUnavailable
from infrastructure.jobs_tasks import JobRepository, StageCompletionRepository, TaskRepository
from infrastructure.migrations import (
    MigrationBlocked,
    MigrationChanged,
    MigrationFailed,
    Migrator,
    SchemaWithoutVersions,
)
from infrastructure.postgresql import create_pool

ALL = load_migrations()
NEXT = len(ALL) + 1
ALL_LABELS = ("schema", *(migration.label for migration in ALL), "functions")
NOTE = Migration(NEXT, "note", "alter table {schema}.jobs add column note text")


def functions(*texts):
    """A replacement for the function files: one statement each."""
    return lambda schema: [sql.SQL(text).format(schema=sql.Identifier(schema)) for text in texts]


def function(signature, body="select null::{}"):
    result = signature.split("returns ")[1]
    return f"create or replace function {{schema}}.{signature} language sql as $$ {body.format(result)} $$"


def names_of(connection):
    rows = connection.execute(
        "select p.oid::regprocedure::text || ' ' || pg_get_function_result(p.oid) from pg_proc p "
        "where pronamespace = 'app'::regnamespace order by 1"
    )
    return [name.removeprefix("app.") for (name,) in rows.fetchall()]


def columns_of_jobs(connection):
    rows = connection.execute("select attname from pg_attribute where attrelid = 'app.jobs'::regclass and attnum > 0")
    return {name for (name,) in rows.fetchall()}


def test_a_second_run_finds_nothing_to_do(connection, catalog_of):
    migrator = Migrator(connection)
    assert migrator.migrate() == ALL_LABELS
    before = catalog_of(connection), connection.execute("select * from app.schema_versions").fetchall()

    assert (migrator.migrate(), migrator.plan()) == ((), [])
    assert (catalog_of(connection), connection.execute("select * from app.schema_versions").fetchall()) == before
    assert migrator.status().is_current


def test_the_plan_run_by_hand_does_what_the_migrator_does(connection, make_database, connect, catalog_of):
    """An administrator may want to read it and run it with psql."""
    by_hand = connect(make_database())
    migrator = Migrator(by_hand)
    texts = [statement.as_string(None) for statement in migrator.plan()]
    assert by_hand.execute("select from pg_namespace where nspname = 'app'").fetchall() == [], "a plan changes nothing"

    for text in texts:
        by_hand.execute(text)
    Migrator(connection).migrate()

    assert catalog_of(by_hand) == catalog_of(connection)
    assert migrator.status().is_current


def test_only_what_is_pending_is_run(connection):
    Migrator(connection).migrate()
    migrator = Migrator(connection, migrations=[*ALL, NOTE])
    assert migrator.status().pending == (NOTE.label,)
    assert "add column note" in migrator.plan()[0].as_string(None)

    assert migrator.migrate() == (NOTE.label, "functions")
    assert "note" in columns_of_jobs(connection)


def test_several_processes_at_once_migrate_once(make_database, connect):
    """The lock is held until all of them wait for it; then one works and the others find it done."""
    url = make_database()
    holder = connect(url)
    lock = "hashtextextended('coremachine:migrate:app', 0)"
    holder.execute(f"select pg_advisory_lock({lock})")
    with ThreadPoolExecutor(4) as executor:
        runs = [executor.submit(Migrator(connect(url)).migrate) for _ in range(4)]
        waiting = 0
        while waiting < 4:
            query = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
            ((waiting,),) = holder.execute(query).fetchall()
            failed = [run.exception() for run in runs if run.done()]
            assert failed == []
        holder.execute(f"select pg_advisory_unlock({lock})")
        results = [run.result(timeout=60) for run in runs]

    assert sorted(results) == [(), (), (), ALL_LABELS]


def test_a_failing_migration_leaves_all_as_it_was(connection, catalog_of):
    Migrator(connection).migrate()
    before = catalog_of(connection)
    wrong = Migration(NEXT + 1, "wrong", "alter table {schema}.nowhere add column a text")

    with pytest.raises(MigrationFailed, match=r"_wrong: relation .*nowhere.* does not exist"):
        Migrator(connection, migrations=[*ALL, NOTE, wrong]).migrate()
    assert catalog_of(connection) == before
    assert Migrator(connection, migrations=[*ALL, NOTE]).status().pending == (NOTE.label,)


def test_an_edited_migration_is_refused(connection):
    Migrator(connection).migrate()
    edited = Migration(1, ALL[0].name, ALL[0].text + "\n-- a better comment")

    with pytest.raises(MigrationChanged, match=r"migration 1 as it was applied here .* write the change as a new"):
        Migrator(connection, migrations=[edited, *ALL[1:]]).migrate()


def test_tables_that_no_migration_made_are_refused(connection, catalog_of):
    """Made by the generator alone, as before there were migrations: nobody knows which state that is."""
    for statement in generate_schema():
        connection.execute(statement)
    before = catalog_of(connection)

    with pytest.raises(
        SchemaWithoutVersions, match=r"'app' has .*job_events, .*stages, tasks, .*but no schema_versions"
    ):
        Migrator(connection).migrate()
    assert catalog_of(connection) == before


def test_code_of_the_release_before_runs_on_a_newer_schema(make_database, caplog):
    """Another app of a later release has migrated: added columns, its own functions. This release leaves them alone."""
    later = Migration(
        NEXT,
        "later",
        "alter table {schema}.jobs add column note text; alter table {schema}.stages add column note text not null "
        "default ''; alter table {schema}.tasks add column priority integer not null default 0; "
        "alter table {schema}.job_events add column note text",
    )
    with create_pool(make_database()) as pool:
        Migrator(pool).migrate()
        Migrator(pool, migrations=[*ALL, later], functions=functions(function("later() returns integer"))).migrate()
        with caplog.at_level(logging.WARNING):
            assert Migrator(pool).migrate() == ()
        assert [record.message for record in caplog.records] == ["schema_newer_than_code"]
        status = Migrator(pool).status()
        assert (status.is_newer, status.is_current, status.database_version) == (True, True, NEXT)
        assert Migrator(pool).plan() == []
        run_one_job(pool)


def run_one_job(pool):
    jobs, tasks, stages = JobRepository(pool), TaskRepository(pool), StageCompletionRepository(pool)
    job_id, lease_id = uuid4().hex * 2, uuid4()
    stage = StageDefinition.model_validate({"number": 1, "name": "s", "task_type": "t", "parallelism": "single"})
    definition = {"job_type": "test", "stages": [stage.model_dump(mode="json")]}
    jobs.submit_job(
        JobRecord(job_id=job_id, job_type="test", total_stages=1, definition=definition, correlation_id="c")
    )
    task = TaskRecord(job_id=job_id, run=1, task_id="a", stage=1, task_index=0, task_type="t", queue="q")
    assert tasks.plan_stage(StageRef(job_id, 1, 1), [task]) == ("planned", 1)
    assert tasks.claim_tasks(StageRef(job_id, 1, 1), ["a"], lease=Lease(lease_id, "o"))[0].outcome == "claimed"
    held = HeldTask(job_id, 1, "a", lease_id, 60.0)
    assert tasks.renew_leases([held]) == {(lease_id, "a"): "renewed"}
    assert stages.complete_task_and_check_stage(
        StageRef(job_id, 1, 1), lease_id=lease_id, results={"a": {}}
    ).is_last_task_in_stage
    assert jobs.finalize_job(JobRef(job_id, 1), {}) == "completed"
    job = jobs.find_job(job_id)
    assert job is not None
    assert job.status == "completed"


def test_a_role_without_the_right_to_make_schemas_migrates_the_one_it_was_given(connection):
    name = f"limited_{uuid4().hex[:8]}"
    connection.execute(f"create role {name}")
    connection.execute(f"create schema app authorization {name}")
    connection.execute(f"set role {name}")
    assert Migrator(connection).migrate() == ALL_LABELS
    connection.execute("reset role")
    connection.execute(f"drop owned by {name}")
    connection.execute(f"drop role {name}")


def test_any_name_of_a_schema_works(connection):
    name = 'my "odd" {schema}'
    assert Migrator(connection, name).migrate() == ALL_LABELS
    changed = functions(*(function(f"clock() returns {kind}") for kind in ("text",)))
    assert Migrator(connection, name, functions=changed).migrate() == ("functions",)


def test_the_repositories_make_their_schema_with_it(make_database):
    with create_pool(make_database()) as pool:
        JobRepository(pool)._ensure_schema_exists()
        assert Migrator(pool).status().is_current
        run_one_job(pool)


def test_a_connection_with_transactions_of_its_own_commits(make_database, connect):
    url = make_database()
    with psycopg.connect(url) as connection:
        Migrator(connection).migrate()
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert Migrator(connect(url)).status().is_current


def test_a_locked_table_is_not_waited_for_without_end(make_database, connect):
    """Everybody queues behind a lock that is waited for: the wait is short, tried again, then given up."""
    url = make_database()
    connection, other = connect(url), connect(url)
    Migrator(connection).migrate()
    migrator = Migrator(connection, migrations=[*ALL, NOTE], lock_timeout_seconds=0.05, attempts=2)
    with other.transaction():
        other.execute("select from app.jobs")
        with pytest.raises(MigrationBlocked, match="2 times; look in pg_stat_activity"):
            migrator.migrate()
    assert migrator.migrate() == (NOTE.label, "functions")


def test_a_lock_given_up_meanwhile_is_had_at_the_next_attempt(make_database, connect):
    url = make_database()
    connection, other = connect(url), connect(url)
    Migrator(connection).migrate()
    migrator = Migrator(connection, migrations=[*ALL, NOTE], lock_timeout_seconds=0.05)
    waited = threading.Event()

    class Watch(logging.Handler):
        def emit(self, record):
            if record.getMessage() == "migration_waits":
                waited.set()

    handler = Watch()
    logger = logging.getLogger("infrastructure.migrations")
    logger.addHandler(handler)
    try:
        with ThreadPoolExecutor(1) as executor:
            with other.transaction():
                other.execute("select from app.jobs")
                run = executor.submit(migrator.migrate)
                assert waited.wait(timeout=60)
            assert run.result(timeout=60) == (NOTE.label, "functions")
    finally:
        logger.removeHandler(handler)


def test_a_database_that_cannot_be_reached_is_told_as_such(connection):
    connection.close()
    with pytest.raises(DatabaseUnavailable):
        Migrator(connection).migrate()


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (["a(x integer) returns integer"], ["a(x integer) returns text"]),
        (["a(x integer) returns integer"], ["a(y integer) returns integer"]),
        (["a(x integer) returns integer"], ["a(x integer, y text) returns integer"]),
        (["a(x integer default 1) returns integer"], ["a(x integer) returns integer"]),
        (["a(x integer) returns integer", "b() returns integer"], ["a(x text) returns text", "b() returns integer"]),
        (["a(x integer) returns integer"], ["a(x integer) returns integer", "a(x text) returns integer"]),
        (["a(x integer) returns integer", "a(x text) returns integer"], ["a(x text) returns integer"]),
    ],
)
def test_a_function_whose_signature_changed_is_replaced(connection, first, then):
    """`create or replace` refuses another result and leaves an old overload beside the new one."""
    Migrator(connection, functions=functions(*map(function, first))).migrate()
    connection.execute("create function app.somebody_elses(x integer) returns integer language sql as $$ select x $$")

    assert Migrator(connection, functions=functions(*map(function, then))).migrate() == ("functions",)

    expected = [f"{name}({kinds}) {result}" for name, kinds, result in map(plain_signature, then)]
    assert names_of(connection) == sorted([*expected, "somebody_elses(integer) integer"])


def plain_signature(signature):
    head, result = signature.split(" returns ")
    name, arguments = head.rstrip(")").split("(")
    kinds = [argument.split()[1] for argument in arguments.split(",") if argument]
    return name, ",".join(kinds), result


def test_a_function_no_longer_in_the_code_stays_for_the_release_before(connection):
    Migrator(connection, functions=functions(*map(function, ["a() returns integer", "b() returns integer"]))).migrate()
    Migrator(connection, functions=functions(function("a() returns integer", "select 2"))).migrate()
    assert names_of(connection) == ["a() integer", "b() integer"]


@pytest.mark.parametrize("then", ["a(x integer) returns text", "a(x text) returns integer"])
def test_what_depends_on_a_replaced_function_is_not_dropped_with_it(connection, then):
    Migrator(connection, functions=functions(function("a(x integer) returns integer"))).migrate()
    connection.execute("create view app.mine as select app.a(1)")

    with pytest.raises(MigrationFailed, match=r"functions: a new a takes .* view app\.mine depends on"):
        Migrator(connection, functions=functions(function(then))).migrate()
    assert names_of(connection) == ["a(integer) integer"]
    assert connection.execute("select * from app.mine").fetchall() == [(None,)]


def test_a_migration_of_a_comment_orders_a_change_of_functions(connection):
    """Functions of one number are replaced by whoever comes last; those of a lower number come no more."""
    old, new = function("a() returns integer", "select 1"), function("a() returns integer", "select 2")
    marker = Migration(NEXT, "functions", "-- a() counts from 2\n")
    Migrator(connection, functions=functions(old)).migrate()
    Migrator(connection, migrations=[*ALL, marker], functions=functions(new)).migrate()

    assert Migrator(connection, functions=functions(old)).migrate() == ()
    assert connection.execute("select app.a()").fetchall() == [(2,)]


def test_changed_functions_alone_are_applied_again(connection):
    Migrator(connection, functions=functions(function("a() returns integer", "select 1"))).migrate()
    migrator = Migrator(connection, functions=functions(function("a() returns integer", "select 2")))
    assert not migrator.status().functions_current
    assert migrator.migrate() == ("functions",)
    assert connection.execute("select app.a()").fetchall() == [(2,)]


def test_the_names_read_from_the_function_files_are_those_that_they_make(connection):
    """When PostgreSQL refuses to replace one, the names in its file are what is dropped."""
    migrator = Migrator(connection)
    migrator.migrate()
    read = set().union(*(migrator._names_in(statement) for statement in migrator._functions))
    assert read == {name.split("(")[0] for name in names_of(connection)}
