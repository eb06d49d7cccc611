"""The messages of a queue or session that may be delivered, in the order of their sequence numbers."""

import heapq
from collections import deque

from coremachine.local.broker.stored import Message, Place

_MIN_STALE_TO_COMPACT = 1000


class ReadyList:
    """New messages and those that came back. Entries of messages that are elsewhere by now are dropped on the way."""

    __slots__ = ("_fresh", "_returned", "_stale")

    def __init__(self) -> None:
        self._fresh: deque[Message] = deque()
        self._returned: list[tuple[int, Message]] = []
        self._stale = 0

    def append(self, message: Message) -> None:
        """Add a message with a higher number than all before."""
        self._fresh.append(message)

    def give_back(self, message: Message) -> None:
        heapq.heappush(self._returned, (message.sequence_number, message))

    def first(self) -> Message | None:
        """The message with the lowest number."""
        fresh, returned = self._fresh, self._returned
        while returned and returned[0][1].place is not Place.READY:
            heapq.heappop(returned)
        while fresh and fresh[0].place is not Place.READY:
            fresh.popleft()
        if returned and (not fresh or returned[0][0] < fresh[0].sequence_number):
            return returned[0][1]
        return fresh[0] if fresh else None

    def pop(self) -> Message | None:
        """As `first`, which leaves the list."""
        message = self.first()
        if message is not None:
            if self._returned and self._returned[0][1] is message:
                heapq.heappop(self._returned)
            else:
                self._fresh.popleft()
        return message

    def moved_on(self) -> None:
        """One of the messages is no longer ready, without `pop`: expired or deleted."""
        self._stale += 1
        if self._stale > _MIN_STALE_TO_COMPACT and 2 * self._stale > len(self._fresh) + len(self._returned):
            self._fresh = deque(each for each in self._fresh if each.place is Place.READY)
            self._returned = [entry for entry in self._returned if entry[1].place is Place.READY]
            heapq.heapify(self._returned)
            self._stale = 0

    def clear(self) -> None:
        self._fresh.clear()
        self._returned.clear()
        self._stale = 0
