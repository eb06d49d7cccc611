"""The memory that a process and those that it started have for themselves.

A limit is enforced by looking at it, and not by RLIMIT_AS: that one counts what libraries reserve and never touch
(thread stacks, GDAL, BLAS), is fixed for the life of a process that several tasks share, and ends an attempt as a
MemoryError in any line or as an abort in C code. Looking counts what the machine really gives, and the attempt ends
with the reason. The price: between two looks a process may go beyond its limit.
"""

import sys
from contextlib import suppress
from pathlib import Path

MEGABYTE = 1 << 20
_PROC = Path("/proc")


def can_be_seen() -> bool:
    """Whether this system shows it."""
    return sys.platform == "linux" and (_PROC / "self" / "statm").exists()


def private_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants that no file holds; 0 where it cannot be seen.

    What a forked descendant shares with its parent is counted twice.
    """
    import resource  # noqa: PLC0415 - POSIX alone

    pages, waiting = 0, [pid]
    while waiting:
        one = _PROC / str(waiting.pop())
        # It may end between two looks.
        with suppress(OSError, ValueError, IndexError):
            _, resident, shared, *_ = (one / "statm").read_text().split()
            pages += int(resident) - int(shared)
            for thread in (one / "task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
    return pages * resource.getpagesize()
