"""Bytes that no client should send: every one is answered, closed or waited for, and none is an error of the broker."""

import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coremachine.local.broker import codec
from coremachine.local.broker import performatives as perf
from coremachine.local.broker.codec import NULL

FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
CODES = [0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x40, 0x41, 0x44, 0x99]
SECTIONS = range(0x6F, 0x7A)
NAMES = ["orders", "talks", "$cbs", "orders/$management", "talks/$management", "orders/$DeadLetterQueue", "nowhere", ""]

scalars = st.one_of(
    st.just(NULL),
    st.booleans().map(codec.boolean),
    st.integers(0, 6).map(codec.uint),
    st.integers(0, 2**32 - 1).map(codec.uint),
    st.integers(-(2**63), 2**63 - 1).map(codec.long),
    st.sampled_from(NAMES).map(codec.string),
    st.text(max_size=10).map(codec.string),
    st.binary(max_size=40).map(codec.binary),
    st.uuids().map(codec.uuid),
    st.sampled_from(["com.microsoft:session-filter", "com.microsoft:timeout", "x-opt-scheduled-enqueue-time"]).map(
        codec.symbol
    ),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=9).map(codec.list_of)
        | st.lists(st.tuples(inner, inner), max_size=4).map(codec.map_of)
        | st.tuples(st.sampled_from([*range(0x23, 0x2A), *SECTIONS]), inner).map(lambda pair: codec.described(*pair))
    ),
    max_leaves=12,
)
terminus = st.sampled_from(NAMES).map(lambda name: codec.described(0x28, codec.list_of([codec.string(name)])))
small = st.integers(0, 3).map(codec.uint)
sections = st.lists(
    st.tuples(st.sampled_from(list(SECTIONS)), values).map(lambda pair: codec.described(*pair)), max_size=4
).map(b"".join)
requests = st.builds(
    lambda operation, body: (
        codec.described(0x74, codec.map_of([(codec.string("operation"), codec.string(f"com.microsoft:{operation}"))]))
        + codec.described(0x77, body)
    ),
    st.sampled_from(
        ["peek-message", "renew-lock", "schedule-message", "update-disposition", "set-session-state", "add-rule", "x"]
    ),
    st.lists(
        st.tuples(
            st.sampled_from(
                ["lock-tokens", "messages", "message-count", "from-sequence-number", "session-id", "rule-description"]
            ).map(codec.string),
            values,
        ),
        max_size=4,
    ).map(codec.map_of),
)
payloads = st.one_of(sections, requests, st.binary(max_size=60))


def encode(code, fields, payload=b"", channel=0, *, sasl=False):
    return perf.frame(channel, codec.described(code, codec.list_of(fields)), payload, sasl=sasl)


frames = st.one_of(
    st.builds(encode, st.sampled_from(CODES), st.lists(values, max_size=12), payloads, st.integers(0, 2)),
    st.builds(
        lambda handle, role, end, filters: encode(
            perf.ATTACH, [codec.string("l"), handle, codec.boolean(role), NULL, NULL, end, end, NULL, NULL, filters]
        ),
        small,
        st.booleans(),
        terminus,
        small,
    ),
    st.builds(
        lambda handle, delivery, batch, more, payload: encode(
            perf.TRANSFER,
            [handle, delivery, codec.binary(b"t"), codec.uint(batch), codec.FALSE, codec.boolean(more)],
            payload,
        ),
        small,
        small,
        st.sampled_from([0, 0x80013700]),
        st.booleans(),
        payloads,
    ),
    st.builds(
        lambda handle, credit, drain: encode(
            perf.FLOW,
            [codec.uint(0), codec.uint(99), codec.uint(0), codec.uint(99), handle, codec.uint(0), credit, NULL, drain],
        ),
        small,
        st.integers(0, 2**32 - 1).map(codec.uint),
        st.booleans().map(codec.boolean),
    ),
    st.builds(
        lambda first, last, state: encode(perf.DISPOSITION, [codec.TRUE, first, last, codec.FALSE, state]),
        small,
        small | st.just(NULL),
        values,
    ),
    st.binary(min_size=1, max_size=30),
)


@pytest.fixture
def no_errors(caplog):
    """The broker's own errors are logged as such; a refusal of the client is a warning."""

    def check():
        found = [each for each in caplog.records if each.levelno >= logging.ERROR]
        caplog.clear()
        assert not found, found[0].exc_text or found[0].getMessage()

    return check


@FUZZ
@given(st.lists(frames, min_size=1, max_size=8))
def test_frames_in_any_order_with_any_fields(make_wire, no_errors, given_frames):
    wire = make_wire()
    wire.open()
    for each in given_frames:
        if not wire.transport.is_closed:
            wire.feed(each)
    no_errors()
    # Others are served as before.
    other = make_wire(wire.namespace)
    other.open()
    assert [each.code for each in other.attach(0, True, "orders")] == [perf.ATTACH]


@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes_after_the_header(make_wire, no_errors, data):
    wire = make_wire()
    wire.feed(perf.AMQP_HEADER + data)
    no_errors()


@FUZZ
@given(st.data())
def test_a_conversation_with_changed_bytes(make_wire, no_errors, data):
    """What a client sends in earnest, with a few bytes changed, in pieces of any size."""
    wire = make_wire()
    body = codec.described(0x75, codec.binary(b"payload"))
    source = codec.described(0x28, codec.list_of([codec.string("orders")]))
    attach = [codec.string("l"), codec.uint(0), codec.FALSE, codec.ubyte(0), codec.ubyte(0), source, source]
    earnest = bytearray(
        perf.AMQP_HEADER
        + encode(perf.OPEN, [codec.string("me")])
        + encode(perf.BEGIN, [NULL, codec.uint(0), codec.uint(99), codec.uint(99)])
        + encode(perf.ATTACH, attach)
        + encode(perf.TRANSFER, [codec.uint(0), codec.uint(0), codec.binary(b"t"), codec.uint(0)], body)
        + encode(perf.DETACH, [codec.uint(0), codec.TRUE])
    )
    for _ in range(data.draw(st.integers(0, 4))):
        earnest[data.draw(st.integers(8, len(earnest) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(earnest)))
    for piece in (bytes(earnest[:cut]), bytes(earnest[cut:])):
        if not wire.transport.is_closed:
            wire.feed(piece)
    no_errors()
