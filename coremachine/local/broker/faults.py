"""Faults that tests ask for: each is for the next sends or messages of clients, and then over."""

from collections.abc import Callable, Container

from coremachine.local.broker.message import Content
from coremachine.local.broker.performatives import AmqpError

_EVERY_ENTITY = ""


class Faults:
    """What happens to the next sends.

    Args:
        clock: Seconds since the Unix epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sends_to_reject = 0
        # Messages that are left, by the lower-case name of an entity.
        self._duplicates: dict[str, int] = {}
        # The same, with the seconds.
        self._delays: dict[str, tuple[int, float]] = {}

    def reject(self, count: int) -> None:
        """Answer the next sends with server-busy; a batch is one."""
        self._sends_to_reject = _checked(count)

    def duplicate(self, count: int, entity: str | None = None) -> None:
        """Take each of the next messages twice: those to one entity, or to any."""
        self._duplicates.pop(_name(entity), None)
        if _checked(count) > 0:
            self._duplicates[_name(entity)] = count

    def delay(self, count: int, seconds: float, entity: str | None = None) -> None:
        """Keep each of the next messages back for this long, as if its sender had scheduled it.

        A message that its sender did schedule keeps its time and does not count.

        Raises:
            ValueError: The number of seconds is not above 0, or that of messages is below 0.
        """
        if not seconds > 0:
            raise ValueError(f"expected more than 0 seconds to delay messages by, found {seconds:g}")
        self._delays.pop(_name(entity), None)
        if _checked(count) > 0:
            self._delays[_name(entity)] = (count, seconds)

    def clear(self) -> None:
        """Forget what was asked for and has not happened."""
        self._sends_to_reject = 0
        self._duplicates.clear()
        self._delays.clear()

    def check_send(self) -> None:
        """Refuse a send if some are still to be refused."""
        if self._sends_to_reject > 0:
            self._sends_to_reject -= 1
            raise AmqpError("com.microsoft:server-busy", "The request was rejected on demand of a test. Try again.")

    def applied(self, contents: list[Content], entity: str) -> list[Content]:
        """What becomes of the messages of one send to an entity."""
        if not self._duplicates and not self._delays:
            return contents
        return [copy for content in contents for copy in self._delayed(self._copies(content, entity), entity)]

    def _copies(self, content: Content, entity: str) -> list[Content]:
        key = _key(self._duplicates, entity)
        if key is None:
            return [content]
        left = self._duplicates.pop(key) - 1
        if left > 0:
            self._duplicates[key] = left
        # Both have the id that the broker gives to a message without one.
        return [content.identified()] * 2

    def _delayed(self, copies: list[Content], entity: str) -> list[Content]:
        key = _key(self._delays, entity)
        if key is None or copies[0].scheduled_at is not None:
            return copies
        left, seconds = self._delays.pop(key)
        if left > 1:
            self._delays[key] = (left - 1, seconds)
        due = self._clock() + seconds
        return [each.scheduled(due) for each in copies]


def _checked(count: int) -> int:
    if count < 0:
        raise ValueError(f"expected 0 or more sends or messages to meet a fault, found {count}")
    return count


def _name(entity: str | None) -> str:
    return _EVERY_ENTITY if entity is None else entity.strip("/").lower()


def _key(asked: Container[str], entity: str) -> str | None:
    """The fault that a message to an entity meets: that of the entity before that of every one."""
    return next((key for key in (_name(entity), _EVERY_ENTITY) if key in asked), None)
