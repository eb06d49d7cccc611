"""HTTP route templates with the inline constraints of ASP.NET Core.

A request matches the first route, in the order of the functions' names, whose template fits its path and whose methods
contain its method: a wrong method is a missed route (404), not a 405.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Generic, TypeVar
from urllib.parse import unquote

from coremachine.local.host.errors import RouteTemplateError

T = TypeVar("T")
Check = Callable[[str], bool]

_PARAMETER = re.compile(r"(?P<catch_all>\*{0,2})(?P<name>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class Segment:
    """One part of a template between slashes: a literal, or a parameter with what its value must satisfy."""

    literal: str = ""
    name: str = ""
    checks: tuple[Check, ...] = ()
    catch_all: bool = False
    optional: bool = False
    default: str | None = None

    @property
    def may_be_absent(self) -> bool:
        return self.catch_all or self.optional or self.default is not None

    def accepts(self, value: str) -> bool:
        if not self.name:
            return value.lower() == self.literal.lower()
        return all(check(value) for check in self.checks)


@dataclass(frozen=True)
class RouteTemplate:
    """A parsed template, such as `jobs/{job_id:guid}/{*rest}`."""

    text: str
    segments: tuple[Segment, ...]

    @classmethod
    def parse(cls, text: str) -> RouteTemplate:
        """Parse a template; a leading slash means nothing.

        Raises:
            RouteTemplateError: braces do not match, a constraint is unknown, or a catch-all is not last.
        """
        segments = tuple(_segment(text, part) for part in _split(text.strip("/")))
        for segment in segments[:-1]:
            if segment.catch_all:
                raise RouteTemplateError(text, f"the catch-all parameter {segment.name!r} must be the last part")
        names = [segment.name.lower() for segment in segments if segment.name]
        if len(names) != len(set(names)):
            raise RouteTemplateError(text, "a parameter name is used twice")
        return cls(text=text, segments=segments)

    def match(self, path: str) -> dict[str, str] | None:
        """The route values of a still percent-encoded path, or None; absent optional values are left out."""
        parts = [unquote(part) for part in path.strip("/").split("/")] if path.strip("/") else []
        values: dict[str, str] = {}
        for index, segment in enumerate(self.segments):
            if segment.catch_all:
                found = "/".join(parts[index:])
                parts = parts[:index]
            elif index < len(parts):
                found = parts[index]
            else:
                found = ""
            if not found and segment.may_be_absent:
                if segment.default is not None:
                    values[segment.name] = segment.default
                continue
            if not found or not segment.accepts(found):
                return None
            if segment.name:
                values[segment.name] = found
        return values if len(parts) <= len(self.segments) else None


@dataclass(frozen=True)
class Route(Generic[T]):
    """A template, the methods it answers (empty: all) and its function."""

    template: RouteTemplate
    methods: frozenset[str]
    target: T


class RouteTable(Generic[T]):
    """Routes in the order in which they are tried."""

    def __init__(self, routes: Iterable[Route[T]]) -> None:
        self._routes: Sequence[Route[T]] = tuple(routes)

    def find(self, method: str, path: str) -> tuple[T, Mapping[str, str]] | None:
        """The target and the route values for a request, or None where the answer is 404."""
        for route in self._routes:
            if route.methods and method.upper() not in route.methods:
                continue
            values = route.template.match(path)
            if values is not None:
                return route.target, values
        return None


def _split(text: str) -> list[str]:
    """Cut at slashes outside braces: a regex constraint may contain one."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "/" and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]] if text else []


def _segment(text: str, part: str) -> Segment:
    if "{" not in part and "}" not in part:
        if not part:
            raise RouteTemplateError(text, "a part between two slashes is empty")
        return Segment(literal=part)
    declared, constraints, default, optional = _take_apart(part[1:-1])
    match = _PARAMETER.fullmatch(declared)
    if match is None or not (part.startswith("{") and part.endswith("}")):
        raise RouteTemplateError(
            text, f"{part!r} must be a literal, or one parameter such as {{id}}, {{id:int}} or {{id?}}"
        )
    return Segment(
        name=match["name"],
        checks=tuple(_check(text, word) for word in constraints),
        catch_all=bool(match["catch_all"]),
        optional=optional,
        default=default,
    )


def _take_apart(inner: str) -> tuple[str, list[str], str | None, bool]:
    """Cut `id:int:range(1,5)=3` or `id:int?`: name, constraints, default, whether it is optional.

    Colons, equal and question marks inside parentheses belong to a constraint's argument.
    """
    words, depth, default = [""], 0, None
    for index, character in enumerate(inner):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == ":" and depth == 0:
            words.append("")
        elif character == "=" and depth == 0:
            default = inner[index + 1 :]
            break
        else:
            words[-1] += character
    optional = default is None and words[-1].endswith("?")
    if optional:
        words[-1] = words[-1].removesuffix("?")
    return words[0], words[1:], default, optional


def _check(text: str, word: str) -> Check:
    name, _, rest = word.partition("(")
    argument = rest.removesuffix(")")
    simple = _SIMPLE.get(name.lower())
    if simple is not None and not rest:
        return simple
    try:
        if name.lower() == "regex":
            pattern = re.compile(argument.replace("{{", "{").replace("}}", "}"), re.IGNORECASE)
            return lambda value: pattern.search(value) is not None
        numbers = [int(number) for number in argument.split(",")]
        return _numeric_check(name.lower(), numbers)
    except (ValueError, KeyError, re.error) as exc:
        raise RouteTemplateError(text, f"the constraint {word!r} is unknown or malformed") from exc


def _numeric_check(name: str, numbers: list[int]) -> Check:
    low, high = numbers[0], numbers[-1]
    checks: dict[str, Check] = {
        "length": lambda value: low <= len(value) <= high,
        "minlength": lambda value: len(value) >= low,
        "maxlength": lambda value: len(value) <= low,
        "min": lambda value: _is_integer(value, 64) and int(value) >= low,
        "max": lambda value: _is_integer(value, 64) and int(value) <= low,
        "range": lambda value: _is_integer(value, 64) and low <= int(value) <= high,
    }
    return checks[name]


def _is_integer(value: str, bits: int) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+", value) is not None and -(2 ** (bits - 1)) <= int(value) < 2 ** (bits - 1)


def _parses(parse: Callable[[str], object]) -> Check:
    def check(value: str) -> bool:
        try:
            parse(value)
        except (ValueError, InvalidOperation):
            return False
        return True

    return check


_SIMPLE: dict[str, Check] = {
    "int": lambda value: _is_integer(value, 32),
    "long": lambda value: _is_integer(value, 64),
    "bool": lambda value: value.lower() in {"true", "false"},
    "guid": _parses(uuid.UUID),
    "datetime": _parses(datetime.fromisoformat),
    "decimal": _parses(Decimal),
    "double": _parses(float),
    "float": _parses(float),
    "alpha": lambda value: re.fullmatch(r"[A-Za-z]*", value) is not None,
    "required": bool,
}
