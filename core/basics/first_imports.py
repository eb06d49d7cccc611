"""Late imports, one thread at a time."""

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class LateImports:
    """To be held around a late import of more than one module; may be taken again by its holder.

    Modules that are imported when they are first used are imported by many threads at once: first messages and requests
    come together. Two threads that enter a package by different modules wait for each other, and Python then gives one
    of them a module that is only half there ("cannot import name ..."). Meanwhile nothing is collected: what an import
    makes stays, and to look at all of it several times takes a tenth of the time of the first message. For the same
    reason it is kept out of later looks (`keep_imported`), where there is anything new.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._collects = False
        self._modules = 0
        self._done: set[str] = set()

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._depth == 0:
            self._collects = gc.isenabled()
            gc.disable()
            self._modules = len(sys.modules)
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._collects:
            gc.enable()
            # Not each time: what is garbage at that moment is kept for ever, too.
            if len(sys.modules) > self._modules:
                keep_imported()
        self._lock.release()

    @contextmanager
    def first(self, name: str) -> Iterator[None]:
        """The same for what is imported again and again: once it is there, whatever others import is not waited for.

        Args:
            name: Of what is imported within it, for example its module.
        """
        if name in self._done:
            yield
            return
        with self:
            yield
        self._done.add(name)


IMPORTS = LateImports()


def keep_imported() -> None:
    """What is there now stays as long as the process: the garbage collector need not look at it again and again.

    A look at all of it takes 60 ms, in the midst of somebody's request, and cost a fifth of a submission's time. To be
    called where a process has made what it has once, and never for each message.
    """
    gc.freeze()
