"""Tracebacks for people: the lines of their own code; those of the engine below it are counted."""

import re
from collections.abc import Iterator
from pathlib import Path

from core.basics import version

# The folder of `core`: a checkout, or the installed package. Another machine has the package in another place.
_HERE = re.escape(str(Path(version.__file__).parents[2]))
_PACKAGE = rf"(?:{_HERE}|.*[/\\]site-packages[/\\]coremachine)[/\\]"
_ENGINE_PATH = re.compile(rf"{_PACKAGE}(?:(?:core|infrastructure|triggers)[/\\].*|jobs[/\\]\w+\.py)")
_FRAME = re.compile(r'  File "(?P<path>.*)", line \d+')


def without_engine(trace: str) -> str:
    """A traceback without the engine's frames, unless it has no others; a line per gap has their number."""
    pieces = list(_pieces(trace.split("\n")))
    if all(is_engine is not False for is_engine, _ in pieces):
        return trace
    kept: list[str] = []
    left_out = 0
    for is_engine, lines in [*pieces, (None, [])]:
        if is_engine:
            left_out += 1
            continue
        if left_out:
            frames = "1 frame" if left_out == 1 else f"{left_out} frames"
            kept.append(f"  ({frames} of CoreMachine left out; --full shows all)")
            left_out = 0
        kept += lines
    return "\n".join(kept)


def _pieces(lines: list[str]) -> Iterator[tuple[bool | None, list[str]]]:
    """Frames, each with whether it is the engine's, and the lines between them, with None."""
    piece: list[str] = []
    is_engine: bool | None = None
    for line in lines:
        frame = _FRAME.match(line)
        # The code of a frame, and the marks below it, are indented more than its place.
        if frame is None and is_engine is not None and line.startswith("    "):
            piece.append(line)
            continue
        if piece:
            yield is_engine, piece
        piece, is_engine = [line], _ENGINE_PATH.fullmatch(frame["path"]) is not None if frame else None
    yield is_engine, piece
