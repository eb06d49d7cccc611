"""host.json and its overrides in the environment, read once into frozen values."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coremachine.local.host.errors import MissingSettingError, SettingsError
from coremachine.local.host.host_keys import warnings_of
from coremachine.local.host.retry import RetryPolicy, parse_host_retry
from coremachine.local.host.timespan import parse_timespan

OVERRIDE_PREFIX = "AzureFunctionsJobHost__"
_SETTING_REFERENCE = re.compile(r"%([^%]+)%")

_LOG_LEVELS = {
    "trace": "DEBUG",
    "debug": "DEBUG",
    "information": "INFO",
    "warning": "WARNING",
    "error": "ERROR",
    "critical": "CRITICAL",
    "none": "CRITICAL",
}


@dataclass(frozen=True)
class ServiceBusOptions:
    """extensions.serviceBus; durations in seconds; None is no limit."""

    max_concurrent_calls: int = 16
    auto_complete_messages: bool = True
    max_auto_lock_renewal_seconds: float | None = 300.0
    max_message_batch_size: int = 1000
    min_message_batch_size: int = 1
    max_batch_wait_seconds: float = 30.0
    max_concurrent_sessions: int = 8
    max_calls_per_session: int = 1
    session_idle_seconds: float = 60.0


@dataclass(frozen=True)
class StorageQueueOptions:
    """extensions.queues; durations in seconds."""

    is_base64: bool = True
    batch_size: int = 16
    max_dequeue_count: int = 5
    visibility_seconds: float = 0.0
    max_polling_seconds: float = 60.0


@dataclass(frozen=True)
class BlobOptions:
    """extensions.blobs: how many blobs of a function are run at once, and after how many failures one is given up."""

    max_parallel: int = 8 * (os.cpu_count() or 1)
    poison_threshold: int = 5


@dataclass(frozen=True)
class HttpOptions:
    """extensions.http; None is no limit."""

    route_prefix: str = "api"
    max_concurrent_requests: int | None = None
    max_outstanding_requests: int | None = None


@dataclass(frozen=True)
class HostSettings:
    """The values of host.json, with the environment's overrides applied."""

    function_timeout_seconds: float | None = 1800.0
    http: HttpOptions = field(default_factory=HttpOptions)
    service_bus: ServiceBusOptions = field(default_factory=ServiceBusOptions)
    log_level: str = "INFO"
    # By category in lower case, such as function.orders.user; the longest one that fits counts.
    log_levels: Mapping[str, str] = field(default_factory=dict)
    functions: tuple[str, ...] | None = None
    storage_queues: StorageQueueOptions = field(default_factory=StorageQueueOptions)
    blobs: BlobOptions = field(default_factory=BlobOptions)
    # For functions without a policy of their own.
    retry: RetryPolicy | None = None
    warnings: tuple[str, ...] = ()


def read_host_settings(app_dir: Path, environment: Mapping[str, str]) -> HostSettings:
    """Read `host.json` in app_dir and apply `AzureFunctionsJobHost__a__b` overrides from the environment.

    Raises:
        SettingsError: the file is missing, is no JSON, has another version than "2.0", or a value has the wrong type.
    """
    path = app_dir / "host.json"
    document = read_json(path)
    if document.get("version") != "2.0":
        raise SettingsError(f'{path}: expected "version": "2.0", found {document.get("version")!r}')
    values = {key.lower(): value for key, value in _flatten(document)}
    values |= {
        name.removeprefix(OVERRIDE_PREFIX).replace("__", ".").lower(): value
        for name, value in environment.items()
        if name.startswith(OVERRIDE_PREFIX)
    }
    reader = _Reader(path, values)
    default = HostSettings()
    return HostSettings(
        function_timeout_seconds=reader.function_timeout(default.function_timeout_seconds),
        http=HttpOptions(
            route_prefix=reader.text("extensions.http.routePrefix", default.http.route_prefix).strip("/"),
            max_concurrent_requests=reader.limit("extensions.http.maxConcurrentRequests"),
            max_outstanding_requests=reader.limit("extensions.http.maxOutstandingRequests"),
        ),
        service_bus=_service_bus_options(reader, default.service_bus),
        log_level=reader.log_level("logging.logLevel.default", default.log_level),
        log_levels=reader.log_levels(),
        functions=reader.texts("functions"),
        storage_queues=_storage_queue_options(reader, default.storage_queues),
        blobs=BlobOptions(
            max_parallel=reader.positive("extensions.blobs.maxDegreeOfParallelism", default.blobs.max_parallel),
            poison_threshold=reader.positive("extensions.blobs.poisonBlobThreshold", default.blobs.poison_threshold),
        ),
        retry=reader.retry(),
        warnings=tuple(warnings_of(path.name, values)),
    )


