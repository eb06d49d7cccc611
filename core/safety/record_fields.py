"""A log record's own fields, for what takes more than its message."""

import logging
from json import dumps
from typing import Any

from core.safety.safe_text import text_of

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN = (str, bool, int, float)
_formatter = logging.Formatter()


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`, as texts and numbers; None is left out, and what is neither is written as JSON."""
    given = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {name: _plain(value) for name, value in given.items() if value is not None}


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
