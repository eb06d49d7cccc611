"""Requests to `$cbs` and `$management`, and the outcomes of deliveries, as other clients make them."""

from uuid import UUID

import pytest

from coremachine.local.broker import codec
from coremachine.local.broker import performatives as perf
from coremachine.local.broker.codec import NULL
from coremachine.local.broker.message import parse_message

BODY = codec.described(0x75, codec.binary(b"payload"))
RECEIVES, SENDS = True, False


def text_map(**values):
    return codec.map_of([(codec.string(key.replace("_", "-")), value) for key, value in values.items()])


def attach_node(wire, node):
    wire.attach(0, SENDS, node)
    wire.attach(1, RECEIVES, node)


def test_a_request_is_accepted_before_it_is_answered_and_only_with_credit(wire, sections):
    """Another order looks like a failed authentication to some clients."""
    attach_node(wire, "$cbs")
    [accepted] = wire.request(0, 0, "put-token", codec.string("a token"))
    assert (accepted.code, accepted.fields[4]) == (perf.DISPOSITION, [])
    [answer] = wire.credit(1, 1)
    assert sections(answer)[0x74]["status-code"] == 202


def test_with_credit_the_answer_follows_the_acceptance(wire):
    attach_node(wire, "$cbs")
    wire.credit(1, 5)
    frames = wire.request(0, 0, "put-token", codec.string("a token"))
    assert [each.code for each in frames] == [perf.DISPOSITION, perf.TRANSFER]


def test_an_answer_goes_to_the_link_that_the_request_names(wire):
    """A session of the SDK for JavaScript has several links to one node."""
    attach_node(wire, "orders/$management")
    source = codec.described(0x28, codec.list_of([codec.string("orders/$management")]))
    target = codec.described(0x29, codec.list_of([codec.string("reply-2")]))
    fields = [codec.string("second"), codec.uint(2), codec.TRUE, NULL, NULL, source, target]
    wire.feed(wire.frame(perf.ATTACH, *fields))
    wire.credit(1, 5)
    wire.credit(2, 5)
    properties = codec.described(0x73, codec.list_of([codec.string("1"), NULL, NULL, NULL, codec.string("reply-2")]))
    _, answer = wire.feed(wire.transfer(0, 0, properties + codec.described(0x77, codec.map_of([]))))
    assert answer.fields[0] == 2


def test_a_request_without_a_link_for_its_answer_is_rejected(wire):
    wire.attach(0, SENDS, "orders/$management")
    [answer] = wire.request(0, 0, "com.microsoft:peek-message", codec.map_of([]))
    assert answer.fields[4][0][0] == "amqp:precondition-failed"


def test_a_deferred_message_says_its_lock_token_in_both_places_where_clients_look(wire, sections):
    """Version 7.14 of the SDK for Python reads the annotation of the delivery alone, and settled nothing without."""
    queue = wire.namespace.get("orders").queue
    number = queue.send(parse_message(BODY))
    queue.defer(queue.lock_next().token)
    attach_node(wire, "orders/$management")
    wire.credit(1, 5)
    body = text_map(sequence_numbers=codec.long_array([number]), receiver_settle_mode=codec.uint(1))
    *_, answer = wire.request(0, 0, "com.microsoft:receive-by-sequence-number", body)
    [message] = sections(answer)[0x77]["messages"]
    encoded, start = message["message"], codec.skip(message["message"], 0)
    annotations, end = codec.decode(encoded, start)
    assert codec.decode(encoded, start + 1)[0] == 0x71
    assert annotations == {"x-opt-lock-token": message["lock-token"]}
    assert queue.holds(message["lock-token"])
    assert encoded[end + 2] == 0x72


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("peek-message", text_map(from_sequence_number=codec.string("x"), message_count=codec.int32(1))),
        ("peek-message", text_map(from_sequence_number=codec.long(1), message_count=codec.int32(-1))),
        ("peek-message", codec.list_of([])),
        ("renew-lock", text_map(lock_tokens=codec.list_of([NULL]))),
        ("renew-lock", text_map(lock_tokens=b"\xe0\x02\x01\x40")),
        ("renew-lock", text_map(lock_tokens=NULL)),
        ("cancel-scheduled-message", text_map(sequence_numbers=codec.list_of([codec.string("5")]))),
        ("schedule-message", text_map(messages=codec.list_of([codec.string("no map")]))),
        ("schedule-message", text_map(messages=codec.list_of([text_map(message=codec.binary(b"\x01"))]))),
        ("update-disposition", text_map(lock_tokens=codec.list_of([]), disposition_status=codec.list_of([]))),
        ("renew-session-lock", text_map(session_id=codec.string("s"))),
        ("add-rule", text_map(rule_name=codec.string("r"))),
    ],
)
def test_a_request_with_wrong_values_gets_a_status_and_a_reason(wire, sections, operation, body):
    attach_node(wire, "orders/$management")
    wire.credit(1, 5)
    _, answer = wire.request(0, 0, f"com.microsoft:{operation}", body)
    properties = sections(answer)[0x74]
    assert properties["statusCode"] == 400
    assert properties["statusDescription"]
    assert properties["errorCondition"]


