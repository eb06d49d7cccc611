"""Reads that many readers of one page share: each is made again after some seconds, once for all who wait for it."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar

from fastapi import Request

from core.basics.cache import LatestCache

V = TypeVar("V")

# An answer may be this old; one that took long may be older, so that no watched job costs more than a tenth of a core.
SECONDS = 2.0
_TIMES_ITS_COST = 10
_SIZE = 256


@dataclass
class _Slot:
    lock: Lock = field(default_factory=Lock)
    good_until: float = float("-inf")
    value: Any = None


class RecentReads:
    """Of one app. The clock is in seconds, and only grows."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slots: LatestCache[Hashable, _Slot] = LatestCache(_SIZE)

    def get(self, key: Hashable, make: Callable[[], V], *, seconds: float = 0.0) -> V:
        """What `make` returned lately for this key, or returns now; what it raises is raised.

        Args:
            seconds: How long it is good, where that is longer than for others.
        """
        slot = self._slots.get(key)
        if slot is None:
            slot = _Slot()
            self._slots.put(key, slot)
        with slot.lock:
            began = self._clock()
            if began >= slot.good_until:
                slot.value = make()
                ended = self._clock()
                slot.good_until = ended + max(SECONDS, seconds, _TIMES_ITS_COST * (ended - began))
            value: V = slot.value
            return value


def recent_reads(request: Request) -> RecentReads:
    """Those of the app that got the request."""
    state = request.app.state
    if not hasattr(state, "recent_reads"):
        state.recent_reads = RecentReads()
    reads: RecentReads = state.recent_reads
    return reads
