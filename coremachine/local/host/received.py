"""A received message as the host works with it, whatever received it: the SDK, or a link of the host's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusReceivedMessage

# The AMQP properties in their order on the wire; those of the SDK have the same names.
PROPERTY_NAMES = (
    "message_id",
    "user_id",
    "to",
    "subject",
    "reply_to",
    "correlation_id",
    "content_type",
    "content_encoding",
    "absolute_expiry_time",
    "creation_time",
    "group_id",
    "group_sequence",
    "reply_to_group_id",
)


@dataclass(frozen=True, slots=True)
class Received:
    """What a message carries.

    Args:
        properties: Of AMQP, by the names in `PROPERTY_NAMES`; those without a value may be missing.
        application_properties: As they came; names and texts may be bytes.
        body: Data, or an AMQP value that is text or bytes, as senders of JMS write it; None if it is anything else.
        body_type: What the body is, for people.
        delivery_count: As on the wire: 0 at the first delivery.
    """

    properties: Mapping[str, Any]
    application_properties: Mapping[Any, Any]
    body: bytes | None
    body_type: str
    lock_token: str | None
    delivery_count: int
    sequence_number: int
    enqueued_at: datetime | None
    expires_at: datetime | None
    partition_key: str | None = None
    dead_letter_source: str | None = None


def received_by_sdk(message: ServiceBusReceivedMessage) -> Received:
    """Each of the SDK's own attributes looks at all of the message: here each is asked once."""
    amqp = message.raw_amqp_message.properties
    return Received(
        properties={name: getattr(amqp, name, None) for name in PROPERTY_NAMES},
        application_properties=message.application_properties or {},
        body=_body_by_sdk(message),
        body_type=str(message.body_type),
        lock_token=None if message.lock_token is None else str(message.lock_token),
        delivery_count=message.delivery_count or 0,
        sequence_number=message.sequence_number or 0,
        enqueued_at=message.enqueued_time_utc,
        expires_at=message.expires_at_utc,
        partition_key=message.partition_key,
        dead_letter_source=message.dead_letter_source,
    )


def body_of_value(value: Any) -> bytes | None:
    """An AMQP value as a body, if it is text or bytes."""
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else None


def _body_by_sdk(message: ServiceBusReceivedMessage) -> bytes | None:
    from azure.servicebus.amqp import AmqpMessageBodyType  # noqa: PLC0415 - slow to import, and here it is there

    if message.body_type is AmqpMessageBodyType.DATA:
        return b"".join(message.body)
    return body_of_value(message.body) if message.body_type is AmqpMessageBodyType.VALUE else None
