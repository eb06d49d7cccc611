"""Finds what opens something in texts that are kept and shown, and blanks it.

A job's row, its events, its messages and the log are read by many: a key, a password or a token has no place there.
Parameters, reasons and correlation ids that hold one are refused (`find_credential`); texts that nobody chose, such as
errors, are stored with it blanked (`redact`). Patterns of texts are in `core.credential_patterns`, rules for values
below a mapping's name here; letters of any case:

- `name=value` where the name is or ends in password, secret, token, api_key, AccountKey, access_key and the like, or is
  `sig` of a query; also with `:` after a quoted name, as JSON writes it (escaped or not), after any name where the
  value has letters and digits (`X-Api-Key: ...`), as an XML element and as an option (`--password x1`); `code=` of a
  query with a function key;
- `Authorization:` with a scheme or a long token, `Bearer` or `Basic` with what belongs to them, `://user:password@host`,
  private keys (PEM), JSON web tokens;
- ids and tokens whose beginning tells what they are (AWS, GitHub, GitLab, Google, Slack and others);
- every text or number below a mapping's name that ends in one of these words, and the `value` beside such a `name`.

Words alone are no credential: "the token has expired" and `{"max_tokens": 5}` pass. So do values that open nothing:
true, none, numbers below 1000, placeholders such as `[MASK]`, tokens of less than 6 characters or of digits alone, and
a short `name=value` that is a whole segment of a path, as partitions are. Each pattern takes time in proportion to the
text, and none is tried on a text that has none of its words.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.credential_patterns import BLANK, SHORTEST_TOKEN, is_authorization, opens_nothing, secrets_of

_MAX_DEPTH = 100
# Whoever shows the beginning of a text looks so much further for where one ends.
_LONGEST_CREDENTIAL = 8192
# The ends of a mapping's names, without what is between words.
_NAME_ENDS = (
    *("password", "passwd", "pwd", "passphrase", "secret", "secretkey", "accesskey", "apikey", "accountkey"),
    *("privatekey", "functionkey", "functionskey", "subscriptionkey", "signingkey", "encryptionkey"),
    *("decryptionkey", "sharedkey", "storagekey", "masterkey"),
    *("sharedaccesssignature", "amzsignature", "googsignature", "connectionstring"),
)
_LOOSE_NAME_ENDS = ("authorization", "credentials", "credential")
_LONGEST_NAME = 100
_SHORTEST_SIGNATURE = 40
_BETWEEN = re.compile(r"[-_ .]")
_NAMINGS = ("name", "key", "header", "Name", "Key", "Header", "NAME", "KEY", "HEADER")
_VALUES = ("value", "Value", "VALUE")


@dataclass(frozen=True)
class Credential:
    """Where one is and what kind it is; never the credential itself."""

    path: str
    kind: str


def find_credential(value: Any, path: str = "") -> Credential | None:
    """The first credential in a text, or in any text of a list or mapping however deep; None where there is none."""
    return next(_find(value, path, 0), None)


def redact(text: str) -> str:
    """The text with every credential blanked and its surroundings kept."""
    return redacted_part(text, 0, len(text))


def redacted_start(text: str, most_characters: int) -> str:
    """The beginning of the text without credentials."""
    return redacted_part(text, 0, most_characters)[:most_characters]


def redacted_part(text: str, start: int, end: int) -> str:
    """The text from `start` to `end`, without credentials and without what is in it of one that is cut there.

    Half a credential looks like none, so it is no use to cut first and to redact then, nor to cut what was redacted
    with a little more than the part: it is shorter.
    """
    first = max(0, start - _LONGEST_CREDENTIAL)
    found = secrets_of(text[first : end + _LONGEST_CREDENTIAL])
    parts: list[str] = []
    for place in sorted(place for _, places in found for place in places):
        secret_start, secret_end = first + place[0], first + place[1]
        if secret_end <= start or secret_start >= end:
            continue
        if secret_start >= start or not parts:  # else it overlaps with the one before
            parts += [text[start:secret_start], BLANK]
        start = secret_end
    return "".join([*parts, text[start:end]])


def _find(value: Any, path: str, depth: int) -> Iterator[Credential]:
    if isinstance(value, str):
        kind = _kind_of(value)
        if kind is not None:
            yield Credential(path, kind)
    elif depth > _MAX_DEPTH:
        return
    elif isinstance(value, Mapping):
        yield from _find_pair(value, path, depth)
        for name, inner in value.items():
            yield from _find_named(str(name), inner, path, depth)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _find(inner, f"{path}[{index}]", depth + 1)


def _find_pair(value: Mapping[Any, Any], path: str, depth: int) -> Iterator[Credential]:
    """`{"name": "Authorization", "value": ...}`, as headers and variables are listed."""
    for valued in filter(value.__contains__, _VALUES):
        for naming in filter(value.__contains__, _NAMINGS):
            if isinstance(name := value[naming], str):
                yield from _find_below(name, value[valued], _join(path, valued), depth + 1)


def _find_named(name: str, value: Any, path: str, depth: int) -> Iterator[Credential]:
    place = _join(path, name)
    yield from _find_below(name, value, place, depth + 1)
    yield from _find(name, path, depth + 1)
    yield from _find(value, place, depth + 1)


def _find_below(name: str, value: Any, place: str, depth: int) -> Iterator[Credential]:
    """What is a credential by the name that it is under."""
    ending = _BETWEEN.sub("", name[-_LONGEST_NAME:]).lower().rstrip("0123456789")
    if ending.endswith(_LOOSE_NAME_ENDS):
        if isinstance(value, str) and is_authorization(value):
            yield Credential(place, f"a value under the name {name!r}")
        return
    if ending == "sig":  # as in the query of a URL, where it has this length
        value = value if isinstance(value, str) and len(value) >= _SHORTEST_SIGNATURE else None
    is_token = ending.endswith("token")
    if not is_token and ending != "sig" and not ending.endswith(_NAME_ENDS):
        return
    for inner, leaf in _leaves(value, place, depth):
        if _is_given(leaf, is_token=is_token) and not (ending == "pwd" and str(leaf).startswith("/")):
            yield Credential(inner, f"a value under the name {name!r}")
            return


def _leaves(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, _join(path, str(name)), depth + 1)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]", depth + 1)
    else:
        yield path, value


def _is_given(value: Any, *, is_token: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return False
    if isinstance(value, int):
        return not is_token and abs(value) >= 1000  # noqa: PLR2004 - smaller ones are counts and flags
    text = value.strip()
    if is_token and (len(text) < SHORTEST_TOKEN or text.isdecimal()):
        return False
    return bool(text) and not opens_nothing(text)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _kind_of(text: str) -> str | None:
    return next((kind for kind, _ in secrets_of(text)), None)
