"""Values in a rule's SQL: literals, properties and arithmetic. Unknown (null) stays unknown."""

import operator
from collections.abc import Callable

from coremachine.local.broker import codec
from coremachine.local.broker.message_view import MessageView, position_of
from coremachine.local.broker.sql_tokens import Reader

Expression = Callable[[MessageView], codec.Value]

_ARITHMETIC: dict[str, Callable[..., codec.Value]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
}


def is_number(value: codec.Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
    if reader.take_if("sign", "-") is not None:
        inner = reader.nested(lambda: _parse_unary(reader))
        return _calculation("-", lambda _message: 0, inner)
    if reader.take_if("sign", "+") is not None:
        return reader.nested(lambda: _parse_unary(reader))
    if reader.take_if("sign", "(") is not None:
        inner = reader.nested(lambda: parse_value(reader))
        reader.expect("sign", ")")
        return inner
    return _parse_operand(reader)


def _parse_operand(reader: Reader) -> Expression:
    token = reader.next
    if token.kind in {"text", "number"} or (token.kind == "keyword" and token.value in {"true", "false", "null"}):
        return _constant(_literal(reader))
    scope, name = reader.take_property()
    if scope == "sys":
        position_of(name)
        return lambda message: message.system(name)
    return lambda message: message.properties.get(name)


def _literal(reader: Reader) -> codec.Value:
    token = reader.take()
    if token.kind == "text":
        return token.value[1:-1].replace("''", "'")
    if token.kind == "number":
        if token.value.lower().startswith("0x"):
            return int(token.value, 16)
        return int(token.value) if token.value.isdigit() else float(token.value)
    return {"true": True, "false": False, "null": None}[token.value]


def _constant(value: codec.Value) -> Expression:
    return lambda _message: value


def _calculation(sign: str, left: Expression, right: Expression) -> Expression:
    calculate = _ARITHMETIC[sign]

    def value(message: MessageView) -> codec.Value:
        first, second = left(message), right(message)
        joins_texts = sign == "+" and isinstance(first, str) and isinstance(second, str)
        if not joins_texts and not (is_number(first) and is_number(second)):
            return None
        try:
            result = calculate(first, second)
        except (ArithmeticError, ValueError):
            return None
        # Whole numbers divide to a whole one.
        is_whole = sign == "/" and isinstance(first, int) and isinstance(second, int)
        return int(result) if is_whole and isinstance(result, float) else result

    return value
