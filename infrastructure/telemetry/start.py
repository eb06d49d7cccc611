"""Begins to report, if the environment names somebody to report to."""

import logging
import sys
from collections.abc import Mapping

from core.basics.first_imports import IMPORTS
from core.safety.safe_log import safe_logger
from core.telemetry.observer import observe_with, observer
from infrastructure.postgresql import Pool
from infrastructure.telemetry.wanted import Exporters, read_exporters

log = safe_logger(__name__)

_NAMES = ("COREMACHINE_APP_NAME", "WEBSITE_SITE_NAME")
_OBSERVER = "infrastructure.telemetry.observer"


def start_telemetry(environ: Mapping[str, str]) -> bool:
    """Report spans, measures and records as the OTEL_ variables ask for. Whether anything is reported.

    What keeps it from that is logged, and keeps the app from nothing.
    """
    try:
        exporters = read_exporters(environ)
        if exporters.are_none and not _is_worker_tracing():
            return False
        _start(exporters, environ)
    except Exception as error:
        log.exception("telemetry_not_started", extra={"checkpoint": "TELEMETRY", "reason": str(error)})
        return False
    return True


def let_observer_read(pool: Pool, schema: str) -> None:
    """The observer, if it is one for OpenTelemetry, reports from the rows of this database."""
    module = sys.modules.get(_OBSERVER)
    if module is not None and isinstance(observer(), module.OpenTelemetryObserver):
        observer().read_from(pool, schema)  # type: ignore[attr-defined]


def _start(exporters: Exporters, environ: Mapping[str, str]) -> None:
    with IMPORTS:
        from infrastructure.telemetry.observer import OpenTelemetryObserver  # noqa: PLC0415 - slow, and few want it
        from infrastructure.telemetry.providers import make_providers  # noqa: PLC0415
        from infrastructure.telemetry.records import RecordExporter  # noqa: PLC0415

    name = next((environ[name] for name in _NAMES if environ.get(name)), "coremachine")
    providers, ids = make_providers(exporters, name, environ)
    observe_with(OpenTelemetryObserver(providers, ids))
    if providers.logs is not None:
        logging.getLogger().addHandler(RecordExporter(providers.logs))
    log.info("telemetry_started", extra={"checkpoint": "TELEMETRY", **vars(exporters)})


def _is_worker_tracing() -> bool:
    """Whether the worker of Azure Functions has set OpenTelemetry up: PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY."""
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    if sdk is None:
        return False
    from opentelemetry import trace  # noqa: PLC0415 - it is there

    return isinstance(trace.get_tracer_provider(), sdk.TracerProvider)
