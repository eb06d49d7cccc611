"""The HTTP API, from the OpenAPI document of the app."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from coremachine.reference.json_schema import bounds_of, default_of, may_be_null, name_of, type_of
from coremachine.reference.markdown import anchor, page, table
from triggers.api import create_api
from triggers.openapi import describe
from triggers.ports import ServicesNotReady

_INTRODUCTION = """
Each app serves the same description: `GET /api/openapi.json` as OpenAPI, `GET /api/docs` as a page to try requests.
Each request takes the function key, where the host asks for one, as the header `x-functions-key` or the query
parameter `code`, and the parameters of gateways ([Follow jobs](../howto/follow-jobs.md)).
[Problem codes](problem-codes.md) lists the codes of errors.
"""


def render() -> str:
    document = describe(create_api(_no_services), None)
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    overview = table(
        ["request", "what it does"],
        (
            [f"[`{method} {path}`](#{anchor(f'{method} {path}')})", _first_line(found)]
            for method, path, found in operations
        ),
    )
    sections = [_operation(method, path, found) for method, path, found in operations]
    schemas = [_schema(name, found) for name, found in document["components"]["schemas"].items()]
    return page(
        "HTTP API", "the app's OpenAPI document", _INTRODUCTION, overview, *sections, "## Types of answers", *schemas
    )


def _no_services() -> NoReturn:
    raise ServicesNotReady("only the description is wanted")


def _first_line(operation: Mapping[str, Any]) -> str:
    return str(operation["description"]).split("\n\n", maxsplit=1)[0]


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [f"## {method} {path}", str(operation["description"])]
    parameters = operation.get("parameters", [])
    if parameters:
        rows = (
            [
                f"`{found['name']}`",
                found["in"],
                " ".join(filter(None, [type_of(found["schema"]), bounds_of(found["schema"])])),
                "required" if found.get("required") else default_of(found["schema"]),
                found.get("description", ""),
            ]
            for found in parameters
        )
        parts.append(table(["parameter", "in", "type", "default", "meaning"], rows))
    if "requestBody" in operation:
        (body,) = operation["requestBody"]["content"].values()
        parts += _body(body["schema"])
    answers = [answer for answer in _answers(operation) if answer]
    return "\n\n".join([*parts, "Answers: " + "; ".join(answers) + "."])


def _body(schema: Mapping[str, Any]) -> Iterator[str]:
    if not schema.get("properties"):
        yield "Body: a JSON object."
        return
    yield "Body, a JSON object with:"
    yield _fields(schema)


def _answers(operation: Mapping[str, Any]) -> Iterator[str]:
    errors = []
    for status, answer in operation["responses"].items():
        contents: list[dict[str, Any]] = list(answer.get("content", {}).values())
        schema = contents[0].get("schema", {}) if contents else {}
        name = name_of(schema["$ref"]) if "$ref" in schema else ""
        headers = ", ".join(f"`{header}`" for header in answer.get("headers", {}))
        if name == "Problem":
            errors.append(status)
        else:
            kind = f" with [{name}](#{anchor(name)})" if name else ""
            yield f"{status}{kind}{f', headers {headers}' if headers else ''}"
    yield f"errors {', '.join(errors)} with [Problem](#problem)"


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    parts = [f"### {name}", str(schema.get("description", ""))]
    if "enum" in schema:
        parts.append("One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".")
    elif schema.get("properties"):
        parts.append(_fields(schema))
    return "\n\n".join(filter(None, parts))


def _fields(schema: Mapping[str, Any]) -> str:
    rows = (
        [
            f"`{name}`",
            " ".join(filter(None, [type_of(found), "or null" if may_be_null(found) else "", bounds_of(found)])),
            found.get("description", ""),
        ]
        for name, found in schema["properties"].items()
    )
    return table(["field", "type", "meaning"], rows)
