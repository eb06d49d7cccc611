"""What an author's code returns, raises and leaves behind: always a storable value or a storable, readable failure."""

import asyncio
import decimal
import enum
import gc
import json
import math
import sys
import threading
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from core.authors.author_code import call_author, judge_returned
from core.errors import AuthorError, Draining, Failure, StoreUnavailable, classify
from core.safety.safe_text import MOST_TEXT_BYTES

# Python reports what `__del__` and a generator's end raise, in whichever test they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def outcome_of(function):
    """The JSON of a result, or the failure, as a task's row gets it."""
    try:
        returned = call_author(lambda: judge_returned("hostile", function(), 1_000_000))
    except AuthorError as error:
        returned = classify(error)
    return returned if isinstance(returned, Failure) else json.loads(returned)


class HostileText(str):  # noqa: SLOT000 - as in the wild
    def __str__(self):
        raise RuntimeError("str")

    def __len__(self):
        return -5  # noqa: PLE0303 - as above

    def encode(self, *_):
        raise RuntimeError("encode")


class HostileNumber(int):
    def __repr__(self):
        return "no {{ JSON"

    def __index__(self):
        raise RuntimeError("index")


class HostileDict(dict):
    def items(self):
        raise RuntimeError("items")


class NoAttributes:
    def __getattribute__(self, name):
        raise RuntimeError(f"no {name}")


class Liar:
    @property
    def __class__(self):
        return dict


@dataclass
class Data:
    a: int = 1


def circle():
    made = {}
    made["inner"] = made
    return made


def nested(levels):
    made = {}
    for _ in range(levels):
        made = {"inner": made}
    return made


def endless():
    while True:
        yield 1


def unclosable():
    made = endless_with_error()
    next(made)
    return {"made": made}


def endless_with_error():
    try:
        while True:
            yield 1
    finally:
        raise RuntimeError("close")


async def coroutine():
    return {}


GOOD = {
    "none": (lambda: None, {}),
    "large_number": (lambda: {"a": 10**300}, {"a": 10**300}),
    "hostile_text": (lambda: {"a": HostileText("x")}, {"a": "x"}),
    "hostile_number": (lambda: {"a": HostileNumber(3)}, {"a": 3}),
    "text_with_quotes": (lambda: {"a": '"\\\n\u2028'}, {"a": '"\\\n\u2028'}),
}
BAD = {
    "circle": (circle, "levels of nesting"),
    "nested": (lambda: nested(100_000), "levels of nesting"),
    "nan": (lambda: {"a": float("nan")}, "result.a: expected a finite number"),
    "infinity": (lambda: {"a": [math.inf]}, "result.a[0]: expected a finite number"),
    "huge_number": (lambda: {"a": 10**5000}, "at most 4,000 digits"),
    "decimal": (lambda: {"a": decimal.Decimal(1)}, "found Decimal"),
    "time": (lambda: {"a": datetime.now(UTC)}, "found datetime"),
    "bytes": (lambda: {"a": b"\xff"}, "found bytes"),
    "enum": (lambda: {"a": enum.Enum("Colour", "RED").RED}, "found Colour"),
    "dataclass": (Data, "found Data"),
    "set": (lambda: {"a": {1}}, "found set"),
    "names": (lambda: {1: 2}, "names that are str"),
    "surrogate": (lambda: {"a": "\ud800"}, "lone surrogates"),
    "nul": (lambda: {"a": "\x00"}, "NUL"),
    "hostile_dict": (lambda: HostileDict(a=1), "items"),
    "no_attributes": (NoAttributes, "no __class__"),
    "liar": (Liar, "Liar"),
    "large": (lambda: {"a": "x" * 50_000_000}, "bytes of JSON"),
    "generator": (endless, "found a generator"),
    "unclosable": (unclosable, "found generator"),
    "coroutine": (coroutine, "found a coroutine"),
    "lock": (lambda: {"a": threading.Lock()}, "found lock"),
    "type": (lambda: dict, "found type"),
}


def raising(error):
    def act():
        raise error

    return act


class NoText(Exception):
    def __str__(self):
        raise RuntimeError("str")

    __repr__ = __str__


