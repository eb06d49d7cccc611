"""The engine's own loggers, and those above them: while an author's code runs, nothing is set there that hides records.

A level, a filter, `propagate`, a handler that is taken away, or a method that is replaced is refused there, and named
with the line that tried it. The author's call goes on. Before and after, the app may set what it likes.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any, ClassVar

from core.safety.log_guard import log_guard

# The lines that are named; a handler may try it for each of a million tasks.
_MOST_NAMED = 100


class KeptLogger(logging.Logger):
    """What a logger of the engine is turned into; see `keep`."""

    tell: ClassVar[Callable[[str, str, str], object]]
    _named: ClassVar[set[tuple[str, str, str]]] = set()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in {"filters", "handlers"}:
            # What is changed in place would pass by here.
            value = tuple(value)
        if log_guard.is_inside and self._hides(name, value):
            self._refuse(name)
        else:
            super().__setattr__(name, value)

    def addFilter(self, filter: Any) -> None:  # noqa: A002, N802 - logging's
        self.filters = (*self.filters, filter)  # type: ignore[assignment]

    def removeFilter(self, filter: Any) -> None:  # noqa: A002, N802 - logging's
        self.filters = [each for each in self.filters if each is not filter]

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - logging's
        if hdlr not in self.handlers:
            self.handlers = [*self.handlers, hdlr]

    def removeHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - logging's
        self.handlers = [each for each in self.handlers if each is not hdlr]

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