def test_an_operation_that_is_not_known_is_named(wire, sections):
    attach_node(wire, "orders/$management")
    wire.credit(1, 5)
    _, answer = wire.request(0, 0, "com.microsoft:dance", codec.map_of([]))
    assert sections(answer)[0x74]["statusCode"] == 501


def test_a_scheduled_message_above_the_limit_is_refused(wire, sections):
    attach_node(wire, "orders/$management")
    wire.credit(1, 5)
    body = text_map(
        messages=codec.list_of(
            [text_map(message=codec.binary(BODY + codec.described(0x75, codec.binary(b"x" * 270_000))))]
        )
    )
    properties = codec.described(0x73, codec.list_of([codec.string("1")]))
    name = codec.described(
        0x74, codec.map_of([(codec.string("operation"), codec.string("com.microsoft:schedule-message"))])
    )
    data = properties + name + codec.described(0x77, body)
    frames = []
    for start in range(0, len(data), 60_000):
        more = start + 60_000 < len(data)
        frames += wire.feed(wire.transfer(0, 0, data[start : start + 60_000], more=more))
    assert sections(frames[-1])[0x74]["errorCondition"] == "amqp:link:message-size-exceeded"


def deliver(wire, body=BODY):
    wire.namespace.get("orders").queue.send(parse_message(body))
    wire.attach(5, RECEIVES, "orders")
    [transfer] = wire.credit(5, 10)
    return transfer


def properties_on_next_delivery(wire, sections):
    frames = wire.credit(5, 10, delivery_count=1, next_incoming_id=1)
    return [sections(each)[0x74] for each in frames if each.code == perf.TRANSFER]


def test_the_properties_to_modify_of_an_abandoned_message_are_set(wire, sections):
    deliver(wire)
    changes = codec.map_of([(codec.symbol("tries"), codec.uint(3))])
    answer, again = wire.settle(0, codec.described(perf.MODIFIED, codec.list_of([NULL, codec.FALSE, changes])))
    assert answer.code == perf.DISPOSITION
    assert sections(again)[0x74] == {"tries": 3}


def test_the_properties_to_modify_of_a_dead_letter_are_set_beside_its_reason(wire):
    deliver(wire)
    info = codec.map_of(
        [
            (codec.symbol("DeadLetterReason"), codec.string("why")),
            (codec.symbol("tries"), codec.uint(3)),
        ]
    )
    error = codec.described(perf.ERROR, codec.list_of([codec.symbol("com.microsoft:dead-letter"), NULL, info]))
    [answer] = wire.settle(0, codec.described(perf.REJECTED, codec.list_of([error])))
    assert answer.fields[4] == [None]
    [dead] = wire.namespace.get("orders/$DeadLetterQueue").queue.peek(0)
    assert codec.decode(dead.content.application_properties)[0] == {"DeadLetterReason": "why", "tries": 3}


