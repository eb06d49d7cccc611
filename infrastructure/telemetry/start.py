"""Begins to report, if the environment names somebody to report to."""

import logging
import sys
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import TYPE_CHECKING

from core.basics.first_imports import IMPORTS
from core.safety.safe_log import safe_logger
from core.telemetry.reports import observe_with
from infrastructure.postgresql import Pool
from infrastructure.telemetry.wanted import AZURE_MONITOR, Exporters, read_exporters

if TYPE_CHECKING:
    from infrastructure.telemetry.observer import OpenTelemetryObserver

log = safe_logger(__name__)

_NAMES = ("COREMACHINE_APP_NAME", "WEBSITE_SITE_NAME")
# Loggers that write lines at info for each export, every few seconds.
_TALKATIVE = ("azure.core.pipeline.policies.http_logging_policy", "azure.monitor.opentelemetry.exporter")


def start_telemetry(environ: Mapping[str, str]) -> bool:
    """Report spans, measures and records as the variables ask for. Whether anything is reported.

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


class _Meeting:
    """Where the observer meets the database: either may come first, and in another thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._observer: OpenTelemetryObserver | None = None
        self._database: tuple[Pool, str] | None = None

    def join(
        self, *, observer: "OpenTelemetryObserver | None" = None, database: tuple[Pool, str] | None = None
    ) -> None:
        with self._lock:
            self._observer = observer or self._observer
            self._database = database or self._database
            if self._observer is not None and self._database is not None:
                self._observer.read_from(*self._database)


_meeting = _Meeting()


def let_observer_read(pool: Pool, schema: str) -> None:
    """The observer, if one reports, or as soon as one does, reports from the rows of this database."""
    _meeting.join(database=(pool, schema))


def _start(exporters: Exporters, environ: Mapping[str, str]) -> None:
    with IMPORTS:
        from infrastructure.telemetry.observer import OpenTelemetryObserver  # noqa: PLC0415 - slow, and few want it
        from infrastructure.telemetry.providers import make_providers  # noqa: PLC0415
        from infrastructure.telemetry.records import RecordExporter  # noqa: PLC0415

    name = next((environ[name] for name in _NAMES if environ.get(name)), "coremachine")
    providers, ids = make_providers(exporters, name, environ)
    made = OpenTelemetryObserver(providers, ids)
    observe_with(made)
    _meeting.join(observer=made)
    if providers.logs is not None:
        logging.getLogger().addHandler(RecordExporter(providers.logs))
    if AZURE_MONITOR in {*providers.used.traces, *providers.used.metrics, *providers.used.logs}:
        _quieten(_TALKATIVE)
    log.info("telemetry_started", extra={"checkpoint": "TELEMETRY", **vars(providers.used)})


def _quieten(names: Iterable[str]) -> None:
    """Warnings alone, unless somebody has set a level."""
    for logger in map(logging.getLogger, names):
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)


def _is_worker_tracing() -> bool:
    """Whether the worker of Azure Functions has set OpenTelemetry up: PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY."""
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    if sdk is None:
        return False
    from opentelemetry import trace  # noqa: PLC0415 - it is there

    return isinstance(trace.get_tracer_provider(), sdk.TracerProvider)
