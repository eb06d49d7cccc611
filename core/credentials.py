"""Finds what opens something in texts that are kept and shown, and blanks it.

A job's row, its events, its messages and the log are read by many: a key, a password or a token has no place there.
Parameters, reasons and correlation ids that hold one are refused (`find_credential`); texts that nobody chose, such as
errors, are stored with it blanked (`redact`). All rules are in `_RULES` and `_SECRET_NAMES`, letters of any case:

- `name=value` where the name is or ends in password, secret, token, api_key, AccountKey, SharedAccessKey and the
  like, or is `sig` of a query; also with `:` after a quoted name, as JSON writes it;
- `Bearer` or `Authorization:` with a token, `://user:password@host`, private keys (PEM), JSON web tokens;
- ids and tokens whose beginning tells what they are (AWS, GitHub, Slack);
- a mapping's name that is one of these words, with a text or number that is not empty.

Words alone are no credential: "the token has expired" and `{"max_tokens": 5}` pass.
Each pattern takes time in proportion to the text.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BLANK = "***"
_MAX_DEPTH = 100
# Whoever shows the beginning of a text looks so much further for where one ends.
_LONGEST_CREDENTIAL = 8192

# Short words must begin there; the long ones may have anything before them.
_NAMES = (
    r"(?:\A|(?<=[?&;\"'])|(?<=%[0-9a-f][0-9a-f]))sig|(?:(?<![a-z0-9])|(?<=%[0-9a-f][0-9a-f]))(?:pwd|token|(?:access|refresh|id|sas|auth)token)|"
    r"password|passwd|passphrase|secret|secret_?access_?key|api[_-]?key|account_?key|"
    r"shared_?access_?key|shared_?access_?signature|private_?key|x-(?:amz|goog)-(?:signature|security-token)"
)
_SECRET_NAMES = frozenset(
    {
        *("password", "passwd", "pwd", "passphrase", "secret", "clientsecret", "token", "accesstoken", "refreshtoken"),
        *("idtoken", "sastoken", "apikey", "accountkey", "accesskey", "secretaccesskey", "awssecretaccesskey"),
        *("sharedaccesskey", "sharedaccesssignature", "privatekey", "connectionstring", "authorization", "credentials"),
    }
)


@dataclass(frozen=True)
class Credential:
    """Where one is and what kind it is; never the credential itself."""

    path: str
    kind: str


# The text around a secret is kept: group `keep` before it.
_RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "a private key",
        re.compile(
            r"(?P<keep>)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)", re.DOTALL
        ),
    ),
    (
        "an authorization header",
        re.compile(
            r"(?P<keep>(?<![a-z0-9])authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:[a-z]{1,20} )?)[^\s\"',;]{3,}",
            re.IGNORECASE,
        ),
    ),
    (
        "a bearer token",
        re.compile(
            r"(?P<keep>(?<![a-z0-9])bearer(?:\s|%20|\+){1,3})"
            r"(?:(?=[a-z._~+/-]*[0-9])[a-z0-9._~+/-]{6,}|[a-z0-9._~+/-]{20,})=*",
            re.IGNORECASE,
        ),
    ),
    ("a password before the host (user:password@)", re.compile(r"(?P<keep>://[^/?#\s:@]*:)[^/?#\s@]+(?=@)")),
    ("a JSON web token", re.compile(r"(?P<keep>)(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*", re.ASCII)),
    (
        "a key or token",
        re.compile(
            r"(?P<keep>)(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|"
            r"github_pat_[A-Za-z0-9_]{30,}|xox[abprs]-[A-Za-z0-9-]{10,})(?![A-Za-z0-9])"
        ),
    ),
    (
        "a signature, key, password or token (name=value)",
        re.compile(
            rf"(?P<keep>(?:{_NAMES})(?:\s{{0,3}}(?:=|%3d)\s{{0,3}}[\"']?|[\"']\s{{0,3}}:\s{{0,3}}[\"']))"
            r"[^\s&;,\"'<>)\]}]+",
            re.IGNORECASE,
        ),
    ),
)
# Cheap: most texts hold none of these, and no rule can match without one.
_HINT = re.compile(r"[=:@]|%3d|eyJ|BEGIN|bearer|AKIA|ASIA|gh[pousr]_|github_pat_|xox", re.IGNORECASE)


def find_credential(value: Any, path: str = "") -> Credential | None:
    """The first credential in a text, or in any text of a list or mapping however deep; None where there is none."""
    return next(_find(value, path, 0), None)


def redact(text: str) -> str:
    """The text with every credential blanked and its surroundings kept."""
    if _HINT.search(text) is None:
        return text
    for _, pattern in _RULES:
        text = pattern.sub(_blank, text)
    return text


def redacted_start(text: str, most_characters: int) -> str:
    """The beginning of the redacted text. Cut after it is redacted: half a credential looks like none."""
    return redact(text[: most_characters + _LONGEST_CREDENTIAL])[:most_characters]


def _blank(found: re.Match[str]) -> str:
    return f"{found['keep']}{BLANK}"


def _is_secret(found: re.Match[str]) -> bool:
    return not found[0].endswith(f"{found['keep']}{BLANK}")


def _find(value: Any, path: str, depth: int) -> Iterator[Credential]:
    if isinstance(value, str):
        kind = _kind_of(value)
        if kind is not None:
            yield Credential(path, kind)
    elif depth > _MAX_DEPTH:
        return
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _find_named(str(name), inner, path, depth)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _find(inner, f"{path}[{index}]", depth + 1)


def _find_named(name: str, value: Any, path: str, depth: int) -> Iterator[Credential]:
    place = f"{path}.{name}" if path else name
    if is_secret_name(name) and _is_given(value):
        yield Credential(place, f"a value under the name {name!r}")
    yield from _find(name, path, depth + 1)
    yield from _find(value, place, depth + 1)


def is_secret_name(name: str) -> bool:
    """Whether what stands under this name is a credential by its name alone."""
    return len(name) <= 60 and re.sub(r"[-_ .]", "", name).lower() in _SECRET_NAMES  # noqa: PLR2004 - none is longer


def _is_given(value: Any) -> bool:
    return bool(value) and isinstance(value, str | int) and not isinstance(value, bool)


def _kind_of(text: str) -> str | None:
    if _HINT.search(text) is None:
        return None
    return next((kind for kind, pattern in _RULES if any(map(_is_secret, pattern.finditer(text)))), None)
