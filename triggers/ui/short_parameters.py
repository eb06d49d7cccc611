"""A job's parameters in one line: what distinguishes it from other jobs of its type comes first."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from core.safety.safe_text import storable_text
from jobs.base import JobBase
from jobs.parameter_schema import to_json_schema

MOST_SHOWN = 3
_LONGEST = 44
_MISSING = object()


@dataclass(frozen=True)
class ShortParameter:
    """`whole` is the value where `text` is a part of it."""

    name: str
    text: str
    whole: str = ""


def short_parameters(parameters: Mapping[str, Any] | None, job: type[JobBase] | None) -> list[ShortParameter]:
    """At most MOST_SHOWN. Required ones first, then those that are not as the job type has them by default.

    Args:
        job: The job type; None: this app does not know it, and no parameter is left out.
    """
    declared = _declared(job) if job is not None else {}
    order = list(declared)
    chosen = [(name, value) for name, value in (parameters or {}).items() if declared.get(name, _MISSING) != value]

    def place(item: tuple[str, Any]) -> tuple[bool, bool, int]:
        name, value = item
        is_optional = declared.get(name, _MISSING) is not _MISSING
        return isinstance(value, (dict, list)), is_optional, order.index(name) if name in declared else len(order)

    return [_shown(name, value) for name, value in sorted(chosen, key=place)[:MOST_SHOWN]]


@lru_cache(maxsize=256)
def _declared(job: type[JobBase]) -> dict[str, Any]:
    """The defaults by name, in the order of the declaration; _MISSING for one that has none."""
    properties: Mapping[str, Any] = to_json_schema(job.parameters_schema).get("properties", {})
    return {name: entry.get("default", _MISSING) for name, entry in properties.items()}


def _shown(name: str, value: Any) -> ShortParameter:
    whole = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    whole = storable_text(" ".join(whole.split()))
    if len(whole) <= _LONGEST:
        return ShortParameter(name, whole)
    # Of a path and an address, the end distinguishes more.
    has_end = isinstance(value, str) and "/" in value
    text = f"\u2026{whole[1 - _LONGEST :]}" if has_end else f"{whole[: _LONGEST - 1]}\u2026"
    return ShortParameter(name, text, whole[:1000])
