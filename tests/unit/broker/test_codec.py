"""The AMQP types: what is encoded is decoded again, and what is damaged is refused."""

import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coremachine.local.broker import codec
from coremachine.local.broker.codec import DecodeError

ENCODERS = [
    (codec.ubyte, st.integers(0, 2**8 - 1)),
    (codec.ushort, st.integers(0, 2**16 - 1)),
    (codec.uint, st.integers(0, 2**32 - 1)),
    (codec.ulong, st.integers(0, 2**64 - 1)),
    (codec.int32, st.integers(-(2**31), 2**31 - 1)),
    (codec.long, st.integers(-(2**63), 2**63 - 1)),
    (codec.uuid, st.uuids()),
    (codec.boolean, st.booleans()),
    (codec.binary, st.binary(max_size=60)),
    (codec.string, st.text(max_size=30)),
    (codec.symbol, st.text(st.characters(max_codepoint=127), max_size=60)),
]

scalars = st.one_of(
    [strategy.map(lambda value, encode=encode: (encode(value), value)) for encode, strategy in ENCODERS]
)


def encoded_list(items):
    return codec.list_of(raw for raw, _ in items), [value for _, value in items]


def encoded_map(pairs):
    unique = dict(pairs)
    raw = codec.map_of((codec.string(key), value[0]) for key, value in unique.items())
    return raw, {key: value[1] for key, value in unique.items()}


values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=6).map(encoded_list)
        | st.lists(st.tuples(st.text(max_size=10), inner), max_size=6).map(encoded_map)
    ),
    max_leaves=15,
)


@given(values)
def test_what_is_encoded_is_decoded_again(case):
    raw, value = case
    assert codec.decode(raw) == (value, len(raw))
    assert codec.skip(raw, 0) == len(raw)


@given(values, st.data())
def test_a_truncated_value_is_refused_and_not_guessed(case, data):
    raw, _ = case
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(DecodeError):
        codec.decode(raw[:cut])
    with pytest.raises(DecodeError):
        codec.skip(raw[:cut], 0)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_a_decode_error(raw):
    try:
        _, end = codec.decode(raw)
    except DecodeError:
        return
    assert end <= len(raw)


@given(st.lists(scalars, max_size=10), st.sampled_from([1, 40]))
def test_splitting_a_list_keeps_every_item_byte_for_byte(some, times):
    items = some * times
    raw, _ = encoded_list(items)
    assert codec.split_compound(raw) == [each for each, _ in items]


def test_arrays_carry_their_constructor_once():
    numbers = [1, -1, 2**40]
    raw = codec.long_array(numbers)
    assert codec.decode(raw) == (numbers, len(raw))
    assert raw.count(b"\x81") == 1
    assert codec.decode(codec.long_array([]))[0] == []


def test_an_array_of_mixed_constructors_is_refused():
    with pytest.raises(ValueError, match="constructor 0x83"):
        codec.array_of([codec.timestamp(1.0), codec.long(1)], 0x83)


def test_a_timestamp_counts_milliseconds():
    assert codec.decode(codec.timestamp(1.5)) == (1500, 9)


def test_a_described_value_loses_its_descriptor():
    assert codec.decode(codec.described(0x24, codec.list_of([codec.uint(7)])))[0] == [7]


def test_the_descriptor_is_always_the_two_byte_form():
    """Clients skip it blindly."""
    assert codec.described(0x10, codec.NULL)[:3] == b"\x00\x53\x10"


def test_an_empty_list_is_not_the_zero_length_form():
    assert codec.list_of(()) == b"\xc0\x01\x00"


@pytest.mark.parametrize("size", [0, 255, 256, 70000])
def test_sizes_at_the_border_of_the_short_forms_round_trip(size):
    """Of bytes, texts, items and pairs; in a list, whose own size is beyond the border too."""
    items = [True] * size
    pairs = {str(number): True for number in range(size)}
    for raw, value in (
        (codec.binary(b"x" * size), b"x" * size),
        (codec.string("x" * size), "x" * size),
        (codec.symbol("x" * size), "x" * size),
        (codec.list_of(map(codec.boolean, items)), items),
        (codec.map_of((codec.string(name), codec.boolean(value)) for name, value in pairs.items()), pairs),
    ):
        outer = codec.list_of([raw])
        assert codec.decode(outer)[0] == [value]
        assert codec.skip(outer, 0) == len(outer)


def test_nesting_beyond_the_limit_is_refused():
    raw = codec.NULL
    for _ in range(codec.MAX_NESTING_DEPTH + 1):
        raw = codec.list_of([raw])
    with pytest.raises(DecodeError, match="nested"):
        codec.decode(raw)


def test_endless_descriptors_are_refused():
    with pytest.raises(DecodeError, match="nested"):
        codec.skip(bytes(5000), 0)


def test_an_array_of_items_without_width_cannot_ask_for_memory():
    raw = b"\xf0" + struct.pack(">II", 5, 2**31) + b"\x40"
    with pytest.raises(DecodeError, match="take no room"):
        codec.decode(raw)
    assert codec.decode(b"\xe0\x02\x01\x40")[0] == [None]


def test_uuids_keep_their_type():
    assert codec.decode(codec.uuid(UUID(int=5)))[0] == UUID(int=5)
