"""What a host reports about an app once it has loaded it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from coremachine.local.host.functions import (
    BLOB,
    HTTP,
    QUEUE,
    SERVICE_BUS,
    TIMER,
    AppIndex,
    BlobTrigger,
    HttpTrigger,
    IndexedFunction,
    QueueTrigger,
    ServiceBusTrigger,
)


@dataclass(frozen=True)
class FunctionSummary:
    """One function; `path` is that of an HTTP function, with its prefix, and `detail` what the others wait for."""

    name: str
    trigger: str
    methods: tuple[str, ...] = ()
    path: str = ""
    detail: str = ""


@dataclass(frozen=True)
class AppSummary:
    """The functions that run, and those that do not, with the reason."""

    functions: tuple[FunctionSummary, ...]
    disabled: tuple[str, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        functions = tuple(FunctionSummary(**{**row, "methods": tuple(row["methods"])}) for row in message["functions"])
        return cls(functions, tuple(message["disabled"]), tuple(message["errors"]), tuple(message["warnings"]))


def summary_of(index: AppIndex, route_prefix: str) -> AppSummary:
    return AppSummary(
        functions=tuple(_summaries(index.functions.values(), route_prefix)),
        disabled=index.disabled,
        errors=tuple(str(error) for error in index.errors),
        warnings=index.warnings,
    )


def _summaries(functions: Iterable[IndexedFunction], route_prefix: str) -> Iterable[FunctionSummary]:
    for function in functions:
        trigger = function.trigger
        if isinstance(trigger, HttpTrigger):
            path = "/".join(part for part in (route_prefix, trigger.route.text.strip("/")) if part)
            yield FunctionSummary(function.name, HTTP, tuple(sorted(trigger.methods)), f"/{path}")
        elif isinstance(trigger, ServiceBusTrigger):
            kinds = [word for word, is_so in (("batch", trigger.is_batch), ("sessions", trigger.has_sessions)) if is_so]
            yield FunctionSummary(function.name, SERVICE_BUS, detail=" ".join([trigger.entity, *kinds]))
        elif isinstance(trigger, BlobTrigger):
            yield FunctionSummary(function.name, BLOB, detail=trigger.pattern.text)
        elif isinstance(trigger, QueueTrigger):
            yield FunctionSummary(function.name, QUEUE, detail=trigger.queue_name)
        else:
            yield FunctionSummary(function.name, TIMER, detail=trigger.schedule_text)
