"""Names in a task's parameters that the type of its handler's parameters does not have.

pydantic and dataclasses ignore such a name, so a misspelt one would take its default. A class that sets `extra` itself
("allow", "ignore" or "forbid") or reads its values before they are validated has decided that itself.
"""

import typing
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any

from pydantic import AliasChoices, AliasPath, BaseModel, RootModel

from core.basics.canonical import join_path, shown
from jobs.parameters import ParameterError, nearest_name_hint, shown_path

# Looks at a value and its path; what is wrong, or None.
NameCheck = Callable[[object, str], ParameterError | None]

_LISTS = (list, tuple, AbstractSet)
_MOST_NAME = 100


def without_names(annotation: Any) -> Any:
    """What a `NewType`, a `type` statement or an `Annotated` is a name of."""
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def name_check(kind: Any) -> NameCheck | None:
    """What finds a name that the type does not have, there or inside of it; None where there is nothing to check."""
    return _check_of(kind, {})


def _check_of(annotation: Any, known: "dict[type, _Fields | None]") -> NameCheck | None:
    kind = without_names(annotation)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, UnionType}:
        return _check_of_union([each for each in arguments if each is not NoneType], known)
    kind = origin or kind
    if not isinstance(kind, type):
        return None
    if issubclass(kind, BaseModel) or is_dataclass(kind):
        return _check_of_fields(kind, known)
    if issubclass(kind, Mapping):
        return _Inside(Mapping, inner) if len(arguments) == 2 and (inner := _check_of(arguments[1], known)) else None  # noqa: PLR2004 - of names and of values
    if issubclass(kind, _LISTS) or kind.__module__ == "collections.abc":
        return _Inside(list, inner) if arguments and (inner := _check_of(arguments[0], known)) else None
    return None


def _check_of_union(members: list[Any], known: "dict[type, _Fields | None]") -> NameCheck | None:
    """A name is unknown that none of the members has; which of them a value is for, only reading it shows."""
    checks = [_check_of(each, known) for each in members if not _is_single(each)]
    found = [each for each in checks if each is not None]
    return _OneOf(found) if found and len(found) == len(checks) else None


def _is_single(annotation: Any) -> bool:
    """Whether its values have no names and no parts."""
    kind = without_names(annotation)
    if typing.get_origin(kind) is typing.Literal:
        return True
    holders = (BaseModel, Mapping, *_LISTS)
    return isinstance(kind, type) and kind is not object and not issubclass(kind, holders) and not is_dataclass(kind)


def _check_of_fields(kind: type, known: "dict[type, _Fields | None]") -> NameCheck | None:
    if kind not in known:
        known[kind] = check = None if _decides_itself(kind) else _Fields(kind)
        if check is not None:
            annotations = _annotations_of(kind)
            inner = {name: _check_of(annotation, known) for name, annotation in annotations.items()}
            check.inner = {name: each for name, each in inner.items() if each is not None}
    return known[kind]


def _decides_itself(kind: Any) -> bool:
    config = getattr(kind, "model_config", None) or getattr(kind, "__pydantic_config__", None) or {}
    if "extra" in config or issubclass(kind, RootModel):
        return True
    decorators = getattr(kind, "__pydantic_decorators__", None)
    validators = decorators.model_validators.values() if decorators else ()
    return any(each.info.mode != "after" for each in validators) or "__get_pydantic_core_schema__" in vars(kind)


def _annotations_of(kind: Any) -> dict[str, Any]:
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 - names that cannot be read here; pydantic has found them
        return {}


def _names_of(kind: Any) -> set[str]:
    if not issubclass(kind, BaseModel):
        return {field.name for field in fields(kind) if field.init}
    names = set(kind.model_fields)
    for field in kind.model_fields.values():
        for alias in (field.alias, field.validation_alias):
            each = alias.choices if isinstance(alias, AliasChoices) else [alias]
            names.update(str(path.path[0]) if isinstance(path, AliasPath) else path for path in each if path)
    return names


class _Fields:
    """Of a class with named fields."""

    def __init__(self, kind: type) -> None:
        self.kind, self.names = kind, frozenset(_names_of(kind))
        self.inner: dict[str, NameCheck] = {}

    def __call__(self, value: object, path: str) -> ParameterError | None:
        if not isinstance(value, Mapping):
            return None
        for name in value:
            if name not in self.names:
                nearest = nearest_name_hint(str(name), sorted(self.names))
                end = "" if nearest.endswith("?") else "."
                setting = "model_config" if issubclass(self.kind, BaseModel) else "__pydantic_config__"
                others = f"{self.kind.__name__} may take others: {setting} = ConfigDict(extra='ignore')"
                hint = f"{nearest}{end} {others}"
                found = f"unknown name {shown(name, _MOST_NAME)}"
                return ParameterError(shown_path(join_path(path, str(name))), "a known name", found, hint)
        for name, check in self.inner.items():
            if name in value and (problem := check(value[name], join_path(path, name))) is not None:
                return problem
        return None


class _Inside:
    """Of each value of a list or of a mapping."""

    def __init__(self, holder: type, check: NameCheck) -> None:
        self._holder, self._check = holder, check

    def __call__(self, value: object, path: str) -> ParameterError | None:
        if self._holder is Mapping and isinstance(value, Mapping):
            found = (self._check(each, join_path(path, str(name))) for name, each in value.items())
        elif self._holder is list and isinstance(value, list | tuple):
            found = (self._check(each, f"{path}[{place}]") for place, each in enumerate(value))
        else:
            return None
        return next(filter(None, found), None)


class _OneOf:
    """Of a union."""

    def __init__(self, checks: list[NameCheck]) -> None:
        self._checks = checks

    def __call__(self, value: object, path: str) -> ParameterError | None:
        problems = [check(value, path) for check in self._checks]
        return problems[0] if all(problems) else None
