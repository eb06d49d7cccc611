"""Validation of a job's parameters against its declarative `parameters_schema`.

An entry of the schema has the keys `type` (int, float, str, bool, list or dict), `required`, `default`, `min` and `max`
(of the number, or of the length of a str or list), `allowed`, `pattern` (str, whole text), `items` (the entry of each
item), `properties` (the schema of a dict), `nullable`, `description` and `example`. `jobs.parameter_schema` checks it.
"""

import copy
import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from core.canonical import describe, find_json_problems, join_path
from core.errors import InvalidParameters

Entry = Mapping[str, Any]
Schema = Mapping[str, Entry]

_PYTHON_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": Mapping}
TYPE_NAMES = tuple(_PYTHON_TYPES)

_INT_TEXT = re.compile(r"[+-]?[0-9]+")
_FLOAT_TEXT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# A job's row, its events and its messages are kept and shown: what would open something has no place there.
_CREDENTIALS = {
    "a shared access signature (sig=)": re.compile(r"[?&]sig=[^&\s]"),
    "a key (AccountKey=, SharedAccessKey=)": re.compile(
        r"(AccountKey|SharedAccessKey|SharedAccessSignature)=[^;\s]", re.IGNORECASE
    ),
    "a password before the host (user:password@)": re.compile(r"://[^/?#\s:@]+:[^/?#\s@]+@"),
}
_BOOL_TEXTS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class ParameterError:
    """One problem: `field` is a path such as `tiles[3].size`."""

    field: str
    expected: str
    found: str
    hint: str | None = None

    @property
    def message(self) -> str:
        text = f"{self.field}: expected {self.expected}, found {self.found}"
        return f"{text}; {self.hint}" if self.hint else text


