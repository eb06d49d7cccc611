"""Looks for whose turn it is at a limit: by many threads at once, and after an outage."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

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
        may_end = self.may_end
        self.is_in.set()
        assert may_end.wait(60)
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
    turns = turns_of(store)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(turns.serve, ["west"])
        assert store.is_in.wait(60)
        held, store.may_end = store.may_end, threading.Event()
        store.may_end.set()
        assert [turns.serve(["east"]), turns.serve(None)] == [0, 0]
        assert not first.done()
        held.set()
        assert first.result(60) == 0
    assert store.looks == [("west",), ("east",), None]


def test_an_outage_meets_all_that_looked_together():
    store = Store()
    turns = turns_of(store)

    def away(names, limit):
        find(names, limit)
        raise StoreUnavailable("away")

    find, store.find_limit_waiters = store.find_limit_waiters, away
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(turns.serve, ["west"])
        assert store.is_in.wait(60)
        others = [threads.submit(turns.serve, ["west"]) for _ in range(3)]
        wait_until_joined(turns, 3)
        store.may_end.set()
        assert [type(each.exception(60)) for each in (first, *others)] == [StoreUnavailable] * 4
    assert len(store.looks) == 2


def test_one_whose_look_was_ended_with_another_thread_looks_alone(monkeypatch):
    store = Store()
    store.may_end.set()
    turns = turns_of(store)

    def ended(*_):
        raise CallerEnded

    monkeypatch.setattr(turns._looks, "call", ended)
    assert turns.serve(["west"]) == 0
    assert store.looks == [("west",)]
