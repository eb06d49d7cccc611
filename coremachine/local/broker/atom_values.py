"""Values of properties and parameters in the XML of rules."""

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from xml.sax.saxutils import escape

from coremachine.local.broker import codec
from coremachine.local.broker.durations import format_duration, parse_duration

_SCHEMA = "http://www.w3.org/2001/XMLSchema"
_SERIALIZATION = "http://schemas.microsoft.com/2003/10/Serialization/"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT32 = 2**31
_TICKS = 10_000_000
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")


def read_value(name: str, kind: str, text: str) -> codec.Value:
    """A value of one of .NET's types.

    Args:
        name: Of the property or parameter, for the error.
        kind: The type without its prefix, such as dateTime.

    Raises:
        ValueError: The type is none of a rule's, or the text is none of its values.
    """
    read = _READERS.get(kind)
    if read is None:
        raise ValueError(f"expected a value of type {', '.join(_READERS)} for '{name[:100]}', found {kind[:100]!r}")
    try:
        return read(text)
    except (ValueError, OverflowError) as exc:
        raise ValueError(f"expected a {kind} as the value of '{name[:100]}', found {text[:100]!r}") from exc


def value_element(value: codec.Value) -> str:
    """The element `Value`, with its type."""
    schema, kind, text = _written(value)
    # The client for JavaScript counts the characters of the prefix.
    return f'<Value i:type="d6p1:{kind}" xmlns:d6p1="{schema}">{escape(text)}</Value>'


def _written(value: codec.Value) -> tuple[str, str, str]:
    write = _WRITERS.get(type(value))
    return (_SCHEMA, "string", str(value)) if write is None else write(value)


def _written_whole(value: int) -> tuple[str, str, str]:
    # The client for JavaScript does not know a long.
    return _SCHEMA, "int" if -_INT32 <= value < _INT32 else "long", str(value)


def _written_moment(value: codec.Moment) -> tuple[str, str, str]:
    moment = _EPOCH.replace(tzinfo=None) + timedelta(milliseconds=value)
    return _SCHEMA, "dateTime", f"{moment.isoformat()}Z"


def _written_span(value: codec.Span) -> tuple[str, str, str]:
    sign = "-" if value < 0 else ""
    return _SCHEMA, "duration", sign + format_duration(abs(value) / _TICKS)


_WRITERS: dict[type, Callable[[Any], tuple[str, str, str]]] = {
    bool: lambda value: (_SCHEMA, "boolean", str(value).lower()),
    bytes: lambda value: (_SCHEMA, "base64Binary", base64.b64encode(value).decode("ascii")),
    codec.Moment: _written_moment,
    codec.Span: _written_span,
    float: lambda value: (_SCHEMA, "double", str(value)),
    int: _written_whole,
    UUID: lambda value: (_SERIALIZATION, "guid", str(value)),
}


def _whole(bits: int, *, signed: bool = True) -> Callable[[str], int]:
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)

    def read(text: str) -> int:
        number = int(text.strip()) if _WHOLE.fullmatch(text.strip()) else None
        if number is None or not least <= number <= most:
            raise ValueError(text)
        return number

    return read


def _boolean(text: str) -> bool:
    found = {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower())
    if found is None:
        raise ValueError(text)
    return found


def _moment(text: str) -> codec.Moment:
    """A time without a zone is UTC, as in the SDK's messages."""
    found = datetime.fromisoformat(text.strip())
    aware = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return codec.Moment((aware - _EPOCH) // timedelta(milliseconds=1))


def _span(text: str) -> codec.Span:
    bare = text.strip()
    ticks = round(parse_duration(bare.removeprefix("-")) * _TICKS)
    return codec.Span(-ticks if bare.startswith("-") else ticks)


_READERS: dict[str, Callable[[str], codec.Value]] = {
    "string": str,
    "char": str,
    "int": _whole(32),
    "long": _whole(64),
    "short": _whole(16),
    "byte": _whole(8),
    "unsignedInt": _whole(32, signed=False),
    "unsignedLong": _whole(64, signed=False),
    "unsignedShort": _whole(16, signed=False),
    "unsignedByte": _whole(8, signed=False),
    "double": float,
    "float": float,
    "decimal": float,
    "boolean": _boolean,
    "dateTime": _moment,
    "duration": _span,
    "guid": UUID,
    "base64Binary": lambda text: base64.b64decode(text, validate=True),
}
