"""Models and sql/functions -> DDL, composed with psycopg.sql: the same bytes every time, schema name a parameter."""

import types
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from importlib.resources import files
from typing import Any, LiteralString, Union, cast, get_args, get_origin
from uuid import UUID

from psycopg.sql import SQL, Composed, Identifier, Literal
from pydantic.fields import FieldInfo

from core.models.status import JOB_RERUN_TRANSITIONS, JOB_TRANSITIONS, STAGE_TRANSITIONS, TASK_TRANSITIONS
from core.schema.comments import comment_on_functions, comment_on_tables, describe_function
from core.schema.statuses import compose_text, literals
from core.schema.tables import TABLES, Index, Table

COLUMN_TYPES: dict[type, LiteralString] = {
    # Bytes compare faster than a language's rules, and a stage is then a range of task ids.
    str: 'text collate "C"',
    int: "integer",
    float: "double precision",
    bool: "boolean",
    datetime: "timestamptz",
    dict: "jsonb",
    tuple: "text[]",
    UUID: "uuid",
}
# PostgreSQL looks for what a function `language sql` calls when it is created, so what others call comes first.
LOADED_FIRST = ("clock.sql", "errors.sql", "events.sql", "locks.sql", "audit.sql")
_TRANSITIONS: dict[str, Mapping[Any, Iterable[StrEnum]]] = {
    "jobs": JOB_TRANSITIONS,
    "stages": STAGE_TRANSITIONS,
    "tasks": TASK_TRANSITIONS,
}


def generate_schema(schema: str = "app") -> Iterator[Composed]:
    """Statements that make an empty database ready: schema, tables with their indexes, and what may be applied again.

    Args:
        schema: The schema's name; it is quoted as an identifier.
    """
    yield SQL("create schema if not exists {}").format(Identifier(schema))
    yield from generate_tables(schema)
    yield from generate_replaceable(schema)


def generate_replaceable(schema: str = "app") -> Iterator[Composed]:
    """Functions, transition guards and comments, in order: what holds no data and can be applied again at any time."""
    yield from generate_functions(schema)
    yield from generate_transition_guards(schema)
    yield from comment_on_tables(schema)


def generate_tables(schema: str = "app") -> Iterator[Composed]:
    """Tables and their indexes: what migrations bring to a database that is in use."""
    for table in TABLES:
        yield _create_table(schema, table)
        for index in table.indexes:
            yield create_index(schema, table, index)


def generate_functions(schema: str = "app") -> Iterator[Composed]:
    """The SQL functions and their comments, two groups of statements per file; they can be applied again."""
    sources = (file for file in files("sql").joinpath("functions").iterdir() if file.name.endswith(".sql"))
    for source in sorted(sources, key=lambda file: (file.name not in LOADED_FIRST, file.name)):
        text = source.read_text(encoding="utf-8").strip()
        yield compose_text(text, schema)
        yield comment_on_functions(text, schema)


def generate_transition_guards(schema: str = "app") -> Iterator[Composed]:
    """Triggers that refuse a change of status which the transition table does not have; they can be applied again."""
    for name, transitions in _TRANSITIONS.items():
        lacks_transition = Identifier(schema, f"lacks_{name}_transition")
        yield _transition_test(schema, f"lacks_{name}_transition", transitions)
        yield _transition_guard(schema, name)
        rerun = Composed([])
        if name == "jobs":
            # A rerun, and nothing else, opens an ended job: as its next run.
            lacks_rerun = Identifier(schema, "lacks_jobs_rerun")
            yield _transition_test(schema, "lacks_jobs_rerun", JOB_RERUN_TRANSITIONS)
            rerun = SQL(" and (new.run <> old.run + 1 or {}(old.status, new.status))").format(lacks_rerun)
        # PostgreSQL reads a trigger's condition from its stored text at every statement: all of it is in a function.
        # After the update, not before: rows would be locked once more, each with a record in the log.
        yield SQL(
            "create or replace trigger transition_guard after update of status on {} for each row\n"
            "when ({}(old.status, new.status){})\n"
            "execute function {}()"
        ).format(Identifier(schema, name), lacks_transition, rerun, Identifier(schema, f"guard_{name}_transition"))


def render_schema(schema: str = "app") -> str:
    """The whole schema as SQL text, for `sql/schema.sql` and for people."""
    statements = (statement.as_string(None).strip().rstrip(";") for statement in generate_schema(schema))
    return ";\n\n".join(statements) + ";\n"


