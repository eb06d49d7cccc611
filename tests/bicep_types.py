"""Holds Bicep files against the published types of Azure's resources, which are those that the compiler checks with.

    python -m tests.bicep_types FOLDER infra

FOLDER is a clone of the repository Azure/bicep-types-az. It is large, so `tests/data/azure_types.json` has what is
looked at of it, for the test. After a change that needs more, the command with a clone writes that file anew.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bicep import Expression, Resource, read_template

_REQUIRED, _READ_ONLY = 1, 2
# Names that every resource may have, and that Bicep itself reads.
_OWN_KEYS = {"scope", "parent", "dependsOn"}


KEPT = Path(__file__).with_name("data") / "azure_types.json"


class Types(dict[str, dict[str, Any]]):
    """The types of one file by their number; knows which were looked at."""

    def __init__(self, types: Mapping[str, dict[str, Any]]) -> None:
        super().__init__(types)
        self.looked_at: set[str] = set()

    def target(self, reference: dict[str, str]) -> dict[str, Any]:
        number = reference["$ref"].removeprefix("#/")
        self.looked_at.add(number)
        found = self.get(number, {"$type": "NotKept"})
        # A choice is whole or of no use, whether a file already makes it or only a deployment.
        self.looked_at.update(element["$ref"].removeprefix("#/") for element in _elements(found))
        return found


def _elements(type_: dict[str, Any]) -> list[dict[str, str]]:
    return type_["elements"] if type_["$type"] == "UnionType" else []


@dataclass(frozen=True)
class Published:
    """The type of one resource: that of its body, among the others of its file."""

    body: dict[str, str]
    types: Types


def find_in_clone(resource: Resource, folder: Path) -> Published | None:
    wanted = _name_of(resource)
    provider = resource.type.split("/")[0].lower()
    for file in sorted(folder.glob(f"generated/*/{provider}/{resource.version}/types.json")):
        types = json.loads(file.read_text())
        found = next((each for each in types if each.get("name", "").lower() == wanted and "body" in each), None)
        if found is not None:
            return Published(found["body"], Types({str(number): each for number, each in enumerate(types)}))
    return None


def find_kept(resource: Resource, kept: Mapping[str, Any]) -> Published | None:
    found = kept["resources"].get(_name_of(resource))
    return None if found is None else Published(found["body"], Types(found["types"]))


def check_resource(resource: Resource, published: Published | None) -> list[str]:
    """What is wrong with it, a line each."""
    if published is None:
        return [f"{_name_of(resource)}: expected a published type, found none; see tests/bicep_types.py"]
    body = {name: value for name, value in resource.body.items() if name not in _OWN_KEYS}
    types = published.types
    return list(_problems(body, types.target(published.body), types, resource.type))


def made_in(infra: Path) -> list[Resource]:
    """What the files make, without what they only refer to."""
    resources = [each for file in sorted(infra.glob("*.bicep")) for each in read_template(file).resources]
    return [each for each in resources if not each.is_existing]


def _name_of(resource: Resource) -> str:
    return f"{resource.type}@{resource.version}".lower()


def _problems(value: Any, wanted: dict[str, Any], types: Types, where: str) -> Iterator[str]:
    if isinstance(value, Expression):
        for choice in value.choices:
            yield from _problems(choice, wanted, types, where)
    elif value is not None:
        check = _CHECKS.get(wanted["$type"])
        if check is not None:
            yield from check(value, wanted, types, where)


def _object(value: Any, wanted: dict[str, Any], types: Types, where: str) -> Iterator[str]:
    properties = dict(wanted.get("properties") or wanted.get("baseProperties") or {})
    if wanted["$type"] == "DiscriminatedObjectType":
        chosen = value.get(wanted["discriminator"])
        if chosen not in wanted["elements"]:
            yield f"{where}: expected {wanted['discriminator']} of {sorted(wanted['elements'])}, found {chosen!r}"
            return
        properties |= types.target(wanted["elements"][chosen])["properties"]
    if not isinstance(value, dict):
        yield f"{where}: expected an object, found {value!r}"
        return
    for name, inner in value.items():
        if name in properties:
            if properties[name]["flags"] & _READ_ONLY:
                yield f"{where}.{name}: expected nothing, since it is read-only"
            yield from _problems(inner, types.target(properties[name]["type"]), types, f"{where}.{name}")
        elif "additionalProperties" in wanted:
            yield from _problems(inner, types.target(wanted["additionalProperties"]), types, f"{where}.{name}")
        else:
            yield f"{where}.{name}: expected one of {sorted(properties)}, found it"
    required = {name for name, property_ in properties.items() if property_["flags"] & _REQUIRED}
    for name in sorted(required - set(value)):
        yield f"{where}.{name}: expected it, since it is required, found nothing"


def _array(value: Any, wanted: dict[str, Any], types: Types, where: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{where}: expected an array, found {value!r}"
        return
    for item in value:
        yield from _problems(item, types.target(wanted["itemType"]), types, f"{where}[]")


def _union(value: Any, wanted: dict[str, Any], types: Types, where: str) -> Iterator[str]:
    elements = [types.target(element) for element in wanted["elements"]]
    if not any(not list(_problems(value, element, types, where)) for element in elements):
        yield f"{where}: expected one of {[element.get('value') for element in elements]}, found {value!r}"


def _text(value: Any, wanted: dict[str, Any], types: Types, where: str) -> Iterator[str]:
    del types
    length = len(value) if isinstance(value, str) else -1
    if length < wanted.get("minLength", 0) or length > wanted.get("maxLength", 10_000):
        yield f"{where}: expected a text ({wanted}), found {value!r}"


def _literal(value: Any, wanted: dict[str, Any], types: Types, where: str) -> Iterator[str]:
    del types
    if value != wanted["value"]:
        yield f"{where}: expected {wanted['value']!r}, found {value!r}"


def _number(value: Any, wanted: dict[str, Any], types: Types, where: str) -> Iterator[str]:
    del types
    if type(value) is not int or not wanted.get("minValue", value) <= value <= wanted.get("maxValue", value):
        yield f"{where}: expected a whole number ({wanted}), found {value!r}"


def _boolean(value: Any, wanted: dict[str, Any], types: Types, where: str) -> Iterator[str]:
    del wanted, types
    if not isinstance(value, bool):
        yield f"{where}: expected true or false, found {value!r}"


def _not_kept(value: Any, wanted: dict[str, Any], types: Types, where: str) -> Iterator[str]:
    del value, wanted, types
    yield f"{where}: expected a type that {KEPT.name} has, found none; see tests/bicep_types.py"


_CHECKS = {
    "ObjectType": _object,
    "DiscriminatedObjectType": _object,
    "ArrayType": _array,
    "UnionType": _union,
    "StringType": _text,
    "StringLiteralType": _literal,
    "IntegerType": _number,
    "BooleanType": _boolean,
    "NotKept": _not_kept,
}


def keep(found: Mapping[str, Published]) -> None:
    """Write down what was looked at, without descriptions; a line per resource."""
    lines = []
    for name, each in sorted(found.items()):
        types = {number: _bare(each.types[number]) for number in sorted(each.types.looked_at)}
        lines.append(f"{json.dumps(name)}: {json.dumps({'body': each.body, 'types': types}, separators=(',', ':'))}")
    origin = "https://github.com/Azure/bicep-types-az, MIT License, Copyright (c) Microsoft Corporation"
    resources = ",\n".join(lines)
    KEPT.write_text(f'{{"origin": {json.dumps(origin)}, "resources": {{\n{resources}\n}}}}\n')


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bare(inner) for name, inner in value.items() if name != "description" or isinstance(inner, dict)}
    return [_bare(inner) for inner in value] if isinstance(value, list) else value


def main(clone: Path, infra: Path) -> int:
    made, found, problems = made_in(infra), dict[str, Published](), list[str]()
    for resource in made:
        published = found.get(_name_of(resource)) or find_in_clone(resource, clone)
        problems += check_resource(resource, published)
        if published is not None:
            found[_name_of(resource)] = published
    if not problems:
        keep(found)
    sys.stdout.write(
        "".join(f"{problem}\n" for problem in [*problems, f"{len(made)} resources, {len(problems)} problems"])
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
