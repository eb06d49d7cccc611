"""What a connection does with bytes: handshakes, other clients' ways, limits, and clients that do not behave."""

import pytest

from coremachine.local.broker import codec
from coremachine.local.broker import performatives as perf
from coremachine.local.broker.codec import NULL
from coremachine.local.broker.limits import HARD_OUTPUT_BYTES, MAX_UNFINISHED_BYTES
from coremachine.local.broker.message import parse_message

BODY = codec.described(0x75, codec.binary(b"payload"))
RECEIVES, SENDS = True, False


def codes(frames):
    return [each.code for each in frames]


def error_of(frame, index=0):
    """Condition and description of a close, end or detach."""
    return frame.fields[index][:2]


# Handshakes


def test_the_mechanisms_of_service_bus_are_offered(make_wire):
    [mechanisms] = make_wire().feed(perf.SASL_HEADER)
    assert mechanisms.fields[0] == ["MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"]


@pytest.mark.parametrize("mechanism", ["MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"])
def test_each_offered_mechanism_is_accepted(make_wire, mechanism):
    wire = make_wire()
    wire.feed(perf.SASL_HEADER)
    init = wire.frame(perf.SASL_INIT, codec.symbol(mechanism), codec.binary(b"\0name\0password"), sasl=True)
    [outcome] = wire.feed(init)
    assert (outcome.code, outcome.fields[0]) == (perf.SASL_OUTCOME, 0)
    assert codes(wire.open()) == [perf.OPEN, perf.BEGIN]


def test_an_unknown_mechanism_fails_and_ends_the_connection(make_wire):
    wire = make_wire()
    wire.feed(perf.SASL_HEADER)
    [outcome] = wire.feed(wire.frame(perf.SASL_INIT, codec.symbol("GSSAPI"), sasl=True))
    assert outcome.fields[0] == 1
    assert wire.transport.is_closed


def test_an_idle_time_out_that_would_keep_the_broker_busy_is_refused(make_wire):
    wire = make_wire()
    wire.feed(perf.AMQP_HEADER)
    open_frame = wire.frame(perf.OPEN, codec.string("c"), NULL, NULL, NULL, codec.uint(1))
    close = wire.feed(open_frame)[-1]
    assert error_of(close) == ["amqp:invalid-field", "expected an idle-time-out of at least 100 ms, found 1"]


def test_a_second_open_is_refused_and_starts_no_second_timer(make_wire):
    wire = make_wire()
    wire.open(idle=codec.uint(60_000))
    [close] = wire.feed(wire.frame(perf.OPEN, codec.string("me")))
    assert error_of(close)[0] == "amqp:not-allowed"
    assert wire.transport.is_closed
    wire.run(lambda: None)
    assert wire.connection._watch._sending is None


def test_nothing_is_answered_before_open(make_wire):
    wire = make_wire()
    [close] = wire.feed(perf.AMQP_HEADER + wire.frame(perf.BEGIN, NULL, codec.uint(0), codec.uint(1), codec.uint(1)))
    assert error_of(close)[0] == "amqp:not-allowed"


def test_a_silent_connection_is_closed_when_that_is_wanted(make_wire):
    wire = make_wire(idle={"connection_seconds": 60.0})
    opened = wire.open()[0]
    assert opened.fields[4] == 30_000
    wire.run(lambda: wire.connection._watch._on_silence(60.0))
    [close] = wire.take()
    assert error_of(close)[0] == "amqp:connection:forced"


def test_symbols_may_stand_for_the_codes_of_performatives(make_wire):
    wire = make_wire()
    opened = wire.frame(perf.OPEN, codec.string("me"), symbolic="amqp:open:list")
    begin = wire.frame(perf.BEGIN, NULL, codec.uint(0), codec.uint(9), codec.uint(9), symbolic="amqp:begin:list")
    assert codes(wire.feed(perf.AMQP_HEADER + opened + begin)) == [perf.OPEN, perf.BEGIN]


# Wrong types


WRONG = [NULL, codec.string("7"), codec.list_of([]), codec.long(-1), codec.map_of([]), codec.ulong(2**40)]


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize(
    ("code", "position", "count"),
    [(perf.ATTACH, 1, 3), (perf.FLOW, 1, 4), (perf.TRANSFER, 0, 1), (perf.DISPOSITION, 1, 2), (perf.DETACH, 0, 1)],
)
def test_a_wrong_type_where_a_number_is_expected_is_answered_with_an_error(wire, code, position, count, value):
    fields = {
        perf.ATTACH: [codec.string("l"), codec.uint(1), codec.TRUE],
        perf.FLOW: [codec.uint(0), codec.uint(1), codec.uint(1), codec.uint(1)],
        perf.TRANSFER: [codec.uint(1)],
        perf.DISPOSITION: [codec.TRUE, codec.uint(0)],
        perf.DETACH: [codec.uint(0)],
    }[code][:count]
    fields[position] = value
    [close] = wire.feed(wire.frame(code, *fields))
    assert error_of(close)[0] == "amqp:decode-error"
    assert f"0x{code:02x}" in error_of(close)[1]
    assert wire.transport.is_closed


