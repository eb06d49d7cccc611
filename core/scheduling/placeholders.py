"""The tick's time in the parameters of a schedule: {tick} and {tick:%Y-%m-%d} in texts."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from core.basics.canonical import shown
from core.models.fields import expectation

_PLACE = re.compile(r"\{tick(?::([^{}]*))?\}")
_BEGINNING = re.compile(r"\{tick(?![^{}]*\})")
# The same on each machine, whatever its language is.
_DIRECTIVES = frozenset("YmdHMSjGVuyz%")
_KNOWN = ", ".join(f"%{each}" for each in "YmdHMSjGVuyz")


def fill_in(parameters: Mapping[str, Any], tick: datetime) -> dict[str, Any]:
    """The parameters with the tick's time, on the clock that `tick` shows, in all of their texts.

    `{tick}` is the time in ISO 8601 with its offset; `{tick:...}` is made by strftime. Keys stay as they are.
    """
    return {name: _fill(value, tick) for name, value in parameters.items()}


def check_placeholders(parameters: Mapping[str, Any]) -> None:
    """Raises ValueError for a placeholder that could not be filled in, with the parameter's name."""
    for name, text in _texts_of(parameters):
        for found in _PLACE.finditer(text):
            _check_format(name, found[1])
        if _BEGINNING.search(text):
            _refuse(name, "'{tick}' or '{tick:%Y-%m-%d}'", shown(text, 100), "close the bracket")


def find_dependent(parameters: Mapping[str, Any]) -> frozenset[str]:
    """Names of the parameters that the tick's time is in."""
    return frozenset(name for name, text in _texts_of(parameters) if _PLACE.search(text))


def _check_format(name: str, wanted: str | None) -> None:
    if wanted is None:
        return
    used = re.findall(r"%(.?)", wanted, re.DOTALL)
    unknown = [f"%{each}" for each in used if each not in _DIRECTIVES or not each]
    if unknown or not used:
        found = ", ".join(unknown) or shown(wanted, 50)
        _refuse(name, f"a format of {_KNOWN}", found, "for example '{tick:%Y-%m-%d}'")


def _refuse(name: str, expected: str, found: str, hint: str) -> None:
    error = expectation(expected, found, hint)
    if error.context is not None:
        error.context["field"] = f"parameters.{name}"
    raise error


def _fill(value: Any, tick: datetime) -> Any:
    if isinstance(value, str):
        return _PLACE.sub(lambda found: tick.isoformat() if found[1] is None else tick.strftime(found[1]), value)
    if isinstance(value, Mapping):
        return {name: _fill(inner, tick) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_fill(inner, tick) for inner in value]
    return value


def _texts_of(parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each text with the name of the parameter that it is in."""
    for name, value in parameters.items():
        for text in _strings(value):
            yield name, text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
