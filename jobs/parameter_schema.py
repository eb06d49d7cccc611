"""Rules for a `parameters_schema` itself, and its translation to JSON Schema."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from core.basics.canonical import describe
from jobs.model_parameters import is_model
from jobs.model_schema import model_json_schema, model_problems
from jobs.names import text_problems
from jobs.parameters import TYPE_NAMES, Entry, Schema, check_value, nearest_name_hint

COMMON_KEYS = ("type", "required", "default", "allowed", "nullable", "description", "example")
KEYS_OF_TYPE: dict[str, tuple[str, ...]] = {
    "int": ("min", "max"),
    "float": ("min", "max"),
    "str": ("min", "max", "pattern", "format"),
    "bool": (),
    "list": ("min", "max", "items"),
    "dict": ("properties",),
}
_ALL_KEYS = (*COMMON_KEYS, "min", "max", "pattern", "format", "items", "properties")
# What a text is beside being a text: a place of this machine or a URL, which `coremachine submit` makes absolute.
FORMATS = ("path",)
_JSON_TYPES = {
    "int": "integer",
    "float": "number",
    "str": "string",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
}
_JSON_BOUNDS = {
    "int": ("minimum", "maximum"),
    "float": ("minimum", "maximum"),
    "str": ("minLength", "maxLength"),
    "list": ("minItems", "maxItems"),
}


def check_schema(schema: Any, where: str) -> list[str]:
    """Problems of a schema, a sentence each; none means that `validate_parameters` can use it.

    Args:
        schema: What a job class declares.
        where: The beginning of each problem, for example `HelloWorldJob.parameters_schema`.
    """
    if is_model(schema):
        return model_problems(schema, where)
    if not isinstance(schema, Mapping):
        return [f"{where}: expected a dict of entries by parameter name or a pydantic model, found {describe(schema)}"]
    problems: list[str] = []
    for name, entry in schema.items():
        if isinstance(name, str) and name and not text_problems(where, name):
            problems += _check_entry(entry, f"{where}.{name}")
        else:
            expected = "parameter names that are non-empty str without NUL and lone surrogates"
            problems.append(f"{where}: expected {expected}, found {describe(name)}")
    return problems


def to_json_schema(schema: Schema | type[BaseModel]) -> dict[str, Any]:
    """The schema as JSON Schema 2020-12, for OpenAPI."""
    described = model_json_schema(schema) if isinstance(schema, type) else _object_schema(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}


def _check_entry(entry: Any, where: str) -> list[str]:
    if not isinstance(entry, Mapping):
        return [f"{where}: expected a dict with the key 'type', found {describe(entry)}"]
    kind = entry.get("type")
    if kind not in TYPE_NAMES:
        # Which of the keys have a meaning, only the type decides.
        unknown = [_unknown_key(key, where, _ALL_KEYS) for key in entry if key not in _ALL_KEYS]
        return [f"{where}.type: expected one of {', '.join(TYPE_NAMES)}, found {describe(kind)}", *unknown]
    problems = [*_key_problems(entry, kind, where), *_flag_problems(entry, where), *_bound_problems(entry, where)]
    if "pattern" in entry:
        problems += _pattern_problems(entry["pattern"], where)
    if "format" in entry and entry["format"] not in FORMATS:
        problems.append(f"{where}.format: expected one of {', '.join(FORMATS)}, found {describe(entry['format'])}")
    if "items" in entry:
        problems += _check_entry(entry["items"], f"{where}.items")
    if "properties" in entry:
        problems += check_schema(entry["properties"], f"{where}.properties")
    # Values are judged by the entry, so only by one that is sound.
    return problems or list(_value_problems(entry, where))


def _key_problems(entry: Entry, kind: str, where: str) -> Iterator[str]:
    usable = (*COMMON_KEYS, *KEYS_OF_TYPE[kind])
    for key in entry:
        if key not in _ALL_KEYS:
            yield _unknown_key(key, where, usable)
        elif key not in usable:
            yield f"{where}: the key {key!r} has no meaning for type {kind}; leave it out"


def _unknown_key(key: object, where: str, usable: tuple[str, ...]) -> str:
    return f"{where}: unknown key {key!r}; {nearest_name_hint(str(key), usable)}"


def _flag_problems(entry: Entry, where: str) -> Iterator[str]:
    for key in ("required", "nullable"):
        if not isinstance(entry.get(key, False), bool):
            yield f"{where}.{key}: expected True or False, found {describe(entry[key])}"
    yield from text_problems(f"{where}.description", entry.get("description", ""))
    if entry.get("required") is True and "default" in entry:
        yield f"{where}: a required parameter never uses its default; leave out 'required' or 'default'"


def _bound_problems(entry: Entry, where: str) -> list[str]:
    sized = entry["type"] in {"str", "list"}
    problems = []
    for key in ("min", "max"):
        bound = entry.get(key, 0)
        # The comparison is false for NaN as well.
        good = isinstance(bound, int | float) and not isinstance(bound, bool) and abs(bound) < float("inf")
        if not good or (sized and (not isinstance(bound, int) or bound < 0)):
            expected = "a length (an int from 0)" if sized else "a finite number"
            problems.append(f"{where}.{key}: expected {expected}, found {describe(bound)}")
    if not problems and "min" in entry and "max" in entry and entry["min"] > entry["max"]:
        problems.append(f"{where}: expected min <= max, found min {entry['min']} and max {entry['max']}")
    return problems


def _pattern_problems(pattern: Any, where: str) -> list[str]:
    if text_problems(where, pattern):
        return [f"{where}.pattern: expected a regular expression, found {describe(pattern)}"]
    try:
        re.compile(pattern)
    except re.error as error:
        return [f"{where}.pattern: expected a regular expression, found {pattern!r} ({error})"]
    return []


def _value_problems(entry: Entry, where: str) -> Iterator[str]:
    allowed = entry.get("allowed", [None])
    if not isinstance(allowed, list | tuple) or not allowed:
        yield f"{where}.allowed: expected a list of at least one value, found {describe(allowed)}"
        return
    without_allowed = {key: value for key, value in entry.items() if key != "allowed"}
    for index, value in enumerate(entry.get("allowed", ())):
        yield from _problems_of(without_allowed, value, f"{where}.allowed[{index}]")
    for key in ("default", "example"):
        if key in entry:
            yield from _problems_of(entry, entry[key], f"{where}.{key}")


def _problems_of(entry: Entry, value: Any, where: str) -> list[str]:
    return [error.message for error in check_value(entry, value, where)[1]]


def _object_schema(schema: Schema) -> dict[str, Any]:
    result: dict[str, Any] = {
        "type": "object",
        "properties": {name: _entry_schema(entry) for name, entry in schema.items()},
        "additionalProperties": False,
    }
    required = [name for name, entry in schema.items() if entry.get("required")]
    return {**result, "required": required} if required else result


def _entry_schema(entry: Entry) -> dict[str, Any]:
    kind = entry["type"]
    nullable = bool(entry.get("nullable"))
    result = _object_schema(entry["properties"]) if "properties" in entry else {}
    result["type"] = [_JSON_TYPES[kind], "null"] if nullable else _JSON_TYPES[kind]
    for key, word in zip(("min", "max"), _JSON_BOUNDS.get(kind, ()), strict=False):
        if key in entry:
            result[word] = entry[key]
    if "pattern" in entry:
        # JSON Schema searches; the parameter must match as a whole.
        result["pattern"] = f"^(?:{entry['pattern']})$"
    if "items" in entry:
        result["items"] = _entry_schema(entry["items"])
    if "allowed" in entry:
        missing_null = nullable and None not in entry["allowed"]
        result["enum"] = [*entry["allowed"], *([None] if missing_null else [])]
    result.update({key: entry[key] for key in ("format", "description", "default") if key in entry})
    return {**result, "examples": [entry["example"]]} if "example" in entry else result
