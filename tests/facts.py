"""Tables of facts about what others take: which properties an object has, and what each of them may be.

A table has a row per property, under its path: `sku/name`, `rules/[]` for the items of an array, `tags/*` for a
property of any name, `criteria/<kind>/field` for one that an object has only for one value of its discriminator. A
row is a few words, `text, required`, and after them its limits, if it has any.

A table has no more than what our own files open: what may have anything within it, and that none of them has, is
`not kept`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bicep import Expression

NOT_KEPT = "not kept"
_ITEM, _ANY_NAME = "[]", "*"
_OPENED = {"object", "array", "any"}
_TYPES = {dict: "object", list: "array", str: "text", int: "integer", bool: "boolean"}
_NAMES = {"object": "an object", "array": "an array", "text": "a text", "integer": "a whole number"}
_NAMES["boolean"] = "true or false"
_UNITS = {"text": " characters", "array": " items", "integer": ""}


@dataclass(frozen=True)
class Fact:
    """What one property may be.

    `type` is `any`, `not kept`, or words of `_TYPES` with ` or ` between them. `least` and `most` are of the number
    itself, of the characters of a text, or of the items of an array. `by` is the name of an object's discriminator.
    """

    type: str
    is_required: bool = False
    is_read_only: bool = False
    allowed: tuple[Any, ...] = ()
    pattern: str = ""
    least: int | None = None
    most: int | None = None
    by: str = ""

    def row(self) -> str | list[Any]:
        words = self.type + ", required" * self.is_required
        names = ("allowed", "pattern", "least", "most", "by")
        limits = {name: getattr(self, name) for name in names if getattr(self, name) not in ((), "", None)}
        if self.is_read_only:
            return "read-only"
        return [words, limits] if limits else words


def _fact(row: str | list[Any]) -> Fact:
    words, limits = (row, {}) if isinstance(row, str) else row
    type_, *others = words.split(", ")
    allowed = tuple(limits.get("allowed", ()))
    return Fact(type_, "required" in others, type_ == "read-only", **{**limits, "allowed": allowed})


@dataclass(frozen=True)
class Source:
    """A property as its publisher describes it; the properties within it are read when they are asked for."""

    fact: Fact
    inner: Callable[[], Mapping[str, "Source"]] = field(default=dict)


def rows_of(source: Source, values: Iterable[Any]) -> dict[str, str | list[Any]]:
    """The rows of what `values` have, and of what is beside it."""
    return {path: fact.row() for path, fact in _walk(source, "", list(_choices(values)))}


def _walk(source: Source, path: str, values: list[Any]) -> Iterator[tuple[str, Fact]]:
    yield path, source.fact
    for name, inner in source.inner().items():
        if "/" in name:
            raise ValueError(f"{path}: expected names without a slash, since paths have them, found {name!r}")
        found = list(_choices(_values_at(name, source, values)))
        below = f"{path}/{name}" if path else name
        if inner.fact.is_read_only or (inner.fact.type in _OPENED and not found):
            yield below, Fact(NOT_KEPT, inner.fact.is_required, inner.fact.is_read_only)
        else:
            yield from _walk(inner, below, found)


def _values_at(name: str, source: Source, values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list) and name == _ITEM:
            yield from value
        elif isinstance(value, dict) and name == f"<{value.get(source.fact.by)}>":
            yield value
        elif isinstance(value, dict) and name == _ANY_NAME:
            yield from (each for key, each in value.items() if key not in source.inner())
        elif isinstance(value, dict) and name in value:
            yield value[name]


def _choices(values: Iterable[Any]) -> Iterator[Any]:
    """The values, and what an expression may become."""
    for value in values:
        yield value
        if isinstance(value, Expression):
            yield from _choices(value.choices)


def write(file: Path, origin: str, tables: Mapping[str, Mapping[str, str | list[Any]]]) -> None:
    """A line per row."""
    parts = []
    for name, rows in sorted(tables.items()):
        lines = ",\n".join(f"  {json.dumps(path)}: {json.dumps(row)}" for path, row in rows.items())
        parts.append(f"{json.dumps(name)}: {{\n{lines}\n}}")
    tables_text = ",\n".join(parts)
    file.write_text(f'{{"facts from": {json.dumps(origin)}, "tables": {{\n{tables_text}\n}}}}\n')


def read(file: Path) -> dict[str, "Table"]:
    return {name: Table(rows, file.name) for name, rows in json.loads(file.read_text())["tables"].items()}


class Table:
    """The facts about one kind of object. `name` is what a complaint about a missing row calls the table."""

    def __init__(self, rows: Mapping[str, str | list[Any]], name: str) -> None:
        self._name = name
        self._facts = {path: _fact(row) for path, row in rows.items()}
        self._inner: dict[str, list[str]] = {path: [] for path in rows}
        for path in filter(None, rows):
            above, _, last = path.rpartition("/")
            self._inner[above].append(last)

    def problems_of(self, value: Any, where: str) -> list[str]:
        """What is wrong with an object, a line each; what only a deployment knows passes."""
        return list(self._problems(value, "", where))

    def _problems(self, value: Any, path: str, where: str) -> Iterator[str]:
        fact = self._facts[path]
        if isinstance(value, Expression):
            for choice in value.choices:
                yield from self._problems(choice, path, where)
        elif fact.is_read_only:
            yield f"{where}: expected nothing, since it is read-only"
        elif fact.type == NOT_KEPT:
            yield f"{where}: expected a type that {self._name} has, found none; see tests/facts.py"
        elif fact.type != "any":
            wrong = _wrong(value, fact)
            if wrong:
                yield f"{where}: expected {wrong}, found {value!r}"
            elif isinstance(value, dict):
                yield from self._object(value, path, where)
            elif isinstance(value, list):
                for item in value:
                    yield from self._problems(item, f"{path}/{_ITEM}", f"{where}[]")

    def _object(self, value: dict[str, Any], path: str, where: str) -> Iterator[str]:
        places, by = {name: _join(path, name) for name in self._inner[path]}, self._facts[path].by
        if by:
            variants = {name for name in places if name.startswith("<")}
            places = {name: place for name, place in places.items() if name not in variants}
            chosen = f"<{value.get(by)}>"
            if chosen not in variants:
                names = sorted(name.strip("<>") for name in variants)
                yield f"{where}: expected {by} of {names}, found {value.get(by)!r}"
                return
            variant = _join(path, chosen)
            if self._facts[variant].type == NOT_KEPT:
                yield from self._problems(value, variant, where)
                return
            places |= {name: _join(variant, name) for name in self._inner[variant]}
        yield from self._properties(value, places, where)

    def _properties(self, value: dict[str, Any], places: dict[str, str], where: str) -> Iterator[str]:
        others = places.pop(_ANY_NAME, None)
        for name, inner in value.items():
            place = places.get(name, others)
            if place is None:
                yield f"{where}.{name}: expected one of {sorted(places)}, found it"
            else:
                yield from self._problems(inner, place, f"{where}.{name}")
        for name in sorted(name for name, place in places.items() if self._facts[place].is_required):
            if name not in value:
                yield f"{where}.{name}: expected it, since it is required, found nothing"


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _wrong(value: Any, fact: Fact) -> str:
    """What is expected instead of the value; nothing if it is right."""
    types = fact.type.split(" or ")
    found = _TYPES.get(type(value))
    if fact.allowed:
        return "" if value in fact.allowed else f"one of {list(fact.allowed)}"
    if found not in types:
        return " or ".join(_NAMES[each] for each in types)
    size = value if found == "integer" else len(value) if found in _UNITS else None
    if size is not None and fact.least is not None and size < fact.least:
        return f"at least {fact.least}{_UNITS[found]}"
    if size is not None and fact.most is not None and size > fact.most:
        return f"at most {fact.most}{_UNITS[found]}"
    if found == "text" and re.search(fact.pattern, value) is None:
        return f"what fits {fact.pattern}"
    return ""
