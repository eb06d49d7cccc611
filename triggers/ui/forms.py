"""A form that a page sent, as texts by name."""

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from core.basics.canonical import shown
from triggers.problems import ProblemError, invalid_request, wrong_field
from triggers.request_body import read_limited

_MOST_FIELDS = 300


async def read_form(request: Request) -> dict[str, str]:
    """The fields that were filled in.

    Raises:
        ProblemError: 413 for more than a body may have, 415 for another encoding, 400 for what cannot be read.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != "application/x-www-form-urlencoded":
        detail = f"Content-Type: expected a form (application/x-www-form-urlencoded), found {shown(given, 100)}"
        raise ProblemError(415, "unsupported_media_type", detail)
    body = await read_limited(request)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise invalid_request([wrong_field("body", "a form in UTF-8", str(error)[:200])]) from error
    # Browsers end the lines of a text with CR LF.
    return {name: text.replace("\r\n", "\n") for name, text in pairs if text.strip()}


def whole_number(name: str, text: str) -> int:
    """What a field has; a ProblemError (400) if that is no whole number."""
    if not text.isascii() or not text.isdigit() or len(text) > len(str(2**31)):
        raise invalid_request([wrong_field(name, "a whole number", repr(text[:100]))])
    return int(text)


Form = Annotated[dict[str, str], Depends(read_form)]
