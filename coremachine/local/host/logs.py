"""Log lines: one per event, readable by people, with the process that speaks and the fields of the record.

What a record holds came from outside: a name with a line break, an escape sequence or a mark that turns the direction
of writing looks like what it is, and never like a line or a field of its own. Lines of a traceback are set in.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

_NOISY = ("azure", "uamqp", "asyncio", "urllib3", "uvicorn", "httpx")
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LONGEST_VALUE = 300
# Made once: `json.dumps` with an option makes one for each value.
_encode = json.JSONEncoder(default=str).encode


def configure_logging(speaker: str, level: str) -> None:
    """Send this process's log records to stderr; the SDK's own chatter only from WARNING on.

    The SDK reports every refused connection with a traceback; the pump reports the same in one line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(line_formatter(speaker))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.getLogger("azure.servicebus").setLevel(logging.CRITICAL)


def line_formatter(speaker: str) -> logging.Formatter:
    """`time level [speaker] logger: message field=value ...`."""
    return _LineFormatter(f"%(asctime)s.%(msecs)03d %(levelname)-7s [{speaker}] %(name)s: %(message)s", "%H:%M:%S")


class _LineFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the library's
        fields = {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
        told = [f"{name}={_short(value)}" for name, value in fields.items() if value is not None]
        return printable(" ".join([super().formatMessage(record), *told]))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is the library's
        return _set_in(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - the name is the library's
        return _set_in(super().formatStack(stack_info))


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
