"""A request's target, checked before anything decodes it.

Azure's host is more tolerant: it leaves malformed escapes as they are and replaces bytes that are no UTF-8, so that a
function gets another text than was sent. Here such a request ends with 400.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from local.problem import Problem, RefusedError
from local.web_guard import Authority, parse_authority

# Nothing to look at more closely: no escape, no fragment, no byte outside of visible ASCII.
_PLAIN = re.compile(rb"/[!\"$&-~]*")
_VISIBLE = re.compile(rb"[!-~]+")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2}).{0,2}")
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp]://([^/?]*)(.*)")
_SHOWN = 100


def origin_form(target: bytes, own: Authority | None) -> bytes:
    """The target as path and query. An absolute one, as proxies get it, must name the same authority as Host.

    Raises:
        RefusedError: 400 with what is wrong.
    """
    if _PLAIN.fullmatch(target):
        return target
    if not _VISIBLE.fullmatch(target):
        raise _malformed("only visible ASCII, everything else percent-encoded", target)
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute:
        authority = parse_authority(absolute[1].decode("ascii"))
        if authority is None or authority != own:
            raise _malformed("the same authority as in Host", target)
        target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
    if not target.startswith(b"/"):
        raise _malformed("a path that begins with /", target)
    if b"#" in target:
        raise _malformed("no fragment (#), which is the client's own", target)
    _check_escapes(target)
    return target


def _check_escapes(target: bytes) -> None:
    bad = _BAD_ESCAPE.search(target)
    if bad:
        raise _malformed("two hexadecimal digits after each % (a literal one is %25)", bad[0])
    path, _, query = target.partition(b"?")
    for part in (path, query):
        try:
            text = unquote_to_bytes(part).decode("utf-8")
        except UnicodeDecodeError:
            raise _malformed("percent-encoded UTF-8", part) from None
        if part is path and any(unicodedata.category(character) == "Cc" for character in text):
            raise _malformed("a path without control characters", part)


def _malformed(expected: str, found: bytes) -> RefusedError:
    shown = repr(found[:_SHOWN])[1:]
    return RefusedError(Problem(400, "malformed_target", f"Request target: expected {expected}, found {shown}."))
