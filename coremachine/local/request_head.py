"""The head of an HTTP request, checked before anything decodes it: version, framing, sender, target.

Azure's host is more tolerant of targets: it leaves malformed escapes as they are and replaces bytes that are no UTF-8,
so that a function gets another text than was sent. Here such a request ends with 400.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote_to_bytes

from coremachine.local.problem import Problem, RefusedError
from coremachine.local.web_guard import Authority, check_sender, parse_authority

Headers = Sequence[tuple[bytes, bytes]]
CheckedHeaders = Mapping[bytes, Sequence[str]]

# Nothing to look at more closely: no escape, no fragment, no byte outside of visible ASCII.
_PLAIN = re.compile(rb"/[!\"$&-~]*")
_VISIBLE = re.compile(rb"[!-~]+")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2}).{0,2}")
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp]://([^/?]*)(.*)")
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHECKED = frozenset({b"host", b"origin", b"sec-fetch-site", b"content-length", b"transfer-encoding"})
_VERSIONS = frozenset({"1.0", "1.1"})
_SHOWN = 100


def check_head(
    version: str,
    target: bytes,
    headers: Headers,
    *,
    on_loopback: bool,
    lets_in: Callable[[str], bool] = lambda _origin: False,
) -> tuple[bytes, int]:
    """Check a whole head; the target as path and query, and the length of the body that the head announces.

    Args:
        version: Such as 1.1.
        headers: Names in lower case.
        on_loopback: The connection arrived at a loopback address.
        lets_in: Whether pages of a foreign origin may send requests all the same.

    Raises:
        RefusedError: 400, 403 or 505 with what is wrong.
    """
    checked = pick_checked(headers)
    length = check_framing(version, checked)
    own = check_sender(
        hosts=checked.get(b"host", ()),
        origins=checked.get(b"origin", ()),
        sites=checked.get(b"sec-fetch-site", ()),
        on_loopback=on_loopback,
        host_optional=version == "1.0",
        lets_in=lets_in,
    )
    return origin_form(target, own), length


def pick_checked(headers: Headers) -> CheckedHeaders:
    """All values of the headers that decide about a request, by name."""
    checked: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name in _CHECKED:
            checked.setdefault(name, []).append(value.decode("latin-1"))
    return checked


def check_framing(version: str, headers: CheckedHeaders) -> int:
    """Refuse what two servers could cut differently into requests; the announced length of the body.

    Raises:
        RefusedError: with 400 or 505.
    """
    if version not in _VERSIONS:
        raise RefusedError(Problem(505, "unsupported_version", f"Expected HTTP/1.1 or HTTP/1.0, found HTTP/{version}."))
    encodings, lengths = headers.get(b"transfer-encoding"), headers.get(b"content-length")
    if encodings:
        if [value.strip().lower() for value in encodings] != ["chunked"]:
            raise _bad_framing(f"at most the Transfer-Encoding chunked, found {', '.join(encodings)[:_SHOWN]!r}")
        if lengths:
            raise _bad_framing("Content-Length or Transfer-Encoding, found both")
        if version == "1.0":
            raise _bad_framing("no Transfer-Encoding in HTTP/1.0, found chunked")
    if not lengths:
        return 0
    if len(lengths) > 1:
        raise _bad_framing(f"one Content-Length, found {len(lengths)}")
    if not _LENGTH.fullmatch(lengths[0]):
        raise _bad_framing(f"a Content-Length of digits, found {lengths[0][:_SHOWN]!r}")
    return int(lengths[0])


def _bad_framing(text: str) -> RefusedError:
    return RefusedError(Problem(400, "malformed_framing", f"Expected {text}."))


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
