"""Late imports, one thread at a time."""

import threading

# Modules that are imported when they are first used are imported by many threads at once: first messages and requests
# come together. Two threads that enter a package by different modules wait for each other, and Python then gives one of
# them a module that is only half there ("cannot import name ..."). Hold this around a late import of more than one
# module; it may be taken again by its holder.
IMPORTS = threading.RLock()
