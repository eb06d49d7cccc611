"""A message as bytes: taken apart into its sections, put together again with the broker's header and annotations.

The sections a sender wrote are kept byte for byte, so that every type survives. Only header and annotations are
rebuilt.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID, uuid4

from coremachine.local.broker import codec
from coremachine.local.broker.codec import NULL, DecodeError
from coremachine.local.broker.section_codes import (
    ANNOTATIONS,
    APPLICATION_PROPERTIES,
    CODES_BY_NAME,
    DATA,
    DELIVERY_ANNOTATIONS,
    FOOTER,
    HEADER,
    PROPERTIES,
    VALUE,
)

BATCH_FORMAT = 0x80013700

_SMALL_CODE = b"\x53"
_REPLY_TO = 4
_GROUP_ID = 10  # of the properties: the session id

_SCHEDULED_TIME = "x-opt-scheduled-enqueue-time"
_LOCK_TOKEN = "x-opt-lock-token"  # noqa: S105 - its name
_SET_BY_BROKER = frozenset(
    {
        "x-opt-sequence-number",
        "x-opt-enqueued-time",
        "x-opt-locked-until",
        "x-opt-message-state",
        _LOCK_TOKEN,
        "x-opt-deadletter-source",
        "x-opt-enqueue-sequence-number",
    }
)
_DEAD_LETTER_KEYS = ("DeadLetterReason", "DeadLetterErrorDescription")
_DEAD_LETTER_NAMES = frozenset(key.encode() for key in _DEAD_LETTER_KEYS)

_SEQUENCE_KEY = codec.symbol("x-opt-sequence-number")
_ENQUEUED_KEY = codec.symbol("x-opt-enqueued-time")
_LOCKED_KEY = codec.symbol("x-opt-locked-until")
_STATE_KEY = codec.symbol("x-opt-message-state")
_SOURCE_KEY = codec.symbol("x-opt-deadletter-source")
_ORIGINAL_SEQUENCE_KEY = codec.symbol("x-opt-enqueue-sequence-number")


RawPairs = list[tuple[bytes, bytes]]


class MessageState(IntEnum):
    """The state that a peeked or received message carries (`x-opt-message-state`)."""

    ACTIVE = 0
    DEFERRED = 1
    SCHEDULED = 2


@dataclass(frozen=True, slots=True)
class Content:
    """What the sender wrote. Sections are raw, descriptor included, and empty when absent."""

    durable: bytes = NULL
    priority: bytes = NULL
    ttl_seconds: float | None = None
    scheduled_at: float | None = None
    message_id: codec.Value = None
    session_id: str | None = None
    hops: int = 0
    annotations: bytes = b""
    annotation_count: int = 0
    properties: bytes = b""
    application_properties: bytes = b""
    body: bytes = b""

    @property
    def size(self) -> int:
        """Of the message in bytes, without header."""
        return len(self.annotations) + len(self.properties) + len(self.application_properties) + len(self.body)

    def identified(self) -> "Content":
        """The same message with an id of the broker, if its sender gave it none."""
        if self.message_id is not None:
            return self
        message_id = uuid4().hex
        items = codec.split_compound(self.properties, codec.skip(self.properties, 1)) if self.properties else []
        section = codec.described(PROPERTIES, codec.list_of([codec.string(message_id), *items[1:]]))
        return replace(self, message_id=message_id, properties=section)

    def scheduled(self, at: float) -> "Content":
        """The same message, which its sender did not schedule, for a time: seconds since the Unix epoch."""
        pair = codec.symbol(_SCHEDULED_TIME) + codec.timestamp(at)
        return replace(
            self,
            scheduled_at=_moment_in(codec.timestamp(at)),
            annotations=self.annotations + pair,
            annotation_count=self.annotation_count + 1,
        )

    def modified(self, changes: RawPairs) -> "Content":
        """The same message with these application properties, in place of others of the same name."""
        if not changes:
            return self
        names = {_name_in(key) for key, _ in changes}
        kept = [pair for pair in _pairs(self.application_properties) if _name_in(pair[0]) not in names]
        section = codec.described(APPLICATION_PROPERTIES, codec.map_of([*kept, *changes]))
        return replace(self, application_properties=section)

    def without(self, name: str) -> "Content":
        """The same message without an application property."""
        kept = [pair for pair in _pairs(self.application_properties) if _name_in(pair[0]) != name.encode()]
        section = codec.described(APPLICATION_PROPERTIES, codec.map_of(kept))
        return replace(self, application_properties=section)

    def dead_lettered(self, reason: str | None, description: str | None) -> "Content":
        """The same message with the reason, where there is one, among its application properties."""
        kept = [pair for pair in _pairs(self.application_properties) if _name_in(pair[0]) not in _DEAD_LETTER_NAMES]
        texts = zip(_DEAD_LETTER_KEYS, (reason, description), strict=True)
        kept += [(codec.string(key), codec.string(text)) for key, text in texts if text is not None]
        section = codec.described(APPLICATION_PROPERTIES, codec.map_of(kept))
        return replace(self, application_properties=section, ttl_seconds=None, scheduled_at=None)


class BrokerProperties(NamedTuple):
    """What the broker adds on delivery."""

    sequence_number: int
    enqueued_at: float
    delivery_count: int
    state: MessageState = MessageState.ACTIVE
    ttl_seconds: float | None = None
    locked_until: float | None = None
    dead_letter_source: str | None = None
    original_sequence_number: int | None = None


def parse_message(data: bytes) -> Content:
    """Take a message apart. Sections may stand in any order (pyamqp writes delivery annotations last).

    Raises:
        DecodeError: The bytes are not a message.
    """
    fields: dict[str, object] = {}
    body = []
    for code, section, value_start in _sections(data):
        if code == HEADER:
            _read_header(section[value_start:], fields)
        elif code == ANNOTATIONS:
            _read_annotations(section, fields)
        elif code == PROPERTIES:
            fields["properties"] = section
            _read_properties(section, value_start, fields)
        elif code == APPLICATION_PROPERTIES:
            map_pairs(section, value_start)
            fields["application_properties"] = section
        elif code != DELIVERY_ANNOTATIONS:
            body.append(section)
    return Content(body=b"".join(body), **fields)  # type: ignore[arg-type]


def unpack_batch(data: bytes) -> list[Content]:
    """The messages of a batch: each data section is a message. The envelope's own properties say nothing new."""
    inner = []
    for code, section, value_start in _sections(data):
        if code == DATA:
            value, _ = codec.decode(section, value_start)
            if not isinstance(value, bytes):
                raise DecodeError("binary in a data section of a batch", type(value).__name__, 0)
            inner.append(parse_message(value))
    return inner


