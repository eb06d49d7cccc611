"""Validation of a job's parameters against its declarative `parameters_schema`.

An entry of the schema has the keys `type` (int, float, str, bool, list or dict), `required`, `default`, `min` and `max`
(of the number, or of the length of a str or list), `allowed`, `pattern` (str, whole text), `format` (str: `path`),
`items` (the entry of each item), `properties` (the schema of a dict), `nullable`, `description` and `example`.
`jobs.parameter_schema` checks it.
"""

import copy
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from json import loads
from typing import Any

from core.basics.canonical import NotJson, describe, find_json_problems, join_path, shown
from core.errors import InvalidParameters
from core.safety.credentials import find_credential, redact
from core.safety.safe_text import bounded_text, text_of

Entry = Mapping[str, Any]
Schema = Mapping[str, Entry]
# What was expected, what was found, and perhaps what to do.
Told = tuple[str, str] | tuple[str, str, str | None]

_PYTHON_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": Mapping}
TYPE_NAMES = tuple(_PYTHON_TYPES)

_INT_TEXT = re.compile(r"[+-]?[0-9]+")
_FLOAT_TEXT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# The number of problems that are reported; more help nobody, and a body has room for a hundred thousand.
MAX_PROBLEMS = 20
_LONGEST_PART = 1000
# Beyond these nothing near is looked for: the search compares each letter with each.
_MAX_NEAR_LETTERS, _MAX_NEAR_NAMES = 100, 200
_ADVICE = "name the place alone, and let the app's identity open it: parameters are kept and shown"
_AS_JSON = {"list": '["a", "b"]', "dict": '{"a": 1}'}
_BOOL_TEXTS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class ParameterError:
    """One problem: `field` is a path such as `tiles[3].size`. What the sender wrote is shown without credentials."""

    field: str
    expected: str
    found: str
    hint: str | None = None

    def __post_init__(self) -> None:
        for name in ("field", "found"):
            text = getattr(self, name)
            if isinstance(text, str):  # what an author's own code put there may be anything
                object.__setattr__(self, name, redact(text))

    @property
    def message(self) -> str:
        return _message_of(self)


class ParameterErrors(InvalidParameters):
    """The problems of one set of parameters, one per line; `more` counts those that are left out."""

    def __init__(self, errors: Iterable[ParameterError], more: int = 0) -> None:
        told = tuple(errors)
        shown_errors = tuple(map(_as_error, told[:MAX_PROBLEMS]))
        untold = (more if isinstance(more, int) else 0) + len(told) - len(shown_errors)
        self.errors, self.more = shown_errors, untold
        lines = [_message_of(error) for error in shown_errors]
        super().__init__("\n".join([*lines, f"and {untold} more"] if untold else lines))

    def __reduce__(self) -> tuple[type["ParameterErrors"], tuple[tuple[ParameterError, ...], int]]:
        return type(self), (self.errors, self.more)

    def as_list(self) -> list[dict[str, Any]]:
        """The problems as JSON-able dicts: field, expected, found, hint, message."""
        return [{**asdict(error), "message": error.message} for error in self.errors]

    def in_plain_text(self) -> InvalidParameters:
        """As the other; the problems stay apart."""
        errors, more = getattr(self, "errors", None), getattr(self, "more", 0)
        if type(errors) is not tuple or not errors:
            return super().in_plain_text()
        return ParameterErrors([_plain_error(_as_error(error)) for error in errors], more)


def _message_of(error: ParameterError) -> str:
    text = f"{text_of(error.field)}: expected {text_of(error.expected)}, found {text_of(error.found)}"
    return text if error.hint is None or error.hint == "" else f"{text}; {text_of(error.hint)}"


def _as_error(told: object) -> ParameterError:
    """A problem, whatever an author's validator took for one."""
    if isinstance(told, ParameterError):
        return told
    return ParameterError("parameters", "values that this job type takes", text_of(told))


