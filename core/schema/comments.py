"""What tables, columns and functions mean, for psql and every other tool that shows a schema.

The words are the models' own: a table has its model's docstring, a column its field's description, a function the first
sentence of the comment above it. They are applied together with the functions, so a better word needs no migration.
"""

import inspect
import re
from collections.abc import Iterable, Iterator
from itertools import takewhile

from psycopg.sql import SQL, Composed, Identifier, Literal

from core.schema.tables import TABLES, Table

# It begins with plain letters, which are searched for many times as fast; the comment above it is read backwards.
_FUNCTION = re.compile(r"create or replace function \{schema\}\.(?P<name>\w+)\((?P<arguments>[^()]*)\)")
_FIRST_SENTENCE = re.compile(r".+?\.(?=\s|$)")
_DEFAULT = re.compile(r"\s+default\s+[^,]+")


def comment_on_tables(schema: str) -> Iterator[Composed]:
    """One group of statements for each table.

    Raises:
        ValueError: A model has no docstring, or a field no description.
    """
    for table in TABLES:
        yield SQL(";\n").join(_comments_of(table, schema))


def comment_on_functions(text: str, schema: str) -> Composed:
    """One group of statements for the functions of a file in sql/functions.

    Raises:
        ValueError: A function has no comment above it, or one without a sentence.
    """
    return SQL(";\n").join(
        describe_function(schema, found["name"], found["arguments"], _first_sentence(found))
        for found in _FUNCTION.finditer(text)
        if found.start() == 0 or text[found.start() - 1] == "\n"
    )


def describe_function(schema: str, name: str, arguments: str, words: str) -> Composed:
    """Arguments as they are declared: `p_job_id text, p_run integer`."""
    declared = SQL(" ".join(_DEFAULT.sub("", arguments).split()))
    return SQL("comment on function {}({}) is {}").format(Identifier(schema, name), declared, Literal(words))


def _comments_of(table: Table, schema: str) -> Iterable[Composed]:
    words = inspect.getdoc(table.model)
    if not words or table.model.__doc__ is None:
        raise ValueError(f"{table.model.__name__}: expected a docstring, found none; it describes table {table.name}")
    name = Identifier(schema, table.name)
    yield SQL("comment on table {} is {}").format(name, Literal(" ".join(words.split())))
    for column, info in table.model.model_fields.items():
        if not info.description:
            raise ValueError(
                f"{table.model.__name__}.{column}: expected a description, found none; "
                "say in Field(description=...) what it means and who moves it"
            )
        yield SQL("comment on column {} is {}").format(
            Identifier(schema, table.name, column), Literal(info.description)
        )


def _first_sentence(found: re.Match[str]) -> str:
    text, end = found.string, found.start()
    above = text[text.rfind("\n\n", 0, end) + 1 : end].splitlines()
    comment = list(takewhile(lambda line: line.startswith("-- "), reversed(above)))
    words = " ".join(line.removeprefix("-- ") for line in reversed(comment))
    sentence = _FIRST_SENTENCE.match(words)
    if sentence is None:
        raise ValueError(
            f"{found['name']}: expected a sentence in the comment above it, found {words!r}; say first what it does"
        )
    return sentence[0]
