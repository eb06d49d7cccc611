"""What a migration file may say, and that all of them together make what the models say."""

import re
from pathlib import Path

import psycopg
import pytest

from core.schema.migration import Migration, in_order, load_migrations
from core.schema.sql_generator import generate_schema, render_schema
from infrastructure.migrations import Migrator

# Code of the release before runs on the new schema, and data are never thrown away: so a list of what is allowed.
ALLOWED_STATEMENTS = (
    r"create table ",
    r"create (unique )?index (?!concurrently)",
    r"drop index ",
    r"comment on ",
    r"insert into ",
    r"update ",
)
ALLOWED_ACTIONS = (
    r"add column ",
    r"add constraint ",
    r"drop constraint \S+$",
    r"validate constraint ",
    r"alter column \S+ drop not null$",
    r"alter column \S+ set default ",
    r"set <>$",
)


def complaints(text):
    """What in a migration is not additive."""
    code = re.sub(r"--[^\n]*", "", text)
    code = " ".join(re.sub(r"'[^']*'", "''", code).lower().split())
    return [problem for statement in code.split(";") if statement.strip() for problem in _complain(statement.strip())]


def _complain(statement):
    altered = re.match(r"alter table (if exists )?(only )?\S+ (?P<actions>.+)", statement)
    if not altered:
        return [] if re.match("|".join(ALLOWED_STATEMENTS), statement) else [statement]
    actions = altered["actions"]
    while "(" in actions:
        actions, count = re.subn(r"\([^()]*\)", "<>", actions)
        assert count, f"brackets do not match: {statement}"
    listed = [action.strip() for action in actions.split(",")]
    problems = [action for action in listed if not re.match("|".join(ALLOWED_ACTIONS), action)]
    dropped = {name for action in listed for name in re.findall(r"drop constraint (\S+)", action)}
    added = {name for action in listed for name in re.findall(r"add constraint (\S+)", action)}
    return problems + [f"drop constraint {name} without adding it again" for name in sorted(dropped - added)]


@pytest.mark.parametrize("migration", load_migrations(), ids=lambda migration: migration.label)
def test_migration_fills_no_column_of_a_table_that_it_locks(migration):
    """A hundred thousand rows took six seconds, for which nobody could read the table."""
    text = " ".join(re.sub(r"--[^\n]*", "", migration.text).lower().split())
    altered = set(re.findall(r"alter table (?:if exists )?(?:only )?(\S+) ", text))
    assert not altered & set(re.findall(r"(?:^|; ?)update (?:only )?(\S+) ", text))


@pytest.mark.parametrize("migration", load_migrations(), ids=lambda migration: migration.label)
def test_migration_is_additive(migration):
    """Deploying the schema again dropped columns (lesson D37)."""
    assert complaints(migration.text) == [], "see the lists above: nothing is dropped, renamed or retyped"


@pytest.mark.parametrize(
    "statement",
    [
        "drop table {schema}.tasks",
        "alter table {schema}.tasks drop column name",
        "alter table {schema}.tasks add column a text, drop column name",
        "alter table {schema}.tasks rename column name to title",
        "alter table {schema}.tasks alter column name type integer using 0",
        "alter table {schema}.tasks alter column name set not null",
        "alter table {schema}.tasks drop constraint tasks_status_check",
        "alter table {schema}.jobs rename to runs",
        "drop type {schema}.status cascade",
        "drop schema {schema} cascade",
        "truncate {schema}.tasks",
        "delete from {schema}.tasks",
        "do $$ begin perform 1; end $$",
        "create index concurrently a on {schema}.tasks (name)",
        "select 1; -- fine?\nDROP\n  TABLE {schema}.jobs",
    ],
)
def test_what_destroys_or_breaks_running_code_is_refused(statement):
    """Deploying the schema again dropped columns (lesson D37)."""
    assert complaints(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "alter table {schema}.tasks add column priority integer not null default 0 check (priority in (0, 1))",
        """alter table {schema}.tasks drop constraint tasks_status_check,
          add constraint tasks_status_check check (status in ('a; drop table', 'b'))""",
        "alter table {schema}.jobs alter column stage drop not null",
        "alter table {schema}.tasks set (fillfactor = 80)",
        "create index a on {schema}.tasks (name); drop index {schema}.b; -- drop table tasks",
        "update {schema}.tasks set name = 'drop table' where name is null",
    ],
)
def test_what_is_additive_is_allowed(statement):
    assert complaints(statement) == []


