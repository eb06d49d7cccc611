"""The tables of the database, from the models and the DDL that is generated from them."""

import inspect
import re
from collections.abc import Iterator

from core.schema.sql_generator import generate_tables
from core.schema.tables import TABLES, Table
from coremachine.reference.markdown import code, page, table

_INTRODUCTION = """
The tables of the app's schema. Read them as you like; change them only through the [SQL functions](sql-functions.md),
the HTTP API or the command line.
"""


def render() -> str:
    types = dict(_column_types())
    return page("Tables", "the models in `core/models`", _INTRODUCTION, *(_section(one, types) for one in TABLES))


def _section(one: Table, types: dict[tuple[str, str], str]) -> str:
    rows = (
        [code(name), types[one.name, name], info.description or ""] for name, info in one.model.model_fields.items()
    )
    about = inspect.cleandoc(one.model.__doc__ or "")
    key = ", ".join(map(code, one.key))
    return f"## {one.name}\n\n{about}\n\nPrimary key: {key}.\n\n" + table(["column", "type", "meaning"], rows)


def _column_types() -> Iterator[tuple[tuple[str, str], str]]:
    """The type of each column by table and column, as the DDL has it."""
    for statement in generate_tables():
        text = statement.as_string(None)
        created = re.match(r'create table if not exists "\w+"\."(\w+)"', text)
        for column, definition in re.findall(r'^  "(\w+)" (.*?),?$', text, re.MULTILINE) if created else ():
            is_needed = " not null" in definition or "generated always" in definition
            kind = re.split(r" (?:not null|default|check|collate|generated)\b", definition)[0]
            yield (str(created and created[1]), column), kind if is_needed else f"{kind} or null"
