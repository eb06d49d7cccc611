"""Which exporters the variables ask for; read without OpenTelemetry, as cold start wants it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution

# Its package registers the exporter of each signal under this name.
AZURE_MONITOR = "azure_monitor_opentelemetry_exporter"
_CONNECTION_STRING = "APPLICATIONINSIGHTS_CONNECTION_STRING"
_GRPC, _HTTP = "grpc", "http/protobuf"
_OTLP = {_GRPC: "otlp_proto_grpc", _HTTP: "otlp_proto_http"}
# As the SDK reads them: a token, and printable ASCII but `"`, `,`, `;` and `\\`.
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*=[ \t]*[ !#-+\--:<-\[\]-~]*")


class TelemetryMisconfigured(Exception):
    """A variable has a value that is none of its own."""


@dataclass(frozen=True)
class Exporters:
    """The names of exporters by what they export; no names: nothing is to be exported."""

    traces: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()

    @property
    def are_none(self) -> bool:
        return not (self.traces or self.metrics or self.logs)


def has_azure_monitor() -> bool:
    """Whether the extra `azure-monitor` is installed; nothing of it is imported."""
    try:
        distribution("azure-monitor-opentelemetry-exporter")
    except PackageNotFoundError:
        return False
    return True


def read_exporters(environ: Mapping[str, str], has_azure: Callable[[], bool] = has_azure_monitor) -> Exporters:
    """What is to be exported to where; nothing by default.

    For each signal: what OTEL_TRACES_EXPORTER and its siblings name; else OTLP, where an endpoint is given; else
    Application Insights, where there is its connection string, as in Azure, and its exporter is installed. Records
    that Azure's host passes on have to be asked for by name: they would arrive twice.

    Raises:
        TelemetryMisconfigured: A protocol is not known, or headers cannot be read.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Exporters()
    others = (AZURE_MONITOR,) if environ.get(_CONNECTION_STRING, "").strip() and has_azure() else ()
    return Exporters(*(_names(environ, signal, others) for signal in ("TRACES", "METRICS", "LOGS")))


def _names(environ: Mapping[str, str], signal: str, others: tuple[str, ...]) -> tuple[str, ...]:
    given = environ.get(f"OTEL_{signal}_EXPORTER", "").strip()
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    if not names and not (signal == "LOGS" and _host_passes_records_on(environ)):
        names = ("otlp",) if _first(environ, signal, "ENDPOINT") else others
    chosen = (_otlp(environ, signal) if name == "otlp" else name for name in names if name != "none")
    # Each once: everything would arrive twice.
    return tuple(dict.fromkeys(chosen))


def _host_passes_records_on(environ: Mapping[str, str]) -> bool:
    """As it does in Azure, unless the worker declares that it exports them itself."""
    is_ours = environ.get("PYTHON_ENABLE_OPENTELEMETRY", "").strip().lower() in {"true", "1"}
    return bool(environ.get("WEBSITE_SITE_NAME")) and not is_ours


def _otlp(environ: Mapping[str, str], signal: str) -> str:
    # As the Functions host and the SDK's own set-up have it, which read the same variables.
    protocol = _first(environ, signal, "PROTOCOL") or _GRPC
    if protocol not in _OTLP:
        raise TelemetryMisconfigured(f"OTEL_EXPORTER_OTLP_PROTOCOL: expected {_GRPC} or {_HTTP}, found {protocol!r}")
    _check_headers(environ, signal)
    return _OTLP[protocol]


def _check_headers(environ: Mapping[str, str], signal: str) -> None:
    """Before the SDK looks: it would log what it cannot read, and that is where a key is."""
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"):
        parts = [part for part in environ.get(name, "").split(",") if part.strip()]
        wrong = next((place for place, part in enumerate(parts, 1) if not _HEADER.fullmatch(part.strip())), None)
        if wrong is not None:
            raise TelemetryMisconfigured(
                f"{name}: expected name=value with commas between, values URL-encoded, such as x-team=geo,x-key=a%20b, "
                f"found something else as entry {wrong} (not shown, since it may hold a secret)"
            )


def _first(environ: Mapping[str, str], signal: str, what: str) -> str:
    """The signal's own variable, or the one for all."""
    own = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_{what}", "").strip()
    return own or environ.get(f"OTEL_EXPORTER_OTLP_{what}", "").strip()