def _plain_error(error: ParameterError) -> ParameterError:
    hint = None if error.hint is None else _plain(error.hint)
    return ParameterError(_plain(error.field), _plain(error.expected), _plain(error.found), hint)


def _plain(value: object) -> str:
    return bounded_text(text_of(value), _LONGEST_PART)


class Problems:
    """Gathers problems: the first are kept, the others counted."""

    def __init__(self) -> None:
        self.told: list[ParameterError] = []
        self.count = 0

    def add(self, path: str, make: Callable[[], Told]) -> None:
        """One at `path`; `make` gives what was expected, what was found and perhaps what to do."""
        self.count += 1
        if len(self.told) < MAX_PROBLEMS:
            self.told.append(ParameterError(path, *make()))

    def refuse(self) -> None:
        """Raises ParameterErrors if there are any."""
        if self.count:
            raise ParameterErrors(self.told, self.count - len(self.told))


def validate_parameters(schema: Schema, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Validated values with defaults, in the order of the schema.

    The result shares nothing with the schema or the parameters. An int given for a float becomes a float, so that
    both spellings are the same job. An absent optional parameter without a default is left out.

    Args:
        schema: A schema in which `check_schema` finds no problem.
        parameters: Values as JSON carries them; texts are not converted (see `coerce_text_parameters`).

    Raises:
        ParameterErrors: with the first problems and the number of all.
    """
    errors = Problems()
    values = _check_fields(schema, parameters, "", errors)
    errors.refuse()
    return values


def check_value(entry: Entry, value: Any, path: str) -> tuple[Any, list[ParameterError]]:
    """One value against one entry: what it becomes, and its problems."""
    errors = Problems()
    return _check_value(entry, value, path, errors), errors.told


def coerce_text_parameters(schema: Schema, texts: Mapping[str, str]) -> dict[str, Any]:
    """Texts of a command line or query string as the types that the schema names; validation comes after.

    Numbers and bools (true/false, yes/no, on/off, 1/0) are converted, lists and dicts are read as JSON, `null` is None
    where the entry is nullable (and no str). Unknown names pass through for `validate_parameters` to refuse.

    Raises:
        ParameterErrors: with the texts that are not of their type.
    """
    errors = Problems()
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
                errors.add(name, partial(_not_of_type, entry, text))
    errors.refuse()
    return values


def nearest_name_hint(name: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: the nearest known one, or all of them."""
    names = list(islice(known, _MAX_NEAR_NAMES))
    return near_name_hint(name, names) or (
        f"known names: {', '.join(names)}" if names else "no names are known here; leave it out"
    )


def near_name_hint(name: str, known: Iterable[str]) -> str | None:
    """The nearest known name, for an error that has all of them; None where none is near."""
    names = list(islice(known, _MAX_NEAR_NAMES))
    nearest = len(name) <= _MAX_NEAR_LETTERS and difflib.get_close_matches(name, names, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else None


def _check_fields(schema: Schema, values: Mapping[str, Any], path: str, errors: Problems) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, entry in schema.items():
        field = join_path(path, name)
        if name in values:
            checked[name] = _check_value(entry, values[name], field, errors)
        elif "default" in entry:
            # Through the same rules: defaults inside a default dict are filled in too.
            checked[name] = _check_value(entry, entry["default"], field, errors)
        elif entry.get("required"):
            errors.add(field, partial(_missing, entry))
    for name in values:
        if name not in schema:
            _refuse_unknown(str(name), schema, path, errors)
    return checked


def _refuse_unknown(name: str, schema: Schema, path: str, errors: Problems) -> None:
    errors.add(
        shown_path(join_path(path, name)),
        lambda: ("a known name", f"unknown name {shown(name, _MAX_NEAR_LETTERS)}", nearest_name_hint(name, schema)),
    )


def _check_value(entry: Entry, value: Any, path: str, errors: Problems) -> Any:
    if value is None and entry.get("nullable"):
        return None
    kind = entry["type"]
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            errors.add(path, lambda: ("a finite number", "an int beyond the range of float"))
            return value
    if not isinstance(value, _PYTHON_TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
        errors.add(path, lambda: (_expected(entry), describe(value), type_hint(kind, value)))
        return value
    before = errors.count
    value = _check_inside(entry, value, path, errors)
    if errors.count == before:
        _check_rules(entry, value, path, errors)
    return value


def _check_inside(entry: Entry, value: Any, path: str, errors: Problems) -> Any:
    """Items and properties by their own entries; whatever has none need only be JSON without credentials."""
    if isinstance(value, list) and "items" in entry:
        return [_check_value(entry["items"], item, f"{path}[{index}]", errors) for index, item in enumerate(value)]
    if isinstance(value, Mapping) and "properties" in entry:
        return _check_fields(entry["properties"], value, path, errors)
    return copy.deepcopy(value) if check_free_value(value, path, errors) else value


def check_free_value(value: Any, path: str, errors: Problems) -> bool:
    """Whether a value of no declared kind is JSON without credentials; if not, the problems are added."""
    before = errors.count
    for problem in find_json_problems(value, path):
        errors.add(shown_path(problem.path), partial(_not_json, problem))
    if errors.count > before:
        return False
    # By the parameter's own name nothing is judged: it is the author's, and names what is expected.
    credential = find_credential(value, path)
    if credential is not None:
        errors.add(shown_path(credential.path), lambda: ("text without credentials", credential.kind, _ADVICE))
    return credential is None


def _check_rules(entry: Entry, value: Any, path: str, errors: Problems) -> None:
    """Bounds, pattern and allowed values of a value whose type is right."""
    sized = isinstance(value, str | list)
    measure = len(value) if sized else value

    def tell(word: str, bound: float) -> Told:  # only where there is a problem: to describe a value takes longer
        if not sized:
            return f"{word} {bound}", describe(value)
        return f"{word} {count_of(value, int(bound))}", str(measure)

    if "min" in entry and measure < entry["min"]:
        errors.add(path, lambda: tell("at least", entry["min"]))
    if "max" in entry and measure > entry["max"]:
        errors.add(path, lambda: tell("at most", entry["max"]))
    if "pattern" in entry and not re.fullmatch(entry["pattern"], value):
        errors.add(path, lambda: (f"text that matches {entry['pattern']!r}", describe(value)))
    if "allowed" in entry and value not in entry["allowed"]:
        texts = [item for item in entry["allowed"] if isinstance(item, str)]
        hint = near_name_hint(value, texts) if isinstance(value, str) else None
        errors.add(path, lambda: (f"one of {list(entry['allowed'])!r}", describe(value), hint))


def count_of(value: object, count: int) -> str:
    """A number with what is counted of such a value: characters of a text, items of anything else."""
    unit = "character" if isinstance(value, str) else "item"
    return f"{count} {unit}{'' if count == 1 else 's'}"


def shown_path(path: str) -> str:
    """A path with names of the sender's own, as text that can be encoded and printed."""
    return path.encode("utf-8", "backslashreplace").decode()


def _missing(entry: Entry) -> Told:
    return _expected(entry), "nothing", "this parameter is required"


def _not_of_type(entry: Entry, text: str) -> Told:
    example = _AS_JSON.get(entry["type"])
    return f"{entry['type']} as JSON, such as {example}" if example else f"text of type {entry['type']}", describe(text)


def _not_json(problem: NotJson) -> Told:
    return problem.expected, problem.found


def _expected(entry: Entry) -> str:
    return f"{entry['type']} or null" if entry.get("nullable") else str(entry["type"])


def type_hint(kind: str, value: Any) -> str | None:
    """What to do about a value of another type."""
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
    "list": loads,
    "dict": loads,
}
