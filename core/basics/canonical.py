"""One text for one JSON value, and the job id made from it."""

import hashlib
import json.encoder
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from operator import length_hint
from typing import Any, cast

from core.basics.strict_json import EncodedJson
from core.safety.credentials import redacted_start
from core.safety.safe_text import bounded_text, repr_of, type_name

# jsonb stores neither NUL nor half a surrogate pair; refusing them early names the field.
_UNSTORABLE_TEXT = re.compile("[\x00\ud800-\udfff]")

# The same as JSON escapes them; a backslash before one makes it plain text, so a find is looked into.
_UNSTORABLE_ESCAPE = re.compile(r"\\u(?:0000|d[89a-f])", re.IGNORECASE)

# What holds more levels than this can be stored, but not by everybody be read again.
MOST_LEVELS = 100
_LEVELS_AROUND = 10
# Python writes and reads numbers of 4,300 digits.
_MOST_BITS = 14_000
_LONGEST_PATH, _LONGEST_NAME = 300, 100
# A value beyond this is stored, and noted in its job's timeline: rows are no place for data.
LARGE_VALUE_BYTES = 64 * 1024
# The largest value, unless a setting has another one.
MOST_VALUE_BYTES = 16 * 1024 * 1024
# PostgreSQL reads an array into memory 32 bytes an element and 1 GB at most: 2 ** 24 elements, of two characters each.
MOST_JSONB_BYTES = 32 * 1024 * 1024
# As many are in that: each has a character and a comma. A value that holds itself has no end.
MOST_VALUES = MOST_JSONB_BYTES // 2
# jsonb holds no longer array, object or text.
_MOST_JSONB_PART = 2**28 - 1
# The first values' digits are not counted: however many they have, it is no more than that.
_UNCOUNTED_LEFT = MOST_VALUES - _MOST_JSONB_PART // 4300
# A value that may be no larger than that many times what it may be is written, to name its size.
_WRITTEN_TO_COUNT = 4
# Values that are written in one call are not more than this together, unless it is one: a message to it has 1 GB.
MOST_BYTES_AT_ONCE = 32 * 1024 * 1024


