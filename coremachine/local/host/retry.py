"""Retry policies: `@app.retry`, and `retry` of host.json. The real host obeys them for timers, of the triggers here.

Source: webjobs SDK, `SupportsRetryAttribute`: timers, Event Hubs, Kafka and Cosmos DB have it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coremachine.local.host.timespan import parse_timespan


@dataclass(frozen=True)
class _Spelling:
    """How one of the two places writes a policy."""

    fixed: str
    exponential: str
    count: str
    delay: str
    shortest: str
    longest: str


_DECORATOR = _Spelling(
    "fixed_delay", "exponential_backoff", "max_retry_count", "delay_interval", "minimum_interval", "maximum_interval"
)
_HOST_JSON = _Spelling(
    "fixedDelay", "exponentialBackoff", "maxRetryCount", "delayInterval", "minimumInterval", "maximumInterval"
)


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
    """The policy of `@app.retry`: `strategy`, `max_retry_count` and its intervals.

    Raises:
        ValueError: a value is missing or wrong; the message names it.
    """
    return _policy(fields, fields.get("strategy"), _DECORATOR)


def parse_host_retry(fields: Mapping[str, Any]) -> RetryPolicy:
    """The policy of `retry` in host.json, whose keys and strategies are read in any case.

    Raises:
        ValueError: a value is missing, wrong or unknown; the message names it.
    """
    spelling = _HOST_JSON
    names = ("strategy", spelling.count, spelling.delay, spelling.shortest, spelling.longest)
    known = {name.lower(): name for name in names}
    if unknown := sorted(key for key in fields if key.lower() not in known):
        raise ValueError(f"expected keys out of {', '.join(names)}, found {', '.join(unknown)}")
    spelt = {known[key.lower()]: value for key, value in fields.items()}
    strategy = str(spelt.get("strategy", spelling.fixed))
    strategies = {name.lower(): name for name in (spelling.fixed, spelling.exponential)}
    return _policy(spelt, strategies.get(strategy.lower(), strategy), spelling)


def _policy(fields: Mapping[str, Any], strategy: Any, spelling: _Spelling) -> RetryPolicy:
    count = _count(fields, spelling.count)
    if strategy == spelling.fixed:
        seconds = _seconds(fields, spelling.delay)
        return RetryPolicy(count, seconds, seconds)
    if strategy == spelling.exponential:
        return RetryPolicy(count, _seconds(fields, spelling.shortest), _seconds(fields, spelling.longest))
    raise ValueError(f"retry strategy: expected {spelling.fixed!r} or {spelling.exponential!r}, found {strategy!r}")


def _count(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    try:
        number = int(str(value))
    except ValueError:
        raise ValueError(f"{name}: expected a whole number, found {value!r}") from None
    return None if number < 0 else number


def _seconds(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    duration = parse_timespan(value) if isinstance(value, str) else None
    if duration is None or duration.total_seconds() < 0:
        raise ValueError(f"{name}: expected a TimeSpan such as '00:00:10', found {value!r}")
    return duration.total_seconds()
