"""What a host knows of an app's functions: the index that `coremachine.local.host.indexing` makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from coremachine.local.host.blob_pattern import BlobPattern
from coremachine.local.host.errors import FunctionIndexError
from coremachine.local.host.ncrontab import Schedule
from coremachine.local.host.outputs import Output
from coremachine.local.host.retry import RetryPolicy
from coremachine.local.host.routes import RouteTemplate
from coremachine.local.host.signature import RETURN, BoundType

HTTP, QUEUE, SERVICE_BUS, TIMER = "httpTrigger", "queueTrigger", "serviceBusTrigger", "timerTrigger"
BLOB = "blobTrigger"


@dataclass(frozen=True)
class HttpTrigger:
    """A route below the prefix; without methods it answers all of them."""

    route: RouteTemplate
    methods: frozenset[str]
    auth_level: str


@dataclass(frozen=True)
class ServiceBusTrigger:
    """A queue, or a topic's subscription, and the name of the setting with its address.

    `is_batch`: the function gets a list (cardinality many); `max_batch_size` is its own limit, None that of host.json.
    """

    connection: str
    queue_name: str
    topic_name: str
    subscription_name: str
    is_dead_letter: bool
    data_type: str
    auto_complete: bool | None
    is_batch: bool = False
    has_sessions: bool = False
    max_batch_size: int | None = None

    @property
    def entity(self) -> str:
        path = self.queue_name or f"{self.topic_name}/Subscriptions/{self.subscription_name}"
        return path + ("/$DeadLetterQueue" if self.is_dead_letter else "")


@dataclass(frozen=True)
class TimerTrigger:
    """A schedule; use_monitor keeps its last and next time across restarts."""

    schedule_text: str
    schedule: Schedule
    run_on_startup: bool
    use_monitor: bool


@dataclass(frozen=True)
class QueueTrigger:
    """A queue of a storage account, and the name of the setting with its address."""

    connection: str
    queue_name: str


@dataclass(frozen=True)
class BlobTrigger:
    """The blobs of a container that fit a pattern, and the name of the setting with the account's address.

    `is_text`: the function gets text instead of bytes.
    """

    connection: str
    pattern: BlobPattern
    is_text: bool


@dataclass(frozen=True)
class Input:
    """A blob that the function reads; its path may hold expressions such as {name}."""

    bound: BoundType
    connection: str
    path: str
    is_text: bool


Trigger = HttpTrigger | ServiceBusTrigger | QueueTrigger | BlobTrigger | TimerTrigger


@dataclass(frozen=True)
class IndexedFunction:
    """One function that can be invoked.

    `trigger_type` names the converter of the trigger's parameter; `outputs` are the func.Out parameters by name, and
    `$return` for a result that is no HTTP response.
    """

    name: str
    handler: Callable[..., Any]
    is_async: bool
    trigger_type: str
    trigger_parameter: str
    trigger: Trigger
    context_parameter: str | None
    raw_bindings: tuple[dict[str, Any], ...]
    directory: Path
    returns: BoundType | None = None
    outputs: Mapping[str, Output] = field(default_factory=dict)
    inputs: Mapping[str, Input] = field(default_factory=dict)
    retry: RetryPolicy | None = None

    @cached_property
    def out_parameters(self) -> list[str]:
        return [name for name in self.outputs if name != RETURN]


@dataclass(frozen=True)
class AppIndex:
    """All functions that run, by name in order of registration; and those that do not, with the reason."""

    functions: dict[str, IndexedFunction]
    disabled: tuple[str, ...]
    errors: tuple[FunctionIndexError, ...]
    warnings: tuple[str, ...] = ()
