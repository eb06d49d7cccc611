"""Handlers whose parameters have a type: a task's parameters are validated into it before the handler is called."""

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from json import dumps
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from core.context import TaskContext
from core.errors import PermanentTaskError
from core.fan_in import FanInResults, load_fan_in_results
from jobs.functions import first_parameter
from jobs.known_names import NameCheck, name_check, without_names
from jobs.model_problems import name_of, reported_problems

_PLAIN = re.compile(r"(\w+\.)*(dict|Dict|Mapping|MutableMapping|Any|object)\b")


class InvalidTaskParameters(PermanentTaskError):
    """A task's parameters are not what its handler takes: the same would be found again."""

    def __init__(self, kind: Any, problems: list[str]) -> None:
        super().__init__("\n".join([f"parameters of the task, as {name_of(kind)}:", *problems]))


class UnknownAnnotation(TypeError):
    """The annotation of a handler's parameters names nothing that can be validated into."""


@dataclass(frozen=True)
class TypedFunction:
    """A handler that gets its parameters as the type that it declares."""

    function: Callable[..., Any]
    read: Callable[[Mapping[str, Any]], object]

    def __call__(self, params: dict[str, Any], context: TaskContext) -> Any:
        return self.function(self.read(params), context)


def with_types(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as the engine calls it: with a mapping, whatever type its parameters have.

    Raises:
        UnknownAnnotation: Of that type nothing can be made.
    """
    kind = _kind_of_parameters(function)
    if kind is None:
        return function
    if kind is FanInResults:
        return TypedFunction(function, load_fan_in_results)
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    check = name_check(kind)
    return TypedFunction(function, lambda params: _read(adapter, kind, check, params))


def name_check_of(function: Callable[..., Any]) -> NameCheck | None:
    """What finds a name in a task's parameters that the handler's type does not have; None where it takes any."""
    kind = _kind_of_parameters(function)
    return None if kind is None or kind is FanInResults else name_check(kind)


def _read(adapter: TypeAdapter[Any], kind: Any, check: NameCheck | None, params: Mapping[str, Any]) -> object:
    # Where the tasks were planned by an app without the handler, nothing has looked at them yet.
    unknown = check and check(params, "")
    if unknown is not None:
        raise InvalidTaskParameters(kind, [unknown.message])
    try:
        # As JSON, in which a date is a text: nothing is guessed beside that.
        return adapter.validate_json(dumps(params), strict=True)
    except ValidationError as error:
        problems = [problem.message for problem in reported_problems(error, kind)]
    raise InvalidTaskParameters(kind, problems)


def _kind_of_parameters(function: Callable[..., Any]) -> Any:
    """What the parameters are to be; None where it is a mapping."""
    annotation = _annotation_of(function)
    kind = without_names(annotation)
    if annotation is None or _is_mapping(kind):
        return None
    if kind is FanInResults or _is_made_of_models(kind):
        return annotation if kind is not FanInResults else kind
    raise UnknownAnnotation(
        "its first argument: expected dict[str, Any], a pydantic model, a dataclass, a union of them or FanInResults, "
        f"found {annotation!r}"
    )


def _is_mapping(kind: Any) -> bool:
    origin = typing.get_origin(kind) or kind
    return kind in {Any, object} or (isinstance(origin, type) and issubclass(origin, Mapping))


def _is_made_of_models(kind: Any) -> bool:
    """Whether it is a class with named fields, or a union of such classes alone."""
    if typing.get_origin(kind) in {typing.Union, types.UnionType}:
        return all(_is_made_of_models(without_names(each)) for each in typing.get_args(kind))
    origin = typing.get_origin(kind) or kind
    return isinstance(origin, type) and (issubclass(origin, BaseModel) or is_dataclass(origin))


def _annotation_of(function: Callable[..., Any]) -> Any:
    owner, parameter = first_parameter(function)
    if parameter is None or parameter.annotation is inspect.Parameter.empty:
        return None
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    try:
        return typing.get_type_hints(owner, include_extras=True)[parameter.name]
    except Exception as error:
        if _PLAIN.match(parameter.annotation):
            return None
        raise UnknownAnnotation(
            f"its first argument: expected an annotation that can be read when the app starts, found "
            f"{parameter.annotation!r} ({error}); import the class outside of `if TYPE_CHECKING`"
        ) from error
