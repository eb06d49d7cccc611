"""W3C trace parents: each invocation gets a span of its own below the caller's, as the real host's does."""

from __future__ import annotations

import re
import secrets

_TRACE_PARENT = re.compile(r"00-(?P<trace>[0-9a-f]{32})-[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})")


def child_trace_parent(parent: str) -> str:
    """A new span in the parent's trace; in a new trace where there is no valid parent."""
    match = _TRACE_PARENT.fullmatch(parent)
    trace, flags = (match["trace"], match["flags"]) if match else (secrets.token_hex(16), "00")
    return f"00-{trace}-{secrets.token_hex(8)}-{flags}"
