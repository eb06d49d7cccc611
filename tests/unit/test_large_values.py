"""Values that are too large are refused by what they hold, before they are written as text."""

from types import MappingProxyType

import pytest

from core.basics import canonical
from core.basics.canonical import MOST_JSONB_BYTES, MOST_VALUE_BYTES, ValueTooLarge, encode_storable


class Text(str):
    """An author's own."""

    __slots__ = ()


TEXT = "x" * 1_000_000
LARGE = {
    "one text in many places": [TEXT] * 100,
    "in many lists": [[TEXT]] * 100,
    "in many dicts": [{"a": {"b": TEXT}}] * 100,
    "of an author's class": [Text(TEXT)] * 100,
    "one text": {"a": TEXT * 70},
    "numbers of many digits": [[10**4000] * 10_000] * 10,
    "in a mapping of another class": MappingProxyType({"a": [TEXT] * 100}),
}


@pytest.mark.parametrize("value", LARGE.values(), ids=LARGE)
def test_what_is_too_large_is_refused_before_it_is_written(value, monkeypatch):
    """As text it would have taken as much memory as all of its places, more than once."""
    monkeypatch.setattr(canonical, "_encode", None)
    with pytest.raises(ValueTooLarge, match=r"result: expected at most 16,777,216 bytes of JSON, found [\d,]+ or more"):
        encode_storable(value, "result", most_bytes=MOST_VALUE_BYTES)


def test_advice_for_what_is_too_large_is_possible():
    """The setting goes up to 32 MB."""
    for size, advised in ((MOST_JSONB_BYTES, True), (MOST_JSONB_BYTES + 1, False)):
        assert ("raise COREMACHINE_MAX_VALUE_BYTES" in str(ValueTooLarge("a", size, MOST_VALUE_BYTES))) is advised


def test_what_was_counted_is_never_more_than_what_is_written():
    value = {"a": ["", 0, None, [], {}, True, 1.5, "\u20ac", 10**50], "b": {"c": [1] * 300}, "d": ()}
    size = len(encode_storable(value))
    assert encode_storable(value, most_bytes=size)
    with pytest.raises(ValueTooLarge, match=f"found {size}; "):
        encode_storable(value, most_bytes=size - 1)