def _service_bus_options(reader: _Reader, default: ServiceBusOptions) -> ServiceBusOptions:
    prefix = "extensions.serviceBus."
    return ServiceBusOptions(
        max_concurrent_calls=reader.positive(prefix + "maxConcurrentCalls", default.max_concurrent_calls),
        auto_complete_messages=reader.boolean(prefix + "autoCompleteMessages", default.auto_complete_messages),
        max_auto_lock_renewal_seconds=reader.seconds(
            prefix + "maxAutoLockRenewalDuration", default.max_auto_lock_renewal_seconds
        ),
        max_message_batch_size=reader.positive(prefix + "maxMessageBatchSize", default.max_message_batch_size),
        min_message_batch_size=reader.positive(prefix + "minMessageBatchSize", default.min_message_batch_size),
        max_batch_wait_seconds=reader.bounded_seconds(prefix + "maxBatchWaitTime", default.max_batch_wait_seconds),
        max_concurrent_sessions=reader.positive(prefix + "maxConcurrentSessions", default.max_concurrent_sessions),
        max_calls_per_session=reader.positive(prefix + "maxConcurrentCallsPerSession", default.max_calls_per_session),
        session_idle_seconds=reader.bounded_seconds(prefix + "sessionIdleTimeout", default.session_idle_seconds),
    )


def _storage_queue_options(reader: _Reader, default: StorageQueueOptions) -> StorageQueueOptions:
    prefix = "extensions.queues."
    return StorageQueueOptions(
        is_base64=reader.choice(prefix + "messageEncoding", ("base64", "none")) == "base64",
        batch_size=reader.positive(prefix + "batchSize", default.batch_size),
        max_dequeue_count=reader.positive(prefix + "maxDequeueCount", default.max_dequeue_count),
        visibility_seconds=reader.bounded_seconds(prefix + "visibilityTimeout", default.visibility_seconds),
        max_polling_seconds=reader.bounded_seconds(prefix + "maxPollingInterval", default.max_polling_seconds),
    )


