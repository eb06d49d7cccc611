"""Columns of lists, where large values are cut in the database: the bytes of a page are bounded, whatever rows hold.

What an author made (parameters, results, progress) is there as it is, or not at all: a part of it would be taken for
the whole. Texts of errors and events are cut.
"""

from functools import cache
from typing import Any, LiteralString, cast

from psycopg.sql import SQL, Composable, Composed, Identifier

from core.models.definition import FrozenModel

# Of one value as JSON; a larger one is read whole where its row is read alone.
MOST_VALUE_BYTES = 64 * 1024
MOST_TEXT_CHARACTERS = 1000
MOST_NAMES = 50

_VALUES = {"parameters", "result", "progress"}
_TEXTS = {"error", "detail"}
_NOTE = SQL("'[cut here: ' || length(e.value #>> '{}')::text || ' characters in all]'")


@cache
def list_columns(model: type[FrozenModel], *, whole: LiteralString | None = None) -> SQL:
    """The model's columns for the select list of a list.

    Args:
        whole: The path of the API, as an expression, where such a row is read alone.
    """
    place = None if whole is None else SQL(whole)
    columns: list[Composable] = []
    for name in model.model_fields:
        column = Identifier(name)
        if name in _VALUES:
            columns.append(SQL("{} as {}").format(brief_value(column, place), column))
        elif name in _TEXTS:
            columns.append(SQL("{} as {}").format(brief_texts(column), column))
        else:
            columns.append(column)
    # Written out once: that takes longer than the cuts of a page.
    return SQL(cast("Any", SQL(", ").join(columns).as_string()))


def brief_value(column: Composable, whole: Composable | None = None) -> Composed:
    """The value, or how large it is and where it is read."""
    # The size that is stored comes first: it costs no look at a large value, the other one reads it.
    return SQL(
        "case when pg_column_size({column}) > {most} then {marker}"
        " when octet_length({column}::text) > {most} then {marker} else {column} end"
    ).format(column=column, most=MOST_VALUE_BYTES, marker=_marker(column, whole))


def brief_texts(column: Composable) -> Composed:
    """An object with its texts cut, a traceback's and a log's at its beginning; values in it as by `brief_value`.

    What only a hand can have put there, another kind of value or many names, takes no more room and breaks no list.
    """
    return SQL(
        "case when jsonb_typeof({column}) not in ('object', 'null') then jsonb_build_object('value', {other})"
        " when octet_length({column}::text) <= {most} then {column} else ("
        "select jsonb_object_agg(e.key, case when jsonb_typeof(e.value) <> 'string' then {value}"
        " when length(e.value #>> '{{}}') <= {most} then e.value"
        " when e.key in ('traceback', 'log') then to_jsonb({note} || chr(10) || right(e.value #>> '{{}}', {most}))"
        " else to_jsonb(left(e.value #>> '{{}}', {most}) || ' ' || {note}) end)"
        " from (select * from jsonb_each({column}) limit {names}) e) end"
    ).format(
        column=column,
        other=brief_value(column),
        most=MOST_TEXT_CHARACTERS,
        value=brief_value(SQL("e.value")),
        note=_NOTE,
        names=MOST_NAMES,
    )


def _marker(column: Composable, whole: Composable | None) -> Composed:
    where = SQL("") if whole is None else SQL(", 'whole', {}").format(whole)
    return SQL("jsonb_build_object('truncated', true, 'stored_bytes', pg_column_size({}){})").format(column, where)
