"""Where spans, measures and records go: to the exporters that are wanted, or where the process sends them already."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from threading import Thread
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry._logs import get_logger_provider
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from core.basics.version import VERSION
from core.safety.safe_log import safe_logger
from core.safety.safe_text import text_of
from infrastructure.telemetry.blanked import BlankingExporter
from infrastructure.telemetry.ids import ChosenIds
from infrastructure.telemetry.wanted import AZURE_MONITOR, Exporters

log = safe_logger(__name__)

FLUSH_SECONDS = 3.0
# In place of exporters, for a signal that somebody else in the process has set up.
PRESENT = ("present",)


class ExporterMissing(Exception):
    """A variable names an exporter that is not installed."""

    def __init__(self, variable: str, name: str, found: list[str]) -> None:
        super().__init__(
            f"{variable}: expected one of the installed exporters ({', '.join(found) or 'none'}), found {name!r}; "
            "install its package, which the extras `telemetry` (OTLP) and `azure-monitor` of coremachine have"
        )


class ExporterRefused(Exception):
    """An exporter cannot use what the variables give it."""

    def __init__(self, signal: str, name: str, error: Exception) -> None:
        wanted = "APPLICATIONINSIGHTS_CONNECTION_STRING as Azure shows it" if name == AZURE_MONITOR else "its variables"
        super().__init__(f"exporter {name} for {signal}: expected {wanted}, found: {text_of(error)}")


@dataclass(frozen=True)
class Providers:
    """OpenTelemetry's providers of one process.

    Args:
        logs: None where records are not ours to export.
        used: The exporters of each signal; `PRESENT` where the provider was there.
    """

    traces: TracerProvider
    metrics: MeterProvider
    logs: LoggerProvider | None
    used: Exporters = field(default_factory=Exporters)

    def flush(self, seconds: float = FLUSH_SECONDS) -> list[str]:
        """Send what was gathered: all signals beside each other, for at most these seconds.

        The SDK's own limit does not hold: a collector that accepts connections and does not answer would keep each
        signal for the time of an export, and the process from its end.

        Returns:
            The signals that were not sent in time.
        """
        signals = {"traces": self.traces, "metrics": self.metrics, "logs": self.logs}
        flushes = {name: found for name, one in signals.items() if (found := getattr(one, "force_flush", None))}
        threads = {
            name: Thread(target=_quiet_flush, args=(flush, seconds), name=f"flush-{name}", daemon=True)
            for name, flush in flushes.items()
        }
        for thread in threads.values():
            thread.start()
        until = time.monotonic() + seconds
        for thread in threads.values():
            thread.join(max(0.0, until - time.monotonic()))
        return [name for name, thread in threads.items() if thread.is_alive()]


def _quiet_flush(flush: Callable[[int], object], seconds: float) -> None:
    try:
        flush(int(seconds * 1000))
    except Exception as error:  # noqa: BLE001 - exporters are anybody's code
        log.warning(
            "telemetry_failed", extra={"checkpoint": "TELEMETRY", "operation": "flush", "error": text_of(error)}
        )


def make_providers(exporters: Exporters, service_name: str, environ: Mapping[str, str]) -> tuple[Providers, ChosenIds]:
    """Those that are there already, as the worker of Azure Functions may have made them; otherwise new ones.

    A signal that has a provider gets no second exporter: everything would arrive twice.

    Raises:
        ExporterMissing, ExporterRefused: No provider was set.
    """
    resource = _resource(service_name, environ)
    traces, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
    used = Exporters(
        PRESENT if isinstance(traces, TracerProvider) else exporters.traces,
        PRESENT if isinstance(meters, SdkMeterProvider) else exporters.metrics,
        PRESENT if isinstance(get_logger_provider(), LoggerProvider) else exporters.logs,
    )
    new_traces = traces if isinstance(traces, TracerProvider) else _make_traces(used.traces, resource)
    new_meters = _make_meters(used.metrics, resource) if used.metrics not in {PRESENT, ()} else meters
    logs = _make_logs(used.logs, resource) if used.logs not in {PRESENT, ()} else None
    if new_traces is not traces:
        trace.set_tracer_provider(new_traces)
    if new_meters is not meters:
        metrics.set_meter_provider(new_meters)
    new_traces.id_generator = ids = ChosenIds(new_traces.id_generator)
    return Providers(new_traces, new_meters, logs, used), ids


def _make_traces(names: Iterable[str], resource: Resource) -> TracerProvider:
    exporters = [_load("traces", name) for name in names]
    # `shutdown_on_exit` would wait for the collector once more, and come before the drain: that flushes at the end.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(BlankingExporter(exporter)))
    return provider


def _make_meters(names: Iterable[str], resource: Resource) -> SdkMeterProvider:
    return SdkMeterProvider([_reader(_load("metrics", name)) for name in names], resource, shutdown_on_exit=False)


def _make_logs(names: Iterable[str], resource: Resource) -> LoggerProvider:
    exporters = [_load("logs", name) for name in names]
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    return provider


def _resource(service_name: str, environ: Mapping[str, str]) -> Resource:
    is_named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = {} if is_named else {"service.name": service_name}
    return Resource.create({**named, "service.version": VERSION})


def _load(signal: str, name: str) -> Any:
    """The exporter that a package registers under this name."""
    found = {one.name: one for one in entry_points(group=f"opentelemetry_{signal}_exporter")}
    if name not in found:
        raise ExporterMissing(f"OTEL_{signal.upper()}_EXPORTER", name, sorted(found))
    exporter = found[name].load()
    try:
        return exporter()
    except Exception as error:
        raise ExporterRefused(signal, name, error) from error


def _reader(exporter: Any) -> MetricReader:
    return exporter if isinstance(exporter, MetricReader) else PeriodicExportingMetricReader(exporter)