def _flatten(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(f"{path} does not exist: an app directory needs this file") from None
    except json.JSONDecodeError as exc:
        raise SettingsError(f"{path} is not valid JSON: {exc}") from exc
    except (RecursionError, ValueError) as exc:
        raise SettingsError(f"{path}: expected a JSON object in UTF-8, found: {exc}") from exc
    if not isinstance(document, dict):
        raise SettingsError(f"{path}: expected a JSON object, found {type(document).__name__}")
    return document


@dataclass(frozen=True)
class _Reader:
    """Typed look-ups; environment overrides arrive as strings, so every type is read from strings as well."""

    path: Path
    values: Mapping[str, Any]

    def text(self, key: str, default: str) -> str:
        value = self.values.get(key.lower(), default)
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of strings, or its elements as `key.0`, `key.1` from the environment; None without it."""
        value = self.values.get(key.lower())
        if value is None:
            value = [text for name, text in self.values.items() if name.startswith(f"{key.lower()}.")] or None
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of strings", value)
        return tuple(value)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """One of the choices, of which the first is the default; upper and lower case are the same."""
        value = self.values.get(key.lower(), choices[0])
        if str(value).lower() not in choices:
            raise self._wrong(key, f"one of {', '.join(choices)}", value)
        return str(value).lower()

    def boolean(self, key: str, default: bool) -> bool:  # noqa: FBT001 - a value, not a switch
        value = self.values.get(key.lower(), default)
        known = {"true": True, "false": False}
        found = known.get(str(value).lower())
        if found is None:
            raise self._wrong(key, "true or false", value)
        return found

    def positive(self, key: str, default: int) -> int:
        number = self._integer(key, default)
        if number < 1:
            raise self._wrong(key, "a number of at least 1", number)
        return number

    def limit(self, key: str) -> int | None:
        """A positive number; -1, the host's word for no limit, is None."""
        number = self._integer(key, -1)
        return None if number < 1 else number

    def seconds(self, key: str, default: float | None) -> float | None:
        """A TimeSpan; a negative one, the host's word for without end, is None."""
        if key.lower() not in self.values:
            return default
        value = self.values[key.lower()]
        if str(value) == "-1":
            return None
        duration = parse_timespan(value) if isinstance(value, str) else None
        if duration is None:
            raise self._wrong(key, "a TimeSpan such as '00:05:00'", value)
        return duration.total_seconds() if duration.total_seconds() >= 0 else None

    def function_timeout(self, default: float | None) -> float | None:
        """As `seconds`; one second at least, as in Azure."""
        found = self.seconds("functionTimeout", default)
        if found is not None and found < 1:
            raise self._wrong("functionTimeout", "at least '00:00:01', or -1 for without end", f"{found:g} s")
        return found

    def bounded_seconds(self, key: str, default: float) -> float:
        """A TimeSpan that ends."""
        found = self.seconds(key, default)
        if found is None:
            raise self._wrong(key, "a TimeSpan of zero or more", self.values[key.lower()])
        return found

    def retry(self) -> RetryPolicy | None:
        """The policy below `retry`, or None without one."""
        fields = {key.removeprefix("retry."): value for key, value in self.values.items() if key.startswith("retry.")}
        try:
            return parse_host_retry(fields) if fields else None
        except ValueError as exc:
            raise SettingsError(f"{self.path.name} (or its override in the environment): retry: {exc}") from exc

    def log_levels(self) -> dict[str, str]:
        prefix = "logging.loglevel."
        names = [key.removeprefix(prefix) for key in self.values if key.startswith(prefix)]
        return {name: self.log_level(prefix + name, "INFO") for name in names if name != "default"}

    def log_level(self, key: str, default: str) -> str:
        value = self.values.get(key.lower())
        if value is None:
            return default
        level = _LOG_LEVELS.get(str(value).lower())
        if level is None:
            raise self._wrong(key, f"one of {', '.join(_LOG_LEVELS)}", value)
        return level

    def _integer(self, key: str, default: int) -> int:
        value = self.values.get(key.lower(), default)
        try:
            return int(str(value))
        except ValueError:
            raise self._wrong(key, "a whole number", value) from None

    def _wrong(self, key: str, expected: str, found: object) -> SettingsError:
        return SettingsError(
            f"{self.path.name} (or its override in the environment): {key} must be {expected}, found {found!r}"
        )


def resolve_references(text: str, environment: Mapping[str, str], used_by: str) -> str:
    """Replace each `%NAME%` by the app setting NAME.

    Raises:
        MissingSettingError: a setting is not there; the message names it and used_by.
    """

    def value_of(match: re.Match[str]) -> str:
        value = environment.get(match[1])
        if not value:
            raise MissingSettingError(match[1], used_by)
        return value

    return _SETTING_REFERENCE.sub(value_of, text)


def is_disabled(function_name: str, environment: Mapping[str, str]) -> bool:
    """Whether `AzureWebJobs.<function>.Disabled` (or its form with underscores, for shells) is true."""
    names = (f"AzureWebJobs.{function_name}.Disabled", f"AzureWebJobs_{function_name}_Disabled")
    return any(environment.get(name, "").strip().lower() in {"1", "true"} for name in names)


def share_of(total: int, workers: int, index: int) -> int:
    """One worker's part of a limit that counts for the whole host instance; at least 1.

    With more workers than slots the host as a whole exceeds the limit: a worker without a slot would not pump at all.
    """
    return max(1, total // workers + (1 if index < total % workers else 0))
