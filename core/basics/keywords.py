"""Constructors for authors: an unknown keyword is answered with the nearest known ones."""

import difflib
from collections.abc import Callable, Collection
from functools import wraps
from inspect import Parameter, signature
from typing import Any, ParamSpec, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

_SIMILAR = 0.6
_LONGEST_NAME = 60


def suggests_names(function: Callable[P, R], name: str | None = None) -> Callable[P, R]:
    """The function itself; called with a keyword that it does not have, it names those that were meant.

    Args:
        name: What to call it; its own name, if left out.
    """
    known = _keywords(function)

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not known.issuperset(kwargs):
            raise TypeError(_refusal(name or function.__name__, sorted(kwargs.keys() - known), sorted(known)))
        return function(*args, **kwargs)

    return checked


def constructor_suggests_names(cls: C) -> C:
    """A class whose constructor does that."""
    construct: Any = cls.__init__  # type: ignore[misc]
    is_model = hasattr(cls, "model_fields")
    checked: Any = _checked_model(construct) if is_model else suggests_names(construct, cls.__name__)
    cls.__init__ = checked  # type: ignore[misc]
    return cls


def _checked_model(construct: Callable[..., None]) -> Callable[..., None]:
    """A constructor of pydantic takes any keyword, and its errors are not in our words.

    `wraps` keeps the mark by which pydantic knows its own.
    """

    @wraps(construct)
    def checked(self: Any, /, **values: Any) -> None:
        known = type(self).__pydantic_fields__.keys()
        if not known >= values.keys():
            raise TypeError(_refusal(type(self).__name__, sorted(values.keys() - known), sorted(known)))
        try:
            construct(self, **values)
        except ValidationError as error:
            problems = error.errors(include_url=False)
        else:
            return
        raise ValueError("; ".join(_value_refusal(type(self).__name__, each) for each in problems))

    return checked


def _value_refusal(name: str, problem: ErrorDetails) -> str:
    """A rule of ours names what it found itself."""
    path = ".".join([name, *map(str, problem["loc"])])
    text = problem["msg"].removeprefix("Value error, ").replace("Input should be ", "expected ", 1)
    return f"{path}: {text}" if ", found " in text else f"{path}: {text}, found {problem['input']!r:.100}"


def _keywords(function: Callable[..., Any]) -> frozenset[str]:
    kinds = {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}
    return frozenset(name for name, each in signature(function).parameters.items() if each.kind in kinds) - {"self"}


def _refusal(name: str, found: list[str], known: list[str]) -> str:
    hints = "; ".join(f"{word[:_LONGEST_NAME]!r}{_hint(word[:_LONGEST_NAME], known)}" for word in found[:5])
    return f"{name}: expected keywords of {', '.join(known)}; found {hints}"


def _hint(word: str, known: Collection[str]) -> str:
    """The names that have the word in them, or are like it."""
    near = [name for name in known if word in name.split("_") or name.startswith(f"{word}_")]
    near += difflib.get_close_matches(word, [name for name in known if name not in near], n=2, cutoff=_SIMILAR)
    *others, last = near or [""]
    return f" (did you mean {', '.join(others)}{' or ' if others else ''}{last}?)" if near else ""
