"""Ends a worker that a function has broken for all that runs in it, such as by `builtins.len = ...`.

Nothing can undo that safely, and such a worker takes more messages and requests than a sound one: it refuses each at
once. Another one takes its place.
"""

from __future__ import annotations

import builtins
import errno
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

# Functions of this module go on to use what is there now, whatever is put into `builtins` later.
globals()["__builtins__"] = dict(vars(builtins))

# The worker looks each second. A patch that is undone by then, as those of `mock` mostly are, ends nothing.
MOST_LOOKS_CHANGED = 3
# Clients may use up the descriptors for a moment, too.
MOST_LOOKS_WITHOUT_FILES = 10
# Errors of the worker's own code in a row. Fewer than the deliveries that a message usually has.
MOST_ERRORS = 5
# What programs replace for good reasons, by what does the same and more: tracers, debuggers, prompts, lazy imports.
_MAY_CHANGE = frozenset(
    {
        *("_", "__build_class__", "__import__", "breakpoint", "compile", "display", "eval", "exec", "exit", "help"),
        *("input", "open", "print", "quit"),
    }
)

End = Callable[[str, bool], object]


class SelfCheck:
    """Of this worker. `failed` and `succeeded` may be called from any thread.

    Before `begin` it ends nothing.
    """

    def __init__(self) -> None:
        self._end: End | None = None
        self._builtins: dict[str, Any] = {}
        self._opens_files = False
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, end: End) -> None:
        """Remember what is there: the app is loaded, and none of its functions was called yet.

        Args:
            end: Ends this worker, for a reason, at once (False) or when what runs in it has ended (True).
        """
        self._end = end
        self._counts.clear()
        self._builtins = dict(vars(builtins))
        self._opens_files = why_no_file() is None

    def look(self) -> None:
        """Each second: whether the builtins are the same, and a file can be opened."""
        held = vars(builtins)
        changed = [
            name for name, value in self._builtins.items() if held.get(name) is not value and name not in _MAY_CHANGE
        ]
        if self._count("builtins", MOST_LOOKS_CHANGED, is_bad=bool(changed)):
            self._give_up(f"a function has replaced builtins: {', '.join(changed[:5])}", may_finish=False)
        problem = why_no_file() if self._opens_files else None
        if self._count("files", MOST_LOOKS_WITHOUT_FILES, is_bad=problem is not None):
            self._give_up(f"it cannot open a file or socket any more: {problem}", may_finish=True)

    def failed(self, where: str, error: BaseException) -> None:
        """The worker's own code met an error there. One of a network, or with a type of a library's own, counts not."""
        if not is_of_own_code(error):
            return
        if self._count(where, MOST_ERRORS, is_bad=True):
            reason = f"its own code failed {MOST_ERRORS} times in a row ({where}), last with {type(error).__name__}: "
            self._give_up(f"{reason}{error}; a function may have replaced what it needs", may_finish=False)

    def succeeded(self, where: str) -> None:
        """What failed there before was of no duration."""
        if self._counts[where]:  # read without the lock: this runs for each message
            self._count(where, MOST_ERRORS, is_bad=False)

    def _count(self, what: str, most: int, *, is_bad: bool) -> bool:
        """Whether that is the one too many in a row."""
        with self._lock:
            self._counts[what] = self._counts[what] + 1 if is_bad else 0
            return self._counts[what] == most

    def _give_up(self, reason: str, *, may_finish: bool) -> None:
        if self._end is not None:
            self._end(reason, may_finish)


def is_of_own_code(error: BaseException) -> bool:
    """Whether that is an error as broken code raises it: TypeError, KeyError, RuntimeError and the like."""
    is_plain = isinstance(error, Exception) and type(error).__module__ == "builtins"
    return is_plain and not isinstance(error, (OSError, UnicodeError))


def why_no_file() -> str | None:
    """Why this process can open no file, if it is the process's fault: no descriptor is left, or an audit hook raises.

    None also where the whole machine has none left: another process would have none either.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return str(error) if error.errno == errno.EMFILE else None
    except Exception as error:  # noqa: BLE001 - whatever the hook raises
        return f"{type(error).__name__}: {error}"
    return None


self_check = SelfCheck()