def test_the_properties_to_modify_of_a_settlement_by_token_keep_their_types(wire):
    transfer = deliver(wire)
    token = UUID(bytes_le=transfer.fields[2])
    attach_node(wire, "orders/$management")
    wire.credit(1, 5)
    body = text_map(
        lock_tokens=codec.array_of([codec.uuid(token)], 0x98),
        disposition_status=codec.string("defered"),
        properties_to_modify=codec.map_of([(codec.string("key"), codec.uuid(UUID(int=3)))]),
    )
    wire.request(0, 0, "com.microsoft:update-disposition", body)
    [deferred] = wire.namespace.get("orders").queue.peek(0)
    assert codec.decode(deferred.content.application_properties)[0] == {"key": UUID(int=3)}


@pytest.mark.parametrize(
    ("state", "condition"),
    [
        (codec.described(0x99, codec.list_of([])), "amqp:not-implemented"),
        (codec.described(perf.MODIFIED, codec.list_of([NULL, NULL, codec.string("x")])), "amqp:decode-error"),
        (codec.string("accepted"), "amqp:decode-error"),
        (codec.described(perf.REJECTED, codec.list_of([codec.uint(5)])), "amqp:decode-error"),
    ],
)
def test_an_outcome_that_is_not_understood_is_answered_and_changes_nothing(wire, state, condition):
    deliver(wire)
    [answer] = wire.settle(0, state)
    assert answer.fields[4][0][0] == condition
    assert wire.namespace.get("orders").queue.counts().locked == 1


def test_an_outcome_may_be_named_by_a_symbol(wire):
    deliver(wire)
    [answer] = wire.settle(0, b"\x00" + codec.symbol("amqp:accepted:list") + b"\x45")
    assert answer.fields[4] == []
    assert wire.namespace.get("orders").queue.counts().locked == 0


def test_a_message_without_id_gets_32_hex_digits(wire, sections):
    wire.attach(0, SENDS, "orders")
    wire.feed(wire.transfer(0, 0, BODY))
    wire.attach(1, RECEIVES, "orders")
    [delivered] = wire.credit(1, 1)
    [message_id] = sections(delivered)[0x73]
    assert len(bytes.fromhex(message_id)) == 16


def test_the_id_and_other_properties_of_a_sender_are_kept(wire, sections):
    wire.attach(0, SENDS, "orders")
    wire.feed(wire.transfer(0, 0, codec.described(0x73, codec.list_of([NULL, NULL, codec.string("to")])) + BODY))
    wire.feed(wire.transfer(0, 1, codec.described(0x73, codec.list_of([codec.ulong(7)])) + BODY))
    wire.attach(1, RECEIVES, "orders")
    first, second = (sections(each)[0x73] for each in wire.credit(1, 2))
    assert first[1:] == [None, "to"]
    assert second == [7]


@pytest.mark.parametrize("role", [RECEIVES, SENDS])
def test_an_unknown_entity_is_refused_in_the_words_that_clients_look_for(wire, role):
    _, detach = wire.attach(1, role, "amqps://localhost/nowhere")
    condition, description, _ = detach.fields[2]
    assert condition == "amqp:not-found"
    assert description.startswith("The messaging entity 'nowhere' could not be found.")


def test_a_message_above_the_limit_is_refused_with_both_sizes(wire):
    wire.attach(0, SENDS, "orders")
    frames = []
    for part in range(6):
        frames += wire.feed(wire.transfer(0, 0, b"x" * 60_000, more=part < 5))
    condition, description, _ = frames[-1].fields[4][0]
    assert condition == "amqp:link:message-size-exceeded"
    assert "262144 bytes" in description


# Sessions


def session_source(session_id):
    filters = codec.map_of([(codec.symbol("com.microsoft:session-filter"), session_id)])
    return codec.described(0x28, codec.list_of([codec.string("talks"), *[NULL] * 6, filters]))


