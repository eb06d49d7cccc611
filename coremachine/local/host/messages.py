"""A received Service Bus message in the shape in which the real host sends it to the worker.

Only what the real host sends is sent: lock expiry, time to live, dead-letter reason and description, scheduled time and
state never arrive, so the function sees None there. Times are naive UTC, and the delivery count starts at 1, where
the SDK shows the raw AMQP header, which starts at 0.
Source: Azure/azure-sdk-for-net, Microsoft.Azure.WebJobs.Extensions.ServiceBus, ServiceBusTriggerBindingStrategy.cs.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from azure.functions.meta import Datum

from coremachine.local.host.received import Received, received_by_sdk

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusReceivedMessage

# DateTimeOffset.MaxValue: what .NET computes as the expiry of a message without time to live.
_NEVER = "9999-12-31T23:59:59.9999999"
# Names of metadata, and of the AMQP properties that they show.
_PROPERTIES = {
    "MessageId": "message_id",
    "ContentType": "content_type",
    "ReplyTo": "reply_to",
    "To": "to",
    "Subject": "subject",
    "Label": "subject",
    "CorrelationId": "correlation_id",
    "SessionId": "group_id",
    "ReplyToSessionId": "reply_to_group_id",
}


class UnreadableBody(ValueError):
    """No function can be given such a body; Azure's host cannot convert it either."""


def content_of(message: Received) -> bytes:
    """The body.

    Raises:
        UnreadableBody: it is an AMQP sequence, or a value that is no text.
    """
    if message.body is None:
        raise UnreadableBody(f"expected a message body of AMQP data or a text, found {message.body_type}")
    return message.body


def as_datum(content: bytes, data_type: str) -> Datum:
    """A body: bytes for data type BINARY, else text, as the host makes of an undefined type."""
    return Datum(content, "bytes") if data_type == "BINARY" else Datum(content.decode(errors="replace"), "string")


def trigger_metadata(message: ServiceBusReceivedMessage) -> dict[str, Datum]:
    """All metadata of one message of the SDK; what is null is left out."""
    received = received_by_sdk(message)
    return metadata_of(received, plain_properties(received))


def metadata_of(message: Received, properties: Mapping[str, Any]) -> dict[str, Datum]:
    """All metadata of one message; what is null is left out.

    Args:
        properties: `plain_properties` of the message.
    """
    amqp = message.properties
    metadata = {
        name: Datum(_text(value), "string")
        for name, held in _PROPERTIES.items()
        if (value := amqp.get(held)) is not None
    }
    for name, text in (
        ("PartitionKey", message.partition_key),
        ("DeadLetterSource", message.dead_letter_source),
        ("LockToken", message.lock_token),
    ):
        if text is not None:
            metadata[name] = Datum(str(text), "string")
    shown = _json(properties)
    metadata["ApplicationProperties"] = metadata["UserProperties"] = shown
    metadata["DeliveryCount"] = Datum(str(message.delivery_count + 1), "json")
    metadata["SequenceNumber"] = Datum(str(message.sequence_number), "json")
    if message.enqueued_at is not None:
        metadata |= _times("Enqueued", _net_time(message.enqueued_at))
    expires = message.expires_at
    return metadata | (_NEVER_EXPIRES if expires is None else _times("Expires", _net_time(expires)))


def manual_metadata() -> dict[str, Datum]:
    """The metadata of a message that an administrator's request replaces."""
    return {
        "MessageId": Datum(uuid.uuid4().hex, "string"),
        "DeliveryCount": _json(1),
        "SequenceNumber": _json(0),
        "ApplicationProperties": _json({}),
        "UserProperties": _json({}),
    }


def plain_properties(message: Received) -> dict[str, Any]:
    """Application properties as JSON values; the SDK leaves names and texts as bytes."""
    return {str(_plain(name)): _plain(value) for name, value in message.application_properties.items()}


def _text(value: Any) -> str:
    """As the SDK shows a property: bytes that are text as such."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return str(value)
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _times(prefix: str, naive: str) -> dict[str, Datum]:
    """`XTimeUtc` is a DateTime of unspecified kind, so JSON shows no zone; `XTime` is a DateTimeOffset."""
    stem = "EnqueuedTime" if prefix == "Enqueued" else "ExpiresAt"
    return {f"{stem}Utc": _json(naive), stem: _json(naive + "+00:00")}


def _net_time(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat()


def _json(value: Any) -> Datum:
    return Datum(json.dumps(value), "json")


_NEVER_EXPIRES = _times("Expires", _NEVER)
