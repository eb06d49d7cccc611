"""Finds what opens something in texts that are kept and shown, and blanks it.

A job's row, its events, its messages and the log are read by many: a key, a password or a token has no place there.
Parameters, reasons and correlation ids that hold one are refused (`find_credential`); texts that nobody chose, such as
errors, are stored with it blanked (`redact`). All rules are in `_RULES` and `_find_named`, letters of any case:

- `name=value` where the name is or ends in password, secret, token, api_key, AccountKey, access_key and the like, or is
  `sig` of a query; also with `:` after a quoted name, as JSON writes it, and after any name where the value has letters
  and digits (`X-Api-Key: ...`); `code=` of a query with a function key;
- `Authorization:` with a scheme or a long token, `Bearer` or `Basic` with what belongs to them, `://user:password@host`,
  private keys (PEM), JSON web tokens;
- ids and tokens whose beginning tells what they are (AWS, GitHub, Slack);
- every text or number below a mapping's name that ends in one of these words, and the `value` beside such a `name`.

Words alone are no credential: "the token has expired" and `{"max_tokens": 5}` pass. So do values that open nothing:
true, none, numbers below 1000, placeholders such as `[MASK]`, tokens of less than 6 characters or of digits alone, and
a short `name=value` that is a whole segment of a path, as partitions are. Each pattern takes time in proportion to the
text, and none is tried on a text that has none of its words.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BLANK = "***"
_MAX_DEPTH = 100
# Whoever shows the beginning of a text looks so much further for where one ends.
_LONGEST_CREDENTIAL = 8192

_KEYS = r"(?:secret|access|api|account|private|functions?|subscription|signing|encryption)[_-]?key"
# Short words must begin there; the long ones may have anything before them.
_NAMES = (
    r"(?:\A|(?<=[?&;\"'])|(?<=%[0-9a-f][0-9a-f]))sig|(?:(?<![a-z0-9])|(?<=%[0-9a-f][0-9a-f]))pwd|"
    rf"password|passwd|passphrase|secret|{_KEYS}|shared_?access_?key|shared_?access_?signature|"
    r"x-(?:amz|goog)-(?:signature|security-token)"
)
_TOKENS = r"(?:(?<![a-z0-9])|(?<=%[0-9a-f][0-9a-f]))(?:token|(?:access|refresh|id|sas|auth|session)token)"
_IN_VALUE = r"[^\s&;,\"'<>)\]}]"
_SHORTEST_TOKEN = 6
# What stands in a secret's place and is none.
_PLACEHOLDER = r"\$?[\[{(<%]{1,2}[\w. -]{0,60}[\]})>%]{1,2}"
_FLAG = r"(?:true|false|none|null|nil|yes|no|on|off|undefined|unset|[0-9]{1,3})"
_GIVEN = rf"(?!{_PLACEHOLDER}|{_FLAG}(?!{_IN_VALUE}))"
_GIVEN_TOKEN = rf"{_GIVEN}(?![0-9]{{1,40}}(?!{_IN_VALUE}))"
_NOTHING = re.compile(rf"{_PLACEHOLDER}|{_FLAG}|\*\*\*", re.IGNORECASE)
_IS = r"(?:\s{0,3}(?:=|%3d)\s{0,3}[\"']?|[\"']\s{0,3}:\s{0,3}[\"'])"
_COLON = rf"[\"']?\s{{0,3}}:\s{{0,3}}[\"']?(?={_IN_VALUE}{{0,60}}[0-9])(?={_IN_VALUE}{{0,60}}[a-z])"
# A whole segment of a path, such as `/secret=1/`; not the host.
_SEGMENT = (
    rf"(?:(?<=[^/:]/)|(?<=\A/))[\w.-]{{0,60}}?(?:{_NAMES}|{_TOKENS})=[^\s&;,\"'<>)\]}}/?=]{{1,15}}(?=[/\s\"',]|\Z)"
)
# The ends of a mapping's names, without what is between words.
_NAME_ENDS = (
    *("password", "passwd", "pwd", "passphrase", "secret", "secretkey", "accesskey", "apikey", "accountkey"),
    *("privatekey", "functionkey", "functionskey", "subscriptionkey", "signingkey", "encryptionkey"),
    *("sharedaccesssignature", "connectionstring"),
)
_LOOSE_NAME_ENDS = ("authorization", "credentials", "credential")
_LONGEST_NAME = 100
_NAMING = ("name", "key", "header")


@dataclass(frozen=True)
class Credential:
    """Where one is and what kind it is; never the credential itself."""

    path: str
    kind: str


_AUTHORIZATION = re.compile(
    r"(?P<keep>(?<![a-z0-9])authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
    r"(?:(?:basic|bearer|digest|negotiate|ntlm|sharedkey(?:lite)?|sharedaccesssignature)\s{1,3}(?=[^\s\"',;]{6})|"
    r"(?:[a-z]{1,20}\s{1,3})?(?=[a-z0-9._~+/=-]{16})(?=[a-z._~+/=-]{0,60}[0-9])|(?=[a-z0-9._~+/=-]{32})))[^\s\"',;]+",
    re.IGNORECASE,
)
_WORDS = ("sig", "pwd", "passw", "passphrase", "secret", "key", "token")
# The kind, words of which one is in every such text, and the pattern. The text around a secret is kept: group `keep`
# before it. A match without `keep` is none.
_RULES: tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...] = (
    (
        "a private key",
        ("private key",),
        re.compile(
            r"(?P<keep>)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)", re.DOTALL
        ),
    ),
    ("an authorization header", ("authorization",), _AUTHORIZATION),
    (
        "a bearer token",
        ("bearer",),
        re.compile(
            r"(?P<keep>(?<![a-z0-9])bearer(?:\s|%20|\+){1,3})"
            r"(?:(?=[a-z._~+/-]*[0-9])[a-z0-9._~+/-]{6,}|[a-z0-9._~+/-]{20,})=*",
            re.IGNORECASE,
        ),
    ),
    (
        "a user and password (Basic)",
        ("basic",),
        re.compile(r"(?P<keep>(?<![a-z0-9])basic(?:\s|%20|\+){1,3})(?P<pair>[a-z0-9+/]{6,}={0,2})", re.IGNORECASE),
    ),
    (
        "a password before the host (user:password@)",
        ("://",),
        re.compile(r"(?P<keep>(?<!github)://[^/?#\s:@]*:)[^/?#\s@]+(?=@(?!sha(?:256|512):))", re.IGNORECASE),
    ),
    ("a JSON web token", ("eyj",), re.compile(r"(?P<keep>)(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*", re.ASCII)),
    (
        "a key or token",
        ("akia", "asia", "gh", "xox"),
        re.compile(
            r"(?P<keep>)(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|"
            r"github_pat_[A-Za-z0-9_]{30,}|xox[abprs]-[A-Za-z0-9-]{10,})(?![A-Za-z0-9])"
        ),
    ),
    (
        "a signature, key, password or token (name=value)",
        _WORDS,
        re.compile(
            rf"{_SEGMENT}|(?P<keep>(?:{_NAMES}){_IS}{_GIVEN}(?={_IN_VALUE})|"
            rf"{_TOKENS}{_IS}{_GIVEN_TOKEN}(?={_IN_VALUE}{{{_SHORTEST_TOKEN}}}))"
            rf"{_IN_VALUE}+",
            re.IGNORECASE,
        ),
    ),
    (
        "a key, password or token (name: value)",
        _WORDS,
        re.compile(
            rf"(?P<keep>(?:(?:{_NAMES}){_COLON}(?={_IN_VALUE}{{6}})|{_TOKENS}{_COLON}(?={_IN_VALUE}{{16}}))){_IN_VALUE}+",
            re.IGNORECASE,
        ),
    ),
    (
        "a function key (code=value)",
        ("code",),
        re.compile(
            r"(?P<keep>(?:(?<=[?&])|(?<=%3f)|(?<=%26))code(?:=|%3d)(?=[a-z_%/+-]{0,60}[0-9]|[a-z0-9_%/+=-]{32}))"
            r"[a-z0-9_%/+=-]{20,}",
            re.IGNORECASE,
        ),
    ),
)


def find_credential(value: Any, path: str = "") -> Credential | None:
    """The first credential in a text, or in any text of a list or mapping however deep; None where there is none."""
    return next(_find(value, path, 0), None)


def redact(text: str) -> str:
    """The text with every credential blanked and its surroundings kept."""
    for _, pattern in _rules_for(text):
        text = pattern.sub(_blank, text)
    return text


def _rules_for(text: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    folded = text.casefold()
    return ((kind, pattern) for kind, words, pattern in _RULES if any(word in folded for word in words))


def redacted_start(text: str, most_characters: int) -> str:
    """The beginning of the redacted text. Cut after it is redacted: half a credential looks like none."""
    return redact(text[: most_characters + _LONGEST_CREDENTIAL])[:most_characters]


def _blank(found: re.Match[str]) -> str:
    return f"{found['keep']}{BLANK}" if _is_secret(found) else found[0]


def _is_secret(found: re.Match[str]) -> bool:
    keep, pair = found["keep"], found.groupdict().get("pair")
    if keep is None or found[0].endswith(f"{keep}{BLANK}"):
        return False
    return pair is None or _is_basic(pair)


def _is_basic(text: str) -> bool:
    """Whether it is `user:password` in base64, which "basic information" is not."""
    text = text.rstrip("=")
    try:
        return b":" in b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return False


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
    if "value" in value:
        names = (value[naming] for naming in _NAMING if isinstance(value.get(naming), str))
        for name in names:
            yield from _find_below(name, value["value"], _join(path, "value"), depth + 1)


def _find_named(name: str, value: Any, path: str, depth: int) -> Iterator[Credential]:
    place = _join(path, name)
    yield from _find_below(name, value, place, depth + 1)
    yield from _find(name, path, depth + 1)
    yield from _find(value, place, depth + 1)


def _find_below(name: str, value: Any, place: str, depth: int) -> Iterator[Credential]:
    """What is a credential by the name that it is under."""
    ending = re.sub(r"[-_ .]", "", name[-_LONGEST_NAME:]).lower()
    if ending.endswith(_LOOSE_NAME_ENDS):
        if isinstance(value, str) and _AUTHORIZATION.match(f"authorization: {value}"):
            yield Credential(place, f"a value under the name {name!r}")
        return
    is_token = ending.endswith("token")
    if not is_token and not ending.endswith(_NAME_ENDS):
        return
    for inner, leaf in _leaves(value, place, depth):
        if _is_given(leaf, is_token=is_token):
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
    if is_token and (len(text) < _SHORTEST_TOKEN or text.isdecimal()):
        return False
    return bool(text) and _NOTHING.fullmatch(text) is None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _kind_of(text: str) -> str | None:
    return next((kind for kind, pattern in _rules_for(text) if any(map(_is_secret, pattern.finditer(text)))), None)
