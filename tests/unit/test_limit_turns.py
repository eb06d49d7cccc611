"""Looks for whose turn it is at a limit: by many threads at once, and after an outage."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from core.announcing.limit_turns import LimitTurns
from core.basics.joined_calls import CallerEnded
from core.errors import StoreUnavailable


class Store:
    """Nobody waits. The first look is held until it may end."""

    def __init__(self):
        self.looks = []
        self.is_in, self.may_end = threading.Event(), threading.Event()

    def find_limit_waiters(self, names, limit):
        self.looks.append(names)
        self.is_in.set()
        assert self.may_end.wait(60)
        return []


def turns_of(store):
    return LimitTurns(store, SimpleNamespace())


def test_messages_that_end_at_the_same_time_look_once():
    """Each looked for itself, one after the other, and a limit made short tasks ten times slower."""
    store = Store()
    turns = turns_of(store)
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(turns.serve, ["west"])
        assert store.is_in.wait(60)
        others = [threads.submit(turns.serve, ["west"]) for _ in range(7)]
        wait_until_joined(turns, 7)
        store.may_end.set()
        assert [each.result(60) for each in (first, *others)] == [0] * 8
    # One that was under way when they came may have missed what they freed.
    assert len(store.looks) == 2


def wait_until_joined(turns, count):
    waiting = turns._looks._waiting
    while len(waiting[("west",)]) < count:
        threading.Event().wait(0.001)


def test_other_limits_are_looked_at_side_by_side():
    store = Store()
    store.may_end.set()
    turns = turns_of(store)
    assert [turns.serve(names) for names in (["west"], ["east"], None)] == [0, 0, 0]
    assert store.looks == [("west",), ("east",), None]


def test_an_outage_meets_each_of_them():
    store = Store()

    def away(names, limit):
        raise StoreUnavailable("away")

    store.find_limit_waiters = away
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            turns_of(store).serve(["west"])


def test_one_whose_look_was_ended_with_another_thread_looks_alone(monkeypatch):
    store = Store()
    store.may_end.set()
    turns = turns_of(store)

    def ended(*_):
        raise CallerEnded

    monkeypatch.setattr(turns._looks, "call", ended)
    assert turns.serve(["west"]) == 0
    assert store.looks == [("west",)]