def encode_delivery(content: Content, added: BrokerProperties, delivery_annotations: bytes = b"") -> bytes:
    """The message as a receiver gets it."""
    return b"".join(
        (
            _encode_header(content.durable, content.priority, added.ttl_seconds, added.delivery_count),
            delivery_annotations,
            _encode_annotations(content, added),
            content.properties,
            content.application_properties,
            content.body,
        )
    )


def lock_annotations(token: UUID) -> bytes:
    """Delivery annotations with the token of a lock, for a message that has no delivery tag.

    Version 7.14 of the SDK for Python looks for it nowhere else.
    """
    return codec.described(DELIVERY_ANNOTATIONS, codec.map_of([(codec.symbol(_LOCK_TOKEN), codec.uuid(token))]))


def encode_stored(content: Content) -> bytes:
    """A message as `parse_message` reads it again, without what the broker adds on delivery."""
    ttl = NULL if content.ttl_seconds is None else codec.uint(min(round(content.ttl_seconds * 1000), 0xFFFFFFFF))
    header = codec.described(HEADER, codec.list_of((content.durable, content.priority, ttl)))
    annotations = _annotations_map(content.annotations, 2 * content.annotation_count) if content.annotations else b""
    return b"".join((header, annotations, content.properties, content.application_properties, content.body))


@dataclass(frozen=True, slots=True)
class Request:
    """A request to `$cbs` or `$management`: its message id as raw bytes, the body's value decoded and raw."""

    application_properties: dict[str, codec.Value]
    message_id: bytes = NULL
    reply_to: codec.Value = None
    value: codec.Value = None
    raw_value: bytes = NULL


def decode_request(data: bytes) -> Request:
    """Take a request apart.

    Raises:
        DecodeError: The bytes are not a message.
    """
    application_properties: codec.Value = {}
    message_id, reply_to, value, raw_value = NULL, None, None, NULL
    for code, section, value_start in _sections(data):
        if code == APPLICATION_PROPERTIES:
            application_properties, _ = codec.decode(section, value_start)
        elif code == PROPERTIES:
            items = codec.split_compound(section, value_start)
            message_id = items[0] if items else NULL
            reply_to = codec.decode(items[_REPLY_TO])[0] if len(items) > _REPLY_TO else None
        elif code == VALUE:
            value, raw_value = codec.decode(section, value_start)[0], section[value_start:]
    if not isinstance(application_properties, dict):
        raise DecodeError("a map of application properties", type(application_properties).__name__, 0)
    return Request(application_properties, message_id, reply_to, value, raw_value)


def encode_response(correlation_id: bytes, application_properties: list[tuple[bytes, bytes]], value: bytes) -> bytes:
    """An answer from `$cbs` or `$management`; the correlation id keeps the request's message id, type included."""
    properties = codec.list_of((NULL, NULL, NULL, NULL, NULL, correlation_id))
    return b"".join(
        (
            codec.described(PROPERTIES, properties),
            codec.described(APPLICATION_PROPERTIES, codec.map_of(application_properties)),
            codec.described(VALUE, value),
        )
    )


