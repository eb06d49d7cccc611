"""Holds Bicep files against the published types of Azure's resources, which are those that the compiler checks with.

    python -m tests.bicep_types FOLDER infra

FOLDER is a clone of the repository Azure/bicep-types-az. It is large, so `tests/data/azure_types.json` has the facts
that the files need, for the test. After a change that needs more, the command with a clone writes that table anew.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests import facts
from tests.bicep import Expression, Resource, read_template
from tests.facts import Fact, Source, Table

KEPT = Path(__file__).with_name("data") / "azure_types.json"
_REQUIRED, _READ_ONLY = 1, 2
# Names that every resource may have, and that Bicep itself reads.
_OWN_KEYS = {"scope", "parent", "dependsOn"}
_ABSENT = Expression("null")
_WORDS = {
    "AnyType": "any",
    "ArrayType": "array",
    "BooleanType": "boolean",
    "DiscriminatedObjectType": "object",
    "IntegerType": "integer",
    "ObjectType": "object",
    "StringLiteralType": "text",
    "StringType": "text",
}
_LIMITS = {"minLength": "least", "minValue": "least", "maxLength": "most", "maxValue": "most", "pattern": "pattern"}


def check_resource(resource: Resource, tables: Mapping[str, Table]) -> list[str]:
    """What is wrong with it, a line each."""
    table = tables.get(_name_of(resource))
    if table is None:
        return [f"{_name_of(resource)}: expected a published type, found none; see tests/bicep_types.py"]
    return table.problems_of(_body_of(resource), resource.type)


def made_in(infra: Path) -> list[Resource]:
    """What the files make, without what they only refer to."""
    resources = [each for file in sorted(infra.glob("*.bicep")) for each in read_template(file).resources]
    return [each for each in resources if not each.is_existing]


def _name_of(resource: Resource) -> str:
    return f"{resource.type}@{resource.version}".lower()


def _body_of(resource: Resource) -> dict[str, Any]:
    return {name: _present(value) for name, value in resource.body.items() if name not in _OWN_KEYS}


def _present(value: Any) -> Any:
    """A value with each `null` as one that only a deployment knows, since it may stand in any place."""
    if isinstance(value, dict):
        return {name: _present(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_present(inner) for inner in value]
    if isinstance(value, Expression):
        return replace(value, choices=tuple(_present(choice) for choice in value.choices))
    return _ABSENT if value is None else value


@dataclass(frozen=True)
class _Types:
    """The types of one file, which refer to each other by their number."""

    types: list[dict[str, Any]]

    def source(self, reference: dict[str, str], flags: int = 0) -> Source:
        type_ = self.types[int(reference["$ref"].removeprefix("#/"))]
        return Source(
            replace(self._fact(type_), is_required=bool(flags & _REQUIRED), is_read_only=bool(flags & _READ_ONLY)),
            lambda: self._inner(type_),
        )

    def _fact(self, type_: dict[str, Any]) -> Fact:
        if type_["$type"] == "UnionType":
            elements = [self.source(element).fact for element in type_["elements"]]
            if any(each.type != "text" for each in elements):
                raise ValueError(f"elements of a union: expected texts, found {elements}")
            # A text that is none of the choices fits too, if any text is one of them.
            is_open = any(not each.allowed for each in elements)
            return Fact("text", allowed=() if is_open else tuple(each.allowed[0] for each in elements))
        allowed = (type_["value"],) if "value" in type_ else ()
        limits = {ours: type_[theirs] for theirs, ours in _LIMITS.items() if theirs in type_}
        return Fact(_WORDS[type_["$type"]], allowed=allowed, by=type_.get("discriminator", ""), **limits)

    def _inner(self, type_: dict[str, Any]) -> dict[str, Source]:
        properties = type_.get("properties") or type_.get("baseProperties") or {}
        inner = {name: self.source(each["type"], each["flags"]) for name, each in properties.items()}
        if type_["$type"] == "DiscriminatedObjectType":
            inner |= {f"<{name}>": self.source(each) for name, each in type_["elements"].items()}
        if "additionalProperties" in type_:
            inner["*"] = self.source(type_["additionalProperties"])
        return inner | ({"[]": self.source(type_["itemType"])} if "itemType" in type_ else {})


def _find(name: str, clone: Path) -> Source | None:
    type_, _, version = name.partition("@")
    for file in sorted(clone.glob(f"generated/*/{type_.split('/')[0]}/{version}/types.json")):
        types = json.loads(file.read_text())
        for each in types:
            if each.get("name", "").lower() == name and "body" in each:
                return _Types(types).source(each["body"])
    return None


def _rows(made: Iterable[Resource], clone: Path) -> dict[str, dict[str, Any]]:
    bodies = defaultdict(list)
    for resource in made:
        bodies[_name_of(resource)].append(_body_of(resource))
    found = {name: _find(name, clone) for name in bodies}
    return {name: facts.rows_of(source, bodies[name]) for name, source in found.items() if source is not None}


def main(clone: Path, infra: Path) -> int:
    made = made_in(infra)
    rows = _rows(made, clone)
    tables = {name: Table(each, KEPT.name) for name, each in rows.items()}
    problems = [problem for resource in made for problem in check_resource(resource, tables)]
    if not problems:
        facts.write(KEPT, "github.com/Azure/bicep-types-az", rows)
    for line in [*problems, f"{len(made)} resources, {len(problems)} problems"]:
        sys.stdout.write(f"{line}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
