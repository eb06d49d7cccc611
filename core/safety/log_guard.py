"""What silences the records of a whole process, kept as it was when no author's code ran.

`logging.disable`, a level of the root logger, handlers that are taken away or changed (level, filters, stream, format,
methods), and `logging.config` with `disable_existing_loggers` hold for every thread: the records of other tasks, and
the engine's own, would be lost. While an author's code runs, whatever makes fewer records pass is undone: where the
engine writes a record, where a logger refuses one of an attempt, and when the call ends. A lock of a handler that the
call leaves taken is released. Before and after, the app may set what it likes.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Self


class _Settings:
    """Settings of `logging` at one moment."""

    __slots__ = ("_disable", "_handlers", "_held", "_level", "_root", "_same", "_was_off", "_witness", "locks")

    def __init__(self, witness: logging.Logger, was_off: frozenset[str]) -> None:
        self._root, self._witness, self._was_off = logging.root, witness, was_off
        self._level, self._disable = self._root.level, self._root.manager.disable
        self._handlers = list(self._root.handlers)
        self._held = [(each, each.level, each.filters[:], vars(each).copy()) for each in self._handlers]
        self._same = self._identities()
        locks: list[Any] = [each.lock for each in self._handlers if type(getattr(each, "lock", None)) is _RLOCK]
        self.locks: list[tuple[Callable[[], bool], Any]] = [(each._is_owned, each) for each in locks]  # noqa: SLF001

    def is_quieter(self) -> bool:
        """Whether a logger may refuse what it would have taken then."""
        root = self._root
        return (
            _is_more(root.level, self._level) or _is_more(root.manager.disable, self._disable) or self._witness.disabled
        )

    def is_same(self) -> bool:
        """Whether nothing was set since: neither what makes fewer records pass nor what makes more pass."""
        return self._identities() == self._same and not self._witness.disabled

    def _identities(self) -> list[int]:
        """Of all that is held, which keeps them: an author's class answers what its objects are equal to."""
        root = self._root
        found = [id(root.level), id(root.manager.disable), *map(id, root.handlers)]
        for each in self._handlers:
            held = each.__dict__
            found += map(id, held.values())
            found += map(id, held.get("filters", ()))
        return found

    def put_back(self) -> None:
        """Undo what makes fewer records pass."""
        root = self._root
        for handler, level, filters, held in self._held:
            _put_back_methods(handler, held)
            _put_back_stream(handler, held.get("stream"))
            if handler.formatter is not held.get("formatter"):
                handler.setFormatter(held.get("formatter"))
            if _is_more(handler.level, level):
                handler.setLevel(level)
            handler.filters[:] = filters
            if all(each is not handler for each in root.handlers):
                root.handlers.append(handler)
        if _is_more(root.level, self._level):
            root.setLevel(self._level)
        if _is_more(root.manager.disable, self._disable):
            logging.disable(self._disable)
        if self._witness.disabled:
            for name in disabled_loggers() - self._was_off:
                logging.getLogger(name).disabled = False


def _is_more(level: Any, usual: int) -> bool:
    """Whether fewer records pass. A level of an author's class answers as it likes, also whom `logging` asks."""
    return type(level) is not int or level > usual


_RLOCK = type(threading.RLock())


def _put_back_methods(handler: logging.Handler, held: Mapping[str, Any]) -> None:
    holds = vars(handler)
    for name in tuple(holds):
        if callable(getattr(type(handler), name, None)) and holds[name] is not held.get(name):
            if name in held:
                holds[name] = held[name]
            else:
                del holds[name]


def _put_back_stream(handler: logging.Handler, stream: Any) -> None:
    # A file's handler opens its stream late, and another one when the file is full or was moved.
    if stream is not None and not isinstance(handler, logging.FileHandler) and not getattr(stream, "closed", False):
        vars(handler)["stream"] = stream


class LogGuard:
    """A `with` around what calls an author's code; several threads may be inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        # The attempt that the present thread belongs to, as far as attempts are known.
        self.find_attempt: Callable[[], object] = lambda: None
        self._usual: _Settings | None = None
        # `logging.config` disables it with all other loggers that it does not name.
        self._witness = logging.getLogger("coremachine.witness")
        self._was_off: frozenset[str] = frozenset()

    @property
    def is_inside(self) -> bool:
        """Whether an author's code runs, in any thread, or left this one behind."""
        return self._inside > 0 or self.find_attempt() is not None

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                if self._witness.disabled:
                    self._was_off = disabled_loggers() - {self._witness.name}
                    self._witness.disabled = False
                    self._usual = None
                if self._usual is None or not self._usual.is_same():
                    self._usual = _Settings(self._witness, self._was_off)
            self._inside += 1

    def leave(self) -> None:
        self.put_back()
        with self._lock:
            self._inside -= 1

    def put_back(self) -> None:
        """Undo what silences records, if an author's code runs."""
        if self._inside and self._usual is not None and not self._usual.is_same():
            self._usual.put_back()

    def release_locks(self) -> None:
        """Where an author's call ends, in its thread: it may have left a handler's lock taken."""
        if self._usual is not None:
            for is_held, lock in self._usual.locks:
                while is_held():
                    lock.release()

    def hears_again(self) -> bool:
        """Whether a logger that refused a record may take it now, since what silenced it was undone."""
        if not self._inside or self._usual is None or not self._usual.is_quieter():
            return False
        self._usual.put_back()
        return True


def hearing(is_enabled_for: Any, find_attempt: Callable[[], object]) -> Any:
    """`Logger.isEnabledFor`, for which nothing that is set for the whole process silences a line of an attempt."""

    @wraps(is_enabled_for)
    def is_enabled(self: logging.Logger, level: int) -> bool:
        if is_enabled_for(self, level):
            return True
        return find_attempt() is not None and log_guard.hears_again() and is_enabled_for(self, level)

    return is_enabled


def disabled_loggers() -> frozenset[str]:
    """The names of loggers that are off."""
    known = dict(logging.root.manager.loggerDict)
    return frozenset(name for name, each in known.items() if isinstance(each, logging.Logger) and each.disabled)


log_guard = LogGuard()
