"""Ends a process that an author's code has broken for all others, such as by `threading.Lock = None` in a handler.

Nothing can undo that safely: another thread may need what was replaced. But the engine's own code fails there from then
on, at each message, request and sweep, and such a process takes more of them than a sound one. So it ends as soon as it
meets errors of its own and finds itself changed. A new one takes its place; what it ran is interrupted, and a task that
does it each time is soon a suspect, runs alone, and fails with that.
"""

import builtins
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import _exit, write
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from core.errors import CoreMachineError
from core.safety.safe_log import safe_logger
from core.safety.safe_text import repr_of

# Functions of this module go on to use what is there now, whatever is put into `builtins` later.
globals()["__builtins__"] = dict(vars(builtins))

log = safe_logger(__name__)

# The status with which such a process ends.
BROKEN_STATUS = 73
# Errors that are met while something is changed; one may have another reason.
MOST_ERRORS = 3
_SHOWN = 5
# What the engine and its hosts use, beside the engine itself and its driver of the database.
_MODULES = frozenset(
    {
        *("asyncio.base_events", "asyncio.events", "asyncio.futures", "asyncio.tasks", "base64", "builtins"),
        *("collections", "concurrent.futures", "concurrent.futures._base", "concurrent.futures.thread", "contextlib"),
        *("contextvars", "copy", "dataclasses", "datetime", "decimal", "enum", "functools", "gc", "hashlib", "hmac"),
        *("inspect", "io", "itertools", "json", "json.decoder", "json.encoder", "logging", "os", "queue", "random"),
        *("re", "select", "selectors", "signal", "socket", "ssl", "threading", "time", "traceback", "types"),
        *("urllib.parse", "uuid", "weakref"),
    }
)
_PACKAGES = ("core.", "infrastructure.", "psycopg.", "psycopg_pool.")
# Who may replace functions of `logging` and `threading`: the engine, when the first attempt begins, and its host and
# what traces it.
_MAY_REPLACE = (
    *("core.", "infrastructure.", "triggers.", "coremachine.", "coremachine_functions."),
    *("azure.", "opentelemetry.", "wrapt."),
)
_KEPT = (FunctionType, BuiltinFunctionType, type)
_Picture = dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]]


class Intactness:
    """Of this process. Any thread may call.

    Args:
        end: Ends the process, with a status.
    """

    def __init__(self, end: Callable[[int], object] = _exit) -> None:
        self._end = end
        self._picture: _Picture = {}
        self._errors = 0

    def take_picture(self) -> None:
        """Remember what is there: all is imported, and no author's code was called yet."""
        self._picture = dict(_look())

    def find_changes(self) -> list[str]:
        """What is another object by now, or missing, with what is there; the first few."""
        found = []
        modules = sys.modules
        for (module, owner), (held, names) in self._picture.items():
            place = f"{module}.{owner}" if owner else module
            if not owner and module not in modules:
                found.append(f"{place} (is not in sys.modules)")
            for name, value in names.items():
                if (now := held.get(name)) is not value and not _is_by_us(now):
                    found.append(f"{place}.{name} ({_shown(now)})")
            if len(found) >= _SHOWN:
                break
        return found[:_SHOWN]

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Around what a host calls of the engine."""
        try:
            yield
        except Exception as error:
            self.note(error)
            raise

    def explains(self, error: Exception) -> bool:
        """Whether an error of the engine may come from what was changed in this process."""
        return not isinstance(error, CoreMachineError) and bool(self.find_changes())

    def note(self, error: Exception) -> None:
        """The engine met an error of no known kind: end this process, if that is because it was changed."""
        if isinstance(error, CoreMachineError) or not (changes := self.find_changes()):
            return
        self._errors += 1
        if self._errors < MOST_ERRORS:
            return
        record = {"checkpoint": "PROCESS_BROKEN", "changed": changes, "error": _shown(error, 500)}
        try:
            log.error("process_broken", extra=record)
        except Exception:  # noqa: BLE001 - the log may be what is broken
            write(2, f"process_broken {record}\n".encode(errors="replace"))
        self._end(BROKEN_STATUS)


def _look() -> Iterator[tuple[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]]]:
    """Each module and each class of it: its names, as they are now and in future, and the functions among them."""
    for name, module in list(sys.modules.items()):
        if (name in _MODULES or f"{name}.".startswith(_PACKAGES)) and isinstance(module, ModuleType):
            held = vars(module)
            functions = {key: value for key, value in held.items() if isinstance(value, _KEPT)}
            yield (name, ""), (held, functions)
            for key, value in functions.items():
                if isinstance(value, type) and value.__module__ == name:
                    methods = {method: each for method, each in vars(value).items() if isinstance(each, FunctionType)}
                    yield (name, key), (_Names(value), methods)


def _shown(value: object, most: int = 80) -> str:
    """As text, or its type where what shows it is what was changed."""
    try:
        return repr_of(value, most)
    except Exception:  # noqa: BLE001 - whatever is broken
        return f"<{type(value).__name__}>"


def _is_by_us(replacement: object) -> bool:
    """By the module of a function's code, which `functools.wraps` does not change."""
    if isinstance(replacement, FunctionType):
        return f"{replacement.__globals__.get('__name__')}.".startswith(_MAY_REPLACE)
    return f"{type(replacement).__module__}.".startswith(_MAY_REPLACE)


class _Names(dict[str, Any]):
    """The names of a class, as they are when they are asked for."""

    def __init__(self, owner: type) -> None:
        super().__init__()
        self._owner = owner

    def get(self, name: str, default: Any = None) -> Any:
        return vars(self._owner).get(name, default)


intact = Intactness()
