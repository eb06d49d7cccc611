"""The words of a rule's SQL: names, texts, numbers and signs."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from coremachine.local.broker import codec
from coremachine.local.broker.message_view import SYSTEM_PROPERTIES

T = TypeVar("T")

_PATTERN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^']|'')*')
    | (?P<number>0[xX][0-9a-fA-F]+|\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\d+(?:[eE][+-]?\d+)?)
    | (?P<quoted>\[(?:[^\]]|\]\])*\]|"(?:[^"]|"")*")
    | (?P<name>[^\W\d_]\w*)
    | (?P<parameter>@\w+)
    | (?P<sign><>|!=|>=|<=|[=<>+\-*/%(),.;])
    | (?P<end>$)
    )""",
    re.VERBOSE,
)
KEYWORDS = frozenset(
    "and or not is null in like escape exists true false set remove between".split()  # noqa: SIM905 - reads as a list
)
_OF_CONDITIONS = frozenset({"=", "<>", "!=", ">", ">=", "<", "<=", "and", "or", "not", "is", "in", "like", "exists"})
MAX_EXPRESSION = 1024
_SHOWN = 40
MAX_DEPTH = 32


class SqlError(ValueError):
    """An expression that cannot be understood, worded as Service Bus does.

    Attributes:
        line: From 1, as `column` is from 0.
    """

    def __init__(self, text: str, position: int, token: str, expected: str) -> None:
        before = text[:position]
        self.line, self.column = before.count("\n") + 1, position - (before.rfind("\n") + 1)
        shown = token[:_SHOWN]
        super().__init__(
            f"There was an error parsing the SQL expression. [Token line={self.line}, column={self.column}, "
            f"Token in error= {shown}, Additional details= expected {expected}, found {shown or 'the end'}]"
        )


@dataclass(frozen=True, slots=True)
class Token:
    """A word with its kind: text, number, name, quoted, parameter, keyword, sign or end."""

    kind: str
    value: str
    position: int


def tokens_of(text: str) -> list[Token]:
    """The words of an expression, with an end.

    Raises:
        SqlError: It is too long, or has a character that begins no word.
    """
    if len(text) > MAX_EXPRESSION:
        raise SqlError(text, MAX_EXPRESSION, text[MAX_EXPRESSION:], f"at most {MAX_EXPRESSION} characters")
    found: list[Token] = []
    position = 0
    while not found or found[-1].kind != "end":
        match = _PATTERN.match(text, position)
        if match is None or match.lastgroup is None:
            place = position + len(text[position:]) - len(text[position:].lstrip())
            raise SqlError(text, place, text[place : place + 1], "a name, a text, a number or an operator")
        kind, value = match.lastgroup, match.group(match.lastgroup)
        if kind == "name" and value.lower() in KEYWORDS:
            kind, value = "keyword", value.lower()
        found.append(Token(kind, value, match.start(match.lastgroup)))
        position = match.end()
    return found


class Reader:
    """Reads tokens one after the other.

    Args:
        parameters: Values by their names, which begin with @.
    """

    def __init__(self, text: str, parameters: Mapping[str, codec.Value] | None = None) -> None:
        self._text = text
        self.parameters = dict(parameters or {})
        self._tokens = tokens_of(text)
        self._index = 0
        self._depth = 0

    @property
    def next(self) -> Token:
        return self._tokens[self._index]

    def take(self) -> Token:
        token = self.next
        self._index += token.kind != "end"
        return token

    def take_if(self, kind: str, *values: str) -> Token | None:
        """The next token if it is one of these."""
        token = self.next
        return self.take() if token.kind == kind and token.value in values else None

    def expect(self, kind: str, value: str) -> None:
        if self.take_if(kind, value) is None:
            raise self.unexpected(f"'{value}'")

    def expect_end(self) -> None:
        if self.next.kind != "end":
            raise self.unexpected("the end")

    def unexpected(self, expected: str) -> SqlError:
        return SqlError(self._text, self.next.position, self.next.value, expected)

    def nested(self, parse: Callable[[], T]) -> T:
        """Parse one level deeper.

        Raises:
            SqlError: That is too deep.
        """
        if self._depth >= MAX_DEPTH:
            raise self.unexpected(f"at most {MAX_DEPTH} nested expressions")
        self._depth += 1
        try:
            return parse()
        finally:
            self._depth -= 1

    def opens_condition(self) -> bool:
        """Whether the parenthesis that comes next holds a condition, and not a value."""
        depth = 0
        for token in self._tokens[self._index :]:
            depth += (token.value == "(") - (token.value == ")") if token.kind == "sign" else 0
            if depth == 0:
                return False
            is_condition = token.value in _OF_CONDITIONS if token.kind in {"sign", "keyword"} else False
            if is_condition:
                return True
        return False

    def calls(self, *names: str) -> bool:
        """Whether a function of one of these names is called here."""
        following = self._tokens[min(self._index + 1, len(self._tokens) - 1)]
        is_open = following.kind == "sign" and following.value == "("
        return self.next.kind == "name" and self.next.value.lower() in names and is_open

    def take_property(self) -> tuple[str, str]:
        """A property's scope (`sys` or `user`) and its name.

        Raises:
            SqlError: There is none, or no such system property.
        """
        is_plain = self.next.kind == "name"
        name = self._take_name()
        if not is_plain or name.lower() not in {"sys", "user"} or self.take_if("sign", ".") is None:
            return "user", name
        scope = name.lower()
        if scope == "sys" and self.next.value.lower() not in SYSTEM_PROPERTIES:
            raise self.unexpected(f"a system property among {', '.join(sorted(SYSTEM_PROPERTIES))}")
        return scope, self._take_name()

    def _take_name(self) -> str:
        token = self.next
        if token.kind == "name":
            return self.take().value
        if token.kind == "quoted":
            inner = self.take().value
            return inner[1:-1].replace("]]", "]") if inner[0] == "[" else inner[1:-1].replace('""', '"')
        raise self.unexpected("the name of a property")
