"""A request's body as a JSON object, or a problem that says what was found instead."""

import json
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel

from triggers.problems import FieldProblem, ProblemError, invalid_request

M = TypeVar("M", bound=BaseModel)

MAX_BODY_BYTES = 1024 * 1024


async def read_json_object(request: Request) -> dict[str, Any]:
    """The body's object; an empty body is an empty object.

    Raises:
        ProblemError: 413 for more than MAX_BODY_BYTES, 400 for anything but an object.
    """
    return parse_json_object(await _read_limited(request))


def parse_json_object(body: bytes) -> dict[str, Any]:
    """RFC 8259 to the letter: no NaN, no name twice.

    Raises:
        ProblemError: 400 for anything but an object.
    """
    if not body.strip():
        return {}
    try:
        value = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_unique_names, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _not_an_object(f"a byte that is not UTF-8, at {error.start}") from error
    except json.JSONDecodeError as error:
        raise _not_an_object(f"no JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        found = "nesting without end" if isinstance(error, RecursionError) else str(error)
        raise _not_an_object(found) from error
    if not isinstance(value, dict):
        names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
        raise _not_an_object(names.get(type(value), "a number"))
    return value


async def _read_limited(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ProblemError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "body_too_large",
                f"body: expected at most {MAX_BODY_BYTES} bytes, found more; "
                "put large values where tasks can read them, and pass their address",
            )
    return bytes(body)


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} twice in one object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON does not know")


def _not_an_object(found: str) -> ProblemError:
    expected, hint = "a JSON object", 'for example {"n": 3}, or nothing at all for the defaults'
    message = f"body: expected {expected}, found {found}; {hint}"
    return invalid_request([FieldProblem(field="body", expected=expected, found=found, hint=hint, message=message)])
