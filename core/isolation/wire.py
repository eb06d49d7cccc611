"""Messages between a worker and a process of its pool: lines of JSON on pipes.

To the process: `{"task": ...}` with parameters and context, `{"stop": kind}` when its work is not wanted any more,
`{"page": [...]}` with results that it asked for. From it: `began`, `progress`, `log`, `printed`, `read` (it wants
results of an earlier stage), and at the end `result` or `failure`. What C code and other programs print goes another
way.
"""

import json
from typing import Any

Message = dict[str, Any]
# What ends the output of an attempt, so that none of it is taken for another's.
END_OF_OUTPUT = b"\x1e\x04coremachine-end-of-attempt\x04\x1e"


def encode(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class LineBuffer:
    """Bytes as they come, whole lines as they are read."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._seen = 0

    def add(self, data: bytes) -> list[bytes]:
        """The lines that the data ended, without their line feeds."""
        self._bytes += data
        # What was looked at is not looked at again: a result of 16 MB comes in hundreds of pieces.
        end = self._bytes.rfind(b"\n", self._seen)
        if end < 0:
            self._seen = len(self._bytes)
            return []
        lines = bytes(self._bytes[:end]).split(b"\n")
        del self._bytes[: end + 1]
        self._seen = len(self._bytes)
        return lines

    def rest(self) -> bytes:
        """What came after the last line feed."""
        rest, self._bytes, self._seen = bytes(self._bytes), bytearray(), 0
        return rest
