"""Values as they travel between Python and PostgreSQL, in the form that costs the least on both sides.

psycopg looks at each item of a list to find the type of its array, and quotes it. These arrays have their type, and
travel in the binary format. All of it is for the engine's connections alone: those that a handler makes itself read and
write as psycopg does.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from json import JSONDecoder, dumps
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


def _packed(element_oid: int, values: Sequence[bytes | None]) -> bytes:
    """The binary format of an array with one dimension."""
    if not values:
        return _EMPTY.pack(0, 0, element_oid)
    parts = [_HEAD.pack(1, None in values, element_oid, len(values), 1)]
    for value in values:
        parts += (_NULL,) if value is None else (_LENGTH.pack(len(value)), value)
    return b"".join(parts)


class _JsonbArrayDumper(Dumper):
    format = Format.BINARY
    oid = adapters.types["jsonb"].array_oid

    _OID = adapters.types["jsonb"].oid

    def dump(self, obj: JsonbArray) -> bytes:
        texts = [value if value is None or isinstance(value, EncodedJson) else dumps(dict(value)) for value in obj]
        return _packed(self._OID, [None if text is None else b"\x01" + text.encode() for text in texts])


class _TextArrayDumper(Dumper):
    format = Format.BINARY
    oid = adapters.types["text"].array_oid

    _OID = adapters.types["text"].oid

    def dump(self, obj: TextArray) -> bytes:
        return _packed(self._OID, [None if text is None else text.encode() for text in obj])


class _UuidArrayDumper(Dumper):
    format = Format.BINARY
    oid = adapters.types["uuid"].array_oid

    _OID = adapters.types["uuid"].oid

    def dump(self, obj: UuidArray) -> bytes:
        return _packed(self._OID, [value.bytes for value in obj])


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