class NotJson(ValueError):
    """A value that JSON (or jsonb) cannot carry, and its place."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        where = bounded_text(path, _LONGEST_PATH) or "value"
        super().__init__(f"{where}: expected {expected}, found {found}; convert it before it is stored")
        self.path = path
        self.expected = expected
        self.found = found


class ValueTooLarge(ValueError):
    """A value that PostgreSQL might take, but that is no reading matter for everybody who comes after."""

    def __init__(self, path: str, size: int, most_bytes: int, *, is_counted: bool = True) -> None:
        self.size, self.most_bytes = size, most_bytes
        found = f"{size:,}" if is_counted else f"{size:,} or more"
        # The setting goes up to there.
        advice = "" if size > MOST_JSONB_BYTES else ", or raise COREMACHINE_MAX_VALUE_BYTES"
        super().__init__(
            f"{path or 'value'}: expected at most {most_bytes:,} bytes of JSON, found {found}; put it into storage "
            f"and give the place where it is{advice}"
        )


def describe(value: Any) -> str:
    """Type and shortened value without credentials, for error messages."""
    if value is None:
        return "null"
    if isinstance(value, str) and not _UNSTORABLE_TEXT.search(value):
        return f"{type_name(value)} {_one_line(value)}"
    return f"{type_name(value)} {repr_of(value)}"


def shown(value: Any, longest: int) -> str:
    """The value as Python writes it, without credentials, cut before that is done; what has no encoding is escaped."""
    if isinstance(value, str) and not _UNSTORABLE_TEXT.search(value):
        return repr(redacted_start(value, longest))
    return repr_of(value, longest)


def join_path(path: str, name: str) -> str:
    """The path of a name inside; no longer than a line, however long the names are."""
    joined = f"{path}.{name[:_LONGEST_NAME]}" if path else name[:_LONGEST_NAME]
    return joined if len(joined) <= _LONGEST_PATH else f"...{joined[-_LONGEST_PATH:]}"


def find_json_problems(value: Any, path: str = "", levels: int = 0) -> Iterator[NotJson]:
    """Every place in the value that JSON cannot carry, in reading order."""
    if levels >= MOST_LEVELS and isinstance(value, _HOLDERS):
        yield NotJson(path, f"at most {MOST_LEVELS} levels of nesting", "more, or a value that holds itself")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(name, str):
                yield from find_json_problems(name, path)
                yield from find_json_problems(inner, join_path(path, name), levels + 1)
            else:
                yield NotJson(path, "names that are str", describe(name))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from find_json_problems(inner, f"{path}[{index}]", levels + 1)
    elif expected := _expected_instead(value):
        yield NotJson(path, expected, describe(value))


def canonical_json(value: Any) -> str:
    """The value as JSON with sorted names and no white space; 1 and 1.0 stay apart.

    Raises:
        NotJson: names the path of the first value that JSON cannot carry.
    """
    # Room for the levels around a value that was checked.
    if not _is_plain(value, _Room(), -_LEVELS_AROUND):
        value = plain_copy(value, levels=-_LEVELS_AROUND)
    for problem in find_json_problems(value, levels=-_LEVELS_AROUND):
        raise problem
    return _encode_canonical(value)


def encode_storable(value: Any, path: str = "", *, most_bytes: int | None = None) -> EncodedJson:
    """The value as JSON text that jsonb can store; encoded once, here, and passed on as it is.

    Args:
        path: What the value is, for messages.
        most_bytes: How large the text may be; None: as large as it is.

    Raises:
        NotJson: Names the path of the first value that JSON or jsonb cannot carry.
        ValueTooLarge: Has its size and the largest permitted one.
    """
    most = _MOST_JSONB_PART if most_bytes is None else _WRITTEN_TO_COUNT * most_bytes
    room = _Room(most)
    try:
        text = _encode(value) if _is_plain(value, room) else None
    except (TypeError, ValueError):
        text = None
    if text is None:
        if room.bytes >= 0:
            value, room = plain_copy(value, path, most_bytes=most_bytes), _Room(most)
            _is_plain(value, room)
        if room.bytes < 0:
            # Before it is written: as text, a list of one long text in many places is as long as all of them.
            raise ValueTooLarge(path, most - room.bytes, most_bytes or most, is_counted=False)
    if text is None or ("\\u" in text and _UNSTORABLE_ESCAPE.search(text)):
        for problem in find_json_problems(value, path):
            raise problem
    if text is None:
        text = _encode(value)
    encoded = EncodedJson(text)
    if most_bytes is not None and len(encoded) > most_bytes:
        raise ValueTooLarge(path, len(encoded), most_bytes)
    return encoded


def plain_copy(value: Any, path: str = "", levels: int = 0, *, most_bytes: int | None = None) -> Any:
    """The value in dicts, lists and scalars of exactly Python's own types; what JSON does not know stays as it is.

    Each mapping and list is read once, so that what is checked is what is stored: a class of an author's may give
    other items each time, or never end.

    Raises:
        NotJson: More than 100 levels, more than MOST_VALUES, a name that is no text, or a name twice in one mapping.
        ValueTooLarge: Its JSON is larger than most_bytes; what comes after that is not read.
    """
    return _PlainCopy(path, _MOST_JSONB_PART if most_bytes is None else most_bytes).of(value, path, levels)


class _PlainCopy:
    """One copy, the number of values that it may still have, and the bytes that its JSON has at least."""

    def __init__(self, path: str, most_bytes: int) -> None:
        self._path, self._left = path, MOST_VALUES
        self._most_bytes, self._bytes = most_bytes, 0

    def of(self, value: Any, path: str, levels: int) -> Any:
        kind = type(value)
        if issubclass(kind, str):
            self._count(str.__len__(value))
        if kind in _SCALARS:
            return value
        # Of the type, whatever class the value claims to have.
        if not issubclass(kind, _HOLDERS):
            return next((own(value) for base, own in _OWN_FORMS if issubclass(kind, base)), value)
        if levels >= MOST_LEVELS:
            raise NotJson(path, f"at most {MOST_LEVELS} levels of nesting", "more, or a value that holds itself")
        if issubclass(kind, Mapping):
            return self._mapping(value.items(), path, levels)
        return [
            self.of(inner, f"{path}[{index}]", levels + 1) for index, inner in enumerate(self._counted(value, path))
        ]

    def _mapping(self, items: Iterable[tuple[Any, Any]], path: str, levels: int) -> dict[Any, Any]:
        copy: dict[Any, Any] = {}
        for name, inner in self._counted(items, path):
            if not issubclass(type(name), str):
                raise NotJson(path, "names that are str", describe(name))
            own = str.__str__(name)
            # With its quotes and its colon.
            self._count(len(own) + 3)
            if own in copy:
                raise NotJson(path, "each name once", f"{describe(own)} twice")
            copy[own] = self.of(inner, join_path(path, own), levels + 1)
        return copy

    def _counted(self, values: Iterable[Any], path: str) -> Iterator[Any]:
        for value in values:
            self._left -= 1
            if self._left < 0:
                raise NotJson(path, f"at most {MOST_VALUES:,} values in all", "more, or a value without an end")
            # A character, and a comma or a bracket.
            self._count(2)
            yield value

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._most_bytes:
            raise ValueTooLarge(self._path, self._bytes, self._most_bytes, is_counted=False)


def copied(value: Any) -> Any:
    """A JSON value of one's own: mappings become dicts, tuples lists."""
    if type(value) is dict or isinstance(value, Mapping):
        return {name: inner if type(inner) in _SCALARS else copied(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [inner if type(inner) in _SCALARS else copied(inner) for inner in value]
    return value


def as_stored(text: EncodedJson) -> Any:
    """The value as PostgreSQL's jsonb would give it back: names in its order, numbers as its numeric writes them."""
    return _scan(text, 0)[0]


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


class _Room:
    """How many values there may still be, and how many bytes their JSON may still have, as far as it was counted."""

    __slots__ = ("bytes", "values")

    def __init__(self, most_bytes: int = _MOST_JSONB_PART) -> None:
        self.values, self.bytes = MOST_VALUES, most_bytes


def _is_plain(value: Any, room: _Room, levels: int = 0) -> bool:
    """Whether all of the value is of Python's own types and no larger than that: the encoder sees what is there.

    Every result comes through here, so that the most of it is left to the interpreter's own loops.
    """
    kind = type(value)
    if kind is dict:
        if not _NAMES.issuperset(map(type, value)):
            return False
        inside: Collection[Any] = value.values()
    elif kind is list or kind is tuple:
        inside = value
    else:
        return kind in _SCALARS
    count = len(inside)
    room.values -= count
    # Texts have their characters, and what holds others one for each.
    room.bytes -= count + sum(map(length_hint, inside))
    if room.values < _UNCOUNTED_LEFT:
        room.bytes -= _digits_in(inside)
    if levels >= MOST_LEVELS or room.values < 0 or room.bytes < 0:
        return False
    if _SCALARS.issuperset(map(type, inside)):
        return True
    # A loop, which ends at the first that is not: a value that holds itself twice has no end.
    for inner in inside:  # noqa: SIM110 - quicker
        if type(inner) not in _SCALARS and not _is_plain(inner, room, levels + 1):
            return False
    return True


def _digits_in(values: Collection[Any]) -> int:
    """No more than the digits of their whole numbers."""
    return sum([value.bit_length() for value in values if type(value) is int]) // 4


def _expected_instead(value: Any) -> str | None:
    """What a scalar should have been; None if it is fine."""
    if isinstance(value, str):
        return "text without NUL and lone surrogates" if _UNSTORABLE_TEXT.search(value) else None
    if isinstance(value, float):
        return None if math.isfinite(value) else "a finite number"
    if isinstance(value, int):
        return None if int.bit_length(value) <= _MOST_BITS else "a number of at most 4,000 digits"
    return None if value is None else "a JSON value"


def _one_line(text: str, most_characters: int = 80) -> str:
    shown = repr(redacted_start(text, most_characters + 1))
    return shown if len(shown) <= most_characters else shown[: most_characters - 3] + "..."


def _stored_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Names in the order of jsonb: by their length in bytes, then by bytes."""
    return dict(sorted(pairs, key=lambda pair: (len(name := pair[0].encode()), name)))


def _stored_number(text: str) -> int | float:
    """`1e+16` becomes the whole number that numeric makes of it, and -0.0 becomes 0.0."""
    number = Decimal(text)
    exponent = number.as_tuple().exponent
    return int(number) if isinstance(exponent, int) and exponent >= 0 else float(number) + 0.0


_NAMES = frozenset({str})
_SCALARS = frozenset({str, int, float, bool, type(None)})
_HOLDERS = (Mapping, list, tuple)
# What a subclass holds, whatever its methods say of it.
_OWN_FORMS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def _encoder() -> Callable[[Any], str]:
    """`_ENCODER.encode` without what it does anew for each value, which takes longer than a small one.

    It finds no value that holds itself: nesting is bounded before (`_is_plain`).
    """
    make = vars(json.encoder).get("c_make_encoder")
    if make is None:
        return _ENCODER.encode
    encode = make(None, _ENCODER.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, False)
    return lambda value: "".join(encode(value, 0))


_encode = _encoder()
# Made once: whatever an author's code puts in the place of `json.dumps`, the same parameters are the same job.
_encode_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
# Of text that begins and ends with its value; `decode` would look for white space around it.
_scan: Callable[[str, int], tuple[Any, int]] = cast(
    "Any", json.JSONDecoder(object_pairs_hook=_stored_object, parse_float=_stored_number)
).scan_once
