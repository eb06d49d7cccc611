"""What a job's class declares, from the models of its definition."""

from collections.abc import Iterator, Mapping
from typing import Any

from core.models.definition import FailurePolicy, FrozenModel, RetryPolicy, StageDefinition
from coremachine.reference.json_schema import bounds_of, type_of
from coremachine.reference.markdown import code, page, table

_INTRODUCTION = """
The keys of an entry of `stages` in a job's class. A job's row keeps a copy, so that new code does not change a job that
runs. The class attribute `timeout_seconds` limits a whole run of the job. [Timeouts](operations.md#timeouts) describes
how each limit is enforced.
"""


def render() -> str:
    return page(
        "Stage keys",
        "`core/models/definition.py`",
        _INTRODUCTION,
        _table(StageDefinition),
        "## Keys of `retry`",
        _table(RetryPolicy),
        "The delay before a retry doubles with each attempt up to the maximum; the actual delay is random between zero "
        "and that value.",
        "## Keys of `failure`",
        _table(FailurePolicy),
    )


def _table(model: type[FrozenModel]) -> str:
    return table(["key", "type", "default", "meaning"], _rows(model))


def _rows(model: type[FrozenModel]) -> Iterator[list[str]]:
    schema = model.model_json_schema()
    for name, found in schema["properties"].items():
        kind = " ".join(filter(None, [_type(found, schema), bounds_of(found)]))
        yield [code(name), kind, _default(name, found, schema), found.get("description", "")]


def _type(found: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "$ref" not in found:
        return type_of(found)
    target = schema["$defs"][found["$ref"].rpartition("/")[2]]
    return type_of(target) if "enum" in target else "object, see below"


def _default(name: str, found: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if name in schema.get("required", ()):
        return "required"
    default = found.get("default")
    if isinstance(default, dict):
        return "the defaults below"
    return "none" if default is None else code(default)
