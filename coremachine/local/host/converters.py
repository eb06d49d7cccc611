"""Microsoft's converters, with one short way: the times of a Service Bus message.

The library tries up to thirteen patterns for each time that a message carries. For the two times that the host sends,
that takes a quarter of a millisecond per message, more than the rest of its conversion.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Any

from azure.functions.meta import Datum, get_binding_registry
from azure.functions.servicebus import ServiceBusMessageInConverter

# As the host writes a time without a zone; .NET has seven digits, of which Python takes six.
_WITHOUT_ZONE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)\d*")


class QuickTimes(ServiceBusMessageInConverter, binding=None):
    """The library's converter of messages; it reads the usual form of a time at once, and others as before."""

    @classmethod
    def _parse_datetime(cls, datetime_str: str | None) -> datetime | None:
        usual = _WITHOUT_ZONE.fullmatch(datetime_str or "")
        if usual is not None:
            with suppress(ValueError):  # there is no such day: the library reports it
                return datetime.fromisoformat(usual[1])
        found: datetime | None = super()._parse_datetime(datetime_str)
        return found


class GenericConverter:
    """The worker's converter for text and bytes as they came, and for bindings that azure.functions has none for."""

    @staticmethod
    def check_input_type_annotation(python_type: Any) -> bool:
        return issubclass(python_type, (str, bytes))

    @staticmethod
    def check_output_type_annotation(python_type: Any) -> bool:
        return issubclass(python_type, (str, bytes, bytearray))

    @staticmethod
    def decode(data: Datum, *, trigger_metadata: Mapping[str, Datum]) -> Any:
        del trigger_metadata
        if data.type not in {"string", "bytes", "json", None}:
            raise ValueError(f"expected text or bytes for a str or bytes parameter, found a datum of type {data.type}")
        return data.value

    @staticmethod
    def encode(value: Any, *, expected_type: Any) -> Datum | None:
        del expected_type
        match value:
            case None:
                return None
            case str():
                return Datum(value, "string")
            case bytes() | bytearray():
                return Datum(bytes(value), "bytes")
            case dict() | list() | int() | float():
                return Datum(json.dumps(value), "json")
        raise NotImplementedError


@cache
def converter_of(binding: str) -> Any:
    """The converter that azure.functions registers for a binding's type, else the generic one."""
    found = get_binding_registry().get(binding)  # type: ignore[no-untyped-call]
    return QuickTimes if found is ServiceBusMessageInConverter else found or GenericConverter