class ParameterErrors(InvalidParameters):
    """All problems of one set of parameters, a line each."""

    def __init__(self, errors: Iterable[ParameterError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(error.message for error in self.errors))

    def __reduce__(self) -> tuple[type["ParameterErrors"], tuple[tuple[ParameterError, ...]]]:
        return type(self), (self.errors,)

    def as_list(self) -> list[dict[str, Any]]:
        """The problems as JSON-able dicts: field, expected, found, hint, message."""
        return [{**asdict(error), "message": error.message} for error in self.errors]


def validate_parameters(schema: Schema, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Validated values with defaults, in the order of the schema.

    The result shares nothing with the schema or the parameters. An int given for a float becomes a float, so that
    both spellings are the same job. An absent optional parameter without a default is left out.

    Args:
        schema: A schema in which `check_schema` finds no problem.
        parameters: Values as JSON carries them; texts are not converted (see `coerce_text_parameters`).

    Raises:
        ParameterErrors: with every problem, not only the first.
    """
    errors: list[ParameterError] = []
    values = _check_fields(schema, parameters, "", errors)
    if errors:
        raise ParameterErrors(errors)
    return values


def check_value(entry: Entry, value: Any, path: str) -> tuple[Any, list[ParameterError]]:
    """One value against one entry: what it becomes, and its problems."""
    errors: list[ParameterError] = []
    return _check_value(entry, value, path, errors), errors


def coerce_text_parameters(schema: Schema, texts: Mapping[str, str]) -> dict[str, Any]:
    """Texts of a command line or query string as the types that the schema names; validation comes after.

    Numbers and bools (true/false, yes/no, on/off, 1/0) are converted, lists and dicts are read as JSON, `null` is None
    where the entry is nullable (and no str). Unknown names pass through for `validate_parameters` to refuse.

    Raises:
        ParameterErrors: with every text that is not of its type.
    """
    errors: list[ParameterError] = []
    values: dict[str, Any] = {}
    for name, text in texts.items():
        entry = schema.get(name, {"type": "str"})
        convert = _CONVERTERS.get(entry["type"])
        if convert is None:
            values[name] = text
        elif text == "null" and entry.get("nullable"):
            values[name] = None
        else:
            try:
                values[name] = convert(text.strip())
            except (ValueError, RecursionError):
                errors.append(ParameterError(name, f"text of type {entry['type']}", describe(text)))
    if errors:
        raise ParameterErrors(errors)
    return values


def nearest_name_hint(name: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: the nearest known one, or all of them."""
    names = list(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    return f"known names: {', '.join(names)}" if names else "no names are known here; leave it out"


def _check_fields(schema: Schema, values: Mapping[str, Any], path: str, errors: list[ParameterError]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, entry in schema.items():
        field = join_path(path, name)
        if name in values:
            checked[name] = _check_value(entry, values[name], field, errors)
        elif "default" in entry:
            # Through the same rules: defaults inside a default dict are filled in too.
            checked[name] = _check_value(entry, entry["default"], field, errors)
        elif entry.get("required"):
            errors.append(ParameterError(field, _expected(entry), "nothing", "this parameter is required"))
    for name in values:
        if name not in schema:
            hint = nearest_name_hint(str(name), schema)
            errors.append(ParameterError(join_path(path, str(name)), "a known name", f"unknown name {name!r}", hint))
    return checked


def _check_value(entry: Entry, value: Any, path: str, errors: list[ParameterError]) -> Any:
    if value is None and entry.get("nullable"):
        return None
    kind = entry["type"]
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            errors.append(ParameterError(path, "a finite number", "an int beyond the range of float"))
            return value
    if not isinstance(value, _PYTHON_TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
        errors.append(ParameterError(path, _expected(entry), describe(value), _type_hint(kind, value)))
        return value
    before = len(errors)
    value = _check_inside(entry, value, path, errors)
    if len(errors) == before:
        _check_rules(entry, value, path, errors)
    return value


def _check_inside(entry: Entry, value: Any, path: str, errors: list[ParameterError]) -> Any:
    """Items and properties by their own entries; whatever has none need only be JSON."""
    if isinstance(value, list) and "items" in entry:
        return [_check_value(entry["items"], item, f"{path}[{index}]", errors) for index, item in enumerate(value)]
    if isinstance(value, Mapping) and "properties" in entry:
        return _check_fields(entry["properties"], value, path, errors)
    problems = [
        ParameterError(problem.path, problem.expected, problem.found) for problem in find_json_problems(value, path)
    ]
    errors.extend(problems)
    return value if problems else copy.deepcopy(value)


def _check_rules(entry: Entry, value: Any, path: str, errors: list[ParameterError]) -> None:
    """Credentials, bounds, pattern and allowed values of a value whose type is right."""
    credential = _find_credential(value)
    if credential is not None:
        advice = "name the place alone, and let the app's identity open it: parameters are kept and shown"
        errors.append(ParameterError(path, "text without credentials", credential, advice))
        return
    sized = isinstance(value, str | list)
    measure = len(value) if sized else value
    word = "a length of " if sized else ""
    found = f"length {measure}" if sized else describe(value)
    if "min" in entry and measure < entry["min"]:
        errors.append(ParameterError(path, f"{word}at least {entry['min']}", found))
    if "max" in entry and measure > entry["max"]:
        errors.append(ParameterError(path, f"{word}at most {entry['max']}", found))
    if "pattern" in entry and not re.fullmatch(entry["pattern"], value):
        errors.append(ParameterError(path, f"text that matches {entry['pattern']!r}", describe(value)))
    if "allowed" in entry and value not in entry["allowed"]:
        texts = [item for item in entry["allowed"] if isinstance(item, str)]
        hint = nearest_name_hint(value, texts) if isinstance(value, str) else None
        errors.append(ParameterError(path, f"one of {list(entry['allowed'])!r}", describe(value), hint))


def _find_credential(value: Any) -> str | None:
    """What kind of credential the text holds; never the text itself."""
    if not isinstance(value, str):
        return None
    found = (name for name, pattern in _CREDENTIALS.items() if pattern.search(value))
    return next(found, None)


def _expected(entry: Entry) -> str:
    return f"{entry['type']} or null" if entry.get("nullable") else str(entry["type"])


def _type_hint(kind: str, value: Any) -> str | None:
    if isinstance(value, str) and kind in {"int", "float", "bool"}:
        return "write it without quotes"
    if isinstance(value, bool) and kind in {"int", "float"}:
        return "true and false are not numbers"
    return "leave it out, or declare the entry nullable" if value is None else None


def _int_from_text(text: str) -> int:
    if not _INT_TEXT.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _float_from_text(text: str) -> float:
    if not _FLOAT_TEXT.fullmatch(text):
        raise ValueError(text)
    return float(text)


def _bool_from_text(text: str) -> bool:
    value = _BOOL_TEXTS.get(text.lower())
    if value is None:
        raise ValueError(text)
    return value


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "int": _int_from_text,
    "float": _float_from_text,
    "bool": _bool_from_text,
    "list": json.loads,
    "dict": json.loads,
}
