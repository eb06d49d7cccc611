"""Late imports, one thread at a time."""

import gc
import threading

# Modules that are imported when they are first used are imported by many threads at once: first messages and requests
# come together. Two threads that enter a package by different modules wait for each other, and Python then gives one of
# them a module that is only half there ("cannot import name ..."). Hold this around a late import of more than one
# module; it may be taken again by its holder.
IMPORTS = threading.RLock()


def keep_imported() -> None:
    """What is imported stays as long as the process: the garbage collector need not look at it again and again.

    A look at all of it takes 60 ms, in the midst of somebody's request, and cost a fifth of a submission's time.
    """
    gc.freeze()
