"""Problems that pydantic found, in the words in which parameters of a `parameters_schema` are refused."""

import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from core.basics.canonical import describe, join_path, shown
from core.models.fields import without_consequences
from jobs.parameters import ParameterError, Told, count_of, near_name_hint, nearest_name_hint, shown_path, type_hint

_TYPES = {
    "int_type": "int",
    "int_from_float": "int",
    "float_type": "float",
    "string_type": "str",
    "bool_type": "bool",
    "list_type": "list",
    "tuple_type": "list",
    "set_type": "list",
    "dict_type": "dict",
    "model_type": "dict",
    "dataclass_type": "dict",
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}
_LENGTHS = {
    "too_short": ("at least", "min_length"),
    "string_too_short": ("at least", "min_length"),
    "too_long": ("at most", "max_length"),
    "string_too_long": ("at most", "max_length"),
}
_MOST_NAME = 100


def reported_problems(error: ValidationError, kind: Any, beginning: str | None = None) -> Iterator[ParameterError]:
    """Each problem, at its path.

    Args:
        kind: The model, the dataclass or the union of some that was to be made.
        beginning: Problems of this field alone.
    """
    for detail in without_consequences(error.errors(include_url=False)):
        if beginning is None or detail["loc"][:1] == (beginning,):
            yield ParameterError(_path_of(detail) or name_of(kind), *_problem_of(detail, kind))


def name_of(kind: Any) -> str:
    """Of a class its name alone, of any other annotation all of it."""
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _path_of(detail: ErrorDetails) -> str:
    path = ""
    # Of a union whose members have a tag, the tag is what is wrong.
    tag = [str(detail["ctx"]["discriminator"]).strip("'")] if detail["type"].startswith("union_tag_") else []
    for part in [*detail["loc"], *tag]:
        path = f"{path}[{part}]" if isinstance(part, int) else join_path(path, part)
    return shown_path(path)


def _problem_of(detail: ErrorDetails, kind: Any) -> Told:
    name, value = detail["type"], detail["input"]
    if name in _TYPES:
        return _TYPES[name], describe(value), type_hint(_TYPES[name], value)
    return name_problem(detail, kind) or _value_problem(detail) or (_sentence(detail), describe(value))


def name_problem(detail: ErrorDetails, kind: Any) -> Told | None:
    """Of a name that is missing, or that is not known: expected, found and a hint. None for any other problem."""
    if detail["type"] in {"missing", "missing_argument", "union_tag_not_found"}:
        return "a value", "nothing", "this parameter is required"
    if detail["type"] not in {"extra_forbidden", "unexpected_keyword_argument"}:
        return None
    unknown = str(detail["loc"][-1])
    hint = nearest_name_hint(unknown, _names_at(kind, detail["loc"][:-1]))
    return "a known name", f"unknown name {shown(unknown, _MOST_NAME)}", hint


def _value_problem(detail: ErrorDetails) -> Told | None:
    """Of a value that has the right type and breaks a rule."""
    name, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if name in _BOUNDS:
        word, key = _BOUNDS[name]
        return f"{word} {context[key]}", describe(value)
    if name in _LENGTHS:
        word, key = _LENGTHS[name]
        return f"{word} {count_of(value, context[key])}", str(context.get("actual_length", len(value)))
    if name in {"enum", "literal_error"}:
        return _choice_problem(str(context["expected"]), value)
    if name == "union_tag_invalid":
        return _choice_problem(str(context["expected_tags"]), context["tag"])
    if name == "string_pattern_mismatch":
        return f"text that matches {context['pattern']!r}", describe(value)
    return None


def _choice_problem(expected: str, value: object) -> Told:
    names = [name.strip().strip("'") for name in expected.replace(" or ", ", ").split(",")]
    hint = near_name_hint(value, names) if isinstance(value, str) else None
    return f"one of {', '.join(names)}", describe(value), hint


def _sentence(detail: ErrorDetails) -> str:
    """The message of pydantic, or of an author's validator."""
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    # Of a text that is not read, only what it should be: where reading it ended helps nobody.
    text = text.partition(",")[0] if "_parsing" in detail["type"] else text
    return text.removeprefix("Input should be ")


def _names_at(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """The names that are known where an unknown one was found."""
    kinds = list(_models_in(kind))
    for part in path:
        inner = [each for known in kinds if part in _fields_of(known) for each in _models_in(_fields_of(known)[part])]
        # Where it is no field, it is a key or a place, or the tag or the name of one member of a union.
        kinds = inner or [known for known in kinds if _is_called(known, part)] or kinds
    return list(dict.fromkeys(str(name) for known in kinds for name in _fields_of(known)))


def _is_called(kind: Any, part: int | str) -> bool:
    tags: Iterable[Any] = (tag for annotation in _fields_of(kind).values() for tag in typing.get_args(annotation))
    return name_of(kind) == part or part in tags


def _fields_of(kind: Any) -> Mapping[int | str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return {name: field.type for name, field in getattr(kind, "__dataclass_fields__", {}).items()}


def _models_in(annotation: Any) -> Iterator[Any]:
    """The models in an annotation such as `list[Model] | None`."""
    if _fields_of(annotation):
        yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
