"""A message as the host hands it to a function, and how long one rests that nobody could deal with."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

MAX_PAUSE_SECONDS = 15.0


class Delivery(Protocol):
    """`azure.functions.ServiceBusMessage`, as far as it is needed.

    The host sends neither reason nor description of a dead one as such: the broker writes both into the properties.
    """

    @property
    def message_id(self) -> str: ...
    @property
    def correlation_id(self) -> str | None: ...
    @property
    def delivery_count(self) -> int | None: ...
    @property
    def sequence_number(self) -> int | None: ...
    @property
    def enqueued_time_utc(self) -> datetime | None: ...
    @property
    def application_properties(self) -> Mapping[str, Any] | None: ...
    def get_body(self) -> bytes: ...


def pause_seconds(delivery_count: int | None) -> float:
    """1, 2, 4, ... up to MAX_PAUSE_SECONDS: ten deliveries outlast an outage of about two minutes."""
    return min(2.0 ** (max(delivery_count or 1, 1) - 1), MAX_PAUSE_SECONDS)
