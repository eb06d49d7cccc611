"""Values of statements' parameters, in the form that PostgreSQL reads with the least work on both sides.

psycopg looks at each item of a list to find the type of its array, and quotes it. These arrays have their type, and
travel in the binary format.
"""

import struct
from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any
from uuid import UUID

from psycopg import adapters
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types.json import Jsonb

from core.basics.strict_json import EncodedJson
from infrastructure.connections import ADAPTERS


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


ADAPTERS.register_dumper(JsonbArray, _JsonbArrayDumper)
ADAPTERS.register_dumper(TextArray, _TextArrayDumper)
ADAPTERS.register_dumper(UuidArray, _UuidArrayDumper)
ADAPTERS.register_dumper(EncodedJson, _EncodedJsonDumper)


def as_jsonb(value: Mapping[str, Any] | EncodedJson | None) -> Jsonb | EncodedJson | None:
    """A value for a parameter of type jsonb."""
    return value if value is None or isinstance(value, EncodedJson) else Jsonb(dict(value))
