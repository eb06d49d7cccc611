"""Whether a function that an author wrote can be called as the engine calls it, seen before anything runs."""

import functools
import inspect
from collections.abc import Callable, Sequence


def function_problems(
    what: str,
    function: object,
    arguments: Sequence[str],
    *,
    by_name: Sequence[str] = (),
    may_yield: bool = False,
    hint: str = "",
) -> list[str]:
    """What is wrong with a function, a sentence each.

    Args:
        what: Names it.
        arguments: What it is called with, in order.
        by_name: What it is called with by name, after them.
        may_yield: Whether a generator will do.
        hint: What to do about wrong arguments.
    """
    named = ["*", *by_name] if by_name else []
    expected = f"a function of ({', '.join([*arguments, *named])})"
    if not callable(function):
        return [f"{what}: expected a function, found {function!r}"]
    kind = _kind_of(function)
    if kind in {"async def", "async generator"}:
        advice = "write def, and call asyncio.run(...) in it if the work is asynchronous"
        return [f"{what}: expected an ordinary function, found {_name_of(function)}, an {kind} function; {advice}"]
    if kind == "generator" and not may_yield:
        advice = "return the value: nothing would ever run the code before the first yield"
        return [f"{what}: expected an ordinary function, found {_name_of(function)}, a generator function; {advice}"]
    signature = _signature_of(function)
    if signature is None or _takes(signature, len(arguments), by_name):
        return []
    if _takes(signature, 0, [*arguments, *by_name]):
        hint = "; it is called with these in this order, and not by name"
    return [f"{what}: expected {expected}, found {_name_of(function)}{signature}{hint}"]


def first_parameter(function: Callable[..., object]) -> tuple[Callable[..., object], inspect.Parameter | None]:
    """The first parameter of a function, and what declares it: behind a wrapper of (*args), what it wraps."""
    owner = function
    while (signature := _signature_of(owner)) is not None:
        parameter = next(iter(signature.parameters.values()), None)
        wrapped = getattr(owner, "__wrapped__", None)
        if parameter is None or parameter.kind is not inspect.Parameter.VAR_POSITIONAL or not callable(wrapped):
            return owner, parameter
        owner = wrapped
    return owner, None


def place_of(function: object) -> str:
    """Its module and its name, for people."""
    module = getattr(_without_partial(function), "__module__", None)
    return f"{module}.{_name_of(function)}" if isinstance(module, str) else _name_of(function)


def _kind_of(function: Callable[..., object]) -> str:
    """How its body runs. A decorator's own body counts, and not that of what it wraps: it may await it."""
    for body in (_without_partial(function), getattr(type(function), "__call__", None)):  # noqa: B004 - an object's
        if inspect.iscoroutinefunction(body):
            return "async def"
        if inspect.isasyncgenfunction(body):
            return "async generator"
        if inspect.isgeneratorfunction(body):
            return "generator"
    return "ordinary"


def _without_partial(function: object) -> object:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _signature_of(function: Callable[..., object]) -> inspect.Signature | None:
    """None where there is none, as of some builtins."""
    try:
        # Not what a decorator wraps: the wrapper is called, and may add or take away arguments.
        return inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None


def _takes(signature: inspect.Signature, count: int, names: Sequence[str]) -> bool:
    try:
        signature.bind(*range(count), **dict.fromkeys(names))
    except TypeError:
        return False
    return True


def _name_of(function: object) -> str:
    return str(getattr(_without_partial(function), "__qualname__", None) or repr(function))
