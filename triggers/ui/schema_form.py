"""A form made from a job type's JSON Schema: its fields, and the values of what was filled in."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.basics.canonical import shown
from core.basics.strict_json import NotAnObject, parse_object
from jobs.parameters import ParameterError

# So that no parameter is taken for something else of the form.
PREFIX = "p."
_KINDS = {"integer": "integer", "number": "number", "boolean": "boolean", "string": "text"}
_LONG_TEXT = 500
# Their control shows all that can be chosen.
_SELF_EVIDENT = frozenset({"choice", "boolean"})
_TOP_NAME = re.compile(r"[^.\[]+")


@dataclass(frozen=True)
class Field:
    """One field. `kind`: integer, number, boolean, text, long, choice, choices, or json for all other values.

    Args:
        value: What is in it, as text; of a choice or a truth value, one of `options`.
        chosen: Of choices: those of `options` that are in it.
        bounds: What is expected, in words.
        options: All values that it takes; of a text, those to choose from beside others.
    """

    name: str
    kind: str
    value: str
    is_required: bool
    description: str
    bounds: str
    options: tuple[str, ...] = ()
    placeholder: str = ""
    error: str = ""
    chosen: tuple[str, ...] = ()


def make_fields(
    schema: Mapping[str, Any],
    given: Mapping[str, str],
    errors: Mapping[str, str] | None = None,
    suggestions: Mapping[str, Sequence[str]] | None = None,
) -> list[Field]:
    """The fields of a schema, required ones first.

    Args:
        given: Texts by parameter name, as they were sent or as an earlier job had them.
        suggestions: Values of a text to choose from, beside others, by parameter name.
    """
    required = set(schema.get("required", ()))
    properties: Mapping[str, Any] = schema.get("properties", {})
    fields = [
        _field(
            name,
            _resolved(entry, schema),
            given.get(name),
            (suggestions or {}).get(name, ()),
            is_required=name in required,
            error=(errors or {}).get(name, ""),
        )
        for name, entry in properties.items()
    ]
    return sorted(fields, key=lambda field: not field.is_required)


def _field(
    name: str, entry: Mapping[str, Any], given: str | None, suggested: Iterable[str], *, is_required: bool, error: str
) -> Field:
    kind = _kind(entry)
    # Nothing in a field is the same as an empty list in it, and leaves room for the example.
    default = as_text(entry["default"]) if entry.get("default") not in (None, [], {}) else ""
    examples = entry.get("examples") or [""]
    value = default if given is None else given
    chosen = _chosen(value) if kind == "choices" else ()
    return Field(
        name=name,
        kind=kind,
        value=value,
        chosen=chosen,
        is_required=is_required,
        description=str(entry.get("description", "")),
        bounds="" if kind in _SELF_EVIDENT else _bounds(entry, kind),
        options=_options(entry, kind, chosen if kind == "choices" else (value,)) or tuple(suggested),
        placeholder=as_text(examples[0]) if examples[0] not in (None, "") else "",
        error=error,
    )


def _options(entry: Mapping[str, Any], kind: str, present: Iterable[str]) -> tuple[str, ...]:
    """The values to choose from; none where any can be entered."""
    if kind == "boolean":
        return ("true", "false")
    if kind not in {"choice", "choices"}:
        return ()
    known = [as_text(value) for value in (entry if kind == "choice" else entry["items"])["enum"]]
    # A value that a newer release knows is shown: to leave it out would change it in silence.
    return (*known, *(each for each in present if each and each not in known))


def _chosen(text: str) -> tuple[str, ...]:
    """What a list has; a value of an earlier schema may be none."""
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return ()
    return tuple(str(each) for each in found) if isinstance(found, list) else ()


def _resolved(entry: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without references and without `null` beside one other kind, as pydantic writes them."""
    reference = entry.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        target = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
        entry = {**target, **{key: value for key, value in entry.items() if key != "$ref"}}
    kinds = [each for each in entry.get("anyOf", ()) if each.get("type") != "null"]
    if len(kinds) == 1:
        rest = {key: value for key, value in entry.items() if key != "anyOf"}
        return _resolved({**kinds[0], **rest}, schema)
    if "items" in entry and "$ref" in entry["items"]:
        entry = {**entry, "items": _resolved(entry["items"], schema)}
    return entry


