"""Finds what the engine's schema lacks though its migrations were applied: somebody dropped or renamed it."""

import re
from collections.abc import Iterable
from typing import Any

from psycopg import Cursor
from psycopg.sql import Identifier

from core.models.foreign import MissingPart
from core.schema.sql_generator import create_index
from core.schema.tables import TABLES

_COLUMNS = """
select w."table", w.name from unnest(%(tables)s::text[], %(names)s::text[]) as w("table", name)
where not exists (
  select from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = %(schema)s and c.relname = w."table" and a.attname = w.name and not a.attisdropped
)
order by 1, 2
"""
_INDEXES = """
select w."table", w.name from unnest(%(tables)s::text[], %(names)s::text[]) as w("table", name)
where not exists (
  select from pg_index i join pg_class x on x.oid = i.indexrelid join pg_class c on c.oid = i.indrelid
    join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = %(schema)s and c.relname = w."table" and x.relname = w.name and i.indisvalid
)
order by 1, 2
"""
# Whatever their arguments are.
_REPLACEABLE = """
select (select count(*) from unnest(%(functions)s::text[]) as w(name) where not exists (
    select from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = %(schema)s and p.proname = w.name))
  + (select count(*) from unnest(%(tables)s::text[], %(triggers)s::text[]) as w("table", name) where not exists (
    select from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %(schema)s and c.relname = w."table" and t.tgname = w.name)) as count
"""


class ReplaceableParts:
    """The names of the functions and triggers that statements make."""

    def __init__(self, statements: Iterable[str], schema: str) -> None:
        self._schema = schema
        text = "\n".join(statements)
        place = re.escape(Identifier(schema).as_string())
        functions = re.findall(rf'create or replace (?:function|procedure) {place}\."?(\w+)"?\s*\(', text)
        self.functions = sorted(set(functions))
        self.triggers = sorted(
            set(re.findall(rf'create or replace trigger (\w+)\s[^;]*?\bon\s+{place}\."?(\w+)"?', text))
        )

    def is_any_missing(self, cursor: Cursor[Any]) -> bool:
        wanted = {
            "schema": self._schema,
            "functions": self.functions,
            "triggers": [name for name, _ in self.triggers],
            "tables": [table for _, table in self.triggers],
        }
        [row] = cursor.execute(_REPLACEABLE, wanted).fetchall()
        return bool(row["count"])


def find_missing_parts(cursor: Cursor[Any], schema: str) -> tuple[MissingPart, ...]:
    """Columns and indexes of this release that are not there, in a database that has all of its migrations."""
    columns = [(table.name, name) for table in TABLES for name in table.model.model_fields]
    indexes = {
        (table.name, index.name): create_index(schema, table, index) for table in TABLES for index in table.indexes
    }
    missing = [MissingPart(schema, *place) for place in _look(cursor, _COLUMNS, schema, columns)]
    return (
        *missing,
        *(
            MissingPart(schema, *place, indexes[place].as_string())
            for place in _look(cursor, _INDEXES, schema, indexes)
        ),
    )


def _look(cursor: Cursor[Any], query: str, schema: str, places: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    tables, names = zip(*places, strict=True)
    rows = cursor.execute(query, {"schema": schema, "tables": list(tables), "names": list(names)}).fetchall()
    return [(row["table"], row["name"]) for row in rows]