@pytest.mark.parametrize("address", [NULL, codec.uint(5), codec.list_of([])])
def test_a_link_without_a_usable_address_is_refused(wire, address):
    terminus = codec.described(0x28, codec.list_of([address]))
    fields = [codec.string("l"), codec.uint(1), codec.TRUE, NULL, NULL, terminus, terminus]
    attached, detached = wire.feed(wire.frame(perf.ATTACH, *fields))
    assert attached.fields[5] is None
    assert error_of(detached, 2)[0] == "amqp:not-allowed"


@pytest.mark.parametrize("descriptor", [b"\x53\x30", codec.symbol("amqp:coordinator:list")])
def test_a_coordinator_of_transactions_is_refused_as_such(wire, descriptor):
    target = b"\x00" + descriptor + codec.list_of([codec.symbol("amqp:local-transactions")])
    source = codec.described(0x28, codec.list_of([]))
    fields = [codec.string("l"), codec.uint(1), codec.FALSE, NULL, NULL, source, target]
    attached, detached = wire.feed(wire.frame(perf.ATTACH, *fields))
    assert attached.fields[6] is None
    condition, text = error_of(detached, 2)
    assert condition == "amqp:not-implemented"
    assert "no transactions" in text


# Limits


@pytest.mark.parametrize("channel", [5000, 65535])
def test_a_channel_beyond_the_offered_ones_is_refused(wire, channel):
    begin = wire.frame(perf.BEGIN, NULL, codec.uint(0), codec.uint(1), codec.uint(1), channel=channel)
    [close] = wire.feed(begin)
    assert error_of(close)[0] == "amqp:connection:framing-error"


def test_a_handle_beyond_the_offered_ones_is_refused(wire):
    [close] = wire.attach(256, RECEIVES, "orders")
    assert error_of(close)[0] == "amqp:connection:framing-error"


def test_a_handle_in_use_is_refused(wire):
    wire.attach(1, RECEIVES, "orders")
    [close] = wire.attach(1, SENDS, "orders")
    assert error_of(close)[0] == "amqp:session:handle-in-use"


