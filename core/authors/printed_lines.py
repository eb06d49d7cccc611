"""What is printed, line by line: at most 64 KB of a line are shown, whatever is printed before its line feed comes."""

import codecs

from core.safety.credentials import redacted_start
from core.safety.safe_text import MOST_TEXT_BYTES

# With the note of what was cut, a line is no longer than other texts.
_SHOWN = MOST_TEXT_BYTES - 100
# Further than what is shown: a credential that is cut there is found by its end.
_KEPT = _SHOWN + 8192


class PrintedLines:
    """Gathers pieces of text into lines. Each piece is looked at once; not for several threads at once.

    As in a terminal, what comes after a carriage return replaces what was before it in the line: of a progress bar its
    last state is kept.

    Args:
        end: A text that is kept at a line's end, however much of the line is left out.
    """

    __slots__ = ("_end", "_is_returned", "_left_out", "_pieces", "_size", "_tail")

    def __init__(self, end: str = "") -> None:
        self._end = end
        self._clear()

    def add(self, text: str) -> list[str]:
        """The lines that the text ends; its rest waits for the next text."""
        *ended, rest = text.split("\n")
        lines = []
        for piece in ended:
            self._take(piece)
            lines.append(self._line())
        self._take(rest)
        return lines

    def rest(self) -> str:
        """The line that was begun; empty if there is none."""
        return self._line()

    def _clear(self) -> None:
        self._pieces: list[str] = []
        self._size = self._left_out = 0
        self._is_returned = False
        self._tail = ""

    def _take(self, piece: str) -> None:
        if not piece:
            return
        returned = piece.rfind("\r", 0, -1)
        if returned >= 0 or self._is_returned:
            self._clear()
            piece = piece[returned + 1 :]
        self._is_returned = piece.endswith("\r")
        room = max(0, _KEPT - self._size)
        kept = piece[:room]
        if kept:
            self._pieces.append(kept)
        self._size += len(kept)
        if len(piece) > room:
            self._left_out += len(piece) - room
        if self._end:
            self._tail = (self._tail + piece)[-len(self._end) :]

    def _line(self) -> str:
        whole, size = "".join(self._pieces).removesuffix("\r"), self._size + self._left_out
        is_ended = bool(self._end) and self._tail == self._end
        self._clear()
        if size <= _SHOWN:
            return whole
        line = f"{redacted_start(whole, _SHOWN)} [cut here: {size:,} characters in all]"
        return f"{line}{self._end}" if is_ended else line


class PrintedBytes:
    """As `PrintedLines`, of UTF-8 in pieces that may end anywhere."""

    def __init__(self, end: str = "") -> None:
        self._lines = PrintedLines(end)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def add(self, data: bytes) -> list[str]:
        return self._lines.add(self._decode(data))

    def rest(self) -> str:
        self._lines.add(self._decode(b"", final=True))
        return self._lines.rest()
