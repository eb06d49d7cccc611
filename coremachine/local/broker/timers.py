"""Keys by the time at which they fall due: lock ends, expiries, scheduled messages."""

import heapq
import math
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")

_MIN_TO_COMPACT = 1000


class DueHeap(Generic[K]):
    """A heap without cancelling, since most entries lose their meaning before they fall due.

    Args:
        is_live: Whether a key still means something at this due time. The others are dropped now and then, so that an
            hour of them does not fill the memory.
    """

    __slots__ = ("_heap", "_is_live", "_limit")

    def __init__(self, is_live: Callable[[float, K], bool]) -> None:
        self._heap: list[tuple[float, K]] = []
        self._is_live = is_live
        self._limit = _MIN_TO_COMPACT

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: float, key: K) -> None:
        heapq.heappush(self._heap, (due, key))
        if len(self._heap) > self._limit:
            self._heap = [entry for entry in self._heap if self._is_live(*entry)]
            heapq.heapify(self._heap)
            self._limit = max(_MIN_TO_COMPACT, 2 * len(self._heap))

    @property
    def earliest(self) -> float:
        """Of all entries, whether they still mean something or not."""
        return self._heap[0][0] if self._heap else math.inf

    @property
    def next_due(self) -> float | None:
        while self._heap and not self._is_live(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def has_due(self, now: float) -> bool:
        return bool(self._heap) and self._heap[0][0] <= now

    def take_due(self, now: float) -> K | None:
        """A live key that is due, or None."""
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._is_live(due, key):
                return key
        return None

    def clear(self) -> None:
        self._heap.clear()
        self._limit = _MIN_TO_COMPACT
