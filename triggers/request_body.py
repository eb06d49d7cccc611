"""A request's body as a JSON object, or a problem with what was found instead."""

import re
from http import HTTPStatus
from typing import Any

from fastapi import Request

from core.basics.strict_json import NotAnObject, parse_object
from triggers.problems import ProblemError, invalid_request, wrong_field

MAX_BODY_BYTES = 1024 * 1024
# Of a thousand submissions.
MAX_LARGE_BODY_BYTES = 8 * 1024 * 1024
_JSON_TYPE = re.compile(r"application/(?:json|[a-z0-9!#$&^_.+-]{1,100}\+json)", re.IGNORECASE)
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\";\s]*)", re.IGNORECASE)
_EXAMPLE = 'for example {"n": 3}, or nothing at all for the defaults'


async def read_json_object(request: Request) -> dict[str, Any]:
    """The body's object; of a request that announces no body, an empty one.

    What was sent and did not arrive is no empty body: Azure's host, for one, hands a function the header
    `Transfer-Encoding: chunked` without the chunks.

    Raises:
        ProblemError: 411 for a body that did not arrive, 413 for more than MAX_BODY_BYTES, 415 for another type than
            JSON in UTF-8, 400 for anything but an object.
    """
    return await _read_object(request, MAX_BODY_BYTES)


async def read_large_object(request: Request) -> dict[str, Any]:
    """The same, for at most MAX_LARGE_BODY_BYTES."""
    return await _read_object(request, MAX_LARGE_BODY_BYTES)


async def _read_object(request: Request, most_bytes: int) -> dict[str, Any]:
    declared = _declared_length(request)
    body = await read_limited(request, most_bytes)
    if not body and (declared or _announces_body(request)):
        raise _did_not_arrive(request)
    if not body:
        return {}
    if declared is not None and declared != len(body):
        raise _broken("body", f"the {declared} bytes of Content-Length", f"{len(body)}", "send the request again")
    _check_type(request)
    return parse_json_object(body)


def parse_json_object(body: bytes) -> dict[str, Any]:
    """As `core.basics.strict_json` reads it.

    Raises:
        ProblemError: 400 for anything but an object.
    """
    try:
        return parse_object(body)
    except NotAnObject as problem:
        raise _broken("body", "a JSON object", problem.found, _EXAMPLE) from problem


def _declared_length(request: Request) -> int | None:
    text = request.headers.get("content-length")
    if text is None or "transfer-encoding" in request.headers:
        return None
    if not re.fullmatch("[0-9]{1,15}", text):
        raise _broken("content-length", "a number of bytes", repr(text[:50]), "send it once, as the body's length")
    return int(text)


def _announces_body(request: Request) -> bool:
    """Whether headers announce a body, and no length shows that it is empty."""
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


async def read_limited(request: Request, most_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The body. Raises ProblemError (413) for more bytes."""
    declared = _declared_length(request)
    if declared is not None and declared > most_bytes:
        raise _too_large(most_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise _too_large(most_bytes)
    return bytes(body)


def _too_large(most_bytes: int) -> ProblemError:
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body_too_large",
        f"body: expected at most {most_bytes} bytes, found more; "
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


def _broken(field: str, expected: str, found: str, hint: str) -> ProblemError:
    return invalid_request([wrong_field(field, expected, found, hint)])
