"""Loggers that never raise: a record reports what has been done, and a listener must not make it seem undone.

Libraries that trace requests put attributes on every record, whose names may be those of our fields; a handler's `emit`
may raise. `logging` passes both on to the caller. Nor does a record show a credential that an exception's
text holds, or all of a text of any length that others wrote.

`logging.config` disables every logger that it does not name, unless its caller knows better. These stay enabled: their
level is what silences them, which no author's code sets (`core.safety.kept_logger`).
"""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from core.safety.kept_logger import KeptLogger, keep, make_record, may_be_a_signals
from core.safety.log_guard import log_guard
from core.safety.record_fields import bounded_field
from core.safety.safe_text import MOST_TEXT_BYTES, bounded_text, has_long_text, text_of, trace_of, type_name

REPEAT_SECONDS = 60.0
# What a field is called whose name is taken on its record.
PREFIX = "coremachine_"
# `logging` sets these later.
_RESERVED = frozenset({"message", "asctime"})
# Of an exception's text: room for that of an author's error, with its trace.
_MOST_EXCEPTION = 2 * MOST_TEXT_BYTES
# From where `logging` looks for the line that wrote the record: past `_write` and the method that was called.
_CALLERS = 3


class SafeLogger:
    """Called as a `logging.Logger` is, and writes through the one of the same name."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger, self.name = logger, logger.name

    def is_enabled_for(self, level: int) -> bool:
        """Whether anybody wants records of this level."""
        log_guard.put_back()
        if self._logger.disabled:
            self._logger.disabled = False
        return self._logger.isEnabledFor(level)

    def debug(self, message: str, *args: object, **options: Any) -> None:
        self._write(logging.DEBUG, message, args, **options)

    def info(self, message: str, *args: object, **options: Any) -> None:
        self._write(logging.INFO, message, args, **options)

    def warning(self, message: str, *args: object, **options: Any) -> None:
        self._write(logging.WARNING, message, args, **options)

    def error(self, message: str, *args: object, **options: Any) -> None:
        self._write(logging.ERROR, message, args, **options)

    def exception(self, message: str, *args: object, **options: Any) -> None:
        """As `error`, with the exception that is being handled."""
        self._write(logging.ERROR, message, args, **{"exc_info": True, **options})

    def log(self, level: int, message: str, *args: object, **options: Any) -> None:
        self._write(level, message, args, **options)

    def _write(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        *,
        exc_info: BaseException | bool | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            if not self.is_enabled_for(level):
                return
            logger = self._logger
            error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1] if exc_info else None
            trace = None if error is None else without_credentials(error)
            path, line, function, _ = logger.findCaller(stacklevel=_CALLERS)
            record = make_record(logger, level, path, line, message, args, trace, function)
            # Here and not in `makeRecord`, which refuses a record with a field whose name is taken.
            _add_fields(record, extra or {})
            logger.handle(record)
        except BaseException as error:
            if may_be_a_signals(error):
                raise
            _losses.note(self._logger.name, message, error)


class _Losses:
    """Reports on stderr, at once and then once a minute, that records are lost. Two threads may write at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: float | None = None
        self._unsaid = 0

    def note(self, logger: str, message: str, error: BaseException) -> None:
        self._unsaid += 1
        now = self._clock()
        if self._said is not None and now - self._said < REPEAT_SECONDS:
            return
        count, self._unsaid, self._said = self._unsaid, 0, now
        with suppress(Exception):  # there may be no stderr, or a closed one
            sys.stderr.write(
                f"coremachine: log records lost: {count}, the last was {message!r} of {logger}. A handler, a filter or "
                f"a record factory that this process has in `logging` raised {type_name(error)}: {text_of(error)}\n"
            )
            sys.stderr.flush()


_losses = _Losses()


def safe_logger(name: str, *, is_alone: bool = False) -> SafeLogger:
    """What a module writes its records to, in the place of a logger of `logging`; alone as `keep` has it."""
    return SafeLogger(keep(name, is_alone=is_alone))


log = safe_logger(__name__)


def _tell_refused(logger: str, change: str, place: str) -> None:
    details = {"checkpoint": "LOG_CHANGE_REFUSED", "logger": logger, "change": change, "place": place}
    log.warning("log_change_refused", extra=details)


KeptLogger.tell = staticmethod(_tell_refused)


class WithoutCredentials(Exception):
    """What a log shows of an exception whose text, or that of one which led to it, holds a credential or is long."""


def without_credentials(error: BaseException) -> Any:
    """The exception as a record's `exc_info`, or a stand-in whose text has its credentials blanked and is bounded."""
    told = trace_of(error) or f"{type_name(error)}: {text_of(error)}"
    blanked = bounded_text(told, _MOST_EXCEPTION)
    # A trace is shortened where a text in it is long; the exception itself still has all of it.
    if blanked == told and not has_long_text(error, _MOST_EXCEPTION):
        return type(error), error, error.__traceback__
    return WithoutCredentials, WithoutCredentials(f"of {type_name(error)}\n{blanked}"), None


def _add_fields(record: logging.LogRecord, fields: Mapping[str, Any]) -> None:
    held = vars(record)
    for name, value in fields.items():
        free = name
        while free in held or free in _RESERVED:
            free = PREFIX + free
        held[free] = bounded_field(value)
