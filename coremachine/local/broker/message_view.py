"""What filters and actions see of a message: system and application properties."""

from functools import cached_property

from coremachine.local.broker import codec
from coremachine.local.broker.message import Content

# Position in AMQP's properties section by the name in a rule, lower case.
_POSITIONS = {
    "messageid": 0,
    "to": 2,
    "label": 3,
    "subject": 3,
    "replyto": 4,
    "correlationid": 5,
    "contenttype": 6,
    "sessionid": 10,
    "replytosessionid": 12,
}
SYSTEM_PROPERTIES = frozenset(_POSITIONS)


def position_of(name: str) -> int:
    """Where a system property is in the properties section.

    Raises:
        ValueError: There is none of this name.
    """
    position = _POSITIONS.get(name.lower())
    if position is None:
        raise ValueError(f"expected a system property among {', '.join(sorted(_POSITIONS))}, found '{name}'")
    return position


class MessageView:
    """The properties of a message, decoded once."""

    def __init__(self, content: Content) -> None:
        self._content = content

    @cached_property
    def properties(self) -> dict[str, codec.Value]:
        """The application properties."""
        section = self._content.application_properties
        decoded = codec.decode(section)[0] if section else {}
        return {str(key): value for key, value in decoded.items()} if isinstance(decoded, dict) else {}

    @cached_property
    def _names(self) -> dict[str, str]:
        return {name.lower(): name for name in reversed(self.properties)}

    def name_of(self, name: str) -> str | None:
        """The name of an application property as the message has it, None if it has none; case does not matter."""
        return name if name in self.properties else self._names.get(name.lower())

    def user(self, name: str) -> codec.Value:
        """An application property, None where the message has none."""
        known = self.name_of(name)
        return None if known is None else self.properties[known]

    @cached_property
    def _fields(self) -> list[codec.Value]:
        decoded = codec.decode(self._content.properties)[0] if self._content.properties else []
        return decoded if isinstance(decoded, list) else []

    def system(self, name: str) -> codec.Value:
        """A system property by its name, None where the message has none."""
        position = position_of(name)
        value = self._fields[position] if position < len(self._fields) else None
        # The service compares them as texts.
        return value if value is None or isinstance(value, str) else str(value)