@pytest.mark.parametrize("versions", [(2,), (1, 3), (1, 1)])
def test_numbers_count_from_one_without_a_gap(versions):
    with pytest.raises(ValueError, match="renumber"):
        in_order(Migration(version, "x", "") for version in versions)


def test_a_checkout_with_other_line_ends_has_the_same_checksum():
    assert Migration(1, "x", "a\nb\n").checksum == Migration(1, "x", "a\r\nb\r\n").checksum
    assert Migration(1, "x", "a\nb\n").checksum != Migration(1, "x", "a\nc\n").checksum


def test_schema_file_is_what_the_models_generate(project_root):
    found = (project_root / "sql" / "schema.sql").read_text(encoding="utf-8")
    assert found == render_schema("app"), "run: python -m core.schema > sql/schema.sql"


def test_all_migrations_make_what_the_models_generate(connection, make_database, catalog_of, connect):
    generated = connect(make_database())
    for statement in generate_schema():
        generated.execute(statement)
    Migrator(connection).migrate()

    expected, found = catalog_of(generated), catalog_of(connection)

    lacking = {key: value for key, value in expected.items() if found.get(key) != value}
    surplus = {key: value for key, value in found.items() if key not in expected}
    number = len(load_migrations()) + 1
    assert (lacking, surplus) == ({}, {}), (
        f"the models and sql/migrations differ: write sql/migrations/{number:04d}_<what_it_does>.sql that makes "
        "what is lacking (first group; the second is what only the migrations have), for example "
        "`alter table {schema}.jobs add column note text;`, then run: python -m core.schema > sql/schema.sql. "
        "Never edit a published migration."
    )


def test_nothing_is_without_a_description(connection, catalog_of):
    """Of 84 columns 14 had a word of explanation, and none where an operator looks: in the database."""
    Migrator(connection).migrate()
    comments = {name: words for (kind, name), words in catalog_of(connection).items() if kind == "comment"}
    assert len(comments) > 150
    assert [name for name, words in comments.items() if not words.endswith(".")] == []


def columns_older_code_cannot_fill(connection, migrations):
    """Columns that a later migration adds to a table of the first one, which an insert must name."""
    query = (
        "select table_name || '.' || column_name, is_nullable = 'YES' or column_default is not null "
        "or is_identity = 'YES' from information_schema.columns where table_schema = 'app'"
    )
    # Without the functions: today's name columns that the first release did not have.
    Migrator(connection, migrations=migrations[:1], functions=lambda _: ()).migrate()
    before = dict(connection.execute(query).fetchall())
    tables = {name.split(".")[0] for name in before}
    Migrator(connection, migrations=migrations, functions=lambda _: ()).migrate()
    added = {name: fine for name, fine in connection.execute(query).fetchall() if name not in before}
    return {name for name, fine in added.items() if not fine and name.split(".")[0] in tables}


def test_columns_added_later_are_nullable_or_have_a_default(connection):
    assert columns_older_code_cannot_fill(connection, load_migrations()) == set()


def test_a_column_that_older_code_cannot_fill_is_found(connection):
    migrations = (
        *load_migrations()[:1],
        Migration(2, "wrong", "alter table {schema}.jobs add column a text not null, add column b text"),
        Migration(3, "new_table", "create table {schema}.others (a text not null)"),
    )
    assert columns_older_code_cannot_fill(connection, migrations) == {"jobs.a"}


def test_functions_of_the_release_before_are_as_it_calls_them(make_database):
    """Its prepared statements failed once a function had another result: half of its submissions, until it was ended.

    The list is replaced with the release: `pg_get_function_identity_arguments` and `pg_get_function_result` of each.
    """
    before = set(Path(__file__).with_name("functions_of_the_release_before.txt").read_text("utf-8").splitlines())
    with psycopg.connect(make_database(), autocommit=True) as connection:
        Migrator(connection).migrate()
        rows = connection.execute(
            "select p.proname, pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid) "
            "from pg_proc p where p.pronamespace = 'app'::regnamespace"
        ).fetchall()
    assert before - {f"{name}({arguments}) -> {result}" for name, arguments, result in rows} == set()
