"""SQL filters: the subset of SQL-92 conditions that Service Bus knows, with its names of properties in any case.

Conditions have three values: true, false and None for unknown; a filter takes a message only where it is true.
"""

import operator
from collections.abc import Callable, Mapping

from coremachine.local.broker import codec
from coremachine.local.broker.message_view import MessageView
from coremachine.local.broker.sql_expression import Expression, are_comparable, parse_value
from coremachine.local.broker.sql_tokens import Reader

Condition = Callable[[MessageView], bool | None]

_COMPARISONS: dict[str, Callable[..., bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_EQUALITIES = {"=", "<>", "!="}


class SqlFilter:
    """A filter by an expression such as `colour = 'red' AND sys.Label LIKE 'order-%'`.

    Args:
        parameters: Values for names in the expression that begin with @.

    Raises:
        SqlError: The expression is not understood.
    """

    def __init__(self, expression: str, parameters: Mapping[str, codec.Value] | None = None) -> None:
        self.expression = expression
        reader = Reader(expression, parameters)
        self.parameters = reader.parameters
        self._condition = _parse_or(reader)
        reader.expect_end()

    def matches(self, message: MessageView) -> bool:
        return self._condition(message) is True


def _parse_or(reader: Reader) -> Condition:
    parts = [_parse_and(reader)]
    while reader.take_if("keyword", "or") is not None:
        parts.append(_parse_and(reader))
    return parts[0] if len(parts) == 1 else _joined(parts, decided_by=True)


def _parse_and(reader: Reader) -> Condition:
    parts = [_parse_not(reader)]
    while reader.take_if("keyword", "and") is not None:
        parts.append(_parse_not(reader))
    return parts[0] if len(parts) == 1 else _joined(parts, decided_by=False)


def _joined(parts: list[Condition], *, decided_by: bool) -> Condition:
    def value(message: MessageView) -> bool | None:
        unknown = False
        for part in parts:
            found = part(message)
            if found is decided_by:
                return decided_by
            unknown = unknown or found is None
        return None if unknown else not decided_by

    return value


def _parse_not(reader: Reader) -> Condition:
    if reader.take_if("keyword", "not") is None:
        return _parse_predicate(reader)
    return _negated(reader.nested(lambda: _parse_not(reader)))


def _negated(inner: Condition) -> Condition:
    def value(message: MessageView) -> bool | None:
        found = inner(message)
        return None if found is None else not found

    return value


def _parse_predicate(reader: Reader) -> Condition:
    if reader.take_if("keyword", "exists") is not None:
        return _parse_exists(reader)
    if reader.next.value == "(" and reader.next.kind == "sign" and reader.opens_condition():
        reader.take()
        inner = reader.nested(lambda: _parse_or(reader))
        reader.expect("sign", ")")
        return inner
    left = parse_value(reader)
    if reader.take_if("keyword", "is") is not None:
        is_negated = reader.take_if("keyword", "not") is not None
        reader.expect("keyword", "null")
        return lambda message: (left(message) is None) is not is_negated
    is_negated = reader.take_if("keyword", "not") is not None
    if reader.take_if("keyword", "in") is not None:
        found = _parse_in(reader, left)
    elif reader.take_if("keyword", "like") is not None:
        found = _parse_like(reader, left)
    elif is_negated:
        raise reader.unexpected("IN or LIKE after NOT")
    else:
        return _parse_comparison(reader, left)
    return _negated(found) if is_negated else found


def _parse_exists(reader: Reader) -> Condition:
    reader.expect("sign", "(")
    scope, name = reader.take_property()
    reader.expect("sign", ")")
    if scope == "sys":
        return lambda message: message.system(name) is not None
    return lambda message: message.name_of(name) is not None


def _parse_comparison(reader: Reader, left: Expression) -> Condition:
    sign = reader.take_if("sign", *_COMPARISONS)
    if sign is None:
        # A property of type boolean is a condition by itself.
        return lambda message: value if isinstance(value := left(message), bool) else None
    right = parse_value(reader)
    compare, is_equality = _COMPARISONS[sign.value], sign.value in _EQUALITIES

    def value_of(message: MessageView) -> bool | None:
        first, second = left(message), right(message)
        if first is None or second is None:
            return None
        if not are_comparable(first, second):
            return compare(0, 1) if is_equality else None
        try:
            return bool(compare(first, second))
        except TypeError:
            return None

    return value_of


def _parse_in(reader: Reader, left: Expression) -> Condition:
    reader.expect("sign", "(")
    choices = [parse_value(reader)]
    while reader.take_if("sign", ",") is not None:
        choices.append(parse_value(reader))
    reader.expect("sign", ")")

    def value(message: MessageView) -> bool | None:
        first = left(message)
        if first is None:
            return None
        others = [choice(message) for choice in choices]
        if any(are_comparable(first, other) and first == other for other in others):
            return True
        return None if None in others else False

    return value


def _parse_like(reader: Reader, left: Expression) -> Condition:
    pattern = parse_value(reader)
    escape = parse_value(reader) if reader.take_if("keyword", "escape") is not None else None

    def value(message: MessageView) -> bool | None:
        text, wanted = left(message), pattern(message)
        if not isinstance(text, str) or not isinstance(wanted, str):
            return None
        mark = "" if escape is None else escape(message)
        if not isinstance(mark, str) or (escape is not None and len(mark) != 1):
            return None
        return _is_like(text, _wildcards(wanted, mark))

    return value


_ANY_TEXT, _ANY_CHARACTER = object(), object()


def _wildcards(pattern: str, escape: str) -> list[object]:
    parts: list[object] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character == escape and position + 1 < len(pattern):
            position += 1
            parts.append(pattern[position])
        else:
            parts.append({"%": _ANY_TEXT, "_": _ANY_CHARACTER}.get(character, character))
        position += 1
    return parts


def _is_like(text: str, pattern: list[object]) -> bool:
    """Match without backtracking into earlier `%`: a regular expression could take for ever."""
    at, part, retry_at, retry_part = 0, 0, -1, -1
    while at < len(text):
        if part < len(pattern) and pattern[part] is _ANY_TEXT:
            retry_at, retry_part = at, part
            part += 1
        elif part < len(pattern) and (pattern[part] is _ANY_CHARACTER or pattern[part] == text[at]):
            at, part = at + 1, part + 1
        elif retry_part >= 0:
            retry_at += 1
            at, part = retry_at, retry_part + 1
        else:
            return False
    return all(each is _ANY_TEXT for each in pattern[part:])
