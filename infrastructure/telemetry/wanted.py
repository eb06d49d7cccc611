"""Which exporters the standard variables ask for; read without OpenTelemetry, as cold start wants it."""

from collections.abc import Mapping
from dataclasses import dataclass

_GRPC, _HTTP = "grpc", "http/protobuf"
_OTLP = {_GRPC: "otlp_proto_grpc", _HTTP: "otlp_proto_http"}


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


def read_exporters(environ: Mapping[str, str]) -> Exporters:
    """What OTEL_TRACES_EXPORTER and its siblings name; OTLP where only an endpoint is given; nothing by default.

    Raises:
        TelemetryMisconfigured: A protocol is not known.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Exporters()
    traces, metrics, logs = (_names(environ, signal) for signal in ("TRACES", "METRICS", "LOGS"))
    return Exporters(traces, metrics, logs)


def _names(environ: Mapping[str, str], signal: str) -> tuple[str, ...]:
    given = environ.get(f"OTEL_{signal}_EXPORTER", "").strip()
    names = [name.strip() for name in given.split(",") if name.strip()]
    if not names and _first(environ, signal, "ENDPOINT"):
        names = ["otlp"]
    return tuple(_otlp(environ, signal) if name == "otlp" else name for name in names if name != "none")


def _otlp(environ: Mapping[str, str], signal: str) -> str:
    # As the Functions host and the SDK's own set-up have it, which read the same variables.
    protocol = _first(environ, signal, "PROTOCOL") or _GRPC
    if protocol not in _OTLP:
        raise TelemetryMisconfigured(f"OTEL_EXPORTER_OTLP_PROTOCOL: expected {_GRPC} or {_HTTP}, found {protocol!r}")
    return _OTLP[protocol]


def _first(environ: Mapping[str, str], signal: str, what: str) -> str:
    """The signal's own variable, or the one for all."""
    own = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_{what}", "").strip()
    return own or environ.get(f"OTEL_EXPORTER_OTLP_{what}", "").strip()
