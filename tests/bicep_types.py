"""Holds Bicep files against the published types of Azure's resources, which are those that the compiler checks with.

    python -m tests.bicep_types FOLDER infra

FOLDER is a clone of the repository Azure/bicep-types-az. It is large, so it is not part of this project.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bicep import Expression, Resource, read_template

_REQUIRED, _READ_ONLY = 1, 2
# Names that every resource may have, and that Bicep itself reads.
_OWN_KEYS = {"scope", "parent", "dependsOn"}


def check_resource(resource: Resource, folder: Path) -> list[str]:
    """What is wrong with it, a line each."""
    wanted = f"{resource.type}@{resource.version}".lower()
    provider = resource.type.split("/")[0].lower()
    for file in sorted(folder.glob(f"generated/*/{provider}/{resource.version}/types.json")):
        types = json.loads(file.read_text())
        found = next((each for each in types if each.get("name", "").lower() == wanted and "body" in each), None)
        if found is not None:
            body = {name: value for name, value in resource.body.items() if name not in _OWN_KEYS}
            return list(_problems(body, _target(types, found["body"]), types, resource.type))
    return [f"{wanted}: expected a published type, found none"]


def _target(types: list[Any], reference: dict[str, str]) -> dict[str, Any]:
    target: dict[str, Any] = types[int(reference["$ref"].removeprefix("#/"))]
    return target


def _problems(value: Any, wanted: dict[str, Any], types: list[Any], where: str) -> Iterator[str]:
    if isinstance(value, Expression):
        for choice in value.choices:
            yield from _problems(choice, wanted, types, where)
    elif value is not None:
        check = _CHECKS.get(wanted["$type"])
        if check is not None:
            yield from check(value, wanted, types, where)


def _object(value: Any, wanted: dict[str, Any], types: list[Any], where: str) -> Iterator[str]:
    properties = dict(wanted.get("properties") or wanted.get("baseProperties") or {})
    if wanted["$type"] == "DiscriminatedObjectType":
        chosen = value.get(wanted["discriminator"])
        if chosen not in wanted["elements"]:
            yield f"{where}: expected {wanted['discriminator']} of {sorted(wanted['elements'])}, found {chosen!r}"
            return
        properties |= _target(types, wanted["elements"][chosen])["properties"]
    if not isinstance(value, dict):
        yield f"{where}: expected an object, found {value!r}"
        return
    for name, inner in value.items():
        if name in properties:
            if properties[name]["flags"] & _READ_ONLY:
                yield f"{where}.{name}: expected nothing, since it is read-only"
            yield from _problems(inner, _target(types, properties[name]["type"]), types, f"{where}.{name}")
        elif "additionalProperties" in wanted:
            yield from _problems(inner, _target(types, wanted["additionalProperties"]), types, f"{where}.{name}")
        else:
            yield f"{where}.{name}: expected one of {sorted(properties)}, found it"
    required = {name for name, property_ in properties.items() if property_["flags"] & _REQUIRED}
    for name in sorted(required - set(value)):
        yield f"{where}.{name}: expected it, since it is required, found nothing"


def _array(value: Any, wanted: dict[str, Any], types: list[Any], where: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{where}: expected an array, found {value!r}"
        return
    for item in value:
        yield from _problems(item, _target(types, wanted["itemType"]), types, f"{where}[]")


def _union(value: Any, wanted: dict[str, Any], types: list[Any], where: str) -> Iterator[str]:
    elements = [_target(types, element) for element in wanted["elements"]]
    if not any(not list(_problems(value, element, types, where)) for element in elements):
        yield f"{where}: expected one of {[element.get('value') for element in elements]}, found {value!r}"


def _text(value: Any, wanted: dict[str, Any], types: list[Any], where: str) -> Iterator[str]:
    del types
    length = len(value) if isinstance(value, str) else -1
    if length < wanted.get("minLength", 0) or length > wanted.get("maxLength", 10_000):
        yield f"{where}: expected a text ({wanted}), found {value!r}"


def _literal(value: Any, wanted: dict[str, Any], types: list[Any], where: str) -> Iterator[str]:
    del types
    if value != wanted["value"]:
        yield f"{where}: expected {wanted['value']!r}, found {value!r}"


def _number(value: Any, wanted: dict[str, Any], types: list[Any], where: str) -> Iterator[str]:
    del types
    if type(value) is not int or not wanted.get("minValue", value) <= value <= wanted.get("maxValue", value):
        yield f"{where}: expected a whole number ({wanted}), found {value!r}"


def _boolean(value: Any, wanted: dict[str, Any], types: list[Any], where: str) -> Iterator[str]:
    del wanted, types
    if not isinstance(value, bool):
        yield f"{where}: expected true or false, found {value!r}"


_CHECKS = {
    "ObjectType": _object,
    "DiscriminatedObjectType": _object,
    "ArrayType": _array,
    "UnionType": _union,
    "StringType": _text,
    "StringLiteralType": _literal,
    "IntegerType": _number,
    "BooleanType": _boolean,
}


def main(types: Path, infra: Path) -> int:
    resources = [each for file in sorted(infra.glob("*.bicep")) for each in read_template(file).resources]
    made = [each for each in resources if not each.is_existing]
    problems = [problem for each in made for problem in check_resource(each, types)]
    sys.stdout.write(
        "".join(f"{problem}\n" for problem in [*problems, f"{len(made)} resources, {len(problems)} problems"])
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
