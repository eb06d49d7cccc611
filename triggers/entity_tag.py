"""An answer with its `ETag`: who polls with `If-None-Match` gets 304 and no body while nothing changes."""

import hashlib
from collections.abc import Mapping

from fastapi import Response
from pydantic import BaseModel


def answer_with_tag(body: BaseModel, headers: Mapping[str, str], if_none_match: str | None) -> Response:
    """The body as JSON with its tag, or 304 where the client has it.

    Args:
        if_none_match: The header of the request: tags with commas between, or `*`.
    """
    content = body.model_dump_json(by_alias=True).encode()
    tag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**headers, "ETag": tag}
    if if_none_match is not None and _is_among(tag, if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="application/json")


def _is_among(tag: str, header: str) -> bool:
    """By weak comparison, as RFC 9110 asks for reads."""
    given = {each.strip().removeprefix("W/") for each in header.split(",")}
    return "*" in given or tag.removeprefix("W/") in given
