"""Log lines: one per event, readable by people, with the process that speaks and the fields of the record.

What a record holds came from outside: a name with a line break, an escape sequence or a mark that turns the direction
of writing looks like what it is, and never like a line or a field of its own. Lines of a traceback are set in.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_NOISY = ("azure", "uamqp", "asyncio", "urllib3", "uvicorn", "httpx")
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LONGEST_VALUE = 300
# The app's name before that of the worker, where several apps write to one place.
SPEAKER_SETTING = "LOCAL_HOST_SPEAKER"
# `json` for one JSON object a line, as collectors of logs read them; otherwise lines for people.
FORMAT_SETTING = "COREMACHINE_LOG_FORMAT"
LOG_FORMATS = ("text", "json")
_HOST = __name__.rpartition(".")[0]
_DISPATCHER = f"{_HOST}.dispatcher"
# The function that runs in this thread or task, for the category of its records.
current_function: ContextVar[str | None] = ContextVar("current_function", default=None)
# Made once: `json.dumps` with an option makes one for each value.
_encode = json.JSONEncoder(default=str).encode


def configure_logging(speaker: str, level: str) -> None:
    """Send this process's log records to stderr; the SDK's own chatter only from WARNING on.

    The SDK reports every refused connection with a traceback; the pump reports the same in one line.
    """
    speaker = f"{os.environ.get(SPEAKER_SETTING, '')} {speaker}".strip()
    handler = logging.StreamHandler(sys.stderr)
    is_json = os.environ.get(FORMAT_SETTING) == "json"
    handler.setFormatter(JsonFormatter(speaker) if is_json else line_formatter(speaker))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.getLogger("azure.servicebus").setLevel(logging.CRITICAL)


def set_levels(default: str, by_category: Mapping[str, str]) -> None:
    """Obey `logging.logLevel`: records below the level of their category are dropped."""
    root = logging.getLogger()
    levels = CategoryLevels(default, by_category)
    root.setLevel(levels.lowest)
    for handler in root.handlers:
        handler.addFilter(levels)


class CategoryLevels(logging.Filter):
    """The levels of the longest category of each record that is in host.json.

    The categories are those of Azure's host: `Function.<name>.User` for what a function logs, `Function.<name>` for its
    invocations, `Host` for the host itself.
    """

    def __init__(self, default: str, by_category: Mapping[str, str]) -> None:
        super().__init__()
        self._default = logging.getLevelNamesMapping()[default]
        self._levels = {name: logging.getLevelNamesMapping()[level] for name, level in by_category.items()}
        self._cache: dict[str, int] = {}

    @property
    def lowest(self) -> int:
        return min([self._default, *self._levels.values()])

    def filter(self, record: logging.LogRecord) -> bool:
        category = category_of(record)
        level = self._cache.get(category)
        if level is None:
            level = self._cache[category] = self._level_of(category)
        return record.levelno >= level

    def _level_of(self, category: str) -> int:
        while category:
            if category in self._levels:
                return self._levels[category]
            category = category.rpartition(".")[0]
        return self._default


def category_of(record: logging.LogRecord) -> str:
    """In lower case; empty for what is logged outside of invocations."""
    if record.name == _DISPATCHER and isinstance(record.args, tuple) and record.args:
        return f"function.{record.args[0]}".lower()
    if record.name.startswith(_HOST):
        return "host.general"
    function = current_function.get()
    return "" if function is None else f"function.{function}.user".lower()


def line_formatter(speaker: str) -> logging.Formatter:
    """`time level [speaker] logger: message field=value ...`; the time is RFC 3339 in UTC."""
    line = f"%(asctime)s.%(msecs)03dZ %(levelname)-7s [{speaker}] %(name)s: %(message)s"
    return _LineFormatter(line, "%Y-%m-%dT%H:%M:%S")


class _SafeFormatter(logging.Formatter):
    """Formats each record: arguments that do not fit, or whose own `__str__` fails, cost no line."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            return self._line(record)
        except Exception:  # noqa: BLE001 - the values are the app's
            return self._line(_showable(record))

    def _line(self, record: logging.LogRecord) -> str:
        return super().format(record)


class _LineFormatter(_SafeFormatter):
    converter = staticmethod(time.gmtime)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the library's
        fields = {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
        told = [f"{name}={_short(value)}" for name, value in fields.items() if value is not None]
        return printable(" ".join([super().formatMessage(record), *told]))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is the library's
        return _set_in(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - the name is the library's
        return _set_in(super().formatStack(stack_info))


class JsonFormatter(_SafeFormatter):
    """`{"time", "level", "process", "logger", "message", <the record's fields>, "exception"}` on one line."""

    def __init__(self, speaker: str) -> None:
        super().__init__()
        self._speaker = speaker

    def _line(self, record: logging.LogRecord) -> str:
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._speaker,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
        document |= {name: value for name, value in fields.items() if value is not None and name not in document}
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        # Escapes for all that is not ASCII: no character of a value ends the line or turns its direction.
        return json.dumps(document, default=str)


def _showable(record: logging.LogRecord) -> logging.LogRecord:
    """The record with plain text for what it holds."""
    shown = copy.copy(record)
    given = record.args if isinstance(record.args, tuple) else (record.args,)
    arguments = ", ".join(_shown(value) for value in given)
    shown.msg, shown.args = f"{_shown(record.msg)} with arguments that do not fit: {arguments}", ()
    for name, value in vars(record).items():
        if name not in _OWN_FIELDS and value is not None:
            setattr(shown, name, _shown(value))
    return shown


def _shown(value: object) -> str:
    try:
        return value if isinstance(value, str) else repr(value)
    except Exception as failure:  # noqa: BLE001 - it is the app's code
        return f"<{type(value).__name__} whose __repr__ raised {type(failure).__name__}>"


def printable(text: str) -> str:
    """The text on one line, with escapes for all that is no visible character or space."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _set_in(text: str) -> str:
    return "\n".join(f"    {printable(line.expandtabs())}" for line in text.split("\n"))


def _short(value: object) -> str:
    """The value on one line, cut where it is long: a batch of a hundred ids is no reading matter."""
    is_word = isinstance(value, str) and value.isprintable() and " " not in value and '"' not in value
    text = str(value) if is_word else _encode(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