def session_message(session_id):
    properties = codec.described(0x73, codec.list_of([codec.string("m"), *[NULL] * 9, codec.string(session_id)]))
    return parse_message(properties + BODY)


def test_a_session_is_granted_with_its_id_and_the_end_of_its_lock(wire):
    [attached] = wire.attach(1, RECEIVES, "talks", source=session_source(codec.string("s")))
    assert attached.fields[5][7] == {"com.microsoft:session-filter": "s"}
    ticks = attached.fields[13]["com.microsoft:locked-until-utc"]
    assert ticks == 621355968000000000 + int((wire.clock.now + 60) * 10_000_000)


def test_the_attach_for_any_session_is_answered_when_one_has_a_message(wire):
    assert wire.attach(1, RECEIVES, "talks", source=session_source(NULL)) == []
    wire.run(lambda: wire.namespace.get("talks").send([session_message("late")]))
    [attached] = wire.take()
    assert attached.fields[5][7] == {"com.microsoft:session-filter": "late"}
    [delivered] = wire.credit(1, 5)
    assert delivered.code == perf.TRANSFER


def test_a_wait_for_a_session_is_given_up_when_its_link_is_closed(wire):
    wire.attach(1, RECEIVES, "talks", source=session_source(NULL))
    wire.feed(wire.frame(perf.DETACH, codec.uint(1), codec.TRUE))
    wire.run(lambda: wire.namespace.get("talks").send([session_message("late")]))
    assert wire.take() == []


def test_only_the_holder_gets_the_messages_of_a_session(wire):
    entity = wire.namespace.get("talks")
    wire.attach(1, RECEIVES, "talks", source=session_source(codec.string("a")))
    wire.attach(2, RECEIVES, "talks", source=session_source(codec.string("b")))
    wire.credit(1, 5)
    wire.credit(2, 5)
    wire.run(lambda: entity.send([session_message("a"), session_message("c"), session_message("a")]))
    assert [each.fields[0] for each in wire.take()] == [1, 1]


def test_a_session_lock_that_ends_detaches_its_receiver_and_counts_the_delivery(wire):
    wire.attach(1, RECEIVES, "talks", source=session_source(codec.string("a")))
    wire.credit(1, 5)
    wire.run(lambda: wire.namespace.get("talks").send([session_message("a")]))
    wire.take()
    wire.clock.now += 61
    wire.run(wire.namespace.get("talks").pump)
    [detached] = wire.take()
    assert detached.fields[2][0] == "com.microsoft:session-lock-lost"
    [message] = wire.namespace.get("talks").queue.peek(0)
    assert message.delivery_count == 1
    [answer] = wire.settle(0, perf.OUTCOME_ACCEPTED)
    assert answer.fields[4][0][0] == "com.microsoft:session-lock-lost"


def test_an_entity_of_sessions_refuses_a_receiver_without_one_and_the_other_way_round(wire):
    _, detached = wire.attach(1, RECEIVES, "talks")
    assert detached.fields[2][0] == "amqp:not-allowed"
    source = codec.described(0x28, codec.list_of([codec.string("orders"), *[NULL] * 6, codec.map_of([])]))
    [attached] = wire.attach(2, RECEIVES, "orders", source=source)
    assert attached.fields[5] is not None


def test_messages_are_deleted_in_a_batch_and_rules_need_a_subscription(wire, sections):
    queue = wire.namespace.get("orders").queue
    for _ in range(3):
        queue.send(parse_message(BODY))
    attach_node(wire, "orders/$management")
    wire.credit(1, 10)
    body = text_map(message_count=codec.int32(2), enqueued_time_utc=codec.timestamp(wire.clock.now))
    _, answer = wire.request(0, 0, "com.microsoft:batch-delete-messages", body)
    assert sections(answer)[0x77] == {"message-count": 2}
    assert queue.counts().active == 1
