"""Messages are taken apart and put together again without a change to what the sender wrote."""

from uuid import UUID

import pytest

from coremachine.local.broker import codec
from coremachine.local.broker.codec import DecodeError
from coremachine.local.broker.message import (
    BrokerProperties,
    MessageState,
    encode_delivery,
    parse_message,
    unpack_batch,
)

PROPERTIES = codec.described(0x73, codec.list_of([codec.string("id-1"), codec.NULL, codec.string("to")]))
APPLICATION_PROPERTIES = codec.described(
    0x74,
    codec.map_of(
        [
            (codec.string("number"), codec.int32(5)),
            (codec.string("key"), codec.uuid(UUID(int=9))),
            (codec.string("DeadLetterReason"), codec.string("an older one")),
        ]
    ),
)
BODY = codec.described(0x75, codec.binary(b"payload"))
FOOTER = codec.described(0x78, codec.map_of([(codec.symbol("sum"), codec.uint(1))]))
HEADER = codec.described(0x70, codec.list_of([codec.TRUE, codec.ubyte(4), codec.uint(90000)]))
ANNOTATIONS = codec.described(
    0x72,
    codec.map_of(
        [
            (codec.symbol("x-opt-partition-key"), codec.string("p")),
            (codec.symbol("x-opt-sequence-number"), codec.long(99)),
            (codec.symbol("x-opt-scheduled-enqueue-time"), codec.timestamp(1234.0)),
        ]
    ),
)
DELIVERY_ANNOTATIONS = codec.described(0x71, codec.map_of([(codec.symbol("hop"), codec.uint(1))]))
WHOLE = HEADER + ANNOTATIONS + PROPERTIES + APPLICATION_PROPERTIES + BODY + FOOTER + DELIVERY_ANNOTATIONS


def sections(data):
    found, position = {}, 0
    while position < len(data):
        end = codec.skip(data, position)
        found[data[position + 2]] = data[position:end]
        position = end
    return found


def added(**changes):
    return BrokerProperties(**{"sequence_number": 7, "enqueued_at": 1.0, "delivery_count": 0} | changes)


def test_parts_are_found_although_delivery_annotations_come_last():
    content = parse_message(WHOLE)
    assert content.message_id == "id-1"
    assert content.ttl_seconds == 90.0
    assert content.scheduled_at == 1234.0
    assert content.body == BODY + FOOTER


def test_what_the_sender_wrote_is_delivered_byte_for_byte():
    delivered = sections(encode_delivery(parse_message(WHOLE), added()))
    assert delivered[0x73] == PROPERTIES
    assert delivered[0x74] == APPLICATION_PROPERTIES
    assert delivered[0x75] == BODY
    assert delivered[0x78] == FOOTER
    assert 0x71 not in delivered


def test_annotations_of_the_broker_replace_those_a_sender_forged():
    delivered = sections(encode_delivery(parse_message(WHOLE), added(locked_until=5.0, state=MessageState.DEFERRED)))
    annotations, _ = codec.decode(delivered[0x72])
    assert annotations == {
        "x-opt-partition-key": "p",
        "x-opt-scheduled-enqueue-time": 1234000,
        "x-opt-sequence-number": 7,
        "x-opt-enqueued-time": 1000,
        "x-opt-locked-until": 5000,
        "x-opt-message-state": 1,
    }


def test_the_header_always_has_a_delivery_count():
    bare = sections(encode_delivery(parse_message(BODY), added(delivery_count=3, ttl_seconds=2.0)))
    assert codec.decode(bare[0x70])[0] == [None, None, 2000, False, 3]


def test_dead_lettering_adds_the_reason_and_keeps_other_types():
    content = parse_message(WHOLE).dead_lettered("why", "because")
    items = codec.split_compound(content.application_properties, 3)
    assert codec.int32(5) in items
    assert codec.uuid(UUID(int=9)) in items
    properties, _ = codec.decode(content.application_properties)
    assert properties == {
        "number": 5,
        "key": UUID(int=9),
        "DeadLetterReason": "why",
        "DeadLetterErrorDescription": "because",
    }


def test_dead_lettering_works_without_application_properties_and_without_reason():
    assert codec.decode(parse_message(BODY).dead_lettered(None, None).application_properties)[0] == {}


def test_a_batch_yields_its_inner_messages_and_not_the_envelopes_id():
    inner = [PROPERTIES + BODY, BODY]
    envelope = PROPERTIES + b"".join(codec.described(0x75, codec.binary(each)) for each in inner)
    assert [each.message_id for each in unpack_batch(envelope)] == ["id-1", None]


@pytest.mark.parametrize("damaged", [b"\x01", WHOLE[:-1], codec.described(0x99, codec.NULL)])
def test_what_is_not_a_message_is_refused(damaged):
    with pytest.raises(DecodeError):
        parse_message(damaged)
