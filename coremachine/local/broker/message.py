"""A message as bytes: taken apart into its sections, put together again with the broker's header and annotations.

The sections a sender wrote are kept byte for byte, so that every type survives. Only header and annotations are
rebuilt.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

from coremachine.local.broker import codec
from coremachine.local.broker.codec import NULL, DecodeError

BATCH_FORMAT = 0x80013700

_HEADER, _DELIVERY_ANNOTATIONS, _ANNOTATIONS, _PROPERTIES, _APPLICATION_PROPERTIES = range(0x70, 0x75)
_DATA, _SEQUENCE, _VALUE, _FOOTER = range(0x75, 0x79)

_SCHEDULED_TIME = "x-opt-scheduled-enqueue-time"
_SET_BY_BROKER = frozenset(
    {
        "x-opt-sequence-number",
        "x-opt-enqueued-time",
        "x-opt-locked-until",
        "x-opt-message-state",
        "x-opt-lock-token",
        "x-opt-deadletter-source",
        "x-opt-enqueue-sequence-number",
    }
)
_DEAD_LETTER_KEYS = ("DeadLetterReason", "DeadLetterErrorDescription")

_SEQUENCE_KEY = codec.symbol("x-opt-sequence-number")
_ENQUEUED_KEY = codec.symbol("x-opt-enqueued-time")
_LOCKED_KEY = codec.symbol("x-opt-locked-until")
_STATE_KEY = codec.symbol("x-opt-message-state")
_SOURCE_KEY = codec.symbol("x-opt-deadletter-source")
_ORIGINAL_SEQUENCE_KEY = codec.symbol("x-opt-enqueue-sequence-number")


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
    annotations: bytes = b""
    annotation_count: int = 0
    properties: bytes = b""
    application_properties: bytes = b""
    body: bytes = b""

    def dead_lettered(self, reason: str | None, description: str | None) -> "Content":
        """The same message with the reason, where there is one, among its application properties."""
        pairs = _pairs(self.application_properties)
        kept = [(key, value) for key, value in pairs if codec.decode(key)[0] not in _DEAD_LETTER_KEYS]
        texts = zip(_DEAD_LETTER_KEYS, (reason, description), strict=True)
        kept += [(codec.string(key), codec.string(text)) for key, text in texts if text is not None]
        section = codec.described(_APPLICATION_PROPERTIES, codec.map_of(kept))
        return replace(self, application_properties=section, ttl_seconds=None, scheduled_at=None)


@dataclass(frozen=True, slots=True)
class BrokerProperties:
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
        if code == _HEADER:
            _read_header(section[value_start:], fields)
        elif code == _ANNOTATIONS:
            _read_annotations(section, fields)
        elif code == _PROPERTIES:
            fields["properties"] = section
            items = codec.split_compound(section, value_start)
            fields["message_id"] = codec.decode(items[0])[0] if items else None
        elif code == _APPLICATION_PROPERTIES:
            fields["application_properties"] = section
        elif code != _DELIVERY_ANNOTATIONS:
            body.append(section)
    return Content(body=b"".join(body), **fields)  # type: ignore[arg-type]


def unpack_batch(data: bytes) -> list[Content]:
    """The messages of a batch: each data section is a message. The envelope's own properties say nothing new."""
    inner = []
    for code, section, value_start in _sections(data):
        if code == _DATA:
            value, _ = codec.decode(section, value_start)
            if not isinstance(value, bytes):
                raise DecodeError("binary in a data section of a batch", type(value).__name__, 0)
            inner.append(parse_message(value))
    return inner


def encode_delivery(content: Content, added: BrokerProperties) -> bytes:
    """The message as a receiver gets it."""
    return b"".join(
        (
            _encode_header(content, added),
            _encode_annotations(content, added),
            content.properties,
            content.application_properties,
            content.body,
        )
    )


def decode_request(data: bytes) -> tuple[dict[str, codec.Value], bytes, codec.Value]:
    """Application properties, raw message id and body value of a request to `$cbs` or `$management`."""
    application_properties: codec.Value = {}
    message_id, value = NULL, None
    for code, section, value_start in _sections(data):
        if code == _APPLICATION_PROPERTIES:
            application_properties, _ = codec.decode(section, value_start)
        elif code == _PROPERTIES:
            items = codec.split_compound(section, value_start)
            message_id = items[0] if items else NULL
        elif code == _VALUE:
            value, _ = codec.decode(section, value_start)
    if not isinstance(application_properties, dict):
        raise DecodeError("a map of application properties", type(application_properties).__name__, 0)
    return application_properties, message_id, value


def encode_response(correlation_id: bytes, application_properties: list[tuple[bytes, bytes]], value: bytes) -> bytes:
    """An answer from `$cbs` or `$management`; the correlation id keeps the request's message id, type included."""
    properties = codec.list_of((NULL, NULL, NULL, NULL, NULL, correlation_id))
    return b"".join(
        (
            codec.described(_PROPERTIES, properties),
            codec.described(_APPLICATION_PROPERTIES, codec.map_of(application_properties)),
            codec.described(_VALUE, value),
        )
    )


def _sections(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Each section's code, its raw bytes, and where its value starts in them."""
    position = 0
    while position < len(data):
        if data[position] != codec.DESCRIBED:
            raise DecodeError("a message section", f"0x{data[position]:02x}", position)
        code, value_start = codec.decode(data, position + 1)
        end = codec.skip(data, value_start)
        if not isinstance(code, int) or not _HEADER <= code <= _FOOTER:
            raise DecodeError("a message section's code", repr(code), position)
        yield code, data[position:end], value_start - position
        position = end


def _read_header(value: bytes, fields: dict[str, object]) -> None:
    items = codec.split_compound(value)
    items += [NULL] * (3 - len(items))
    fields["durable"], fields["priority"] = items[0], items[1]
    ttl, _ = codec.decode(items[2])
    if isinstance(ttl, int):
        fields["ttl_seconds"] = ttl / 1000


def _read_annotations(section: bytes, fields: dict[str, object]) -> None:
    kept = []
    for raw_key, raw_value in _pairs(section):
        key, _ = codec.decode(raw_key)
        if key in _SET_BY_BROKER:
            continue
        if key == _SCHEDULED_TIME:
            moment, _ = codec.decode(raw_value)
            fields["scheduled_at"] = moment / 1000 if isinstance(moment, int) else None
        kept.append(raw_key + raw_value)
    fields["annotations"] = b"".join(kept)
    fields["annotation_count"] = len(kept)


def _pairs(section: bytes) -> list[tuple[bytes, bytes]]:
    """The raw keys and values of a section that holds a map."""
    if not section:
        return []
    items = codec.split_compound(section, codec.skip(section, 1))
    return list(zip(items[::2], items[1::2], strict=True))


def _encode_header(content: Content, added: BrokerProperties) -> bytes:
    ttl = NULL if added.ttl_seconds is None else codec.uint(min(int(added.ttl_seconds * 1000), 0xFFFFFFFF))
    first_acquirer = codec.boolean(added.delivery_count == 0)
    fields = (content.durable, content.priority, ttl, first_acquirer, codec.uint(added.delivery_count))
    return codec.described(_HEADER, codec.list_of(fields))


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
    # The map is assembled from raw pairs, so its header is written here.
    return codec.described(_ANNOTATIONS, struct.pack(">BII", 0xD1, len(data) + 4, count) + data)
