"""Parameters that a pydantic model declares, with the rules of a `parameters_schema`.

They come as JSON and are kept as JSON: nothing is converted but what JSON has no type for (dates, enums, paths), names
that are not declared are refused, and so are credentials.
"""

import json
import warnings
from collections.abc import Mapping
from typing import Any, TypeGuard

from pydantic import BaseModel, RootModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.json_schema import PydanticJsonSchemaWarning

from jobs.model_problems import reported_problems
from jobs.parameters import ParameterErrors, Problems, check_free_value

_ANNOTATIONS = {"title"}


def is_model(schema: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(schema, type) and issubclass(schema, BaseModel)


def validate_with_model(model: type[BaseModel], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Validated values with defaults, as JSON has them.

    Raises:
        ParameterErrors: With the problems.
    """
    problems = Problems()
    for name, value in parameters.items():
        check_free_value(value, str(name), problems)
    problems.refuse()
    try:
        checked = model.model_validate_json(json.dumps(dict(parameters)), strict=True, extra=_extra_of(model))
    except ValidationError as error:
        found = list(reported_problems(error, model))
        raise ParameterErrors(found) from None
    return checked.model_dump(mode="json")


def model_problems(model: type[BaseModel], where: str) -> list[str]:
    """What keeps a model from declaring parameters, a sentence each."""
    if issubclass(model, RootModel):
        return [f"{where}: expected a model with named fields, found the RootModel {model.__name__}"]
    aliased = [
        name for name, field in model.model_fields.items() if field.validation_alias or field.serialization_alias
    ]
    problems = [f"{where}.{name}: has an alias; parameters have one name, leave it out" for name in aliased]
    problems += [f"{where}.{name}: is computed; submitters give all parameters" for name in model.model_computed_fields]
    if problems:
        return problems
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PydanticJsonSchemaWarning)
            model_json_schema(model)
    except (PydanticJsonSchemaWarning, PydanticInvalidForJsonSchema, PydanticUserError, RecursiveModel) as error:
        return [f"{where}: expected a model that JSON Schema can describe, found {model.__name__}: {error}"]
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


def _extra_of(model: type[BaseModel]) -> Any:
    return None if model.model_config.get("extra") == "allow" else "forbid"
