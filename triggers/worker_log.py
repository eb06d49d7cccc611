"""The fields of log records in Azure, whose worker passes the formatted message of a record on to the host, no more."""

import logging

from core.safety.record_fields import FieldsFormatter

# The modules of the workers' own handlers, for Python up to 3.12 and from 3.13 on.
_WORKERS = ("azure_functions_worker", "proxy_worker")


def show_fields_in_worker_log() -> None:
    """Let the worker's handlers send fields behind the message; a formatter that somebody else set stays."""
    for handler in logging.getLogger().handlers:
        if type(handler).__module__.startswith(_WORKERS) and handler.formatter is None:
            handler.setFormatter(FieldsFormatter())
