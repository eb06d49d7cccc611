"""A schema that lost a part after its migrations: it is named, with what brings it back."""

import psycopg
import pytest

from infrastructure.base import ConnectionsInUse, DatabaseShort
from infrastructure.migrations import Migrator
from infrastructure.postgresql import PostgreSQLRepository, create_pool


@pytest.fixture
def admin(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def status_of(database_url):
    with psycopg.connect(database_url) as connection:
        return Migrator(connection).status()


def test_whole_schema_lacks_nothing(database_url):
    status = status_of(database_url)
    assert (status.is_current, status.foreign.missing) == (True, ())
    assert (status.foreign.why_not_ready, status.foreign.why_doubtful) == (None, None)


@pytest.mark.parametrize(
    "change", ["rename column lease_owner to old_owner", "drop column lease_owner"], ids=["renamed", "dropped"]
)
def test_column_that_is_gone_is_not_ready(database_url, admin, change):
    """`readyz` answered 200, and each error advised a migration, which had nothing to do."""
    admin.execute(f"alter table app.tasks {change}")
    why = status_of(database_url).foreign.why_not_ready
    assert why.startswith("expected all columns of this release, found no column lease_owner of app.tasks; give column")


def test_index_that_is_gone_is_named_with_its_statement(database_url, admin):
    admin.execute("drop index app.dead_letters_once")
    foreign = status_of(database_url).foreign
    assert foreign.why_not_ready is None
    found, run = foreign.why_doubtful.split("; run: ")
    assert found == "found no index dead_letters_once of app.dead_letters"
    admin.execute(run)
    assert status_of(database_url).foreign.missing == ()


@pytest.mark.parametrize(
    "drop",
    [
        "drop function app.claim_task(text, integer, integer, text, uuid, text)",
        "drop trigger transition_guard on app.jobs",
        "drop trigger set_deadlines on app.stages",
    ],
)
def test_migrate_makes_a_function_or_trigger_again(database_url, admin, drop):
    """The functions counted as current as long as nobody changed their text."""
    admin.execute(drop)
    assert not status_of(database_url).is_current
    with create_pool(database_url) as pool:
        assert Migrator(pool).migrate() == ("functions",)
    assert status_of(database_url).is_current


def test_look_at_the_schema_without_a_connection_says_so(database_url):
    """`readyz` answered that the database cannot be reached, and the log had `migrate: couldn't get a connection`."""
    with (
        create_pool(database_url, max_size=1) as pool,
        pool.connection(),
        pytest.raises(ConnectionsInUse, match=r"expected a connection within 0\.1 s, found all 1 in use"),
    ):
        Migrator(pool).status(patience_seconds=0.1)


@pytest.mark.parametrize(
    ("code", "condition"),
    [("53100", "DiskFull"), ("53400", "ConfigurationLimitExceeded"), ("55P03", "LockNotAvailable")],
)
def test_server_that_lacks_something_is_told_apart_from_one_out_of_reach(database_url, code, condition):
    statement = f"do $$ begin raise exception 'no' using errcode = '{code}'; end $$"
    with create_pool(database_url) as pool, pytest.raises(DatabaseShort) as caught:
        PostgreSQLRepository(pool)._execute("ask", statement, ())
    assert caught.value.condition == f"{code} {condition}"