def _sections(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Each section's code, its raw bytes, and where its value starts in them."""
    position = 0
    while position < len(data):
        if data[position] != codec.DESCRIBED:
            raise DecodeError("a message section", f"0x{data[position]:02x}", position)
        descriptor: codec.Value
        if data[position + 1 : position + 2] == _SMALL_CODE and position + 2 < len(data):
            descriptor, value_start = data[position + 2], position + 3
        else:
            descriptor, value_start = codec.decode(data, position + 1)
        end = codec.skip(data, value_start)
        code = CODES_BY_NAME.get(descriptor) if isinstance(descriptor, str) else descriptor
        if not isinstance(code, int) or not HEADER <= code <= FOOTER:
            raise DecodeError("a message section's code", repr(descriptor)[:100], position)
        yield code, data[position:end], value_start - position
        position = end


def _read_header(value: bytes, fields: dict[str, object]) -> None:
    items = codec.split_compound(value)
    items += [NULL] * (3 - len(items))
    fields["durable"], fields["priority"] = items[0], items[1]
    ttl, _ = codec.decode(items[2])
    if isinstance(ttl, int):
        fields["ttl_seconds"] = ttl / 1000


def _read_properties(section: bytes, value_start: int, fields: dict[str, object]) -> None:
    values, _ = codec.decode(section, value_start)
    if not isinstance(values, list):
        raise DecodeError("a list of properties", repr(values)[:100], value_start)
    message_id = values[0] if values else None
    if isinstance(message_id, list | dict):
        raise DecodeError("a message-id of a primitive type", repr(message_id)[:100], value_start)
    fields["message_id"] = message_id
    session_id = values[_GROUP_ID] if len(values) > _GROUP_ID else None
    fields["session_id"] = session_id if isinstance(session_id, str) else None


def _read_annotations(section: bytes, fields: dict[str, object]) -> None:
    kept = []
    for raw_key, raw_value in _pairs(section):
        key, _ = codec.decode(raw_key)
        if not isinstance(key, str):
            raise DecodeError("the name of an annotation", repr(key)[:100], 0)
        if key in _SET_BY_BROKER:
            continue
        if key == _SCHEDULED_TIME:
            fields["scheduled_at"] = _moment_in(raw_value)
        kept.append(raw_key + raw_value)
    fields["annotations"] = b"".join(kept)
    fields["annotation_count"] = len(kept)


def _moment_in(raw_timestamp: bytes) -> float | None:
    """Seconds since the Unix epoch, None where there is no timestamp."""
    moment, _ = codec.decode(raw_timestamp)
    return moment / 1000 if isinstance(moment, int) else None


def _pairs(section: bytes) -> RawPairs:
    """The raw keys and values of a section that holds a map."""
    return map_pairs(section, codec.skip(section, 1)) if section else []


def _name_in(raw_key: bytes) -> bytes:
    """The bytes of an encoded string or symbol, without its constructor and size."""
    return raw_key[2:] if raw_key[:1] in {b"\xa1", b"\xa3"} else raw_key[5:]


def map_pairs(data: bytes, position: int = 0) -> RawPairs:
    """The raw keys and values of a map.

    Raises:
        DecodeError: There is no map.
    """
    items = codec.split_compound(data, position)
    if len(items) % 2:
        raise DecodeError("a map with a value for each key", "an odd number of items", position)
    return list(zip(items[::2], items[1::2], strict=True))


def property_changes(data: bytes) -> RawPairs:
    """The application properties in an encoded map, whose keys may be symbols; none in null."""
    if data == NULL:
        return []
    changes = []
    for raw_key, raw_value in map_pairs(data):
        key, _ = codec.decode(raw_key)
        if not isinstance(key, str):
            raise DecodeError("the name of a property", repr(key)[:100], 0)
        changes.append((codec.string(key), raw_value))
    return changes


@lru_cache(1000)
def _encode_header(durable: bytes, priority: bytes, ttl_seconds: float | None, delivery_count: int) -> bytes:
    ttl = NULL if ttl_seconds is None else codec.uint(min(int(ttl_seconds * 1000), 0xFFFFFFFF))
    fields = (durable, priority, ttl, codec.boolean(delivery_count == 0), codec.uint(delivery_count))
    return codec.described(HEADER, codec.list_of(fields))


def _encode_annotations(content: Content, added: BrokerProperties) -> bytes:
    parts = [
        _SEQUENCE_KEY,
        codec.long(added.sequence_number),
        _ENQUEUED_KEY,
        codec.timestamp(added.enqueued_at),
        _STATE_KEY,
        codec.int32(added.state),
    ]
    if added.locked_until is not None:
        parts += (_LOCKED_KEY, codec.timestamp(added.locked_until))
    if added.dead_letter_source is not None:
        parts += (_SOURCE_KEY, codec.string(added.dead_letter_source))
    if added.original_sequence_number is not None:
        parts += (_ORIGINAL_SEQUENCE_KEY, codec.long(added.original_sequence_number))
    data = content.annotations + b"".join(parts)
    count = 2 * content.annotation_count + len(parts)
    return _annotations_map(data, count)


def _annotations_map(data: bytes, count: int) -> bytes:
    # The map is assembled from raw pairs, so its header is written here.
    return codec.described(ANNOTATIONS, struct.pack(">BII", 0xD1, len(data) + 4, count) + data)
