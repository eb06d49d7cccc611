"""Values in a rule's SQL: literals, properties, functions and arithmetic. Unknown (null) stays unknown.

Numbers are those of C#: 64 bits or double, division of whole numbers and its remainder towards zero. What overflows,
and a whole number divided by zero, is unknown.
"""

import math
import operator
from collections.abc import Callable
from typing import TypeGuard
from uuid import uuid4

from coremachine.local.broker import codec
from coremachine.local.broker.message_view import MessageView
from coremachine.local.broker.sql_tokens import Reader

Expression = Callable[[MessageView], codec.Value]

Number = int | float
_INT64 = 2**63


def _divided(first: Number, second: Number) -> Number:
    if isinstance(first, int) and isinstance(second, int):
        quotient = abs(first) // abs(second)
        return quotient if (first < 0) is (second < 0) else -quotient
    if second == 0:
        return (
            math.nan if first == 0 or math.isnan(first) else math.copysign(math.inf, first) * math.copysign(1, second)
        )
    return first / second


def _remainder(first: Number, second: Number) -> Number:
    if isinstance(first, int) and isinstance(second, int):
        return first - second * int(_divided(first, second))
    return math.nan if second == 0 or math.isinf(first) else math.fmod(first, second)


_ARITHMETIC: dict[str, Callable[[Number, Number], Number]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divided,
    "%": _remainder,
}


def is_number(value: codec.Value) -> TypeGuard[Number]:
    return isinstance(value, int | float) and not isinstance(value, bool | codec.Moment | codec.Span)


def are_comparable(first: codec.Value, second: codec.Value) -> bool:
    """Whether one of two values may be equal to, smaller or larger than the other."""
    return (is_number(first) and is_number(second)) or type(first) is type(second)


def parse_value(reader: Reader) -> Expression:
    """Sums of products of literals and properties."""
    left = _parse_product(reader)
    while (sign := reader.take_if("sign", "+", "-")) is not None:
        left = _calculation(sign.value, left, _parse_product(reader))
    return left


def _parse_product(reader: Reader) -> Expression:
    left = _parse_unary(reader)
    while (sign := reader.take_if("sign", "*", "/", "%")) is not None:
        left = _calculation(sign.value, left, _parse_unary(reader))
    return left


def _parse_unary(reader: Reader) -> Expression:
    sign = reader.take_if("sign", "-", "+")
    if sign is not None:
        inner = reader.nested(lambda: _parse_unary(reader))
        return _calculation(sign.value, lambda _message: 0, inner)
    if reader.take_if("sign", "(") is not None:
        inner = reader.nested(lambda: parse_value(reader))
        reader.expect("sign", ")")
        return inner
    return _parse_operand(reader)


def _parse_operand(reader: Reader) -> Expression:
    token = reader.next
    if token.kind in {"text", "number"} or (token.kind == "keyword" and token.value in {"true", "false", "null"}):
        return _constant(_literal(reader))
    if token.kind == "parameter":
        if token.value not in reader.parameters:
            raise reader.unexpected(f"a parameter among {', '.join(sorted(reader.parameters)) or 'none'}")
        return _constant(reader.parameters[reader.take().value])
    if reader.calls("newid", "property", "p"):
        return _parse_call(reader)
    if token.kind not in {"name", "quoted"}:
        raise reader.unexpected("a value")
    scope, name = reader.take_property()
    if scope == "sys":
        return lambda message: message.system(name)
    return lambda message: message.user(name)


def _parse_call(reader: Reader) -> Expression:
    name = reader.take().value.lower()
    reader.expect("sign", "(")
    if name == "newid":
        reader.expect("sign", ")")
        return lambda _message: uuid4()
    wanted = reader.nested(lambda: parse_value(reader))
    reader.expect("sign", ")")

    def value(message: MessageView) -> codec.Value:
        found = wanted(message)
        return message.user(found) if isinstance(found, str) else None

    return value


def _literal(reader: Reader) -> codec.Value:
    token = reader.next
    if token.kind == "number":
        is_whole = token.value.isdigit() or token.value[:2].lower() == "0x"
        number = int(token.value, 16 if token.value[1:2].lower() == "x" else 10) if is_whole else float(token.value)
        if isinstance(number, int) and number >= _INT64:
            raise reader.unexpected("a whole number of at most 64 bits")
        reader.take()
        return number
    reader.take()
    if token.kind == "text":
        return token.value[1:-1].replace("''", "'")
    return {"true": True, "false": False, "null": None}[token.value]


def _constant(value: codec.Value) -> Expression:
    return lambda _message: value


def _calculation(sign: str, left: Expression, right: Expression) -> Expression:
    calculate = _ARITHMETIC[sign]

    def value(message: MessageView) -> codec.Value:
        first, second = left(message), right(message)
        if sign == "+" and isinstance(first, str) and isinstance(second, str):
            return first + second
        if not is_number(first) or not is_number(second):
            return None
        try:
            result = calculate(first, second)
        except (ArithmeticError, ValueError):
            return None
        return None if isinstance(result, int) and not -_INT64 <= result < _INT64 else result

    return value
