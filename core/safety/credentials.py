"""Finds what opens something in texts that are kept and shown, and blanks it.

A job's row, its events, its messages and the log are read by many: a key, a password or a token has no place there.
Parameters, reasons and correlation ids that hold one are refused (`find_credential`); texts that nobody chose, such as
errors, are stored with it blanked (`redact`). Patterns of texts are in `core.safety.credential_patterns`, rules for
values below a mapping's name here; letters of any case:

- `name=value` where the name is or ends in password, secret, token, api_key, AccountKey, access_key and the like, or is
  `sig` of a query; also with `:` after a quoted name, as JSON writes it (escaped or not), after any name where the
  value has letters and digits (`X-Api-Key: ...`), as an XML element or attribute, as a field of a form, as an option
  (`--password x1`), as a pair (`('X-Api-Key', 'x1')`) and as an entry (`"name": "DB_PASSWORD", "value": "x"`); each of
  them percent-encoded too; `pass=` with letters and digits; `code=` of a query with a function key;
- `Authorization:` with a scheme or a long token, `Bearer`, `Basic` or `SharedKey` with what belongs to them,
  `://user:password@host`, `-u user:password`, `auth=('user', 'x1')`, private keys (PEM), JSON web tokens;
- ids and tokens whose beginning shows what they are (AWS, GitHub, GitLab, Google, Slack and others);
- every text or number below a mapping's name that ends in one of these words, the `value` beside such a `name`, and
  what has letters and digits behind such a name in a list of pairs, or below the plural of such a name.

Words alone are no credential: "the token has expired" and `{"max_tokens": 5}` pass. So do values that open nothing:
true, none, numbers below 1000, placeholders such as `[MASK]`, tokens of less than 6 characters or of digits alone, and
a short `name=value` that is a whole segment of a path, as partitions are. Each pattern takes time in proportion to the
text, and none is tried on a text that has none of its words.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from core.safety.credential_patterns import BLANK, SHORTEST_TOKEN, is_authorization, opens_nothing, secrets_of

_MAX_DEPTH = 100
# Code that shows the beginning of a text looks this much further for the end of a credential.
_LONGEST_CREDENTIAL = 8192
# The ends of a mapping's names, without what is between words.
_NAME_ENDS = (
    *("password", "passwd", "pwd", "passphrase", "secret", "secretkey", "accesskey", "apikey", "accountkey"),
    *("privatekey", "functionkey", "functionskey", "subscriptionkey", "signingkey", "encryptionkey"),
    *("decryptionkey", "sharedkey", "storagekey", "masterkey"),
    *("sharedaccesssignature", "amzsignature", "googsignature", "connectionstring"),
)
_LOOSE_NAME_ENDS = ("authorization", "credentials", "credential")
_LONGEST_NAME, _LONGEST_PATH = 100, 1000
_SIGNATURE, _SHORTEST_SIGNATURE = "sig", 40
# Smaller ones are counts and flags.
_FIRST_LARGE_NUMBER = 1000
_BETWEEN = re.compile(r"[-_ .]")
_PAIR = 2
_MIXED = re.compile(r"(?=\S{0,60}[0-9])(?=\S{0,60}[A-Za-z])\S{6}")
_NAMINGS = ("name", "key", "header", "Name", "Key", "Header", "NAME", "KEY", "HEADER")
_VALUES = ("value", "Value", "VALUE")


@dataclass(frozen=True)
class Credential:
    """Where one is and what kind it is; never the credential itself."""

    path: str
    kind: str


def find_credential(value: Any, path: str = "") -> Credential | None:
    """The first credential in a text, or in any text of a list or mapping however deep; None where there is none."""
    try:
        _look(value, None, 0)
    except _Found as found:
        for step in reversed(found.steps):
            path = f"{path}[{step}]" if isinstance(step, int) else f"{path}.{step}" if path else step
        return Credential(path if len(path) <= _LONGEST_PATH else f"...{path[-_LONGEST_PATH:]}", found.kind)
    return None


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


@dataclass(frozen=True)
class _Under:
    """The end of a name, without what is between its words, below which values are credentials."""

    name: str
    ending: str
    is_token: bool
    is_plural: bool = False

    @property
    def kind(self) -> str:
        return f"a value under the name {self.name!r}"


class _Found(Exception):
    """Ends the search, from however deep: what was found, and the way to it, the last step first."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.steps: list[str | int] = []


