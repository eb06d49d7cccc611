"""What a credential looks like in a text: a pattern for each kind, and what a pattern cannot say of a find.

The secret is a whole match, without what group `keep` has. Most patterns are for the text in small letters: one that
begins with plain letters is searched for many times as fast as one that ignores case.
"""

import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

BLANK = "***"
SHORTEST_TOKEN = 6

_Match = re.Match[str]


@dataclass(frozen=True)
class _Rule:
    """`words`: one of them, in small letters, is in every text that has such a credential."""

    kind: str
    words: tuple[str, ...]
    pattern: str
    is_secret: Callable[[_Match, str], bool] = lambda _, __: True
    keeps_case: bool = False

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """Compiled when a text has one of its words: all of them would cost each process 50 ms at its start."""
        return re.compile(self.pattern)


def secrets_of(text: str) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """For each kind of credential in the text, where its secrets begin and end. Finds of two kinds may overlap."""
    small = text.lower() if text.isascii() else text.translate(_SMALL)
    if len(small) < _SHORT and _ANY_WORD.search(small) is None:
        return
    for rule in _RULES:
        if not any(map(small.__contains__, rule.words)):
            continue
        places = list(_places(rule, text if rule.keeps_case else small, text))
        if places:
            yield rule.kind, places


def _places(rule: _Rule, text: str, original: str) -> Iterator[tuple[int, int]]:
    place = 0
    while (found := rule.expression.search(text, place)) is not None:
        names = found.re.groupindex
        start = found.end("keep") if "keep" in names else found.start()
        place = found.end()
        if "segment" in names and found["segment"] is not None:
            if _is_segment(found):
                continue
            if (rest := _REST.match(text, place)) is not None:
                place = rest.end()
        value = original[start:place]
        if value != BLANK and rule.is_secret(found, value):
            yield start, place


def is_authorization(value: str) -> bool:
    """Whether the value of an Authorization header lets somebody in."""
    return re.match(_AUTHORIZATION, f"authorization: {value.lower()}") is not None


def opens_nothing(value: str) -> bool:
    """Whether it is in a secret's place and is none: true, none, a small number, a placeholder."""
    return _NOTHING.fullmatch(value) is not None


# As many characters as before: what is found in the one is cut out of the other.
_SMALL = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}

_PLACEHOLDER = r"\$?[\[{(<%]{1,2}[\w. -]{0,60}[\]})>%]{1,2}"
_NOTHING = re.compile(
    # Also what settings write for a value that is elsewhere.
    rf"{_PLACEHOLDER}|\$[A-Z][A-Z0-9_]{{2,60}}|(?i:@microsoft\.keyvault)\(.*|"
    r"(?i:true|false|none|null|nil|yes|no|on|off|undefined|unset|\*\*\*)|[0-9]{1,3}|[0-9]{0,3}\.[0-9]{1,6}"
)


def _after(word: str, *befores: str) -> str:
    """The word where one of these is before it. The word comes first: it is looked for, and they are looked at."""
    return f"{word}(?:{'|'.join(f'(?<={before}{word})' for before in befores)})"


