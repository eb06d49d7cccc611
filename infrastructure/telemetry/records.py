"""Log records to OpenTelemetry, with their fields and the trace that they were written in."""

import logging
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import get_current
from opentelemetry.sdk._logs import LoggerProvider

from core.safety.record_fields import fields_of, trace_text_of

# What exporters log about their own work would be exported, and logged again.
_OF_EXPORTERS = ("opentelemetry", "urllib3", "requests", "grpc", "azure.core", "azure.monitor")
_NUMBERS = (
    (logging.CRITICAL, SeverityNumber.FATAL),
    (logging.ERROR, SeverityNumber.ERROR),
    (logging.WARNING, SeverityNumber.WARN),
    (logging.INFO, SeverityNumber.INFO),
)


class RecordExporter(logging.Handler):
    """Sends every record of the process, but those of exporters."""

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(_OF_EXPORTERS):
            return
        attributes: dict[str, Any] = fields_of(record)
        trace = trace_text_of(record)
        if trace is not None:
            attributes["exception.stacktrace"] = trace
        self._provider.get_logger(record.name).emit(
            LogRecord(
                timestamp=int(record.created * 1_000_000) * 1000,
                context=get_current(),
                severity_text=record.levelname,
                severity_number=_number(record.levelno),
                body=record.getMessage(),
                attributes=attributes,
            )
        )


def _number(level: int) -> SeverityNumber:
    return next((number for least, number in _NUMBERS if level >= least), SeverityNumber.DEBUG)
