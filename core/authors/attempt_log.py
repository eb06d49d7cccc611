"""What a handler logs and prints: each record carries its job, stage, task and attempt, and the last lines are kept.

Both follow the handler into the threads that it starts and the calls that it submits to a ThreadPoolExecutor. For that,
five places of the standard library are wrapped once, at the first attempt of a process: `Logger.callHandlers`,
`Logger.isEnabledFor`, `Thread.start`, `ThreadPoolExecutor.submit`, and the streams of `sys`. Outside of an attempt they
do what they did.
"""

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as executor_threads
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Self

from core.authors.printed_lines import PrintedLines
from core.basics.log_fields import log_fields, with_log_fields
from core.basics.process_limits import expect_begin
from core.safety.credentials import redact
from core.safety.log_guard import hearing, log_guard
from core.safety.safe_log import safe_logger, without_credentials
from core.safety.safe_text import MOST_TEXT_BYTES, bounded_text, text_of, trace_of

# The last ones are kept; `core.errors.MOST_LOG_BYTES` bounds them too.
MOST_LINES = 100
_LONGEST_LINE = 2000

# "handler" may be a module of the author's.
log = safe_logger("handler.output", is_alone=True)

_attempt: ContextVar["AttemptLog | None"] = ContextVar("attempt_log", default=None)
log_guard.find_attempt = _attempt.get
# While a record is written, by any handler of `logging`, what is printed is that record and no print of its own.
_writing = threading.local()


@dataclass(slots=True, eq=False)
class AttemptLog:
    """The last lines of one attempt, which is what runs inside of it. Any thread may add to it."""

    _lines: deque[str] | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _partial: dict[str, PrintedLines] = field(default_factory=dict, init=False)
    _token: Token["AttemptLog | None"] = field(init=False)

    def __enter__(self) -> Self:
        # Others put streams of their own there and take them away again.
        if type(sys.stdout) is not _Stream or type(sys.stderr) is not _Stream:
            _wrap_streams()
        if getattr(logging.Logger.callHandlers, "__wrapped__", None) is None:
            _wrap_calls()
        self._token = _attempt.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        for line in self._rest() if self._partial else ():
            print_line(line)
        _attempt.reset(self._token)

    def add(self, line: str) -> None:
        with self._lock:
            if self._lines is None:
                self._lines = deque(maxlen=MOST_LINES)
            self._lines.append(line[:_LONGEST_LINE])

    def lines_of(self, stream: str, text: str) -> list[str]:
        """The lines that a piece of text ends; its rest waits for the next piece."""
        with self._lock:
            printed = self._partial.get(stream)
            if printed is None:
                printed = self._partial[stream] = PrintedLines()
            return printed.add(text)

    def text(self) -> str | None:
        """The lines; None if there is none."""
        with self._lock:
            return None if self._lines is None else "\n".join(self._lines)

    def _rest(self) -> list[str]:
        with self._lock:
            partial, self._partial = self._partial, {}
        return [line for line in (printed.rest() for printed in partial.values()) if line]


def print_line(line: str, otherwise: Callable[[str], object] | None = None) -> None:
    """A line that a handler printed: a record, or where nobody wants records of that level, what is done otherwise."""
    if log.is_enabled_for(logging.INFO):
        log.info(line)
        return
    kept = _attempt.get()
    if kept is not None:
        kept.add(f"{_now()} {redact(line)}")
    if otherwise is not None:
        otherwise(redact(line))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line_of(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - an author's arguments
        text = text_of(record.msg)
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{at} {record.levelname} {record.name}: {text}"


def _blank(record: logging.LogRecord) -> None:
    """Blank what looks like a credential in a record's text and trace, for each listener of `logging`.

    A text beyond what is stored of one is cut: to search 100 MB would hold the interpreter for seconds.
    """
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - an author's arguments, which logging's own handlers report
        return
    blanked = redact(text) if len(text) <= MOST_TEXT_BYTES else bounded_text(text)
    if blanked != text:
        record.msg, record.args = blanked, ()
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        record.exc_info = without_credentials(error)


def _note(record: logging.LogRecord, kept: AttemptLog) -> None:
    held = vars(record)
    for name, value in with_log_fields().items():
        held.setdefault(name, value)
    kept.add(_line_of(record))
    trace = record.exc_text
    if not trace and record.exc_info and record.exc_info[1] is not None:
        trace = trace_of(record.exc_info[1])
    for line in (trace or "").splitlines():
        kept.add(f"    {line}")


class _Stream:
    """A stream of `sys`: lines of an attempt become records, all else passes through."""

    def __init__(self, name: str, stream: Any) -> None:
        self._name, self._stream = name, stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        kept = _attempt.get()
        if kept is None or getattr(_writing, "depth", 0) > 0 or not isinstance(text, str):
            return int(self._stream.write(text))
        for line in kept.lines_of(self._name, text):
            print_line(line, self._pass_on)
        return len(text)

    def _pass_on(self, line: str) -> None:
        # A disk that is full, or a reader that is gone, fails no task: the line is kept with the attempt.
        with suppress(OSError, ValueError):
            self._stream.write(line + "\n")

    def flush(self) -> None:
        if _attempt.get() is None:
            self._stream.flush()
        else:
            with suppress(OSError, ValueError):
                self._stream.flush()

    def close(self) -> None:
        # Of an attempt it is not: all others write to it too.
        if _attempt.get() is None:
            self._stream.close()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)


def _wrap_calls() -> None:
    logging.Logger.callHandlers = _with_fields(logging.Logger.callHandlers)  # type: ignore[method-assign]
    logging.Logger.isEnabledFor = hearing(logging.Logger.isEnabledFor, _attempt.get)  # type: ignore[method-assign]
    threading.Thread.start = _with_attempt(threading.Thread.start)  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = _submitting(ThreadPoolExecutor.submit)  # type: ignore[method-assign]


def _wrap_streams() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and type(stream) is not _Stream:
            setattr(sys, name, _Stream(name, stream))


def _with_fields(call_handlers: Any) -> Any:
    @wraps(call_handlers)
    def call(self: logging.Logger, record: logging.LogRecord) -> None:
        kept = _attempt.get()
        if kept is None:
            call_handlers(self, record)
            return
        _blank(record)
        _note(record, kept)
        _writing.depth = getattr(_writing, "depth", 0) + 1
        try:
            call_handlers(self, record)
        finally:
            _writing.depth -= 1

    return call


def _with_attempt(start: Any) -> Any:
    @wraps(start)
    def start_bound(self: threading.Thread) -> None:
        # An executor's threads outlive the attempt that made them; its calls are bound one by one.
        is_executors = getattr(self, "_target", None) is getattr(executor_threads, "_worker", start)
        if _attempt.get() is not None and not is_executors:
            self.run = _bound(self.run)  # type: ignore[method-assign]
        expect_begin(self)
        start(self)

    return start_bound


def _submitting(submit: Any) -> Any:
    @wraps(submit)
    def submit_bound(self: ThreadPoolExecutor, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return submit(self, function if _attempt.get() is None else _bound(function), *args, **kwargs)

    return submit_bound


def _bound(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it runs in this attempt, in whatever thread."""
    kept, fields = _attempt.get(), with_log_fields()

    def call(*args: Any, **kwargs: Any) -> Any:
        token = _attempt.set(kept)
        try:
            with log_fields(**fields):
                return function(*args, **kwargs)
        finally:
            _attempt.reset(token)

    return call
