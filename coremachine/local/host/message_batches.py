"""Several messages in the shape in which the real host sends a batch to the worker: one array for each field.

Arrays of text lose their null and empty entries on the way, as in Azure: where only some messages of a batch have a
correlation id, nobody can tell which ones. Application properties and the other fields keep their places.
Source: as in `coremachine.local.host.messages`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from azure.functions.meta import Datum

from coremachine.local.host.messages import content_of, trigger_metadata
from coremachine.local.host.received import received_by_sdk

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusReceivedMessage


@dataclass(frozen=True)
class Strings:
    """`CollectionString` of the protocol by shape."""

    string: tuple[str, ...]


@dataclass(frozen=True)
class Bytes:
    """`CollectionBytes` of the protocol by shape."""

    bytes: tuple[bytes, ...]


def batch_datum(messages: Sequence[ServiceBusReceivedMessage], data_type: str) -> Datum:
    """All bodies.

    Raises:
        ValueError: a body cannot be converted; see `content_of`.
    """
    return as_collection([content_of(received_by_sdk(message)) for message in messages], data_type)


def as_collection(bodies: Sequence[bytes], data_type: str) -> Datum:
    """Bodies of several messages: bytes for data type BINARY, else text."""
    if data_type == "BINARY":
        return Datum(Bytes(tuple(bodies)), "collection_bytes")
    return Datum(Strings(tuple(body.decode(errors="replace") for body in bodies)), "collection_string")


def batch_metadata(messages: Sequence[ServiceBusReceivedMessage]) -> dict[str, Datum]:
    """`<Field>Array` for each field that at least one message has."""
    return as_arrays([trigger_metadata(message) for message in messages])


def as_arrays(each: Sequence[dict[str, Datum]]) -> dict[str, Datum]:
    """The metadata of several messages as one array for each field."""
    kinds = {name: str(datum.type) for one in each for name, datum in one.items()}
    return {f"{name}Array": _array(name, kind, each) for name, kind in kinds.items()}


def _array(name: str, kind: str, each: Sequence[dict[str, Datum]]) -> Datum:
    values = [one[name].value if name in one else None for one in each]
    if kind == "string":
        return Datum(Strings(tuple(value for value in values if value)), "collection_string")
    return Datum(json.dumps([None if value is None else json.loads(value) for value in values]), "json")
