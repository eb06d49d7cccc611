"""Messages as they come over the wire: taken apart once, without the SDK's objects.

Source: OASIS AMQP 1.0, part 3 (messaging); the annotations are those of Service Bus.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from coremachine.local.broker import codec
from coremachine.local.broker.section_codes import (
    ANNOTATIONS,
    APPLICATION_PROPERTIES,
    CODES_BY_NAME,
    DATA,
    HEADER,
    PROPERTIES,
    SEQUENCE,
    VALUE,
)
from coremachine.local.host.received import PROPERTY_NAMES, Received, body_of_value

_BODY_TYPES = {SEQUENCE: "AmqpMessageBodyType.SEQUENCE", VALUE: "AmqpMessageBodyType.VALUE"}
_TTL, _DELIVERY_COUNT = 2, 4  # of the header
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Sections = dict[int, Any]


def sections_of(data: bytes) -> Sections:
    """The values of a message's sections by their codes; several of data are joined.

    Raises:
        codec.DecodeError: The bytes are not a message.
    """
    found: Sections = {}
    position = 0
    while position < len(data):
        descriptor: codec.Value
        if data[position + 1 : position + 2] == b"\x53" and position + 2 < len(data):
            descriptor, start = data[position + 2], position + 3
        else:
            descriptor, start = codec.decode(data, position + 1)
        code = CODES_BY_NAME.get(descriptor) if isinstance(descriptor, str) else descriptor
        if data[position] != codec.DESCRIBED or not isinstance(code, int):
            raise codec.DecodeError("a message section", data[position : position + 3].hex(), position)
        value, position = codec.decode(data, start)
        found[code] = found[DATA] + value if code == DATA and DATA in found else value
    return found


def read_delivery(data: bytes, token: UUID) -> tuple[Received, float]:
    """The message of a delivery, and when its lock ends: seconds since 1970.

    Raises:
        codec.DecodeError: The bytes are not a message.
    """
    sections = sections_of(data)
    header: list[Any] = sections.get(HEADER) or []
    annotations: dict[str, Any] = sections.get(ANNOTATIONS) or {}
    enqueued = _moment(annotations.get("x-opt-enqueued-time"))
    ttl = header[_TTL] if len(header) > _TTL else None
    body_type = next((name for code, name in _BODY_TYPES.items() if code in sections), "none")
    received = Received(
        properties=dict(zip(PROPERTY_NAMES, sections.get(PROPERTIES) or (), strict=False)),
        application_properties=sections.get(APPLICATION_PROPERTIES) or {},
        body=sections[DATA] if DATA in sections else body_of_value(sections.get(VALUE)),
        body_type=body_type,
        lock_token=str(token),
        delivery_count=(header[_DELIVERY_COUNT] if len(header) > _DELIVERY_COUNT else None) or 0,
        sequence_number=annotations.get("x-opt-sequence-number") or 0,
        enqueued_at=enqueued,
        expires_at=enqueued + timedelta(milliseconds=ttl) if enqueued and ttl else None,
        partition_key=annotations.get("x-opt-partition-key"),
        dead_letter_source=annotations.get("x-opt-deadletter-source"),
    )
    return received, (annotations.get("x-opt-locked-until") or 0) / 1000


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else _EPOCH + timedelta(milliseconds=milliseconds)


def encode_request(message_id: int, operation: str, reply_to: str, tokens: list[UUID], status: str | None) -> bytes:
    """A request to an entity's management node about messages under these locks.

    Args:
        status: What is to become of them; None if the operation does not settle.
    """
    null = codec.NULL
    properties = codec.list_of([codec.ulong(message_id), null, null, null, codec.string(reply_to)])
    names = codec.map_of([(codec.string("operation"), codec.string(f"com.microsoft:{operation}"))])
    body = [(codec.string("lock-tokens"), codec.array_of(map(codec.uuid, tokens), 0x98))]
    if status is not None:
        body.append((codec.string("disposition-status"), codec.string(status)))
    return b"".join(
        (
            codec.described(PROPERTIES, properties),
            codec.described(APPLICATION_PROPERTIES, names),
            codec.described(VALUE, codec.map_of(body)),
        )
    )


def read_answer(data: bytes) -> tuple[int, int, str, dict[str, Any]]:
    """The answer of a management node: to which request, its status and its description, and its values.

    Raises:
        codec.DecodeError: The bytes are not such an answer.
    """
    sections = sections_of(data)
    try:
        correlation_id = sections[PROPERTIES][PROPERTY_NAMES.index("correlation_id")]
        names = sections[APPLICATION_PROPERTIES]
        return correlation_id, names["statusCode"], str(names.get("statusDescription")), sections.get(VALUE) or {}
    except (KeyError, IndexError, TypeError) as error:
        raise codec.DecodeError("the answer of a management node", repr(error), 0) from error