class NoTrace(Exception):
    __traceback__ = property(lambda _: 1 / 0)
    __cause__ = property(lambda _: 1 / 0)
    __context__ = property(lambda _: 1 / 0)


def cause_loop():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def long_chain():
    error = ValueError("0")
    for number in range(1, 20_000):
        following = ValueError(str(number))
        following.__cause__, error = error, following
    return error


def deep_group():
    error = ValueError("innermost")
    for _ in range(10_000):
        error = ExceptionGroup("group", [error])
    return error


def with_notes():
    error = ValueError("noted")
    for _ in range(5000):
        error.add_note("n" * 1000)
    return error


ERRORS = {
    "no_text": (NoText, "text cannot be read"),
    "no_trace": (lambda: NoTrace("x"), "x"),
    "cause_loop": (cause_loop, "first"),
    "long_chain": (long_chain, "19999"),
    "deep_group": (deep_group, "group"),
    "wide_group": (lambda: ExceptionGroup("wide", [ValueError(str(n)) for n in range(20_000)]), "wide"),
    "notes": (with_notes, "noted"),
    "long": (lambda: ValueError("x" * 10_000_000), "cut here"),
    "long_name": (lambda: type("E" * 100_000, (Exception,), {})("x"), "x"),
    "base": (lambda: type("Base", (BaseException,), {})("own base"), "own base"),
    "stop": (lambda: StopIteration("stopped"), "stopped"),
    "stop_async": (lambda: StopAsyncIteration("stopped"), "stopped"),
    "exit": (lambda: SystemExit(0), "sys.exit(0)"),
    "keyboard": (KeyboardInterrupt, "KeyboardInterrupt"),
    "cancelled": (asyncio.CancelledError, "CancelledError"),
    "memory": (MemoryError, "MemoryError"),
    "own_store": (lambda: StoreUnavailable("theirs"), "theirs"),
    "own_draining": (Draining, "about to end"),
}


@pytest.mark.parametrize("name", GOOD)
def test_result_is_stored_as_it_is(name):
    function, expected = GOOD[name]
    assert outcome_of(function) == expected


def assert_storable(failure, part):
    assert isinstance(failure, Failure)
    assert part in failure.message
    stored = json.dumps(failure.to_json(1), allow_nan=False)
    stored.encode()
    for text in (failure.error_type, failure.message, failure.traceback or ""):
        assert len(text.encode()) <= MOST_TEXT_BYTES


@pytest.mark.parametrize("name", BAD)
def test_value_that_is_no_result_is_a_failure_that_names_it(name):
    function, part = BAD[name]
    assert_storable(outcome_of(function), part)
    gc.collect()


@pytest.mark.parametrize("name", ERRORS)
def test_error_of_any_kind_is_a_readable_failure(name):
    make, part = ERRORS[name]
    assert_storable(outcome_of(raising(make())), part)


def dies_loudly():
    class Loud:
        def __del__(self):
            raise RuntimeError("del")

    made = Loud()
    weakref.finalize(made, lambda: 1 / 0)
    made.itself = made
    del made
    gc.collect()


LEFT = {
    "trace": lambda: (sys.settrace(lambda *_: 1 / 0), threading.settrace(lambda *_: 1 / 0)),
    "recursion_limit": lambda: sys.setrecursionlimit(200),
    "collector": gc.disable,
    "switch_interval": lambda: sys.setswitchinterval(100),
    "stack_size": lambda: threading.stack_size(1 << 28),
    "excepthook": lambda: setattr(threading, "excepthook", None),
    "decimal": lambda: setattr(decimal.getcontext(), "prec", 1),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_a_call_leaves_for_the_process_is_undone(name):
    def state():
        return gc.isenabled(), sys.getswitchinterval(), threading.stack_size(), threading.excepthook

    decimal.getcontext()  # the engine may have made some, too
    before, limit = state(), sys.getrecursionlimit()
    for _ in range(2):
        outcome_of(lambda: LEFT[name]() and None)
    assert state() == before
    assert sys.getrecursionlimit() >= limit
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert outcome_of(lambda: {"digits": decimal.getcontext().prec}) == {"digits": 28}


def test_what_raises_when_it_is_collected_fails_nothing():
    assert outcome_of(dies_loudly) == {}
