"""What the records of one piece of work have in common: bound once where the work is known, added to each record."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import Any

_fields: ContextVar[Mapping[str, Any]] = ContextVar("log_fields", default=MappingProxyType({}))


class _Bound:
    """A `with` over fields; several for each message, which a generator would make twice as dear."""

    __slots__ = ("_fields", "_token")

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        self._token = bind(self._fields)

    def __exit__(self, *_: object) -> None:
        unbind(self._token)


def log_fields(**fields: Any) -> AbstractContextManager[None]:
    """State changes that are made inside, in this thread, are recorded with these fields too."""
    return _Bound(fields)


def bind(fields: Mapping[str, Any]) -> Token[Mapping[str, Any]]:
    """As `log_fields`, for what is no `with` of its own; `unbind` ends it."""
    held = _fields.get()
    return _fields.set({**held, **fields} if held else fields)


def unbind(token: Token[Mapping[str, Any]]) -> None:
    _fields.reset(token)


def with_log_fields(**fields: Any) -> dict[str, Any]:
    """A record's own fields and those that are bound; names that begin with _ are given on request."""
    return {**{name: value for name, value in _fields.get().items() if not name.startswith("_")}, **fields}


def bound_field(name: str) -> Any:
    """What is bound under the name; None if nothing is."""
    return _fields.get().get(name)
