"""Calls that wait for each other become one: what comes while a call is under way goes together in the next.

A lone caller waits for nobody. Of many, each waits for at most one call beside its own, and the more there are, the
fewer calls each of them costs.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")
R = TypeVar("R")


class CallerEnded(RuntimeError):
    """The thread that called for others was ended in the middle of it; nobody knows whether the call was made."""


class _Caller(Generic[A, R]):
    """What one thread asks for, and what it gets."""

    __slots__ = ("answers", "error", "is_next", "item", "wake")

    def __init__(self, item: A) -> None:
        self.item = item
        self.answers: list[R] = []
        self.error: Exception | None = None
        # This thread makes the next call, and others wait until it has passed that on.
        self.is_next = False
        # Released when there is an answer or an error, or when this thread is to make the next call.
        self.wake = threading.Lock()
        self.wake.acquire()

    @property
    def is_answered(self) -> bool:
        return bool(self.answers) or self.error is not None


class JoinedCalls(Generic[K, A, R]):
    """Makes one call at a time for each key, of all that wait for it then.

    Args:
        call: Makes a call with some items of one key; an answer for each, in their order. What it raises for several,
            it is asked again for each alone, so that one that is refused costs no other anything.
        names: What an item names. Items that name the same are never in one call.
        most: The largest number of names in one call.
        for_all: An error that meets each of them alike; nobody is asked again.
    """

    def __init__(
        self,
        call: Callable[[K, Sequence[A]], Sequence[R]],
        *,
        names: Callable[[A], Collection[str]],
        most: int,
        for_all: type[Exception],
    ) -> None:
        self._call = call
        self._names = names
        self._most = most
        self._for_all = for_all
        self._lock = threading.Lock()
        # A key is in here while a call for it is under way; its value: who came meanwhile.
        self._waiting: dict[K, deque[_Caller[A, R]]] = {}

    def call(self, key: K, item: A) -> R:
        """The item's answer, from a call of its own or from one together with others.

        Raises:
            CallerEnded: The thread that called for this one was ended.
            Exception: What `call` raises for this item.
        """
        own: _Caller[A, R] = _Caller(item)
        try:
            with self._lock:
                others = self._waiting.get(key)
                if others is None:
                    self._waiting[key] = deque()
                    own.is_next = True
                else:
                    others.append(own)
            if others is None:
                return self._call(key, [item])[0]
            return self._wait(key, own)
        finally:
            # However this thread is ended, also while it waits: the others go on.
            self._leave(key, own)

    def waiting(self, key: K) -> int:
        """How many wait for the call that is under way."""
        with self._lock:
            return len(self._waiting.get(key, ()))

    def _wait(self, key: K, own: _Caller[A, R]) -> R:
        own.wake.acquire()
        if not own.is_answered:
            self._lead(key, own)
        if own.error is not None:
            raise own.error
        return own.answers[0]

    def _lead(self, key: K, own: _Caller[A, R]) -> None:
        group = [own]
        try:
            self._take_others(key, group)
            self._answer(key, group)
        finally:
            self._release(group[1:])

    def _take_others(self, key: K, group: list[_Caller[A, R]]) -> None:
        named = set(self._names(group[0].item))
        with self._lock:
            others = self._waiting[key]
            while others:
                names = self._names(others[0].item)
                if len(named) + len(names) > self._most or not named.isdisjoint(names):
                    return
                named.update(names)
                group.append(others.popleft())

    def _answer(self, key: K, group: Sequence[_Caller[A, R]]) -> None:
        try:
            answers = self._call(key, [one.item for one in group])
        except Exception as error:  # noqa: BLE001 - raised where it belongs
            if len(group) == 1 or isinstance(error, self._for_all):
                for one in group:
                    one.error = error
                return
        else:
            for one, answer in zip(group, answers, strict=True):
                one.answers.append(answer)
            return
        for one in group:
            self._answer(key, [one])

    @staticmethod
    def _release(answered: Sequence[_Caller[A, R]]) -> None:
        for one in answered:
            if not one.is_answered:
                one.error = CallerEnded("the thread that called for this one and others was ended")
            one.wake.release()

    def _leave(self, key: K, own: _Caller[A, R]) -> None:
        """If this thread was to make the call, wake the first of those who came meanwhile: it makes the next call."""
        if own.is_answered and not own.is_next:
            return
        with self._lock:
            others = self._waiting.get(key, deque())
            if not own.is_next:
                if own in others:
                    others.remove(own)
            elif others:
                following = others.popleft()
                following.is_next = True
                following.wake.release()
            else:
                del self._waiting[key]
