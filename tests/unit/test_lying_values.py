"""Values of an author's own classes, whose methods say another thing than they hold, or another one each time."""

import enum
import itertools
import json
from types import MappingProxyType

import pytest

from core.authors.author_code import judge_returned
from core.basics import canonical
from core.basics.canonical import NotJson, ValueTooLarge, canonical_json, encode_storable
from core.errors import ContractViolationError, Failure


class _Said(dict):
    """Gives the items, the length and the members of its choice."""

    def __init__(self, *items):
        super().__init__(held=1)
        self._items = items

    def items(self):
        return iter(self._items)

    def get(self, name, otherwise=None):
        return True

    def __len__(self):
        return 0

    def __iter__(self):
        return iter(())


class _Listed(list):
    """Another content at each look."""

    def __iter__(self):
        self.append(len(self))
        return iter([0] if len(self) == 1 else [{1: 2}])


class _Endless(list):
    def __iter__(self):
        return itertools.repeat(0)


class _OtherText(str):
    __slots__ = ()
    __hash__ = str.__hash__
    __str__ = __repr__ = __format__ = lambda *_: "said"
    __eq__ = __ne__ = lambda *_: True
    encode = lambda *_: b"said"  # noqa: E731


class _OtherNumber(int):
    __str__ = __repr__ = __format__ = lambda *_: "99"
    __int__ = __index__ = lambda _: 99


class _OtherFraction(float):
    __str__ = __repr__ = lambda *_: "99.0"
    __float__ = lambda _: 99.0  # noqa: E731


class _Level(enum.IntEnum):
    LOW = 1

    def __str__(self):
        return "99"


class _Colour(str, enum.Enum):  # noqa: UP042
    RED = "red"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (_Said(("said", 2)), {"said": 2}),
        (_Listed(), [0]),
        (_OtherText("held"), "held"),
        ({_OtherText("held"): _OtherText("held")}, {"held": "held"}),
        (_OtherNumber(5), 5),
        (_OtherFraction(2.5), 2.5),
        (_Level.LOW, 1),
        (_Colour.RED, "red"),
        (True, True),
        (MappingProxyType({"a": (1, 2)}), {"a": [1, 2]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_that_lies_is_stored_as_json_reads_it_once(value, stored):
    """A list was checked at one look and written at another; a mapping was checked by its members alone."""
    assert json.loads(encode_storable({"v": value}, "r")) == {"v": stored}
    assert json.loads(canonical_json({"v": _Said(("said", 2))})) == {"v": {"said": 2}}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (_Said((1, 2)), "r.v: expected names that are str, found int 1"),
        (_Said(("x", {1: 2})), "r.v.x: expected names that are str, found int 1"),
        (_Said(("x", float("nan"))), "r.v.x: expected a finite number"),
        (_Said((_OtherText("a"), 1), ("a", 2)), "r.v: expected each name once, found str 'a' twice"),
        (_Said(("x", "\x00")), "r.v.x: expected text without NUL"),
        ([_Said(("x", set()))], "r.v[0].x: expected a JSON value, found set"),
    ],
    ids=lambda _: "value",
)
def test_value_that_says_what_json_cannot_carry_is_refused_with_its_path(value, said):
    with pytest.raises(NotJson) as refused:
        encode_storable({"v": value}, "r")
    assert said in str(refused.value)


def test_values_without_an_end_are_refused(monkeypatch):
    """One that held itself twice was looked at 2**100 times: its thread never came back, and held the interpreter."""
    monkeypatch.setattr(canonical, "MOST_VALUES", 1000)
    itself: list = []
    itself += [itself, itself]
    wide = [0] * 10
    for _ in range(20):
        wide = [wide, wide]

    with pytest.raises(NotJson, match="at most 100 levels of nesting"):
        encode_storable(itself, "r")
    for value in (wide, _Endless(), {"a": _Said(*((str(n), n) for n in range(2000)))}):
        with pytest.raises(NotJson, match="at most 1,000 values in all"):
            encode_storable(value, "r")


class _Counted(_Said):
    """Without an end, and it knows how much of it was read."""

    def __init__(self, text=""):
        self.read, self.text = 0, text

    def items(self):
        for number in itertools.count():
            self.read += 1
            yield f"{number:07}", self.text


@pytest.mark.parametrize("text", ["", "x" * 88])
def test_value_without_an_end_is_read_as_far_as_it_may_be_large(text):
    """It was read until it had as many values as the largest one may have, and had taken the memory."""
    for read in (
        lambda value: encode_storable({"v": value}, "r", most_bytes=10_000),
        lambda value: encode_storable(value, "r", most_bytes=10_000),
        lambda value: judge_returned("t", value, 10_000),
    ):
        value = _Counted(text)
        with pytest.raises(
            (ValueTooLarge, ContractViolationError), match=r"at most 10,000 bytes of JSON, found 10,\d+ or"
        ):
            read(value)
        assert value.read <= 10_000 / (len(text) + 12) + 1


def test_lists_without_an_end_are_read_as_far_as_they_may_be_large():
    with pytest.raises(ValueTooLarge, match="r: expected at most 10,000 bytes of JSON, found 10,002 or more"):
        encode_storable(_Endless(), "r", most_bytes=10_000)


def test_value_of_own_classes_may_be_as_large_as_others():
    value = MappingProxyType({"a": (1, [], {}, ""), "b": "x" * 20})
    size = len(encode_storable(value, "r"))
    assert len(encode_storable(value, "r", most_bytes=size)) == size
    with pytest.raises(ValueTooLarge):
        encode_storable(value, "r", most_bytes=size - 1)
    for small in (MappingProxyType({}), {"a": _Said()}, (MappingProxyType({"": 0}),)):
        assert encode_storable(small, "r", most_bytes=len(encode_storable(small, "r")))


def test_failure_that_a_lying_mapping_reports_is_none_the_less_one():
    told = judge_returned("t", _Said(("success", False), ("error", "it broke")))

    assert isinstance(told, Failure)
    assert told.message == "it broke"
