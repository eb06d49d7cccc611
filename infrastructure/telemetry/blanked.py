"""Spans without credentials: a library's span has what its request had, as a function key in the address (`?code=`)."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

from core.safety.credential_patterns import BLANK
from core.safety.credentials import redact

# A function key may be any text; in an address it is the value of `code`.
_ADDRESSES = frozenset({"url.query", "url.full", "http.url", "http.target"})
# Ids and names of the engine: most of what is reported.
_OWN = "coremachine."
_KEY = re.compile(r"((?:^|[?&])code=)[^&#\s]+")


class BlankingExporter(SpanExporter):
    """Passes spans on to another exporter, with credentials in their texts blanked as in the database."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([blanked(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def blanked(span: ReadableSpan) -> ReadableSpan:
    """The span itself, if no text of it has a credential."""
    attributes = _changes(span.attributes)
    events = [_blanked_event(event) for event in span.events]
    name, status = _blanked_name(span.name), _blanked_status(span.status)
    is_clean = not attributes and name == span.name and status is span.status
    if is_clean and all(new is old for new, old in zip(events, span.events, strict=True)):
        return span
    return ReadableSpan(
        name=name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={**(span.attributes or {}), **attributes},
        events=events,
        links=span.links,
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


@lru_cache(maxsize=1000)
def _blanked_name(name: str) -> str:
    """There are few: of routes, and of job and task types."""
    return redact(name)


def _blanked_status(status: Status) -> Status:
    told = status.description
    if not told or (new := redact(told)) == told:
        return status
    return Status(status.status_code, new)


def _blanked_event(event: Event) -> Event:
    changes = _changes(event.attributes)
    return Event(event.name, {**(event.attributes or {}), **changes}, event.timestamp) if changes else event


def _changes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The attributes that have a credential, without it."""
    told = ((name, value) for name, value in (attributes or {}).items() if not name.startswith(_OWN))
    return {name: new for name, value in told if (new := _blanked_value(name, value)) != value}


def _blanked_value(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return redact(_KEY.sub(rf"\1{BLANK}", value)) if name in _ADDRESSES else redact(value)
    if isinstance(value, tuple):
        return tuple(redact(one) if isinstance(one, str) else one for one in value)
    return value
