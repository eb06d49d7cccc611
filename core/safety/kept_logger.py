"""The engine's own loggers, and those above them: while an author's code runs, nothing is set there that hides records.

A level, a filter, `propagate`, a handler that is taken away, or a method that is replaced is refused there, and named
with the line that tried it. The author's call goes on. Before and after, the app may set what it likes.
"""

import logging
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, Self

from core.safety.log_guard import log_guard

# The lines that are named; a handler may try it for each of a million tasks.
_MOST_NAMED = 100


class _Fixed(tuple[Any, ...]):  # noqa: SLOT001 - a tuple has none
    """The filters or handlers of a kept logger: what changes a list in place gives it others, and comes by there."""

    def __new__(cls, logger: "KeptLogger", name: str, held: Iterable[Any]) -> Self:
        made = super().__new__(cls, held)
        made._change = partial(setattr, logger, name)
        return made

    _change: Callable[[Iterable[Any]], None]

    def append(self, one: Any) -> None:
        self._change([*self, one])

    def remove(self, one: Any) -> None:
        self._change([each for each in self if each is not one])

    def clear(self) -> None:
        self._change([])


class KeptLogger(logging.Logger):
    """What a logger of the engine is turned into; see `keep`."""

    tell: ClassVar[Callable[[str, str, str], object]]
    _named: ClassVar[set[tuple[str, str, str]]] = set()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in {"filters", "handlers"}:
            value = _Fixed(self, name, value)
        if log_guard.is_inside and self._hides(name, value):
            self._refuse(name)
        else:
            super().__setattr__(name, value)

    def _hides(self, name: str, value: Any) -> bool:
        """Whether a record that passes now may not pass any more."""
        if name == "level":
            above = self.parent.getEffectiveLevel() if self.parent is not None else logging.WARNING
            return (value or above) > self.getEffectiveLevel()
        if name == "propagate":
            return self.propagate and not value
        if name == "filters":
            return any(each not in self.filters for each in value)
        if name == "handlers":
            return any(each not in value for each in self.handlers)
        if name == "parent":
            return not isinstance(value, KeptLogger | logging.RootLogger)
        return callable(getattr(type(self), name, None))

    def _refuse(self, name: str) -> None:
        frame = sys._getframe(2)  # noqa: SLF001 - as `logging` looks for its caller
        while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
            frame = frame.f_back
        what = (self.name, name, f"{frame.f_code.co_filename}:{frame.f_lineno}")
        if what not in self._named and len(self._named) < _MOST_NAMED:
            self._named.add(what)
            KeptLogger.tell(*what)


_BETWEEN = frozenset({"logging", __name__.partition(".")[0]})
_kinds: dict[type[logging.Logger], type[logging.Logger]] = {logging.Logger: KeptLogger}


def keep(name: str) -> logging.Logger:
    """The logger of that name, kept, as are those above it but the root, which `log_guard` keeps."""
    above = name.rpartition(".")[0]
    if above:
        keep(above)
    logger = logging.getLogger(name)
    if not isinstance(logger, KeptLogger):
        kind = type(logger)
        if kind not in _kinds:
            _kinds[kind] = type(KeptLogger.__name__, (KeptLogger, kind), {})
        logger.__class__ = _kinds[kind]
        logger.filters, logger.handlers = logger.filters, logger.handlers
    return logger


def why_silent(name: str, level: int) -> str | None:
    """What keeps a logger's records of this level from every handler, as the app set it; None where nothing does."""
    logger: logging.Logger | None = keep(name)
    if logging.root.manager.disable >= level:
        return f"logging.disable({logging.root.manager.disable})"
    while logger is not None:
        # The first level that is set counts, however far above it is.
        if logger.level > level and logger.level == keep(name).getEffectiveLevel():
            return f"the level of logger {logger.name!r} is {logging.getLevelName(logger.level)}"
        if not logger.propagate:
            return None if logger.handlers else f"logger {logger.name!r} has propagate = False, and no handler"
        logger = logger.parent
    return None
