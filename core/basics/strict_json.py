"""Reads JSON in one way for HTTP and queues alike: what two readers could read differently is refused."""

import re
import sys
from json import JSONDecodeError, loads
from typing import Any, NoReturn

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class EncodedJson(str):
    """JSON text that was checked: PostgreSQL's jsonb takes it."""

    __slots__ = ()


class NotAnObject(ValueError):
    """No JSON object; `found` is what it is instead."""

    def __init__(self, found: str) -> None:
        super().__init__(f"expected a JSON object, found {found}")
        self.found = found


class _NotAllowed(ValueError):
    """What Python reads as JSON, and RFC 8259 or the store does not."""


def parse_object(body: bytes) -> dict[str, Any]:
    """RFC 8259 to the letter: no NaN, no name twice, and no name that cannot be stored.

    Raises:
        NotAnObject: For anything but an object.
    """
    try:
        value = loads(body.decode("utf-8-sig"), object_pairs_hook=_checked_names, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise NotAnObject(f"a byte that is not UTF-8, at {error.start}") from error
    except JSONDecodeError as error:
        raise NotAnObject(f"no JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except _NotAllowed as error:
        raise NotAnObject(str(error)) from error
    except RecursionError as error:
        raise NotAnObject("nesting without end") from error
    except ValueError as error:
        # Python reads no more digits than that, and would name a setting of its own.
        raise NotAnObject(f"a number of more than {sys.get_int_max_str_digits()} digits") from error
    if not isinstance(value, dict):
        names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
        raise NotAnObject(names.get(type(value), "a number"))
    return value


def _checked_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _NotAllowed(f"the name {twice[:100]!a} twice in one object")
    for name in value:
        if not name.isascii() or "\x00" in name:
            _check_name(name)
    return value


def _check_name(name: str) -> None:
    if _UNSTORABLE.search(name):
        raise _NotAllowed(f"a name with NUL or half a surrogate pair ({name[:50]!a})")


def _no_constant(name: str) -> NoReturn:
    raise _NotAllowed(f"{name}, which JSON does not know")
