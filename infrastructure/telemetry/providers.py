"""Where spans, measures and records go: the exporters that the standard OTEL_ variables name."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from core.basics.version import VERSION
from infrastructure.telemetry.ids import ChosenIds
from infrastructure.telemetry.wanted import Exporters

_FLUSH_MILLISECONDS = 3000


class ExporterMissing(Exception):
    """A variable names an exporter that is not installed."""

    def __init__(self, variable: str, name: str, found: list[str]) -> None:
        super().__init__(
            f"{variable}: expected one of the installed exporters ({', '.join(found) or 'none'}), found {name!r}; "
            "install its package, for OTLP the extra `telemetry` of coremachine"
        )


@dataclass(frozen=True)
class Providers:
    """OpenTelemetry's providers of one process.

    Args:
        logs: None where records go nowhere but to the log.
    """

    traces: TracerProvider
    metrics: MeterProvider
    logs: LoggerProvider | None

    def flush(self) -> None:
        """Send what was gathered, for at most a few seconds."""
        for one in (self.traces, self.metrics, self.logs):
            flush = getattr(one, "force_flush", None)
            if flush is not None:
                flush(_FLUSH_MILLISECONDS)


def make_providers(exporters: Exporters, service_name: str, environ: Mapping[str, str]) -> tuple[Providers, ChosenIds]:
    """Those that are there already, as the worker of Azure Functions may have made them; otherwise new ones.

    Raises:
        ExporterMissing: What a variable names is not installed.
    """
    resource = _resource(service_name, environ)
    present = trace.get_tracer_provider()
    traces = present if isinstance(present, TracerProvider) else TracerProvider(resource=resource)
    traces.id_generator = ids = ChosenIds(traces.id_generator)
    logs = None
    readers = [_reader(_load("metrics", name)) for name in exporters.metrics]
    spans = [BatchSpanProcessor(_load("traces", name)) for name in exporters.traces]
    records = [BatchLogRecordProcessor(_load("logs", name)) for name in exporters.logs]
    if traces is not present:
        for span_processor in spans:
            traces.add_span_processor(span_processor)
        trace.set_tracer_provider(traces)
    meters = metrics.get_meter_provider()
    if readers and not isinstance(meters, SdkMeterProvider):
        meters = SdkMeterProvider(readers, resource)
        metrics.set_meter_provider(meters)
    if records:
        logs = LoggerProvider(resource)
        for record_processor in records:
            logs.add_log_record_processor(record_processor)
    return Providers(traces, meters, logs), ids


def _resource(service_name: str, environ: Mapping[str, str]) -> Resource:
    is_named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = {} if is_named else {"service.name": service_name}
    return Resource.create({**named, "service.version": VERSION})


def _load(signal: str, name: str) -> Any:
    """The exporter that a package registers under this name."""
    found = {one.name: one for one in entry_points(group=f"opentelemetry_{signal}_exporter")}
    if name not in found:
        raise ExporterMissing(f"OTEL_{signal.upper()}_EXPORTER", name, sorted(found))
    return found[name].load()()


def _reader(exporter: Any) -> MetricReader:
    return exporter if isinstance(exporter, MetricReader) else PeriodicExportingMetricReader(exporter)
