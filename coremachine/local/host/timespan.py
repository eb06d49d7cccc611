"""TimeSpan strings as .NET configuration writes them."""

from __future__ import annotations

import re
from datetime import timedelta

_PATTERN = re.compile(
    r"(?P<sign>-)?(?:(?P<days>\d+)\.)?(?P<hours>\d{1,2}):(?P<minutes>\d{1,2})(?::(?P<seconds>\d{1,2})(?:\.(?P<fraction>\d{1,7}))?)?"
)


def parse_timespan(text: str) -> timedelta | None:
    """The duration of `[-][d.]hh:mm[:ss[.fffffff]]`, or None when the text has another form."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        return None
    parts = {name: int(match[name] or 0) for name in ("days", "hours", "minutes", "seconds")}
    if parts["hours"] > 23 or parts["minutes"] > 59 or parts["seconds"] > 59:  # noqa: PLR2004 - clock limits
        return None
    microseconds = int((match["fraction"] or "0").ljust(7, "0")) // 10
    duration = timedelta(microseconds=microseconds, **parts)
    return -duration if match["sign"] else duration
