"""One text for one JSON value, and the job id made from it."""

import hashlib
import json
import math
import re
import reprlib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

# jsonb stores neither NUL nor half a surrogate pair; refusing them early names the field.
_UNSTORABLE_TEXT = re.compile("[\x00\ud800-\udfff]")

# The same as JSON escapes them; a backslash before one makes it plain text, so a find is looked into.
_UNSTORABLE_ESCAPE = re.compile(r"\\u(?:0000|d[89a-f])", re.IGNORECASE)

# Deeper than anything that is meant, and far from where Python's own functions on such values give up.
MAX_LEVELS = 100
# How much of what was found is told.
_SHOWN, _SHOWN_NAME, _SHOWN_PATH = 80, 100, 300
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxtuple, _SHORT.maxstring, _SHORT.maxother = (
    3,
    20,
    20,
    20,
    60,
    60,
)


class NotJson(ValueError):
    """A value that JSON (or jsonb) cannot carry, and where it stands."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        super().__init__(f"{path or 'value'}: expected {expected}, found {found}; convert it before it is stored")
        self.path = path
        self.expected = expected
        self.found = found


def describe(value: Any) -> str:
    """Type and shortened value, for error messages."""
    if value is None:
        return "null"
    text = _SHORT.repr(value) if isinstance(value, list | tuple | Mapping) else shown(value, _SHOWN)
    return f"{type(value).__name__} {text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'}"


def shown(value: Any, longest: int) -> str:
    """The value as Python writes it, cut before that is done; text that cannot be encoded is escaped."""
    if isinstance(value, str):
        value = value[:longest]
        return ascii(value) if _UNSTORABLE_TEXT.search(value) else repr(value)
    return _SHORT.repr(value) if isinstance(value, list | tuple | Mapping) else repr(value)[:longest]


def join_path(path: str, name: str) -> str:
    """The path of a name inside; no longer than a line, however long the names are."""
    joined = f"{path}.{name[:_SHOWN_NAME]}" if path else name[:_SHOWN_NAME]
    return joined if len(joined) <= _SHOWN_PATH else f"...{joined[-_SHOWN_PATH:]}"


def find_json_problems(value: Any, path: str = "", levels: int = MAX_LEVELS) -> Iterator[NotJson]:
    """Every place in the value that JSON cannot carry, or that is too deep, in reading order."""
    if levels < 0:
        yield NotJson(path[:_SHOWN_NAME], f"at most {MAX_LEVELS} levels of lists and objects", "more")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(name, str):
                yield from find_json_problems(name, path)
                yield from find_json_problems(inner, join_path(path, name), levels - 1)
            else:
                yield NotJson(path, "names that are str", describe(name))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from find_json_problems(inner, f"{path}[{index}]", levels - 1)
    elif expected := _expected_instead(value):
        yield NotJson(path, expected, describe(value))


def canonical_json(value: Any) -> str:
    """The value as JSON with sorted names and no white space; 1 and 1.0 stay apart.

    Raises:
        NotJson: names the path of the first value that JSON cannot carry.
    """
    # Room for what stands around a value that was checked.
    for problem in find_json_problems(value, levels=MAX_LEVELS + 10):
        raise problem
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)


class EncodedJson(str):
    """JSON text that was checked: PostgreSQL's jsonb takes it."""

    __slots__ = ()


def encode_storable(value: Any, path: str = "") -> EncodedJson:
    """The value as JSON text that jsonb can store; encoded once, here, and passed on as it is.

    Raises:
        NotJson: Names the path of the first value that JSON or jsonb cannot carry.
    """
    try:
        text = _ENCODER.encode(value)
    except (TypeError, ValueError):
        text = None
    if text is None or _UNSTORABLE_ESCAPE.search(text):
        for problem in find_json_problems(value, path):
            raise problem
    return EncodedJson(text if text is not None else json.dumps(value, default=_plain))


def as_stored(text: EncodedJson) -> Any:
    """The value as PostgreSQL's jsonb would give it back: names in its order, numbers as its numeric writes them."""
    return _DECODER.decode(text)


def job_id_for(job_type: str, parameters: Mapping[str, Any]) -> str:
    """SHA-256 (64 hex digits) over job type and validated parameters; the order of names does not matter.

    Raises:
        NotJson: a parameter is no JSON value.
    """
    # One JSON array, not two texts side by side: no job type can run over into the parameters.
    return hashlib.sha256(canonical_json([job_type, parameters]).encode("ascii")).hexdigest()


def forced_job_id_for(job_type: str, parameters: Mapping[str, Any], nonce: str) -> str:
    """As `job_id_for`, over a nonce too: a job of its own for each nonce. The job's row keeps all three.

    Raises:
        NotJson: a parameter is no JSON value.
    """
    return hashlib.sha256(canonical_json([job_type, parameters, nonce]).encode("ascii")).hexdigest()


def _plain(value: Any) -> dict[str, Any]:
    """Mappings other than dict, which json.dumps does not know; everything else was refused before."""
    return dict(value)


def _expected_instead(value: Any) -> str | None:
    """What a scalar should have been; None if it is fine."""
    if isinstance(value, str):
        return "text without NUL and lone surrogates" if _UNSTORABLE_TEXT.search(value) else None
    if isinstance(value, float):
        return None if math.isfinite(value) else "a finite number"
    return None if value is None or isinstance(value, int) else "a JSON value"


def _stored_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Names in the order of jsonb: by their length in bytes, then by bytes."""
    return dict(sorted(pairs, key=lambda pair: (len(name := pair[0].encode()), name)))


def _stored_number(text: str) -> int | float:
    """`1e+16` becomes the whole number that numeric makes of it, and -0.0 becomes 0.0."""
    number = Decimal(text)
    exponent = number.as_tuple().exponent
    return int(number) if isinstance(exponent, int) and exponent >= 0 else float(number) + 0.0


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_plain)
_DECODER = json.JSONDecoder(object_pairs_hook=_stored_object, parse_float=_stored_number)
