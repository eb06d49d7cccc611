"""A request's body as a JSON object, or a problem that says what was found instead."""

import json
import re
import sys
from http import HTTPStatus
from typing import Any, NoReturn

from fastapi import Request

from triggers.problems import ProblemError, invalid_request, wrong_field

MAX_BODY_BYTES = 1024 * 1024
_JSON_TYPE = re.compile(r"application/(?:json|[a-z0-9!#$&^_.+-]{1,100}\+json)", re.IGNORECASE)
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\";\s]*)", re.IGNORECASE)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_EXAMPLE = 'for example {"n": 3}, or nothing at all for the defaults'


async def read_json_object(request: Request) -> dict[str, Any]:
    """The body's object; of a request that announces no body, an empty one.

    What was sent and did not arrive is no empty body: Azure's host, for one, hands a function the header
    `Transfer-Encoding: chunked` without the chunks.

    Raises:
        ProblemError: 411 for a body that did not arrive, 413 for more than MAX_BODY_BYTES, 415 for another type than
            JSON in UTF-8, 400 for anything but an object.
    """
    declared = _declared_length(request)
    body = await _read_limited(request, declared)
    if not body and (declared or _announces_body(request)):
        raise _did_not_arrive(request)
    if not body:
        return {}
    if declared is not None and declared != len(body):
        raise _broken("body", f"the {declared} bytes of Content-Length", f"{len(body)}", "send the request again")
    _check_type(request)
    return parse_json_object(body)


def parse_json_object(body: bytes) -> dict[str, Any]:
    """RFC 8259 to the letter: no NaN, no name twice, and no name that cannot be stored.

    Raises:
        ProblemError: 400 for anything but an object.
    """
    try:
        value = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_checked_names, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _not_an_object(f"a byte that is not UTF-8, at {error.start}") from error
    except json.JSONDecodeError as error:
        raise _not_an_object(f"no JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except _NotAllowed as error:
        raise _not_an_object(str(error)) from error
    except RecursionError as error:
        raise _not_an_object("nesting without end") from error
    except ValueError as error:
        # Python reads no more digits than that, and would name a setting of its own.
        raise _not_an_object(f"a number of more than {sys.get_int_max_str_digits()} digits") from error
    if not isinstance(value, dict):
        names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
        raise _not_an_object(names.get(type(value), "a number"))
    return value


class _NotAllowed(ValueError):
    """What Python reads as JSON, and RFC 8259 or the store does not."""


def _declared_length(request: Request) -> int | None:
    text = request.headers.get("content-length")
    if text is None or "transfer-encoding" in request.headers:
        return None
    if not re.fullmatch("[0-9]{1,15}", text):
        raise _broken("content-length", "a number of bytes", repr(text[:50]), "send it once, as the body's length")
    return int(text)


def _announces_body(request: Request) -> bool:
    """Whether headers speak of a body, while no length says that it is empty."""
    headers = request.headers
    return "transfer-encoding" in headers or ("content-type" in headers and "content-length" not in headers)


def _did_not_arrive(request: Request) -> ProblemError:
    header = next(name for name in ("transfer-encoding", "content-length", "content-type") if name in request.headers)
    found = f"the header {header.title()} ({request.headers[header][:50]}) and no body"
    return ProblemError(
        HTTPStatus.LENGTH_REQUIRED,
        "length_required",
        f"body: expected one with a Content-Length, found {found}; send the length instead of chunks, "
        "or neither body nor these headers",
    )


async def _read_limited(request: Request, declared: int | None) -> bytes:
    if declared is not None and declared > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(body)


def _too_large() -> ProblemError:
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body_too_large",
        f"body: expected at most {MAX_BODY_BYTES} bytes, found more; "
        "put large values where tasks can read them, and pass their address",
    )


def _check_type(request: Request) -> None:
    """JSON in UTF-8, and not packed."""
    given = request.headers.get("content-type", "")
    media_type = given.partition(";")[0].strip()
    charset = _CHARSET.search(given)
    packed = request.headers.get("content-encoding", "identity").strip().lower()
    if not _JSON_TYPE.fullmatch(media_type):
        raise _unsupported("Content-Type", "application/json", given or "nothing")
    if charset is not None and charset[1].lower() not in {"utf-8", "utf8", "us-ascii"}:
        raise _unsupported("Content-Type", "the charset utf-8", given)
    if packed not in {"", "identity"}:
        raise _unsupported("Content-Encoding", "none", packed)


def _unsupported(header: str, expected: str, found: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        f"{header}: expected {expected}, found {found[:100]!r}; send the body as JSON with that header",
        headers={"Accept": "application/json"},
    )


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


def _not_an_object(found: str) -> ProblemError:
    return _broken("body", "a JSON object", found, _EXAMPLE)


def _broken(field: str, expected: str, found: str, hint: str) -> ProblemError:
    return invalid_request([wrong_field(field, expected, found, hint)])