def _look(value: Any, under: _Under | None, depth: int) -> None:
    """Each value once, and no path made before there is something to tell: a value may have half a million."""
    if isinstance(value, str | int):
        _look_at_leaf(value, under)
    elif depth > _MAX_DEPTH:
        return
    elif isinstance(value, Mapping):
        beside = _name_beside(value)
        for name, inner in value.items():
            _look_at_named(str(name), inner, under, beside if name in _VALUES else None, depth)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            pair = _name_of_pair(inner)
            if pair is not None:
                found = _Found(pair.kind)
                found.steps += [1, index]
                raise found
            _look_inside(inner, index, under, depth)


def _look_at_leaf(value: str | int, under: _Under | None) -> None:
    if under is not None and _is_given(value, under):
        raise _Found(under.kind)
    if isinstance(value, str) and (kind := _kind_of(value)) is not None:
        raise _Found(kind)


def _kind_of(text: str) -> str | None:
    return next((kind for kind, _ in secrets_of(text)), None)


# The same few names are in every item of a list.
_kind_of_short = lru_cache(maxsize=1024)(_kind_of)


def _look_inside(value: Any, step: str | int, under: _Under | None, depth: int) -> None:
    try:
        _look(value, under, depth + 1)
    except _Found as found:
        found.steps.append(step)
        raise


def _look_at_named(name: str, value: Any, above: _Under | None, beside: _Under | None, depth: int) -> None:
    kind = _kind_of_short(name) if len(name) <= _LONGEST_NAME else _kind_of(name)
    if kind is not None:
        raise _Found(kind)
    for under in (_under(name[-_LONGEST_NAME:]), beside):
        if under is None:
            continue
        if under.ending.endswith(_LOOSE_NAME_ENDS) or under.ending == _SIGNATURE:
            if isinstance(value, str) and _is_given_loosely(value, under):
                found = _Found(under.kind)
                found.steps.append(name)
                raise found
        elif above is None or above.is_token:
            above = under
    _look_inside(value, name, above, depth)


def _name_beside(value: Mapping[Any, Any]) -> _Under | None:
    """`{"name": "Authorization", "value": ...}`, as headers and variables are listed."""
    if not any(map(value.__contains__, _VALUES)):
        return None
    names = (value[naming] for naming in _NAMINGS if naming in value)
    return next(filter(None, (_under(name[-_LONGEST_NAME:]) for name in names if isinstance(name, str))), None)


def _name_of_pair(value: Any) -> _Under | None:
    """`["X-Api-Key", "x1y2z3"]` in a list, as headers are listed, if it holds a credential; not two words."""
    if not isinstance(value, list | tuple) or len(value) != _PAIR:
        return None
    name, text = value
    if not isinstance(name, str) or not isinstance(text, str) or not _MIXED.match(text):
        return None
    under = _under(name[-_LONGEST_NAME:])
    if under is None:
        return None
    is_loose = under.ending.endswith(_LOOSE_NAME_ENDS) or under.ending == _SIGNATURE
    return under if (_is_given_loosely(text, under) if is_loose else _is_given(text, under)) else None


@lru_cache(maxsize=1024)
def _under(name: str) -> _Under | None:
    ending = _BETWEEN.sub("", name).lower().rstrip("0123456789")
    one = ending.removesuffix("s")
    if one != ending and one.endswith(_NAME_ENDS):
        return _Under(name, one, is_token=False, is_plural=True)
    if ending != _SIGNATURE and not ending.endswith(("token", *_NAME_ENDS, *_LOOSE_NAME_ENDS)):
        return None
    return _Under(name, ending, is_token=ending.endswith("token"))


def _is_given_loosely(value: str, under: _Under) -> bool:
    """A signature is recognized by its length, as in the query of a URL, and what lets somebody in by its form."""
    return len(value) >= _SHORTEST_SIGNATURE if under.ending == _SIGNATURE else is_authorization(value)


def _is_given(value: str | int, under: _Under) -> bool:
    if isinstance(value, int):
        is_count = isinstance(value, bool) or under.is_token or under.is_plural
        return not is_count and abs(value) >= _FIRST_LARGE_NUMBER
    text = value.strip()
    if under.is_plural and not _MIXED.match(text):
        return False  # a list of what they are called
    if under.is_token and (len(text) < SHORTEST_TOKEN or text.isdecimal()):
        return False
    is_folder = under.ending == "pwd" and text.startswith("/")
    return bool(text) and not is_folder and not opens_nothing(text)
