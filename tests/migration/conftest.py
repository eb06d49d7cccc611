"""An empty database for each test, and a way to compare what stands in two."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

Catalog = dict[tuple[str, str], str]

CATALOG = """
with spaces as (select oid from pg_namespace where nspname = %(schema)s),
  tables as (select c.* from pg_class c join spaces s on s.oid = c.relnamespace
    where c.relkind in ('r', 'p') and c.relname <> 'schema_versions')
select 'column', t.relname || '.' || a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod),
    case when a.attnotnull then 'not null' end, 'default ' || pg_get_expr(d.adbin, d.adrelid), a.attidentity)
  from tables t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
union all select 'constraint', t.relname || '.' || c.conname, pg_get_constraintdef(c.oid)
  from tables t join pg_constraint c on c.conrelid = t.oid
union all select 'index', i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
  from tables t join pg_index i on i.indrelid = t.oid
union all select 'trigger', t.relname || '.' || g.tgname, pg_get_triggerdef(g.oid)
  from tables t join pg_trigger g on g.tgrelid = t.oid and not g.tgisinternal
union all select 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid)
  from pg_proc p join spaces s on s.oid = p.pronamespace
union all select 'comment', t.relname, coalesce(obj_description(t.oid, 'pg_class'), '') from tables t
union all select 'comment', t.relname || '.' || a.attname, coalesce(col_description(t.oid, a.attnum), '')
  from tables t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
union all select 'comment', p.oid::regprocedure::text, coalesce(obj_description(p.oid, 'pg_proc'), '')
  from pg_proc p join spaces s on s.oid = p.pronamespace
"""


@pytest.fixture
def make_database(postgres_url: str) -> Iterator[Callable[[], str]]:
    numbers = itertools.count(1)
    made: list[str] = []

    def make() -> str:
        made.append(f"migration_{next(numbers)}")
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f"create database {made[-1]}")
        return make_conninfo(postgres_url, dbname=made[-1])

    yield make
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in made:
            connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def connection(make_database: Callable[[], str]) -> Iterator[psycopg.Connection]:
    with psycopg.connect(make_database(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def catalog_of() -> Callable[[psycopg.Connection], Catalog]:
    """(kind, name) -> definition, of all that stands in a schema, but for the version table."""

    def read(connection: psycopg.Connection, schema: str = "app") -> Catalog:
        rows = connection.execute(CATALOG, {"schema": schema}).fetchall()
        assert len({row[:2] for row in rows}) == len(rows)
        return {(kind, name): definition for kind, name, definition in rows}

    return read


@pytest.fixture
def connect() -> Iterator[Callable[[str], psycopg.Connection]]:
    with ExitStack() as opened:

        def open_one(url: str) -> psycopg.Connection:
            return opened.enter_context(psycopg.connect(url, autocommit=True))

        yield open_one


@pytest.fixture
def project_root() -> Path:
    return Path(__file__).parents[2]
