"""JSON Schema in words: types, bounds and defaults of fields."""

import json
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

# Words for a lower and an upper bound, and their unit.
_LOWER = {"minimum": "from {}", "exclusiveMinimum": "above {}", "minLength": "from {}", "minItems": "from {}"}
_UPPER = {"maximum": "to {}", "exclusiveMaximum": "below {}", "maxLength": "to {}", "maxItems": "to {}"}
_UNITS = {"minLength": " characters", "maxLength": " characters", "minItems": " items", "maxItems": " items"}


def type_of(schema: Schema) -> str:
    """The type, without null: `integer`, `list of Finding`."""
    if "$ref" in schema:
        return name_of(schema["$ref"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    choices = [choice for choice in schema.get("anyOf", schema.get("allOf", [])) if choice.get("type") != "null"]
    if choices:
        return " or ".join(type_of(choice) for choice in choices)
    if schema.get("type") == "array":
        return f"list of {type_of(schema['items'])}" if schema.get("items") else "list"
    kind = str(schema.get("type", "any value"))
    return f"{kind}, {schema['format']}" if "format" in schema else kind


def may_be_null(schema: Schema) -> bool:
    return any(choice.get("type") == "null" for choice in schema.get("anyOf", []))


def bounds_of(schema: Schema) -> str:
    """Limits of the value: `from 1 to 100`."""
    found = dict(schema)
    for choice in schema.get("anyOf", []):
        found |= choice if choice.get("type") != "null" else {}
    keys = [key for key in (*_LOWER, *_UPPER) if key in found]
    words = [{**_LOWER, **_UPPER}[key].format(found[key]) for key in keys]
    return " ".join(words) + (_UNITS.get(keys[-1], "") if keys else "")


def default_of(schema: Schema) -> str:
    if "default" not in schema:
        return ""
    return f"`{json.dumps(schema['default'])}`"


def name_of(reference: str) -> str:
    return reference.rpartition("/")[2]
