"""What a submission could not check in time: noted where it is found, and written to the job's timeline."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_notes: ContextVar[list[Mapping[str, str]] | None] = ContextVar("unchecked", default=None)


@contextmanager
def note_unchecked() -> Iterator[list[Mapping[str, str]]]:
    """Collects the calls of `say_unchecked` made inside, in this thread."""
    notes: list[Mapping[str, str]] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def say_unchecked(parameter: str, reason: str) -> None:
    """What this parameter points at could not be checked; the work itself will find out."""
    notes = _notes.get()
    if notes is not None:
        notes.append({"parameter": parameter, "reason": reason})
