"""ISO 8601 durations, as configuration and administration write them."""

import re

_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
# What the service writes for without limit, and from where on a duration means that.
UNLIMITED = "P10675199DT2H48M5.4775807S"
_UNLIMITED_SECONDS = 900_000_000_000.0


def parse_duration(text: object) -> float:
    """Seconds of an ISO 8601 duration such as PT1M30S."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None or not any(match.groups()):
        raise ValueError(f"expected an ISO 8601 duration such as PT1M, found {text!r}")
    days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def parse_limit(text: str) -> float | None:
    """As `parse_duration`, None for the service's longest one."""
    seconds = parse_duration(text)
    return None if seconds >= _UNLIMITED_SECONDS else seconds


def format_duration(seconds: float | None) -> str:
    """The shortest form, such as P1DT30S; without limit for None."""
    if seconds is None:
        return UNLIMITED
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    days, hours = divmod(hours, 24)
    date = f"{days}D" if days else ""
    parts = [f"{hours}H" if hours else "", f"{minutes}M" if minutes else "", f"{round(rest, 7):.9g}S" if rest else ""]
    time = "".join(parts)
    if not date and not time:
        return "PT0S"
    return f"P{date}{'T' if time else ''}{time}"
