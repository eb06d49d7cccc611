"""SQL actions of rules: `SET name = value` and `REMOVE name`; a `;` between them may be left out."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from coremachine.local.broker import codec
from coremachine.local.broker.codec import NULL
from coremachine.local.broker.message import Content, parse_message
from coremachine.local.broker.message_view import MessageView, position_of
from coremachine.local.broker.sql_expression import Expression, parse_value
from coremachine.local.broker.sql_tokens import Reader

_PROPERTIES = 0x73
_MAX_STATEMENTS = 32
_TIMES = (codec.Moment, codec.Span)

Step = Callable[[Content], Content]


class SqlAction:
    """What a rule changes in its copy of a message.

    Args:
        parameters: Values for names in the expression that begin with @.

    Raises:
        SqlError: The expression is not understood.
    """

    def __init__(self, expression: str, parameters: Mapping[str, codec.Value] | None = None) -> None:
        self.expression = expression
        reader = Reader(expression, parameters)
        self.parameters = reader.parameters
        self._steps: list[Step] = []
        while not self._steps or reader.next.kind != "end":
            if len(self._steps) == _MAX_STATEMENTS:
                raise reader.unexpected(f"at most {_MAX_STATEMENTS} statements")
            self._steps.append(_parse_statement(reader))
            reader.take_if("sign", ";")

    def applied(self, content: Content, more: dict[str, str]) -> Content:
        """A changed copy, with more application properties."""
        for step in self._steps:
            content = step(content)
        return content.modified([(codec.string(name), codec.string(value)) for name, value in more.items()])


def _parse_statement(reader: Reader) -> Step:
    if reader.take_if("keyword", "set") is not None:
        scope, name = reader.take_property()
        reader.expect("sign", "=")
        value = parse_value(reader)
        if scope == "sys":
            return _set_system(position_of(name), value)
        return _set_user(name, value)
    if reader.take_if("keyword", "remove") is not None:
        scope, name = reader.take_property()
        if scope == "sys":
            return _set_system(position_of(name), lambda _message: None)
        return lambda content: content.without(MessageView(content).name_of(name) or name)
    raise reader.unexpected("SET or REMOVE")


def _set_user(name: str, value: Expression) -> Step:
    def step(content: Content) -> Content:
        view = MessageView(content)
        known = view.name_of(name)
        found = value(view)
        if known is not None:
            found = _converted(found, view.properties[known])
        return content.modified([(codec.string(known or name), encode(found))])

    return step


def _converted(value: codec.Value, known: codec.Value) -> codec.Value:
    """A value in the type of the one that it replaces, where that is possible."""
    if value is None or known is None or type(value) is type(known):
        return value
    if isinstance(value, _TIMES) or isinstance(known, _TIMES):
        return value
    if isinstance(known, str):
        return str(value)
    for kind in (bool, int, float):
        if isinstance(known, kind) and isinstance(value, str | int | float):
            return _number_from(value, kind)
    return value


def _number_from(value: str | float, kind: type[bool | int | float]) -> codec.Value:
    if kind is bool:
        return {"true": True, "false": False}.get(str(value).lower(), value)
    try:
        number = kind(value)
    except (ValueError, OverflowError):
        return value
    # A half is not cut off.
    return value if isinstance(value, float) and number != value else number


def _set_system(position: int, value: Expression) -> Step:
    def step(content: Content) -> Content:
        raw = codec.split_compound(content.properties, codec.skip(content.properties, 1)) if content.properties else []
        raw += [NULL] * (position + 1 - len(raw))
        found = value(MessageView(content))
        raw[position] = NULL if found is None else codec.string(str(found))
        parsed = parse_message(codec.described(_PROPERTIES, codec.list_of(raw)))
        return replace(
            content, properties=parsed.properties, message_id=parsed.message_id, session_id=parsed.session_id
        )

    return step


def encode(value: codec.Value) -> bytes:
    """A value as AMQP; numbers as long or double, other types as they are."""
    if value is None:
        return NULL
    encoder = _ENCODERS.get(type(value))
    return codec.string(str(value)) if encoder is None else encoder(value)


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    bool: codec.boolean,
    bytes: codec.binary,
    codec.Moment: codec.moment,
    codec.Span: codec.span,
    float: codec.double,
    int: lambda value: codec.long(max(-(2**63), min(value, 2**63 - 1))),
    UUID: codec.uuid,
}
