"""A received message as the host works with it, whatever received it: the SDK, or a link of the host's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.amqp import AmqpMessageBodyType

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
        body: None if it is no data.
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
    is_data = message.body_type is AmqpMessageBodyType.DATA
    return Received(
        properties={name: getattr(amqp, name, None) for name in PROPERTY_NAMES},
        application_properties=message.application_properties or {},
        body=b"".join(message.body) if is_data else None,
        body_type=str(message.body_type),
        lock_token=None if message.lock_token is None else str(message.lock_token),
        delivery_count=message.delivery_count or 0,
        sequence_number=message.sequence_number or 0,
        enqueued_at=message.enqueued_time_utc,
        expires_at=message.expires_at_utc,
        partition_key=message.partition_key,
        dead_letter_source=message.dead_letter_source,
    )
