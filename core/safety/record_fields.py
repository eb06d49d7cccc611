"""A log record's own fields, for what takes more than its message."""

import logging
from collections.abc import Mapping
from itertools import chain
from json import dumps
from typing import Any

from core.safety.safe_text import text_of, type_name

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN = (str, bool, int, float)
# Of one field of a record: of each of its texts, and of all of it. A message of a hundred tasks has their ids.
LONGEST_TEXT = 4_000
MOST_CHARACTERS = 32_000
_DEEPEST = 5
_TOO_MUCH = MOST_CHARACTERS + 1
_formatter = logging.Formatter()


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`, as texts and numbers; None is left out, and what is neither is written as JSON."""
    given = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {name: _plain(value) for name, value in given.items() if value is not None}


def bounded_field(value: Any) -> Any:
    """The value itself, or a copy whose long texts and many parts are cut, which states it: others may have written it.

    What is no text and no list, set or mapping is left as it is.
    """
    if isinstance(value, str):
        return _cut(value, LONGEST_TEXT)
    if not isinstance(value, _GROUPS):
        return value
    return value if _size_of(value, _DEEPEST) <= MOST_CHARACTERS else _Copier().copy(value, _DEEPEST)


_GROUPS = (Mapping, list, tuple, set, frozenset)
_NUMBERS = frozenset({int, float, bool, type(None)})


def _cut(text: str, most: int) -> str:
    """Its beginning and its end, where it is too long."""
    if len(text) <= most:
        return text
    return f"{text[: most * 3 // 4]} [cut here: {len(text):,} characters in all] {text[len(text) - most // 4 :]}"


def _size_of(value: Any, depth: int) -> int:
    """Characters of what is short and not too deep, without a copy; more than MOST_CHARACTERS of anything else."""
    if isinstance(value, str):
        return len(value) if len(value) <= LONGEST_TEXT else _TOO_MUCH
    # What most lists of a record hold: the check for a mapping takes four times as long.
    if type(value) in _NUMBERS or not isinstance(value, _GROUPS):
        return 1
    if depth == 0:
        return _TOO_MUCH
    size = 0
    for part in chain(value, value.values()) if isinstance(value, Mapping) else value:
        size += _size_of(part, depth - 1)
        if size > MOST_CHARACTERS:
            break
    return size


class _Copier:
    """Copies what there is room for."""

    def __init__(self) -> None:
        self._room = MOST_CHARACTERS

    def copy(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            text = _cut(value, LONGEST_TEXT)
            self._room -= len(text)
            return text
        if not isinstance(value, _GROUPS):
            self._room -= 1
            return value
        if depth == 0:
            return self.copy(f"{type_name(value)} of {len(value):,}", 0)
        if isinstance(value, Mapping):
            return self._copy_mapping(value, depth - 1)
        parts: list[Any] = []
        for part in value:
            if self._room <= 0:
                parts.append(f"[cut here: {len(value):,} in all]")
                break
            parts.append(self.copy(part, depth - 1))
        return parts

    def _copy_mapping(self, value: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
        copied: dict[Any, Any] = {}
        for name, part in value.items():
            if self._room <= 0:
                copied["cut"] = f"{len(value):,} in all"
                break
            copied[self.copy(name if isinstance(name, _PLAIN) else text_of(name), 0)] = self.copy(part, depth)
        return copied


def trace_text_of(record: logging.LogRecord) -> str | None:
    """The traceback that the record has, as text."""
    if not record.exc_info or not record.exc_info[0]:
        return None
    return _formatter.formatException(record.exc_info)


class FieldsFormatter(logging.Formatter):
    """The message as it was, then its fields as one JSON object: `job_submitted {"job_id": "...", ...}`.

    For handlers that send a record's formatted message alone.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the library's
        fields = fields_of(record)
        message = super().formatMessage(record)
        return f"{message} {dumps(fields, ensure_ascii=False)}" if fields else message


def _plain(value: object) -> str | bool | int | float:
    # An enum that is text is its value.
    if isinstance(value, _PLAIN):
        return str(value) if isinstance(value, str) else value
    try:
        return dumps(value, default=text_of, ensure_ascii=False)
    except (TypeError, ValueError):
        return text_of(value)
