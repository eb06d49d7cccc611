"""The words of a rule's SQL: names, texts, numbers and signs."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_PATTERN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^']|'')*')
    | (?P<number>0[xX][0-9a-fA-F]+|\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\d+(?:[eE][+-]?\d+)?)
    | (?P<quoted>\[(?:[^\]]|\]\])*\]|"(?:[^"]|"")*")
    | (?P<name>[A-Za-z_\$][\w$]*)
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
MAX_DEPTH = 32


class SqlError(ValueError):
    """An expression that cannot be understood; names the place in it."""

    def __init__(self, expected: str, found: str, position: int) -> None:
        self.position = position
        super().__init__(f"expected {expected}, found {found} at position {position} of the SQL expression")


@dataclass(frozen=True, slots=True)
class Token:
    """A word with its kind: text, number, name, quoted, keyword, sign or end."""

    kind: str
    value: str
    position: int


def tokens_of(text: str) -> list[Token]:
    """The words of an expression, with an end.

    Raises:
        SqlError: It is too long, or has a character that begins no word.
    """
    if len(text) > MAX_EXPRESSION:
        raise SqlError(f"at most {MAX_EXPRESSION} characters", str(len(text)), MAX_EXPRESSION)
    found: list[Token] = []
    position = 0
    while not found or found[-1].kind != "end":
        match = _PATTERN.match(text, position)
        if match is None or match.lastgroup is None:
            raise SqlError("a name, a text, a number or an operator", repr(text[position : position + 20]), position)
        kind, value = match.lastgroup, match.group(match.lastgroup)
        if kind == "name" and value.lower() in KEYWORDS:
            kind, value = "keyword", value.lower()
        found.append(Token(kind, value, match.start(match.lastgroup)))
        position = match.end()
    return found


class Reader:
    """Reads tokens one after the other."""

    def __init__(self, text: str) -> None:
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
        return SqlError(expected, repr(self.next.value) if self.next.value else "the end", self.next.position)

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

    def take_property(self) -> tuple[str, str]:
        """A property's scope (`sys` or `user`) and its name."""
        name = self._take_name()
        if name.lower() in {"sys", "user"} and self.take_if("sign", ".") is not None:
            return name.lower(), self._take_name()
        return "user", name

    def _take_name(self) -> str:
        token = self.next
        if token.kind == "name":
            return self.take().value
        if token.kind == "quoted":
            inner = self.take().value
            return inner[1:-1].replace("]]", "]") if inner[0] == "[" else inner[1:-1].replace('""', '"')
        raise self.unexpected("the name of a property")
