"""The steps that a process takes now, where its stand-in can read them while the process's interpreter is blocked."""

import mmap
import os
from collections.abc import Iterable
from json import dumps, loads
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.models.refs import StepRef

# Of some three hundred steps; those beyond it are left out.
SHEET_BYTES = 65536


class StepSheet:
    """Memory that two processes share: to write a step wakes nobody, as a pipe would.

    Raises:
        OSError: There is no room for a temporary file.
    """

    def __init__(self) -> None:
        self.descriptor = _memory_file()
        # Written at once: room that a disk lacks later would end the process.
        os.write(self.descriptor, b"\n".ljust(SHEET_BYTES))
        self._memory = mmap.mmap(self.descriptor, SHEET_BYTES)
        self._file = _identity(self.descriptor)

    def write(self, steps: "Iterable[StepRef]") -> None:
        """These, in the place of those before."""
        parts, room = [], SHEET_BYTES - len("[]\n")
        for step in steps:
            part = dumps(step).encode()
            if (room := room - len(part) - 1) < 0:
                break
            parts.append(part)
        line = b"[" + b",".join(parts) + b"]\n"
        self._memory[: len(line)] = line

    def close(self) -> None:
        """May be called again."""
        if not self._memory.closed:
            self._memory.close()
            # An author's code may have closed it: the number is that of another file by now, or of none.
            if _identity(self.descriptor) == self._file:
                os.close(self.descriptor)

    @property
    def is_whole(self) -> bool:
        """Whether its descriptor is that of its file still."""
        return not self._memory.closed and _identity(self.descriptor) == self._file


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("steps")
    import tempfile  # noqa: PLC0415 - where there is no other way

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def read_steps(descriptor: int) -> list[tuple[str, int, int, str, int]]:
    """The steps on a sheet, by the descriptor of its file.

    Raises:
        ValueError: It is being written at this moment.
    """
    line, _, _ = os.pread(descriptor, SHEET_BYTES, 0).partition(b"\n")
    return [tuple(step) for step in loads(line or b"[]")]
