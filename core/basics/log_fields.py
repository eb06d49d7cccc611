"""What the records of one piece of work have in common: bound once where the work is known, added to each record."""

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

_fields: ContextVar[Mapping[str, Any]] = ContextVar("log_fields", default=MappingProxyType({}))


class log_fields:  # noqa: N801 - read as a word, as those of contextlib
    """State changes that are made inside of this `with`, in this thread, are recorded with these fields too.

    Several for each message, which a generator would make twice as dear.
    """

    __slots__ = ("_fields", "_token")

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        held = _fields.get()
        self._token = _fields.set({**held, **self._fields} if held else self._fields)

    def __exit__(self, *_: object) -> None:
        _fields.reset(self._token)


def with_log_fields(**fields: Any) -> dict[str, Any]:
    """A record's own fields and those that are bound; names that begin with _ are given on request."""
    return {**{name: value for name, value in _fields.get().items() if not name.startswith("_")}, **fields}


def bound_field(name: str) -> Any:
    """What is bound under the name; None if nothing is."""
    return _fields.get().get(name)
