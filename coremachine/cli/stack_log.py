"""The log of a stack that runs on this machine, of which one job's lines are wanted."""

import re
from collections.abc import Iterator
from pathlib import Path

from coremachine.local.stack_file import find_stack_of

_TASK_IDS = re.compile(r"\btask_ids=(\[[^\]]*\])")


def find_stack_log(url: str) -> Path | None:
    """The log of the stack of this folder, if the server is that one."""
    stack = find_stack_of(Path.cwd())
    if stack is None or stack.url != url:
        return None
    file = Path(stack.data_dir) / "logs" / "host.log"
    return file if file.is_file() else None


class StackLog:
    """The lines of a log that are about one job, or one task of it; read from where the last look ended."""

    def __init__(self, file: Path, job_id: str, task_id: str | None = None) -> None:
        self._file = file
        self._job, self._task_id = f"job_id={job_id}", task_id
        self._place = 0
        self._rest = b""
        self._is_wanted = False

    def new_lines(self) -> Iterator[str]:
        """The lines since the last look, with the lines of tracebacks that belong to them."""
        with self._file.open("rb") as file:
            file.seek(self._place)
            data = self._rest + file.read()
            self._place = file.tell()
        *lines, self._rest = data.split(b"\n")
        for raw in lines:
            line = raw.decode("utf-8", "replace")
            # A record's further lines are set in.
            if not line.startswith("    "):
                self._is_wanted = self._is_about(line)
            if self._is_wanted:
                yield line

    def _is_about(self, line: str) -> bool:
        if self._job not in line:
            return False
        if self._task_id is None:
            return True
        named = _TASK_IDS.search(line)
        is_named = named is not None and f'"{self._task_id}"' in named[1]
        return is_named or re.search(rf"\btask_id={re.escape(self._task_id)}(?:\s|$)", line) is not None
