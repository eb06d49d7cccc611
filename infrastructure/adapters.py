"""Values as they travel between Python and PostgreSQL, in the form that costs the least on both sides.

psycopg looks at each item of a list to find the type of its array, and quotes it. These arrays have their type, and
travel in the binary format. All of it is for the engine's connections alone: those that a handler makes itself read and
write as psycopg does.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from json import JSONDecoder, dumps
from operator import attrgetter
from typing import Any, cast
from uuid import UUID

import psycopg
from psycopg import adapters
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import AdaptersMap, Dumper, Loader
from psycopg.pq import Format
from psycopg.types.json import Jsonb

from core.basics.strict_json import EncodedJson

ADAPTERS = AdaptersMap(adapters)


class JsonbArray(list[Mapping[str, Any] | EncodedJson | None]):
    """Values for a parameter of type jsonb[]."""


class TextArray(list[str | None]):
    """Values for a parameter of type text[]."""


class UuidArray(list[UUID]):
    """Values for a parameter of type uuid[]."""


_HEAD = struct.Struct("!5i")
_EMPTY = struct.Struct("!3i")
_LENGTH = struct.Struct("!i")
_NULL = _LENGTH.pack(-1)


class _ArrayDumper(Dumper):
    """The binary format of an array with one dimension."""

    format = Format.BINARY
    _element_oid: int
    _encode: Callable[[Any], bytes]

    def dump(self, obj: Sequence[Any]) -> bytes:
        if not obj:
            return _EMPTY.pack(0, 0, self._element_oid)
        parts = [_HEAD.pack(1, None in obj, self._element_oid, len(obj), 1)]
        for value in obj:
            if value is None:
                parts.append(_NULL)
            else:
                encoded = self._encode(value)
                parts += (_LENGTH.pack(len(encoded)), encoded)
        return b"".join(parts)


def _jsonb_of(value: Mapping[str, Any] | EncodedJson) -> bytes:
    text = value if isinstance(value, EncodedJson) else dumps(dict(value))
    return b"\x01" + text.encode()


class _JsonbArrayDumper(_ArrayDumper):
    oid, _element_oid = adapters.types["jsonb"].array_oid, adapters.types["jsonb"].oid
    _encode = staticmethod(_jsonb_of)


class _TextArrayDumper(_ArrayDumper):
    oid, _element_oid = adapters.types["text"].array_oid, adapters.types["text"].oid
    _encode = staticmethod(str.encode)


class _UuidArrayDumper(_ArrayDumper):
    oid, _element_oid = adapters.types["uuid"].array_oid, adapters.types["uuid"].oid
    _encode = attrgetter("bytes")


class _EncodedJsonDumper(Dumper):
    oid = adapters.types["jsonb"].oid

    def dump(self, obj: EncodedJson) -> bytes:
        return obj.encode()


class _JsonLoader(Loader):
    """What PostgreSQL writes is UTF-8 and begins at once; `json.loads` would look for both, for as long as it reads."""

    def load(self, data: Buffer) -> Any:
        return _scan_json(bytes(data).decode(), 0)[0]


_scan_json: Callable[[str, int], tuple[Any, int]] = cast("Any", JSONDecoder()).scan_once
# As it is before a handler registers one of its own.
_USUAL_INSTANT = ADAPTERS.get_loader(adapters.types["timestamptz"].oid, Format.TEXT)


class _BoundedInstantLoader(Loader):
    """Instants that PostgreSQL holds and Python does not become the first or the last: one row hides no list."""

    # Not the very bounds: another zone would be beyond them.
    FIRST, LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        assert _USUAL_INSTANT is not None  # noqa: S101 - psycopg has one, the fast one where it is there
        self._usual = _USUAL_INSTANT(oid, context)

    def load(self, data: Buffer) -> datetime:
        try:
            found: datetime = self._usual.load(data)
        except psycopg.DataError:
            text = bytes(data)
            return self.FIRST if text.endswith(b"BC") or text.startswith(b"-") else self.LAST
        return found


ADAPTERS.register_loader("json", _JsonLoader)
ADAPTERS.register_loader("jsonb", _JsonLoader)
ADAPTERS.register_loader("timestamptz", _BoundedInstantLoader)
ADAPTERS.register_dumper(JsonbArray, _JsonbArrayDumper)
ADAPTERS.register_dumper(TextArray, _TextArrayDumper)
ADAPTERS.register_dumper(UuidArray, _UuidArrayDumper)
ADAPTERS.register_dumper(EncodedJson, _EncodedJsonDumper)


def as_jsonb(value: Mapping[str, Any] | EncodedJson | None) -> Jsonb | EncodedJson | None:
    """A value for a parameter of type jsonb."""
    return value if value is None or isinstance(value, EncodedJson) else Jsonb(dict(value))