def _kind(entry: Mapping[str, Any]) -> str:
    if entry.get("enum"):
        return "choice"
    types = entry.get("type")
    names = [each for each in (types if isinstance(types, list) else [types]) if each != "null"]
    kind = _KINDS.get(str(names[0])) if len(names) == 1 else None
    if kind == "text" and entry.get("maxLength", 0) > _LONG_TEXT and not entry.keys() & {"pattern", "format"}:
        return "long"
    options = entry.get("items", {}).get("enum") if names == ["array"] else None
    if options and all(isinstance(option, str) for option in options):
        return "choices"
    return kind or "json"


def _bounds(entry: Mapping[str, Any], kind: str) -> str:
    if entry.get("format") == "date-time":
        return "a time with its zone, such as 2026-12-01T06:00:00+01:00"
    words = {
        "integer": "whole number",
        "number": "number",
        "text": "text",
        "long": "text",
        "boolean": "true or false",
        "choice": "one of the list",
        "choices": "some of the list",
    }.get(kind, f"{entry.get('type') if isinstance(entry.get('type'), str) else 'value'} as JSON")
    least = next((entry[key] for key in ("minimum", "exclusiveMinimum", "minLength", "minItems") if key in entry), None)
    most = next((entry[key] for key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems") if key in entry), None)
    unit = " characters" if kind in {"text", "long"} else " items" if {"minItems", "maxItems"} & entry.keys() else ""
    if least is not None and most is not None:
        return f"{words}, {least:,} to {most:,}{unit}"
    if least is not None:
        return f"{words}, {least:,}{unit} or more"
    return f"{words}, at most {most:,}{unit}" if most is not None else words


def as_text(value: Any) -> str:
    """A value as its field shows it."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def read_texts(schema: Mapping[str, Any], form: Mapping[str, str]) -> dict[str, str]:
    """What each field of a form has, as `make_fields` takes it."""
    texts = {}
    for name, entry in schema.get("properties", {}).items():
        text = form.get(PREFIX + name)
        if text is None and _kind(_resolved(entry, schema)) == "choices":
            start = f"{PREFIX}{name}:"
            chosen = [field.removeprefix(start) for field in form if field.startswith(start)]
            # To choose none of them is a value only where it differs from leaving them out.
            if chosen or entry.get("default") or name in schema.get("required", ()):
                text = json.dumps(chosen)
        if text is not None:
            texts[name] = text
    return texts


def top_name(error: ParameterError) -> str:
    """The field that an error is about, without the place in its value."""
    found = _TOP_NAME.match(error.field)
    return found[0] if found is not None else ""


def words_of(error: ParameterError) -> str:
    """What is shown beside the field."""
    place = f"{error.field}: " if error.field != top_name(error) else ""
    hint = f"; {error.hint}" if error.hint else ""
    return f"{place}expected {error.expected}, found {error.found}{hint}"


def read_values(schema: Mapping[str, Any], form: Mapping[str, str]) -> tuple[dict[str, Any], list[ParameterError]]:
    """The parameters that a form has, and what could not be read; an empty field leaves its parameter out."""
    values: dict[str, Any] = {}
    errors: list[ParameterError] = []
    for name, text in read_texts(schema, form).items():
        try:
            values[name] = _read(_resolved(schema["properties"][name], schema), text)
        except ValueError as error:
            errors.append(ParameterError(name, str(error), shown(text, 100)))
    return values, errors


def _read(entry: Mapping[str, Any], text: str) -> Any:
    """Raises ValueError with what is expected."""
    kind = _kind(entry)
    if kind in {"text", "long"}:
        return text
    if kind == "choice":
        found = [value for value in entry["enum"] if as_text(value) == text]
        return found[0] if found else text
    try:
        # As strict as a body of the API: no double names, no NaN.
        value = parse_object(b'{"value": ' + text.strip().encode("utf-8", "surrogatepass") + b"}")["value"]
    except (NotAnObject, KeyError) as problem:
        raise ValueError(_bounds(entry, kind)) from problem
    expects_number = kind in {"integer", "number"}
    if expects_number and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(_bounds(entry, kind))
    if kind == "boolean" and not isinstance(value, bool):
        raise ValueError(_bounds(entry, kind))
    return value
