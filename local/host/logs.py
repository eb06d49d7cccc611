"""Log lines: one per event, readable by people, with the process that speaks."""

from __future__ import annotations

import logging
import sys

_NOISY = ("azure", "uamqp", "asyncio", "urllib3", "uvicorn", "httpx")


def configure_logging(speaker: str, level: str) -> None:
    """Send this process's log records to stderr; the SDK's own chatter only from WARNING on.

    The SDK reports every refused connection with a traceback; the pump says the same in one line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(line_formatter(speaker))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.getLogger("azure.servicebus").setLevel(logging.CRITICAL)


def line_formatter(speaker: str) -> logging.Formatter:
    """`time level [speaker] logger: message`."""
    return logging.Formatter(f"%(asctime)s.%(msecs)03d %(levelname)-7s [{speaker}] %(name)s: %(message)s", "%H:%M:%S")
