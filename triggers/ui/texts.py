"""Numbers, times and values as pages write them."""

import json
import re
from datetime import UTC, datetime
from typing import Any

from core.safety.safe_text import storable_text

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))
_MOST_JSON = 20_000
# A short list of numbers or texts, which reads better in one line.
_LIST = re.compile(r"\[\n\s+[^\[\]{}]{1,90}\n\s*\]")
_SHORT_ID = 12
_LONG_ID = re.compile(r"\b[0-9a-f]{64}\b")
# What people type, in a sentence for people: between backticks, or a command of this project.
_TYPED = re.compile(r"`([^`]+)`|(coremachine [a-z-]+(?: [^\s;,()]+)*)")
# What is not there, in a column of numbers.
NOTHING = "\u2013"
NO_TASKS = "no tasks"


def number(value: float | None) -> str:
    """1234567 as 1,234,567; nothing as a dash."""
    return NOTHING if value is None else f"{value:,}"


def capped(value: int, most: int) -> str:
    """A count that was not made beyond `most`."""
    return f"{value:,}+" if value >= most else f"{value:,}"


def duration(seconds: float | None) -> str:
    """Two units at most: 1 d 3 h, 4 min 5 s, 1.2 s, 80 ms."""
    if seconds is None:
        return NOTHING
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:  # noqa: PLR2004 - where a tenth of a second still matters
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole} s"
    return _two_units(whole)


def _two_units(whole: int) -> str:
    small = {"d": (3600, "h"), "h": (60, "min"), "min": (1, "s")}
    for size, unit in _UNITS:
        if whole >= size:
            rest_size, rest_unit = small[unit]
            rest = whole % size // rest_size
            return f"{whole // size} {unit} {rest} {rest_unit}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def ago(moment: datetime | None, now: datetime) -> str:
    """One unit: 5 min ago, in 3 h."""
    if moment is None:
        return NOTHING
    seconds = (now - moment).total_seconds()
    size = abs(seconds)
    if size < 5:  # noqa: PLR2004 - clocks differ
        return "just now"
    text = f"{int(size)} s"
    for unit_size, unit in reversed(_UNITS):
        if size >= unit_size:
            text = f"{int(size // unit_size)} {unit}"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def exact(moment: datetime | None) -> str:
    """To the millisecond, in UTC."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} UTC"


def short_id(job_id: str) -> str:
    return job_id[:_SHORT_ID]


def short_ids(text: str) -> str:
    """A sentence with the ids of jobs in it as lists show them."""
    return _LONG_ID.sub(lambda found: short_id(found[0]), text)


def moment(text: str) -> datetime:
    """A time as JSON in the database has it."""
    return datetime.fromisoformat(text)


def pretty_json(value: Any) -> str:
    """Indented, and no longer than people read; the API has the whole."""
    text = storable_text(json.dumps(value, indent=2, ensure_ascii=False, default=str))
    text = _LIST.sub(lambda found: re.sub(r"\n\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text)
    if len(text) <= _MOST_JSON:
        return text
    return f"{text[:_MOST_JSON]}\n… {len(text) - _MOST_JSON:,} more characters: the API has the whole value"


def words(name: str) -> str:
    """`completed_with_errors` for people."""
    return name.replace("_", " ")


def label(name: str) -> str:
    """`time_zone` over a field of a form; `url_setting` too."""
    text = words(name)
    return f"{text[0].upper()}{text[1:]}".replace("Url", "URL")


def code_parts(text: str) -> list[tuple[bool, str]]:
    """A sentence in parts: whether each is something to type, and its text."""
    parts: list[tuple[bool, str]] = []
    end = 0
    for found in _TYPED.finditer(text):
        parts += [(False, text[end : found.start()]), (True, found[1] or found[2])]
        end = found.end()
    return [part for part in (*parts, (False, text[end:])) if part[1]]


def seconds_between(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else (end - begin).total_seconds()
