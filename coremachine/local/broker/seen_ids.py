"""Duplicate detection: the message ids of a while."""

from collections import OrderedDict
from collections.abc import Iterable


class SeenIds:
    """Ids and until when each is remembered, the oldest first."""

    def __init__(self) -> None:
        self._until: OrderedDict[object, float] = OrderedDict()

    def is_repeated(self, message_id: object, now: float, window: float) -> bool:
        """Whether an id came before within its window; otherwise it is remembered for one."""
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        if message_id in self._until:
            return True
        self._until[message_id] = now + window
        return False

    def restore(self, ids: Iterable[tuple[object, float]]) -> None:
        """Remember ids until a time each, the first to be forgotten first."""
        self._until.update(ids)

    def clear(self) -> None:
        self._until.clear()