def _create_table(schema: str, table: Table) -> Composed:
    lines: list[Composed] = [_column(table, name, info) for name, info in table.model.model_fields.items()]
    lines.append(SQL("primary key ({})").format(_names(table.key)))
    lines.extend(
        SQL("foreign key ({}) references {} on delete cascade").format(_names(columns), Identifier(schema, other))
        for columns, other in table.references
    )
    body = SQL(",\n  ").join(lines)
    statement = SQL("create table if not exists {} (\n  {}\n)").format(Identifier(schema, table.name), body)
    if table.storage:
        settings = (SQL("{} = {}").format(SQL(name), Literal(value)) for name, value in table.storage)
        statement += SQL(" with ({})").format(SQL(", ").join(settings))
    return statement


def _column(table: Table, name: str, info: FieldInfo) -> Composed:
    python_type, optional = _plain_type(info.annotation)
    column = SQL("{} {}").format(Identifier(name), SQL(_sql_type(table, name, python_type)))
    if name == table.identity:
        return column + SQL(" generated always as identity")
    if name in table.now_columns:
        return column + SQL(" not null default now()")
    if not optional:
        column += SQL(" not null")
    if isinstance(info.default, StrEnum):
        column += SQL(" default {}").format(Literal(info.default.value))
    elif isinstance(info.default, dict):
        column += SQL(" default '{{}}'").format()
    elif isinstance(info.default, int):
        column += SQL(" default {}").format(Literal(info.default))
    if issubclass(python_type, StrEnum):
        values = SQL(", ").join(Literal(member.value) for member in python_type)
        column += SQL(" check ({} in ({}))").format(Identifier(name), values)
    return column


def _sql_type(table: Table, name: str, python_type: type) -> LiteralString:
    if name == table.identity or name in table.bigints:
        return "bigint"
    if issubclass(python_type, StrEnum):
        return "text"
    if python_type not in COLUMN_TYPES:
        known = sorted(known.__name__ for known in COLUMN_TYPES)
        raise TypeError(
            f"{table.model.__name__}.{name}: expected a StrEnum or one of {known}, found {python_type!r}; "
            "add it to COLUMN_TYPES"
        )
    return COLUMN_TYPES[python_type]


def _plain_type(annotation: Any) -> tuple[type, bool]:
    """The column's Python type and whether it may be null: `dict[str, Any] | None` -> (dict, True)."""
    if get_origin(annotation) in {Union, types.UnionType}:
        (inner,) = (arg for arg in get_args(annotation) if arg is not types.NoneType)
        return _plain_type(inner)[0], True
    if hasattr(annotation, "__metadata__"):
        return _plain_type(annotation.__origin__)
    return cast("type", get_origin(annotation) or annotation), False


def create_index(schema: str, table: Table, index: Index) -> Composed:
    """The statement that makes an index, unless it is there."""
    create = SQL("create unique index if not exists " if index.is_unique else "create index if not exists ")
    statement = create + SQL("{} on {}{} ({})").format(
        Identifier(index.name),
        Identifier(schema, table.name),
        SQL(" using gin" if index.of_parts else ""),
        _names(index.columns),
    )
    if index.statuses:
        statement += SQL(" where status in ({})").format(literals(index.statuses))
    if index.unless:
        statement += SQL(" and not {}").format(Identifier(index.unless))
    if index.condition:
        statement += SQL(" where {}").format(Identifier(index.condition))
    if index.where_set:
        statement += SQL(" where {} is not null").format(Identifier(index.where_set))
    return statement


def _transition_test(schema: str, name: str, transitions: Mapping[Any, Iterable[StrEnum]]) -> Composed:
    test = SQL(
        "create or replace function {}(p_from text, p_to text) returns boolean\nlanguage plpgsql immutable as $$\n"
        "begin\n  return p_from <> p_to and p_from || '>' || p_to not in (\n    {}\n  );\nend $$;\n"
    ).format(Identifier(schema, name), _pairs(transitions))
    words = "Whether a change of status is none of those that the table of transitions allows."
    return test + describe_function(schema, name, "p_from text, p_to text", words)


def _transition_guard(schema: str, table: str) -> Composed:
    guard = SQL(
        "create or replace function {}() returns trigger\nlanguage plpgsql as $$\nbegin\n"
        "  raise exception '{} row %: no transition from % to %', old, old.status, new.status"
        " using errcode = 'CM003';\n"
        "end $$;\n"
    ).format(Identifier(schema, f"guard_{table}_transition"), SQL(table))
    return guard + describe_function(schema, f"guard_{table}_transition", "", "Refuses a change of status with CM003.")


def _pairs(transitions: Mapping[Any, Iterable[StrEnum]]) -> Composed:
    return SQL(",\n    ").join(Literal(f"{start}>{end}") for start, ends in transitions.items() for end in sorted(ends))


def _names(columns: Iterable[str]) -> Composed:
    return SQL(", ").join(Identifier(column) for column in columns)