def test_unfinished_deliveries_are_bounded_together(wire):
    chunk = b"x" * 60_000
    handles = range(MAX_UNFINISHED_BYTES // (4 * len(chunk)) + 1)
    frames = []
    for handle in handles:
        frames += wire.attach(handle, SENDS, "orders")
        for number in range(4):
            frames += wire.feed(wire.transfer(handle, number, chunk, more=True))
        if wire.transport.is_closed:
            break
    assert error_of(frames[-1])[0] == "amqp:resource-limit-exceeded"


def test_finished_and_aborted_deliveries_are_not_held(wire):
    wire.attach(0, SENDS, "orders")
    for number in range(3):
        start = wire.transfer(0, number, BODY[:4], more=True)
        wire.feed(start + wire.transfer(0, number, BODY[4:]))
    assert wire.connection._unfinished == 0
    wire.feed(wire.transfer(0, 3, b"x" * 1000, more=True))
    assert wire.connection._unfinished == 1000
    wire.feed(wire.frame(perf.DETACH, codec.uint(0), codec.TRUE))
    assert wire.connection._unfinished == 0


# Windows and counts


def test_the_credit_of_a_sender_begins_at_its_own_delivery_count(wire):
    _, flow = wire.attach(1, SENDS, "orders", initial_delivery_count=0xFFFFFFFF)
    assert flow.fields[5] == 0xFFFFFFFF
    frames = []
    for number in range(600):
        frames += wire.feed(wire.transfer(1, number, BODY))
    again = next(each for each in frames if each.code == perf.FLOW)
    assert again.fields[5] == 499


def test_ids_wrap_at_the_end_of_their_range(wire):
    wire.attach(1, RECEIVES, "orders")
    session = wire.connection._sessions[0]
    session._next_outgoing_id = session._next_delivery_id = 0xFFFFFFFF
    for _ in range(3):
        wire.namespace.get("orders").queue.send(parse_message(BODY))
    frames = wire.credit(1, 3, next_incoming_id=0xFFFFFFFF, window=3)
    assert [each.fields[1] for each in frames] == [0xFFFFFFFF, 0, 1]
    assert session._next_outgoing_id == 2
    fields = [codec.TRUE, codec.uint(0xFFFFFFFF), codec.uint(1), codec.FALSE, perf.OUTCOME_ACCEPTED]
    answers = wire.feed(wire.frame(perf.DISPOSITION, *fields))
    assert [each.fields[1:3] for each in answers] == [[0xFFFFFFFF, 0xFFFFFFFF], [0, 1]]
    assert wire.namespace.get("orders").queue.counts().locked == 0


def test_a_delivery_that_is_not_known_is_answered_as_lost(wire):
    """The broker forgets the oldest of very many; a client that waits for its answer must get one."""
    [answer] = wire.settle(77, perf.OUTCOME_ACCEPTED)
    assert answer.fields[4][0][0] == "com.microsoft:message-lock-lost"


# Clients that do not read


def store(wire, count, size):
    queue = wire.namespace.get("orders").queue
    for _ in range(count):
        queue.send(parse_message(codec.described(0x75, codec.binary(b"x" * size))))


def test_a_client_that_does_not_read_its_answers_is_not_read_from(wire):
    store(wire, 1, 126_000)
    wire.attach(0, SENDS, "orders/$management")
    wire.attach(1, RECEIVES, "orders/$management")
    wire.credit(1, 1000)
    wire.transport.stalled = True
    body = codec.map_of(
        [(codec.string("from-sequence-number"), codec.long(0)), (codec.string("message-count"), codec.int32(1))]
    )
    request = codec.described(0x74, codec.map_of([(codec.string("operation"), codec.string("peek-message"))]))
    data = b"".join(wire.transfer(0, number, request + codec.described(0x77, body)) for number in range(900))
    wire.run(lambda: wire.connection.data_received(data))
    assert not wire.transport.is_reading
    assert wire.transport.peak < HARD_OUTPUT_BYTES + 300_000
    answers = 0
    for _ in range(900):
        answers += sum(each.code == perf.TRANSFER and not each.fields[5] for each in wire.drain())
        if answers == 900:
            break
    assert answers == 900
    assert wire.transport.peak < HARD_OUTPUT_BYTES + 300_000
    wire.drain()
    assert wire.transport.is_reading


def test_an_endless_credit_fills_neither_the_memory_nor_the_turn_of_others(wire, make_wire):
    store(wire, 3_000, 1_000)
    wire.attach(1, RECEIVES, "orders", snd_settle_mode=1)
    wire.transport.stalled = True
    wire.run(lambda: None)
    wire.credit(1, 2**31)
    assert wire.transport.peak < 600_000
    wire.turns(20)
    delivered = 3_000 - wire.namespace.get("orders").queue.counts().active
    assert 0 < delivered < 1_500


def test_messages_that_waited_for_a_slow_client_come_when_it_reads_again(wire):
    store(wire, 2_000, 1_000)
    wire.attach(1, RECEIVES, "orders", snd_settle_mode=1)
    frames = wire.credit(1, 2_000)
    for _ in range(100):
        frames += wire.drain()
        if len(frames) >= 2_000:
            break
    assert len(frames) == 2_000


def test_idle_receivers_cost_a_send_nothing(wire):
    """Only consumers that can take a message are looked at."""
    for handle in range(200):
        wire.attach(handle, RECEIVES, "orders")
    entity = wire.namespace.get("orders")
    assert (len(entity._links), len(entity._hungry)) == (200, 0)
    wire.credit(7, 1)
    assert len(entity._hungry) == 1
    wire.run(lambda: entity.send([parse_message(BODY)] * 2))
    assert codes(wire.take()) == [perf.TRANSFER]
    assert len(entity._hungry) == 0


# Deleted entities and idle links


def test_the_links_of_a_deleted_queue_are_detached_and_its_namesake_is_another(wire):
    wire.attach(1, SENDS, "orders")
    wire.attach(2, RECEIVES, "orders")
    wire.run(lambda: wire.namespace.remove("orders"))
    frames = wire.take()
    assert codes(frames) == [perf.DETACH, perf.DETACH]
    assert {error_of(each, 2)[0] for each in frames} == {"amqp:not-found"}
    wire.namespace.add_queue(wire.namespace.get("talks").queue.settings.__class__(name="orders"))
    [close] = wire.feed(wire.transfer(1, 0, BODY))
    assert error_of(close)[0] == "amqp:session:unattached-handle"
    assert wire.namespace.get("orders").queue.counts().active == 0


def test_a_management_request_to_a_deleted_queue_is_not_found(wire, sections):
    wire.attach(0, SENDS, "orders/$management")
    wire.attach(1, RECEIVES, "orders/$management")
    wire.credit(1, 10)
    wire.run(lambda: wire.namespace.remove("orders"))
    _, answer = wire.request(0, 0, "com.microsoft:peek-message", codec.map_of([]))
    assert sections(answer)[0x74]["statusCode"] == 404


def test_links_without_use_are_detached_by_force(wire):
    wire.attach(1, SENDS, "orders")
    wire.attach(2, RECEIVES, "orders")
    wire.clock.now += 600
    wire.feed(wire.transfer(1, 0, BODY))
    wire.run(lambda: wire.connection.detach_idle(wire.clock.now - 300))
    [detach] = wire.take()
    assert (detach.fields[0], error_of(detach, 2)[0]) == (2, "amqp:link:detach-forced")
