"""What keeps a pydantic model from declaring parameters, seen when the job class is made; and its JSON Schema."""

import warnings
from collections.abc import Iterator, Mapping
from json import dumps
from typing import Any

from pydantic import BaseModel, RootModel, ValidationError
from pydantic.json_schema import JsonSchemaMode, PydanticJsonSchemaWarning
from pydantic_core import PydanticUndefined

from core.safety.safe_text import text_of, type_name
from jobs.model_problems import reported_problems
from jobs.parameters import ParameterError

_ANNOTATIONS = {"title"}
_ABOUT_THE_WORLD = ("value_error", "assertion_error", "path_")


def model_problems(model: type[BaseModel], where: str) -> list[str]:
    """What keeps a model from declaring parameters, a sentence each."""
    if model is BaseModel or issubclass(model, RootModel):
        return [f"{where}: expected a model with named fields, found {model.__name__}"]
    aliased = [
        name for name, field in model.model_fields.items() if field.validation_alias or field.serialization_alias
    ]
    problems = [f"{where}.{name}: has an alias; parameters have one name, leave it out" for name in aliased]
    problems += [f"{where}.{name}: is computed; submitters give all parameters" for name in model.model_computed_fields]
    return problems or _schema_problems(model, where) or list(_default_problems(model, where))


def _schema_problems(model: type[BaseModel], where: str) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PydanticJsonSchemaWarning)
            schema = model_json_schema(model)
            read, written = _names_by_model(model, "validation"), _names_by_model(model, "serialization")
    except Exception as error:  # noqa: BLE001 - whatever pydantic and an author's enums and defaults raise
        found = f"{model.__name__}: {type_name(error)}: {text_of(error)}"
        return [f"{where}: expected a model that JSON Schema can describe, found {found}"]
    problems = [
        f"{where}: {kind}.{name}: expected a name that is read and written, found it "
        f"{'read' if name in read[kind] else 'written'} alone; parameters are kept as JSON and read again, so leave "
        "out aliases, exclude and computed fields"
        for kind in sorted(read.keys() & written.keys())
        for name in sorted(read[kind] ^ written[kind])
    ]
    return problems + [
        f"{where}.{path}: expected a type that is kept and shown, found one for secrets; name the secret's place"
        for path in _secrets_in(schema, "")
    ]


def _names_by_model(model: type[BaseModel], mode: JsonSchemaMode) -> dict[str, set[str]]:
    """The names of the model's fields and of those in it, as they are read or written, by the model's name."""
    schema = model.model_json_schema(by_alias=mode == "validation", mode=mode)
    models = {model.__name__: schema, **schema.get("$defs", {})}
    return {name: set(each.get("properties", ())) for name, each in models.items()}


def _secrets_in(schema: Any, path: str) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _secrets_in(item, path)
    elif isinstance(schema, dict):
        if schema.get("writeOnly") is True:
            yield path
        for key, value in schema.items():
            if key == "properties":
                for name, each in value.items():
                    yield from _secrets_in(each, f"{path}.{name}" if path else name)
            else:
                yield from _secrets_in(value, path)


def _default_problems(model: type[BaseModel], where: str) -> Iterator[str]:
    """Of defaults whose types or bounds are wrong: pydantic does not look at them, and a rerun reads them."""
    fields = model.model_fields
    defaults = {name: field.default for name, field in fields.items() if field.default is not PydanticUndefined}
    sample = model.model_construct(**{**dict.fromkeys(fields), **defaults})
    for name in defaults:
        try:
            written = dumps(sample.model_dump(mode="json", include={name}, warnings=False))
        except Exception as error:  # noqa: BLE001 - an author's serializers
            found = f"{type_name(error)}: {text_of(error)}"
            yield f"{where}.{name}: default: expected one that can be kept as JSON, found {found}"
        else:
            for problem in _read_problems(model, written, name):
                yield f"{where}.{problem.field}: default: expected {problem.expected}, found {problem.found}"


def _read_problems(model: type[BaseModel], written: str, name: str) -> list[ParameterError]:
    """Those of one field alone, in a text that has no other."""
    try:
        model.model_validate_json(written, strict=True)
    except ValidationError as error:
        # An author's validator may look at a world that is not there yet, as paths do; a submission does it again.
        if not any(each["type"].startswith(_ABOUT_THE_WORLD) for each in error.errors(include_url=False)):
            return list(reported_problems(error, model, beginning=name))
    except Exception:  # noqa: BLE001, S110 - an author's validator, as above
        pass
    return []


class RecursiveModel(ValueError):
    """A model that contains itself; it has no JSON Schema without references."""


def model_json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model as JSON Schema, without references; names that are not declared are refused.

    Raises:
        RecursiveModel: It contains itself.
    """
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    written: dict[str, Any] = _inlined(schema, definitions, ())
    return written


def _inlined(node: Any, definitions: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions, within) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in within:
            raise RecursiveModel(f"{name} contains itself; declare that parameter as dict[str, Any]")
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return {**_inlined(definitions[name], definitions, (*within, name)), **beside}
    # What is a name of a field is no keyword.
    plain = {
        key: {name: _inlined(each, definitions, within) for name, each in value.items()}
        if key == "properties"
        else _inlined(value, definitions, within)
        for key, value in node.items()
        if key not in _ANNOTATIONS or not isinstance(value, str)
    }
    if "properties" in plain:
        plain.setdefault("additionalProperties", False)
    return _with_null(plain)


def _with_null(node: dict[str, Any]) -> dict[str, Any]:
    """`anyOf` of one type and null, as `type` with both: that is how a nullable parameter is declared elsewhere."""
    options = node.get("anyOf", [])
    others = [option for option in options if option != {"type": "null"}]
    if len(options) != 2 or len(others) != 1 or not isinstance(others[0].get("type"), str) or "enum" in others[0]:  # noqa: PLR2004
        return node
    beside = {key: value for key, value in node.items() if key != "anyOf"}
    return {**others[0], **beside, "type": [others[0]["type"], "null"]}