# What a name may begin after: also `&` and line ends as URLs and JSON write them.
_ENCODED = ("%[0-9a-f]{2}", "%25[0-9a-f]{2}", r"\\u0026", r"\\[nrt]")
_BEGINNING = (r"\A", "[^a-z0-9]", *_ENCODED)
_KEYS = (
    *("secret", "access", "api", "account", "private", "function", "functions", "subscription", "signing"),
    *("encryption", "decryption", "shared", "storage", "master"),
)
_TOKENS = ("access", "refresh", "sas", "auth", "session", "security", "api", "bot", "github", "gitlab", "slack")
_SIGNERS = ("x-amz-", "x-goog-")
_NAMES = (
    _after("sig", r"\A", "[?&;\"']", *_ENCODED),
    # Of a length that only a signature has.
    rf"{_after('sig', *_BEGINNING)}(?==[a-z0-9%+/]{{40}})",
    _after("pwd", *_BEGINNING),
    *("password", "passwd", "passphrase", "secret"),
    _after("key", *(f"{key}{mark}" for key in _KEYS for mark in ("", "[_-]"))),
    _after("signature", "sharedaccess", "sharedaccess_", "shared_access", "shared_access_", *_SIGNERS),
    rf"{_after('signature', '[?&]', '%26', r'u0026')}(?=(?:=|%3d)[a-z0-9%+/_-]{{16}})",
    *(_after("security-token", signer) for signer in _SIGNERS),
)
_TOKEN = rf"{_after('token', *_BEGINNING, *_TOKENS, *(f'{before}id' for before in _BEGINNING))}(?P<token>)"
# With a number: `password1`, `secret_2`.
_NAME = rf"(?:{'|'.join(_NAMES)})(?:_?[0-9]{{1,2}})?"
_NAME_OR_TOKEN = rf"(?:{'|'.join((*_NAMES, _TOKEN))})(?:_?[0-9]{{1,2}})?"
_ESCAPED_QUOTE = r"\\{1,3}[\"']|&quot;|%22"
_QUOTE = rf"(?:[\"']|{_ESCAPED_QUOTE})"
_OPEN = rf"[bu]?(?:(?P<double>\")|(?P<single>')|(?P<escaped>{_ESCAPED_QUOTE}))"
_SPACE = r"[^\S\r\n]{0,20}"
_IS = rf"{_QUOTE}?{_SPACE}(?:=[=>]?|%(?:25)?3d|\\u003d){_SPACE}"
_COLON = r"(?::|%(?:25)?3a(?:%20|\+)?)"
# `SecretStr('...')`
_WRAPPED = rf"(?:[a-z_.]{{1,30}}\((?=[bu]?{_QUOTE}))?"
_IN_VALUE = r"(?:[^\s&;,\"'<>)\]}\\]|\\(?!u00|[\"']))"
_BEFORE_ONE = r"[^\s&;,\"'<>)\]}}\\{0}]{{0,60}}[{0}]"
_MIXED = f"(?={_BEFORE_ONE.format('0-9')})(?={_BEFORE_ONE.format('a-z')})"
# As YAML begins a text of several lines.
_BLOCK = r"(?:[|>][+-]?\r?\n[ ]{1,20})?"
# As far as the same quote, if there is another; where it is escaped, as far as the next of any kind.
_IN_DOUBLE = rf"(?:(?:[^\"\\\r\n]|\\[^\r\n]){{1,2000}}(?=\")|{_IN_VALUE}+)"
_IN_SINGLE = rf"(?:(?:[^'\\\r\n]|\\[^\r\n]){{1,2000}}(?=')|{_IN_VALUE}+)"
_IN_ESCAPED = r"(?:[^\"'\\\r\n&%]|&(?!quot;)|%(?!22))+"
_UNQUOTED = (
    # Perhaps a segment of a path; a placeholder; in braces, as ODBC writes what has a `;` in it; any other.
    rf"(?:(?P<segment>[^\s&;,\"'<>)\]}}/?=\\]{{1,15}}(?=[/\s\"',]|\Z))|{_PLACEHOLDER}{_IN_VALUE}*|"
    rf"\{{[^{{}}\"'\r\n]{{1,200}}\}}{_IN_VALUE}*|{_IN_VALUE}+)"
)
_VALUE = rf"(?(double){_IN_DOUBLE}|(?(single){_IN_SINGLE}|(?(escaped){_IN_ESCAPED}|{_UNQUOTED})))"


def _is_given(found: _Match, value: str) -> bool:
    if found["token"] is not None and (len(value) < SHORTEST_TOKEN or value.isdecimal()):
        return False
    is_folder = value.startswith("/") and found[0].startswith("pwd")
    return not opens_nothing(value) and not is_folder


def _is_pair(found: _Match, value: str) -> bool:
    """Whether name and value are all that is in their parentheses: a list of words may name a password too."""
    text, start = found.string, found.start()
    quote = max(text.rfind(mark, max(0, start - _LONGEST_SEGMENT), start) for mark in "\"'")
    before = text[max(0, quote - 4) : max(0, quote)].removesuffix("b")
    after = text[found.end() + 1 : found.end() + 2]
    # One list of two may be one of words; in a list of lists it is a pair.
    is_alone = (before.endswith("(") and after == ")") or (before.endswith(_PAIR_STARTS) and after == "]")
    return is_alone and _is_given(found, value)


