"""Log records of a process of the pool, as they travel to the worker, whose handlers write them."""

import logging
from contextlib import suppress
from typing import Any

from core.isolation.wire import Message
from core.safety.safe_text import MOST_TEXT_BYTES, bounded_text, repr_of, storable_text, text_of, trace_of

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_KEPT = (
    *("name", "levelno", "levelname", "pathname", "filename", "module", "lineno", "funcName"),
    *("created", "msecs", "relativeCreated", "thread", "threadName", "process"),
)
_PLAIN = (str, int, float, bool, type(None))


def settings_of_loggers() -> Message:
    """The levels that are set in this process, for another one that is to be silent where this one is."""
    loggers = dict(logging.root.manager.loggerDict)
    levels = {name: one.level for name, one in loggers.items() if isinstance(one, logging.Logger) and one.level}
    return {"root": logging.root.level, "levels": levels, "disabled": logging.root.manager.disable}


def adopt_settings(settings: Message) -> None:
    """Set the levels that `settings_of_loggers` found."""
    logging.root.setLevel(settings["root"])
    for name, level in settings["levels"].items():
        logging.getLogger(name).setLevel(level)
    logging.disable(settings["disabled"])


def as_message(record: logging.LogRecord) -> Message:
    """What is kept of a record: its text, its place, its trace and its fields."""
    fields = vars(record)
    message: dict[str, Any] = {name: fields[name] for name in _KEPT}
    try:
        message["msg"] = bounded_text(record.getMessage())
    except Exception as error:  # noqa: BLE001 - an author's arguments
        message["msg"] = bounded_text(f"{text_of(record.msg)} [its arguments do not fit: {text_of(error)}]")
    trace = record.exc_text
    if record.exc_info and record.exc_info[1] is not None:
        trace = trace_of(record.exc_info[1]) or repr_of(record.exc_info[1])
    if trace:
        message["exc_text"] = bounded_text(trace.rstrip("\n"), keep_end=True)
    if record.stack_info:
        message["stack_info"] = bounded_text(record.stack_info, keep_end=True)
    message["fields"] = {storable_text(name): _plain(fields[name]) for name in fields if name not in _OWN}
    return message


def pass_on(message: Message) -> None:
    """Have this process's handlers write a record, as if it had been made here. One that raises ends no attempt."""
    logger = logging.getLogger(message["name"])
    if logger.isEnabledFor(message["levelno"]):
        with suppress(Exception):
            logger.handle(logging.makeLogRecord({**message.pop("fields"), **message, "args": ()}))


def _plain(value: object) -> Any:
    if type(value) is str:
        return bounded_text(value)
    if type(value) in _PLAIN:
        return value
    if type(value) in {list, tuple} and all(type(item) in _PLAIN for item in value):  # type: ignore[attr-defined]
        return value
    return repr_of(value, MOST_TEXT_BYTES)
