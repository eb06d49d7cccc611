"""Calls that wait for each other become one, and nobody pays for another's error."""

import ctypes
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.basics.joined_calls import CallerEnded, JoinedCalls
from core.errors import StoreUnavailable

KEY = "stage"


class Store:
    """Answers with the item in capitals; its calls wait until they are let go."""

    def __init__(self):
        self.calls = []
        self.errors = {}
        self.changed = threading.Condition()
        self.permits = 0
        self.under_way = 0

    def call(self, key, items):
        with self.changed:
            self.calls.append((key, list(items)))
            self.under_way += 1
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.permits > 0, 30)
            self.permits -= 1
            self.under_way -= 1
        for item in items:
            if item in self.errors:
                raise self.errors[item]
        return [item.upper() for item in items]

    def wait_for_calls(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.calls) >= count, 30), self.calls

    def let_go(self, count=1):
        with self.changed:
            self.permits += count
            self.changed.notify_all()


class Rig:
    def __init__(self, store, joined, threads):
        self.store, self.joined, self.threads = store, joined, threads

    def ask(self, item, key=KEY):
        return self.threads.submit(self.joined.call, key, item)

    def ask_beside(self, *items):
        """The first is called for; the others come, in this order, while that call is under way."""
        asked = [self.ask(items[0])]
        self.store.wait_for_calls(1)
        for count, item in enumerate(items[1:], start=1):
            asked.append(self.ask(item))
            deadline = time.monotonic() + 30
            while self.joined.waiting(KEY) < count:
                assert time.monotonic() < deadline
        return asked


@pytest.fixture
def rig():
    store = Store()
    joined = JoinedCalls(store.call, names=lambda item: item.split("+"), most=4, for_all=StoreUnavailable)
    with ThreadPoolExecutor(12) as threads:
        yield Rig(store, joined, threads)
        store.let_go(100)


def results(asked):
    return [one.exception(30) or one.result() for one in asked]


def test_a_lone_caller_waits_for_nobody(rig):
    rig.store.let_go(2)
    assert [rig.joined.call(KEY, "a"), rig.joined.call(KEY, "b")] == ["A", "B"]
    assert rig.store.calls == [(KEY, ["a"]), (KEY, ["b"])]
    assert rig.joined._waiting == {}


def test_what_comes_while_a_call_is_under_way_goes_together(rig):
    asked = rig.ask_beside("a", "b", "c", "d")
    rig.store.let_go(2)
    assert results(asked) == ["A", "B", "C", "D"]
    assert rig.store.calls == [(KEY, ["a"]), (KEY, ["b", "c", "d"])]


def test_no_call_is_larger_than_allowed(rig):
    asked = rig.ask_beside("a", "b+c", "d+e", "f+g")
    rig.store.let_go(3)
    assert results(asked) == ["A", "B+C", "D+E", "F+G"]
    assert [items for _, items in rig.store.calls] == [["a"], ["b+c", "d+e"], ["f+g"]]


def test_two_that_name_the_same_are_never_in_one_call(rig):
    """A message that came twice: the second must find what the first did."""
    asked = rig.ask_beside("a", "b", "c+b", "d")
    rig.store.let_go(3)
    assert results(asked) == ["A", "B", "C+B", "D"]
    assert [items for _, items in rig.store.calls] == [["a"], ["b"], ["c+b", "d"]]


def test_keys_do_not_wait_for_each_other(rig):
    first, other = rig.ask("a"), rig.ask("b", key="another stage")
    rig.store.wait_for_calls(2)
    assert rig.store.under_way == 2
    rig.store.let_go(2)
    assert results([first, other]) == ["A", "B"]


def test_one_that_is_refused_costs_no_other_anything(rig):
    refusal = ValueError("no such value")
    rig.store.errors = {"c": refusal}
    asked = rig.ask_beside("a", "b", "c", "d")
    rig.store.let_go(5)
    assert results(asked) == ["A", "B", refusal, "D"]
    assert [items for _, items in rig.store.calls] == [["a"], ["b", "c", "d"], ["b"], ["c"], ["d"]]


def test_an_error_that_meets_all_is_not_met_again_by_each(rig):
    outage = StoreUnavailable("away")
    rig.store.errors = {"c": outage}
    asked = rig.ask_beside("a", "b", "c", "d")
    rig.store.let_go(2)
    assert results(asked) == ["A", outage, outage, outage]
    assert len(rig.store.calls) == 2


def test_after_an_error_the_next_are_called_for(rig):
    rig.store.errors = {"a": ValueError("no")}
    asked = rig.ask_beside("a", "b")
    rig.store.let_go(2)
    assert results(asked)[1] == "B"
    assert rig.joined._waiting == {}


def test_nobody_waits_for_a_thread_that_was_ended(rig):
    """Python raises KeyboardInterrupt and SystemExit between any two steps."""
    rig.store.errors = {"b": SystemExit()}
    asked = rig.ask_beside("a", "b", "c", "d+e+f")
    rig.store.let_go(3)
    first, ended, beside, after = results(asked)
    assert (first, after) == ("A", "D+E+F")
    assert (type(ended), type(beside)) == (SystemExit, CallerEnded)


def raise_in(thread_id):
    """As the timeouts of some libraries do: it is raised when the thread takes its next step, wherever that is."""
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(TimeoutError)) == 1


@pytest.mark.parametrize("ended", [1, 2])
def test_a_thread_that_is_ended_while_it_waits_leaves_the_turn_to_the_next(rig, ended):
    """The first that waits is to make the next call; the second would be called for by the first."""
    waiting = []

    def ask(item):
        waiting.append(threading.get_ident())
        return rig.joined.call(KEY, item)

    asked = [rig.ask("a")]
    rig.store.wait_for_calls(1)
    for count, item in enumerate("bcd", start=1):
        asked.append(rig.threads.submit(ask, item))
        deadline = time.monotonic() + 30
        while rig.joined.waiting(KEY) < count:
            assert time.monotonic() < deadline
    raise_in(waiting[ended - 1])
    rig.store.let_go(4)
    found = results(asked)
    assert isinstance(found.pop(ended), TimeoutError)
    assert found == [item for item in ("A", "B", "C", "D") if item != "ABCD"[ended]]
    assert rig.joined._waiting == {}


def test_many_threads_get_each_its_own_answer():
    calls = []

    def call(key, items):
        calls.append(len(items))
        return [(key, item) for item in items]

    joined = JoinedCalls(call, names=lambda item: [str(item)], most=100, for_all=StoreUnavailable)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda item: joined.call(item % 3, item), range(3_000)))
    assert found == [(item % 3, item) for item in range(3_000)]
    assert sum(calls) == 3_000
    assert joined._waiting == {}