_PAIR_STARTS = ("[[", ", [", ",[")


def _is_segment(found: _Match) -> bool:
    """Whether it is a whole segment of a path, such as `/secret=1/`; not the host."""
    text, start = found.string, found.start()
    slash = text.rfind("/", max(0, start - _LONGEST_SEGMENT), start)
    if not found["keep"].endswith("=") or slash < 0 or (slash > 0 and text[slash - 1] in "/:"):
        return False
    return _SEGMENT_START.fullmatch(text, slash + 1, start) is not None


_LONGEST_SEGMENT = 61
_SEGMENT_START = re.compile(r"[\w.-]*")
_REST = re.compile(rf"{_IN_VALUE}*")


def _is_basic(found: _Match, _: str) -> bool:
    """Whether it is `user:password` in base64, which "basic information" is not."""
    return b":" in _decoded(found["pair"])


def _is_jwt(found: _Match, _: str) -> bool:
    """Whether it begins with a JSON object, which a file's name does not."""
    return _decoded(found["head"]).rstrip().endswith(b"}")


def _decoded(text: str) -> bytes:
    text = text.rstrip("=")
    try:
        return b64decode(text + "=" * (-len(text) % 4), altchars=b"-_")
    except ValueError:
        return b""


_AUTHORIZATION = (
    rf"(?P<keep>authorization(?<![a-z0-9]authorization){_QUOTE}?\s{{0,3}}[:=]\s{{0,3}}[bu]?{_QUOTE}?"
    r"(?:(?:basic|bearer|negotiate|ntlm|sharedkey(?:lite)?|sharedaccesssignature)\s{1,3}(?=[^\s\"',;]{6})|"
    # With parts, on one line.
    r"(?P<parts>)(?:digest|aws4-hmac-sha256)\s{1,3}(?=[^\r\n]{6})|"
    r"(?!aws4-)(?:[a-z][a-z0-9-]{0,19}\s{1,3})?(?=[a-z0-9._~+/=-]{16})(?=[a-z._~+/=-]{0,60}[0-9])|"
    r"(?=[a-z0-9._~+/=-]{32})))(?(parts)[^\r\n]+|[^\s\"',;\\]+)"
)
_WORDS = ("sig", "pwd", "passw", "passphrase", "secret", "key", "token")
_NAMED = "a signature, key, password or token (name=value)"
_RULES = (
    _Rule(
        "a private key",
        ("private key", "private%20key", "private+key", "private-lines"),
        (
            r"(?s)----[- ]begin(?: |%20|\+)(?:[a-z0-9 +]|%20){0,40}?private(?: |%20|\+)key.*?"
            r"(?:----[- ]end(?:[a-z0-9 +]|%20){0,60}-{4,5}|\Z)|private-lines: .*?(?=private-mac|\Z)"
        ),
    ),
    _Rule("an authorization header", ("authorization",), _AUTHORIZATION),
    _Rule(
        "a cookie",
        ("cookie",),
        (
            rf"(?P<keep>cookie(?<![a-z0-9]cookie){_QUOTE}?\s{{0,3}}:\s{{0,3}}{_QUOTE}?(?=[^\s=;\"']{{1,80}}=))"
            r"[^\r\n\"'\\]+"
        ),
    ),
    _Rule(
        "a bearer token",
        ("bearer",),
        (
            r"(?P<keep>bearer(?<![a-z0-9]bearer)(?:\s|%20|\+){1,3})"
            r"(?:(?=[a-z._~+/-]*[0-9])[a-z0-9._~+/-]{6,}|[a-z0-9._~+/-]{20,})=*"
        ),
    ),
    _Rule(
        "a user and password (Basic)",
        ("basic",),
        (r"(?ai)(?P<keep>(?<![a-z0-9])basic(?:\s|%20|\+){1,3})(?P<pair>[a-z0-9+/]{6,}={0,2})"),
        _is_basic,
        keeps_case=True,
    ),
    _Rule(
        "a password before the host (user:password@)",
        ("://", r":\/\/"),
        (r"(?P<keep>:(?:(?<!github:)(?<!file:)//|\\/\\/)[^/?#\s:@\\]*:)[^/?#\s]+(?=@(?!sha(?:256|512):))"),
    ),
    _Rule(
        "a password before the host (user:password@)",
        ("%3a%2f%2f",),
        (r"(?P<keep>%3a%2f%2f(?:[^\s%&/]|%(?!3a|40|2f)){0,100}%3a)(?:[^\s%&/]|%(?!40|2f|3f|23)){1,200}(?=%40)"),
    ),
    _Rule(
        # Where it should have been percent-encoded, and is in the error about that.
        "a password before the host (user:password@)",
        ("://",),
        (
            r"(?P<keep>(?:postgres|mysql|mariadb|mssql|oracle|redis|amqp|mongodb)[a-z0-9+]{0,20}://[^/?#\s:@]*:)"
            r"(?![0-9]{1,5}[/?#])[^\s@\"'<>]{1,200}(?=@)"
        ),
    ),
    _Rule(
        # Without a scheme, where it is none of an e-mail address: capitals, small letters and digits.
        "a password before the host (user:password@)",
        ("@",),
        (
            r"(?a)(?P<keep>:(?<=[\w.+-]:)(?<!mailto:))(?=[^\s:@/]{0,60}[A-Z])(?=[^\s:@/]{0,60}[a-z])(?=[^\s:@/]{0,60}[0-9])"
            r"[^\s:@/\"'<>]{8,100}(?=@[\w-]{1,63}\.[\w.-])"
        ),
        keeps_case=True,
    ),
    _Rule(
        "a token before the host (token@)",
        ("://",),
        (
            r"(?a)(?P<keep>://(?<=https://))(?=[\w.~-]{0,60}[0-9])"
            r"(?:(?=[\w.~-]{0,60}[A-Z])(?=[\w.~-]{0,60}[a-z])[\w.~-]{16,200}|[\w.~-]{32,200})(?=@)"
        ),
        keeps_case=True,
    ),
    _Rule(
        "a user and password (-u user:password)",
        ("-u ", "-user"),
        (rf"(?P<keep>-(?:-(?:proxy-)?user(?:name)?|u)[\s=]{{1,3}}[\"']?[^\s:\"']{{1,64}}:{_MIXED})[^\s\"']{{6,200}}"),
    ),
    _Rule(
        "a user and password (a pair)",
        ("auth",),
        (
            rf"(?P<keep>auth{_QUOTE}?\s?[=:(]\s?\(?[bu]?{_QUOTE}[^\s\"',]{{1,64}}{_QUOTE},\s?[bu]?{_QUOTE}{_MIXED})"
            rf"{_IN_VALUE}{{6,}}"
        ),
    ),
    _Rule(
        "a storage key (SharedKey account:key)",
        ("sharedkey",),
        (r"(?P<keep>sharedkey(?:lite)?\s{1,3}[a-z0-9-]{3,24}:)[a-z0-9+/]{40,}={0,2}"),
    ),
    _Rule(
        "a key (credential=value)",
        ("credential",),
        (
            rf"(?P<keep>credentials?{_QUOTE}?\s{{0,3}}[=:]\s{{0,3}}[bu]?{_QUOTE}(?=[a-z+/_-]{{0,60}}[0-9]))[a-z0-9+/_-]{{40,}}=*"
        ),
    ),
    _Rule(
        "a JSON web token",
        ("eyj",),
        (r"(?a)(?P<head>eyJ(?<![\w-]eyJ)[\w-]{8,})(?:\.|%2[eE])[\w-]*(?:\.|%2[eE])[\w-]*(?:\.[\w-]+){0,2}"),
        _is_jwt,
        keeps_case=True,
    ),
    _Rule(
        "a key or token",
        (
            *("akia", "asia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox"),
            *(
                "aiza",
                "ya29.",
                "sk-",
                "sk_live_",
                "rk_live_",
                "npm_",
                "pypi-",
                "hf_",
                "8q~",
                "sg.",
                "dapi",
                "hooks.slack",
            ),
        ),
        (
            r"(?a)(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}|"
            r"glpat-[\w-]{20,}|xox[abeprs]-[A-Za-z0-9-]{10,}|AIza[\w-]{35}|ya29\.[\w-]{20,}|sk-(?:proj-|ant-)?[\w]{32,}|"
            r"[sr]k_live_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{30,}|hf_[A-Za-z0-9]{34,}|"
            r"\w{3}[78]Q~[\w.~-]{31,34}|SG\.[\w-]{22}\.[\w-]{40,}|dapi[0-9a-f]{32}|(?<=hooks\.slack\.com/)services/[\w/]{20,})(?![A-Za-z0-9])"
        ),
        keeps_case=True,
    ),
    _Rule(
        _NAMED,
        _WORDS,
        (
            rf"(?P<keep>{_NAME_OR_TOKEN}(?:{_IS}{_WRAPPED}|{_QUOTE}{_SPACE}{_COLON}\s{{0,20}}\[?(?=[bu]?{_QUOTE}))"
            rf"(?:{_OPEN})?){_VALUE}"
        ),
        _is_given,
    ),
    _Rule(
        "a key, password or token (name: value)",
        _WORDS,
        (
            rf"(?P<keep>{_NAME_OR_TOKEN}{_QUOTE}?{_SPACE}{_COLON}{_SPACE}{_BLOCK}{_QUOTE}?{_MIXED})"
            rf"(?(token){_IN_VALUE}{{16,}}|{_IN_VALUE}{{6,}})"
        ),
    ),
    _Rule(
        "a key, password or token (name and value of an entry)",
        _WORDS,
        (
            rf"(?P<keep>{_NAME_OR_TOKEN}{_QUOTE}\s{{0,40}},\s{{0,40}}"
            # As Azure lists the settings of an app.
            rf"(?:{_QUOTE}slotsetting{_QUOTE}\s?:\s?(?:true|false)\s{{0,40}},\s{{0,40}})?"
            rf"{_QUOTE}value{_QUOTE}\s{{0,20}}:\s{{0,20}}(?:{_OPEN})){_VALUE}"
        ),
        _is_given,
    ),
    _Rule(
        "a key, password or token (name and value of an element or a form)",
        _WORDS,
        (rf"(?P<keep>{_NAME_OR_TOKEN}{_QUOTE}(?:\s{{1,5}}value=(?:{_OPEN})|(?:\r?\n|\\r\\n|\\n){{2}})){_VALUE}"),
        _is_given,
    ),
    _Rule(
        "a key, password or token (a pair)",
        _WORDS,
        (rf"(?P<keep>{_NAME_OR_TOKEN}{_QUOTE},\s?{_OPEN}{_MIXED}){_VALUE}"),
        _is_pair,
    ),
    _Rule(
        "a password (pass=value)",
        ("pass",),
        (rf"(?P<keep>{_after('pass', *_BEGINNING)}={_QUOTE}?{_MIXED}){_IN_VALUE}{{6,}}"),
    ),
    # As JSON writes a number.
    _Rule(_NAMED, _WORDS, (rf"(?P<keep>{_NAME}{_QUOTE}{_SPACE}:{_SPACE})[0-9]{{4,}}")),
    _Rule(
        "a key, password or token (<name>value</name>)",
        ("</",),
        (rf"(?P<keep>{_NAME_OR_TOKEN}>)[^<>\s]{{1,200}}(?=</)"),
        _is_given,
    ),
    _Rule(
        "a key, password or token (--name value)",
        ("--",),
        (
            r"(?P<keep>--(?=[a-z])[a-z-]{0,30}?(?:password|passwd|passphrase|secret|token|(?:api|account|access|secret|private|storage|shared)-?key)"
            rf"(?:[\"'],\s?[\"']|[^\S\r\n]{{1,3}}[\"']?){_MIXED}){_IN_VALUE}{{6,}}"
        ),
    ),
    _Rule(
        "a function key (code=value)",
        ("code",),
        (
            rf"(?P<keep>{_after('code', '[?&]', '%3f', '%26', r'u0026')}(?:=|%3d)"
            r"(?=[a-z_%/+-]{0,60}[0-9]|[a-z0-9_%/+=-]{32}))[a-z0-9_%/+=-]{20,}"
        ),
    ),
)
# In short texts, of which there are many, it is quicker to look for all words at once; in long ones for one at a time.
_SHORT = 1000
_ANY_WORD = re.compile("|".join(sorted({re.escape(word) for rule in _RULES for word in rule.words})))
