"""Reading the map in a request's body, with errors that name the entry."""

from typing import TypeVar

from coremachine.local.broker import codec
from coremachine.local.broker.performatives import AmqpError

ARGUMENT_ERROR = "com.microsoft:argument-error"

Body = dict[str, codec.Value]
T = TypeVar("T")


def item(body: Body, key: str, kind: type[T]) -> T:
    """An entry that must be there.

    Raises:
        AmqpError: It is missing or of another type.
    """
    value = body.get(key)
    if not isinstance(value, kind):
        raise AmqpError(ARGUMENT_ERROR, f"expected {kind.__name__} in '{key}', found {repr(value)[:100]}")
    return value


def optional(body: Body, key: str, kind: type[T]) -> T | None:
    """As `item`, None where there is none."""
    return None if body.get(key) is None else item(body, key, kind)


def list_item(body: Body, key: str, kind: type[T]) -> list[T]:
    """A list of values of one type; raises as `item` does."""
    values = item(body, key, list)
    for value in values:
        if not isinstance(value, kind):
            raise AmqpError(ARGUMENT_ERROR, f"expected only {kind.__name__} in '{key}', found {repr(value)[:100]}")
    return values


def map_answer(**values: bytes) -> bytes:
    return codec.map_of([(codec.string(key), value) for key, value in values.items()])
