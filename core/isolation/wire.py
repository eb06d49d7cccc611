"""Messages between a worker and a process of its pool: lines of JSON on pipes.

To the process: `{"task": ...}` with parameters and context, `{"stop": kind}` when its work is not wanted any more,
`{"page": [...], "to": [attempt, stream]}` with results that it asked for. From it: `began`, `progress`, `log`,
`printed`, `read` (it wants results of an earlier stage), and at the end `result` or `failure`. What C code and other
programs print goes another way.

A handler may leave threads behind, and the process is used again: what belongs to an attempt carries its `number`,
which counts the attempts of the process, so that none is taken for another's.
"""

import json
from typing import Any

Message = dict[str, Any]
# What ends the output of an attempt, so that none of it is taken for another's.
END_OF_OUTPUT = "\x1e\x04coremachine-end-of-attempt\x04\x1e"
# The exit status (EX_IOERR) of a process that could not send its answer.
ANSWERS_CLOSED = 74
# Made before a handler can change what the module `json` does.
_encode = json.JSONEncoder(separators=(",", ":")).encode


def encode(message: Message) -> bytes:
    return _encode(message).encode() + b"\n"


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
