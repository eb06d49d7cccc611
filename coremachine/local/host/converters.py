"""Microsoft's converters, with one short way: the times of a Service Bus message.

The library tries up to thirteen patterns for each time that a message carries. For the two times that the host sends,
that takes a quarter of a millisecond per message, more than the rest of its conversion.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from typing import Any

from azure.functions.meta import get_binding_registry
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


def converter_of(trigger_type: str) -> Any:
    """The converter for a trigger's type."""
    found = get_binding_registry().get(trigger_type)  # type: ignore[no-untyped-call]
    return QuickTimes if found is ServiceBusMessageInConverter else found
