"""What changed in a queue since it was last written to the file of durable mode.

A message that came and went in between is not written at all. Locks are not kept: a message that was locked when the
broker ended is ready again, and that delivery does not count.
"""

from collections.abc import Callable

from coremachine.local.broker import codec
from coremachine.local.broker.stored import Message


class QueueChanges:
    """Filled by a queue, emptied by the store.

    Args:
        key: Of the queue in the file.
        last_number: The highest sequence number that the queue has given away.
        mark: Called at each change; the store comes back for them.
    """

    def __init__(self, key: int, last_number: Callable[[], int], mark: "Callable[[QueueChanges], None]") -> None:
        self.key = key
        self.last_number = last_number
        self._mark = mark
        self._clear()

    def _clear(self) -> None:
        self.is_purged = False
        # To be written whole, and only without their content.
        self.written: dict[int, Message] = {}
        self.touched: dict[int, Message] = {}
        self.gone: list[int] = []
        self._fresh: set[int] = set()
        self.seen_ids: dict[codec.Value, float] = {}
        self.sessions: dict[str, tuple[bytes | None, float]] = {}

    def number_given(self) -> None:
        self._mark(self)

    def stored(self, message: Message) -> None:
        self.written[message.sequence_number] = message
        self._fresh.add(message.sequence_number)
        self._mark(self)

    def rewritten(self, message: Message) -> None:
        """The content is another."""
        self.written[message.sequence_number] = message
        self._mark(self)

    def moved(self, message: Message) -> None:
        """The place or the number of deliveries is another."""
        if message.sequence_number not in self.written:
            self.touched[message.sequence_number] = message
            self._mark(self)

    def removed(self, message: Message) -> None:
        number = message.sequence_number
        self.written.pop(number, None)
        self.touched.pop(number, None)
        if number in self._fresh:
            self._fresh.discard(number)
        else:
            self.gone.append(number)
        self._mark(self)

    def purged(self) -> None:
        """All messages are gone; the states of sessions stay."""
        sessions = self.sessions
        self._clear()
        self.is_purged, self.sessions = True, sessions
        self._mark(self)

    def id_seen(self, message_id: codec.Value, until: float) -> None:
        """For duplicate detection."""
        self.seen_ids[message_id] = until
        self._mark(self)

    def session_changed(self, session_id: str, state: bytes | None, updated_at: float) -> None:
        self.sessions[session_id] = (state, updated_at)
        self._mark(self)

    def all_written(self) -> None:
        self._clear()
