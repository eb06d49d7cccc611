"""The summary of a loaded app, as its worker reports it."""

from __future__ import annotations

from collections.abc import Iterable

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
from coremachine.local.host.summary import AppSummary, FunctionSummary


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
