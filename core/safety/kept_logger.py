"""The engine's own loggers, and those above them: while an author's code runs, nothing is set there that hides records.

A level, a filter, `propagate`, a handler that is taken away, or a method that is replaced is refused there, and named
with the line that tried it. The author's call goes on. Before and after, the app may set what it likes.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ClassVar

from core.safety.log_guard import log_guard

# The lines that are named; a handler may try it for each of a million tasks.
_MOST_NAMED = 100


class _Watched(list[Any]):
    """The filters or handlers of a kept logger: a list of which each change is looked at first, as an assignment is.

    A change that is refused has the result that it would have had.
    """

    def __init__(self, logger: "KeptLogger", name: str, held: Iterable[Any]) -> None:
        super().__init__(held)
        self._owner = logger, name

    def __reduce__(self) -> Any:
        # A copy is nobody's.
        return list, (list(self),)


def _looked_at(name: str) -> Any:
    """A method that changes a list, as `_Watched` has it."""
    change = getattr(list, name)

    @wraps(change)
    def change_if_it_may(self: _Watched, *args: Any, **options: Any) -> Any:
        after = list(self)
        result = change(after, *args, **options)
        logger, what = self._owner
        if logger.may_become(what, after):
            list.__setitem__(self, slice(None), after)
        return self if result is after else result

    return change_if_it_may


for _name in (
    *("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"),
    *("__delitem__", "__iadd__", "__imul__", "__setitem__"),
):
    setattr(_Watched, _name, _looked_at(_name))


class _Levels(dict[int, bool]):
    """Whether a kept logger takes records of a level, as `logging` remembers it: computed here, whatever is set."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger

    def __setitem__(self, level: int, _: bool) -> None:
        logger = self._logger
        super().__setitem__(level, logging.root.manager.disable < level >= logger.getEffectiveLevel())


class KeptLogger(logging.Logger):
    """What a logger of the engine is turned into; see `keep`."""

    tell: ClassVar[Callable[[str, str, str], object]]
    _named: ClassVar[set[tuple[str, str, str]]] = set()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in {"filters", "handlers"} and value is not vars(self).get(name):
            value = _Watched(self, name, value)
        elif name == "parent":
            # A logger between ours and the root that is not ours is an author's own, to do with as they like.
            while not isinstance(value, KeptLogger | logging.RootLogger):
                value = logging.root if value is None else value.parent
        if self.may_become(name, value):
            super().__setattr__(name, value)

    def may_become(self, name: str, value: Any) -> bool:
        """Whether it may be set now; the line that may not is named."""
        if log_guard.is_inside and self._hides(name, value):
            self._refuse(name)
            return False
        return True

    def _hides(self, name: str, value: Any) -> bool:
        """Whether a record that passes now may not pass any more."""
        if name == "level":
            above = self.parent.getEffectiveLevel() if self.parent is not None else logging.WARNING
            return type(value) is not int or (value or above) > self.getEffectiveLevel()
        if name == "propagate":
            return self.propagate and not value
        if name == "filters":
            return _lacks(self.filters, value)
        if name == "handlers":
            return _lacks(value, self.handlers)
        if name == "_cache":
            return not isinstance(value, _Levels)
        return callable(getattr(type(self), name, None))

    def _refuse(self, name: str) -> None:
        frame = sys._getframe(3)  # noqa: SLF001 - as `logging` looks for its caller
        while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
            frame = frame.f_back
        what = (self.name, name, f"{frame.f_code.co_filename}:{frame.f_lineno}")
        if what not in self._named and len(self._named) < _MOST_NAMED:
            self._named.add(what)
            KeptLogger.tell(*what)


def _lacks(those: Iterable[object], wanted: Iterable[object]) -> bool:
    """Whether one is not among those, itself: an author's class answers what its objects are equal to."""
    held = set(map(id, those))
    return any(id(each) not in held for each in wanted)


def make_record(logger: logging.Logger, level: int, *given: Any) -> logging.LogRecord:
    """As `Logger.makeRecord`; a plain one where a factory that somebody set for the whole process makes none."""
    try:
        record = logger.makeRecord(logger.name, level, *given)
        if issubclass(type(record), logging.LogRecord):
            return record
    except BaseException as error:
        if may_be_a_signals(error):
            raise
    return logging.LogRecord(logger.name, level, *given)


def may_be_a_signals(error: BaseException) -> bool:
    """Whether it may come from a signal, which Python handles in the main thread between any two steps."""
    return isinstance(error, KeyboardInterrupt | SystemExit) and threading.current_thread() is threading.main_thread()


_BETWEEN = frozenset({"logging", __name__.partition(".")[0]})
_kinds: dict[type[logging.Logger], type[logging.Logger]] = {logging.Logger: KeptLogger}


def keep(name: str, *, is_alone: bool = False) -> logging.Logger:
    """The logger of that name, kept, as are those above it but the root, which `log_guard` keeps.

    One that is alone has none between itself and the root: the names above it are an author's.
    """
    above = name.rpartition(".")[0]
    if above and not is_alone:
        keep(above)
    logger = logging.getLogger(name)
    if not isinstance(logger, KeptLogger):
        kind = type(logger)
        if kind not in _kinds:
            _kinds[kind] = type(KeptLogger.__name__, (KeptLogger, kind), {})
        logger.__class__ = _kinds[kind]
        logger.filters, logger.handlers = list(logger.filters), list(logger.handlers)
        logger.parent = logger.parent
        vars(logger)["_cache"] = _Levels(logger)
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
