"""The check of a function's Python signature against its bindings, with which Microsoft's worker refuses an app.

What is refused here keeps the whole app from running in Azure: the worker indexes all functions or none.
Source: azure-functions-runtime, `functions.py` (`Registry.validate_function_params`, `get_function_return_type`).
"""

from __future__ import annotations

import collections.abc
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from azure.functions.meta import Datum, get_binding_registry

from coremachine.local.host.errors import SignatureError

RETURN = "$return"
GENERIC = "generic"
_NOT_GENERIC = (typing.Union, types.UnionType, tuple, typing.ClassVar, collections.abc.Callable)


@dataclass(frozen=True)
class BoundType:
    """How a value travels: the converter's binding type (or generic), and the annotated type, None without one."""

    binding: str
    python_type: Any = None


@dataclass(frozen=True)
class Signature:
    """The parameters of a function by name; `returns` is None where its result must be None."""

    inputs: Mapping[str, BoundType]
    outputs: Mapping[str, BoundType]
    returns: BoundType | None
    context_parameter: str | None


class GenericConverter:
    """The worker's converter for text and bytes as they came, and for bindings that azure.functions has none for."""

    @staticmethod
    def check_input_type_annotation(python_type: Any) -> bool:
        return issubclass(python_type, (str, bytes))

    @staticmethod
    def check_output_type_annotation(python_type: Any) -> bool:
        return issubclass(python_type, (str, bytes, bytearray))

    @staticmethod
    def decode(data: Datum, *, trigger_metadata: Mapping[str, Datum]) -> Any:
        del trigger_metadata
        if data.type not in {"string", "bytes", "json", None}:
            raise ValueError(f"expected text or bytes for a str or bytes parameter, found a datum of type {data.type}")
        return data.value

    @staticmethod
    def encode(value: Any, *, expected_type: Any) -> Datum | None:
        del expected_type
        match value:
            case None:
                return None
            case str():
                return Datum(value, "string")
            case bytes() | bytearray():
                return Datum(bytes(value), "bytes")
            case dict() | list() | int() | float():
                return Datum(json.dumps(value), "json")
        raise NotImplementedError


@cache
def converter_of(binding: str) -> Any:
    """The converter that azure.functions registers for a binding type, else the generic one."""
    registry = get_binding_registry()  # type: ignore[no-untyped-call]
    return registry.get(binding) or GenericConverter


def read_signature(name: str, handler: Callable[..., Any], bindings: Sequence[Mapping[str, Any]]) -> Signature:
    """Check a handler against its bindings, given as the JSON objects that describe them to the host.

    Raises:
        SignatureError: the worker in Azure would refuse the app, for the reason that the message names.
    """
    try:
        hints = typing.get_type_hints(handler)
    except Exception as exc:
        raise SignatureError(name, f"its annotations cannot be resolved: {exc}") from exc
    parameters = set(inspect.signature(handler).parameters)
    bound = {binding["name"]: binding for binding in bindings if binding["name"] != RETURN}
    context = _context_parameter(name, parameters, bound, hints)
    _check_names(name, parameters - {context}, set(bound))
    inputs: dict[str, BoundType] = {}
    outputs: dict[str, BoundType] = {}
    for parameter, binding in bound.items():
        is_out = _is_out(binding)
        found = _bound_type(name, binding, hints, is_out=is_out)
        (outputs if is_out else inputs)[parameter] = found
    return Signature(inputs, outputs, _returns(name, bindings, hints), context)


def _context_parameter(
    name: str, parameters: set[str], bound: Mapping[str, Any], hints: Mapping[str, Any]
) -> str | None:
    """By its name, as in the worker: a parameter of this type under another name is one without a binding."""
    if "context" not in parameters or "context" in bound:
        return None
    hint = hints.get("context")
    if "context" in hints and not (isinstance(hint, type) and hint.__name__ == "Context"):
        raise SignatureError(name, f"expected the parameter 'context' to be a func.Context, found {hint!r}")
    return "context"


def _check_names(name: str, parameters: set[str], bound: set[str]) -> None:
    if unbound := sorted(parameters - bound):
        raise SignatureError(name, f"expected a binding for each parameter, found none for: {', '.join(unbound)}")
    if missing := sorted(bound - parameters):
        raise SignatureError(name, f"expected a parameter for each binding, found none named: {', '.join(missing)}")


def _bound_type(name: str, binding: Mapping[str, Any], hints: Mapping[str, Any], *, is_out: bool) -> BoundType:
    parameter = binding["name"]
    if parameter not in hints:
        return BoundType(binding["type"])
    hint = hints[parameter]
    if _is_out_type(hint) != is_out:
        expected = "func.Out[...]" if is_out else "no func.Out"
        raise SignatureError(name, f"expected {expected} as the annotation of {parameter!r}, found {hint!r}")
    python_type = _inner_type(name, parameter, hint) if is_out else hint
    if not (isinstance(python_type, type) or _is_generic(python_type)):
        raise SignatureError(name, f"expected a type as the annotation of {parameter!r}, found {hint!r}")
    is_raw = python_type in (str, bytes) and not _has_implicit_output(binding["type"])
    kind = GENERIC if is_raw else binding["type"]
    converter = converter_of(kind)
    check = converter.check_output_type_annotation if is_out else converter.check_input_type_annotation
    if not _passes(check, python_type):
        raise SignatureError(
            name, f"the annotation of {parameter!r} does not fit its binding {binding['type']!r}: found {hint!r}"
        )
    return BoundType(kind, python_type)


def _inner_type(name: str, parameter: str, hint: Any) -> Any:
    arguments = typing.get_args(hint)
    if len(arguments) != 1:
        raise SignatureError(name, f"expected func.Out with one type for {parameter!r}, found {hint!r}")
    return arguments[0]


def _returns(name: str, bindings: Sequence[Mapping[str, Any]], hints: Mapping[str, Any]) -> BoundType | None:
    explicit = [binding for binding in bindings if binding["name"] == RETURN]
    if not explicit:
        implicit = [binding["type"] for binding in bindings if _has_implicit_output(binding["type"])]
        return BoundType(implicit[-1], hints.get("return")) if implicit else None
    if not _is_out(explicit[0]):
        raise SignatureError(name, 'expected the direction "out" for the binding $return')
    kind = explicit[0]["type"]
    if "return" not in hints:
        return BoundType(kind)
    hint = hints["return"]
    if not isinstance(hint, type) or not _passes(converter_of(kind).check_output_type_annotation, hint):
        raise SignatureError(name, f"its return annotation does not fit the binding {kind!r}: found {hint!r}")
    return BoundType(kind, hint)


def _has_implicit_output(binding: str) -> bool:
    return bool(getattr(converter_of(binding), "has_implicit_output", lambda: False)())


def _is_out(binding: Mapping[str, Any]) -> bool:
    return str(binding.get("direction", "")).upper() == "OUT"


def _is_out_type(hint: Any) -> bool:
    kind = typing.get_origin(hint) or hint
    return isinstance(kind, type) and kind.__name__ == "Out"


def _is_generic(hint: Any) -> bool:
    """`List[X]`, and not `list[X]`: the worker knows the forms of `typing` alone."""
    origin = typing.get_origin(hint)
    return origin is not None and not isinstance(hint, types.GenericAlias) and origin not in _NOT_GENERIC


def _passes(check: Callable[[Any], Any], python_type: Any) -> bool:
    try:
        return bool(check(python_type))
    except TypeError:  # issubclass of a generic type: the worker fails with it as well
        return False
