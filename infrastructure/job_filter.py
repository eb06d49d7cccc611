"""A filter of jobs as conditions of a statement, and the orders that indexes give."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Literal, LiteralString

from psycopg.sql import SQL, Composable
from psycopg.types.json import Jsonb

from core.models.job_filter import JobFilter, JobSort
from core.schema.statuses import STATUS_SETS, literals

# Column and direction; the first word of a cursor keeps the lists apart.
PlaceWord = Literal["jobs", "jobs-oldest", "jobs-latest-ended", "jobs-first-ended"]
ORDERS: Mapping[JobSort, tuple[LiteralString, LiteralString]] = {
    JobSort.NEWEST: ("created_at", "desc"),
    JobSort.OLDEST: ("created_at", "asc"),
    JobSort.LATEST_ENDED: ("finished_at", "desc"),
    JobSort.FIRST_ENDED: ("finished_at", "asc"),
}
PLACES: Mapping[JobSort, PlaceWord] = {
    JobSort.NEWEST: "jobs",
    JobSort.OLDEST: "jobs-oldest",
    JobSort.LATEST_ENDED: "jobs-latest-ended",
    JobSort.FIRST_ENDED: "jobs-first-ended",
}

_COMPARED: tuple[tuple[str, LiteralString], ...] = (
    ("correlation_id", "correlation_id = %s"),
    ("created_after", "created_at >= %s"),
    ("created_before", "created_at < %s"),
    ("error", "position(lower(%s) in lower(concat(error ->> 'type', ' ', error ->> 'message'))) > 0"),
)

_HEXADECIMAL = frozenset("0123456789abcdef")
# Large parameters are not looked through: to read one costs as much as a thousand small ones.
_HAS = (
    "((pg_column_size(parameters) <= 8192 and exists (select from jsonb_each_text(parameters) p"
    " where position(lower(%s) in lower({})) > 0))"
    " or position(lower(%s) in lower(concat(error ->> 'type', ' ', error ->> 'message'))) > 0)"
)
_HAS_TEXT = SQL(_HAS).format(SQL("p.value"))
_HAS_NAMED_TEXT = SQL(_HAS).format(SQL("concat(p.key, '=', p.value)"))


def conditions_of(wanted: JobFilter) -> tuple[list[Composable], list[Any]]:
    """Conditions, and the parameters in their order. None: all jobs."""
    conditions: list[Composable] = in_statuses(wanted.statuses)
    parameters: list[Any] = []
    if wanted.job_ids:
        conditions.append(SQL("job_id = any(%s)"))
        parameters.append(list(wanted.job_ids))
    if wanted.id_begins is not None:
        id_condition, id_values = begins_id(wanted.id_begins)
        conditions.append(id_condition)
        parameters += id_values
    types = list(wanted.job_types)
    if types:
        conditions.append(SQL("job_type = %s") if len(types) == 1 else SQL("job_type = any(%s)"))
        parameters.append(types[0] if len(types) == 1 else types)
    if wanted.visible_types is not None:
        conditions.append(SQL("job_type like any(%s)"))
        parameters.append([_as_like(pattern) for pattern in wanted.visible_types])
    if wanted.paused is not None:
        # Ended jobs are not paused: of the others there are few, and an index finds them.
        conditions.append(
            SQL("paused_at is not null and status in ({})").format(STATUS_SETS["active_jobs"])
            if wanted.paused
            else SQL("paused_at is null")
        )
    if wanted.held is not None:
        conditions.append(SQL("hold is not null" if wanted.held else "hold is null"))
    for name, text in _COMPARED:
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(SQL(text))
            parameters.append(value)
    if wanted.text is not None:
        id_condition, id_values = begins_id(wanted.text)
        text_condition, text_values = has_text(wanted.text)
        conditions.append(SQL("({} or {})").format(id_condition, text_condition))
        parameters += [*id_values, *text_values]
    _add_tags(wanted.tags, conditions, parameters)
    return conditions, parameters


def begins_id(text: str) -> tuple[Composable, list[str]]:
    """The condition that a job's id begins with the text, as a range of the primary key, and its parameters."""
    digits = text.lower()
    if not set(digits) <= _HEXADECIMAL:
        return SQL("false"), []
    # No digit comes after `g`.
    return SQL("(job_id >= %s and job_id < %s || 'g')"), [digits, digits]


def has_text(text: str) -> tuple[Composable, list[str]]:
    """The condition that a parameter or the error has the text, and its parameters."""
    return (_HAS_NAMED_TEXT if "=" in text else _HAS_TEXT), [text, text]


def _as_like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


def _add_tags(tags: Mapping[str, str | None], conditions: list[Composable], parameters: list[Any]) -> None:
    given = {name: value for name, value in tags.items() if value is not None}
    any_value = [name for name, value in tags.items() if value is None]
    if given:
        conditions.append(SQL("tags @> %s"))
        parameters.append(Jsonb(given))
    if any_value:
        conditions.append(SQL("tags ?& %s"))
        parameters.append(any_value)


def in_statuses(statuses: Iterable[StrEnum]) -> list[Composable]:
    """One condition, or none."""
    # Written out, not bound: a partial index serves only a statement whose text has the status.
    values = sorted({status.value for status in statuses})
    if not values:
        return []
    return [SQL("status in ({})").format(literals(values))]
