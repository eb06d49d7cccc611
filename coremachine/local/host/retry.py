"""Retry policies: `@app.retry`, and `retry` of host.json. The real host obeys them for timers, of the triggers here."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coremachine.local.host.timespan import parse_timespan

FIXED, EXPONENTIAL = "fixed_delay", "exponential_backoff"


@dataclass(frozen=True)
class RetryPolicy:
    """How often a failed invocation is repeated, and after how many seconds; a maximum of None is endless."""

    max_retry_count: int | None
    first_seconds: float
    longest_seconds: float

    def delay(self, retry: int) -> float:
        """Seconds before the retry with this number, from 1: doubled each time, a fifth more or less at random."""
        if self.first_seconds == self.longest_seconds:
            return self.first_seconds
        grown = self.first_seconds * 2.0 ** min(retry - 1, 32)
        return min(self.longest_seconds, grown * random.uniform(0.8, 1.2))


@dataclass(frozen=True)
class Retrying:
    """Where an invocation is in its policy: `count` retries of at most `limit` have begun."""

    count: int = 0
    limit: int = 0


NOT_RETRIED = Retrying()


def parse_retry_policy(fields: Mapping[str, Any]) -> RetryPolicy:
    """The policy of `strategy`, `max_retry_count` and its intervals.

    Raises:
        ValueError: a value is missing or wrong; the message names it.
    """
    strategy, count = fields.get("strategy"), _count(fields.get("max_retry_count"))
    if strategy == FIXED:
        seconds = _seconds(fields, "delay_interval")
        return RetryPolicy(count, seconds, seconds)
    if strategy == EXPONENTIAL:
        return RetryPolicy(count, _seconds(fields, "minimum_interval"), _seconds(fields, "maximum_interval"))
    raise ValueError(f"retry strategy: expected {FIXED!r} or {EXPONENTIAL!r}, found {strategy!r}")


def _count(value: Any) -> int | None:
    try:
        number = int(str(value))
    except ValueError:
        raise ValueError(f"max_retry_count: expected a whole number, found {value!r}") from None
    return None if number < 0 else number


def _seconds(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    duration = parse_timespan(value) if isinstance(value, str) else None
    if duration is None or duration.total_seconds() < 0:
        raise ValueError(f"{name}: expected a TimeSpan such as '00:00:10', found {value!r}")
    return duration.total_seconds()
