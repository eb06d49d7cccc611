"""`--param name=text` and `--params-file` become a job's parameters."""

import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn

from coremachine.cli.client import ApiClient, Json
from coremachine.cli.errors import ApiError, UsageProblem
from jobs.parameters import ParameterErrors, coerce_text_parameters

_TYPES = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "array": "list", "object": "dict"}


def gather_parameters(
    client: ApiClient, job_type: str, texts: Sequence[str], file: Path | None
) -> tuple[Json, list[str]]:
    """The parameters to send, and warnings. A value on the command line replaces the one in the file.

    Paths are relative to the folder of the caller: for a server on this machine they are made absolute.

    Raises:
        UsageProblem: A text is not `name=value`, or not of its parameter's type; the file is no JSON object; a name is
            given twice.
    """
    values = _read_file(file) if file is not None else {}
    split = _split_all(texts)
    if not any(isinstance(value, str) for value in (*values.values(), *split.values())):
        return values, []
    entries = _list_job_types(client)
    schema = _schema_of(entries, job_type)
    if schema is None:
        # A type that is not there is reported by the answer to the submission.
        is_known = any(entry.get("job_type") == job_type for entry in entries)
        unknown = ["the server has no schema of this job type: parameters are sent as texts"]
        return {**values, **split}, unknown if texts and is_known else []
    try:
        return with_whole_paths(client, schema, {**values, **coerce_text_parameters(schema, split)}), []
    except ParameterErrors as errors:
        raise UsageProblem("Parameters that cannot be read:\n" + _indent(str(errors))) from errors


def with_whole_paths(client: ApiClient, schema: Mapping[str, Json], values: Json) -> Json:
    """The values with their relative paths taken from this folder, where the server can see the same folder."""
    if not client.is_on_this_machine:
        return values
    paths = {name for name, entry in schema.items() if entry.get("format") == "path"}
    return {
        name: whole_path(value) if name in paths and isinstance(value, str) else value for name, value in values.items()
    }


def whole_path(text: str) -> str:
    """A path as seen from anywhere; a URL and a text without content are left as they are."""
    if not text or "\0" in text or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        return text
    return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 - as text: it may be a pattern


def _list_job_types(client: ApiClient) -> list[Json]:
    try:
        return client.list_job_types()
    except ApiError as error:
        # An outage, or an app that somebody must set up: texts would be sent for numbers.
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        # The submission itself will say what is wrong.
        return []


def _schema_of(entries: Sequence[Json], job_type: str) -> dict[str, Json] | None:
    """Entries by parameter name, with their `type`; None where the server has none, or does not know the job type."""
    entry = next((item for item in entries if item.get("job_type") == job_type), {})
    found = entry.get("parameters_schema") or entry.get("parameters")
    if not isinstance(found, Mapping):
        return None
    is_json_schema = "properties" in found and found.get("type") == "object"
    return {name: _entry(each) for name, each in (found["properties"] if is_json_schema else found).items()}


def _entry(described: Mapping[str, Any]) -> Json:
    """A parameter of JSON Schema, or of the project's own kind, as the latter."""
    kinds = described.get("type")
    names = [kinds] if isinstance(kinds, str) else list(kinds or ["string"])
    kind = next((name for name in names if name != "null"), "string")
    nullable = "null" in names or bool(described.get("nullable"))
    return {"type": _TYPES.get(kind, kind), "nullable": nullable, "format": described.get("format")}


def _split_all(texts: Sequence[str]) -> dict[str, str]:
    split: dict[str, str] = {}
    for name, value in map(_split, texts):
        if name in split:
            raise UsageProblem(f"--param: expected each name once, found {name!r} twice; leave one out")
        split[name] = value
    return split


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageProblem(f"--param: expected name=value, found {text!r}")
    return name, value


def _read_file(file: Path) -> Json:
    where = "stdin" if str(file) == "-" else str(file)
    try:
        text = sys.stdin.read() if where == "stdin" else file.read_text(encoding="utf-8-sig")
        value = json.loads(text, object_pairs_hook=_checked_names, parse_constant=_no_constant, parse_float=_finite)
    except OSError as error:
        raise UsageProblem(f"--params-file: expected a readable file, found: {error}") from error
    except RecursionError as error:
        raise UsageProblem(f"--params-file: expected JSON in {where}, found nesting without end") from error
    except (_NotAllowed, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageProblem(f"--params-file: expected JSON in {where}, found: {error}") from error
    except ValueError as error:
        # Python reads no more digits than that, and would name a setting of its own.
        found = f"a number of more than {sys.get_int_max_str_digits()} digits"
        raise UsageProblem(f"--params-file: expected JSON in {where}, found {found}") from error
    if not isinstance(value, dict):
        raise UsageProblem(f"--params-file: expected a JSON object in {where}, found {type(value).__name__}")
    return value


class _NotAllowed(ValueError):
    """What Python reads as JSON, and the API does not."""


def _checked_names(pairs: list[tuple[str, Any]]) -> Json:
    value: Json = {}
    for name, inner in pairs:
        if name in value:
            raise _NotAllowed(f"the name {name[:100]!a} twice in one object")
        value[name] = inner
    return value


def _no_constant(name: str) -> NoReturn:
    raise _NotAllowed(f"{name}, which JSON does not know")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _NotAllowed(f"the number {text[:50]}, which is too large")
    return value


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
