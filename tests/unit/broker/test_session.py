"""What a session writes, frame by frame: windows, credit, settlements, refusals. The client is played by hand."""

import pytest

from coremachine.local.broker import codec
from coremachine.local.broker import performatives as perf
from coremachine.local.broker.codec import NULL
from coremachine.local.broker.message import parse_message
from coremachine.local.broker.namespace import Namespace
from coremachine.local.broker.performatives import AmqpError, Flow
from coremachine.local.broker.session import Session
from coremachine.local.broker.stored import QueueSettings

BODY = codec.described(0x75, codec.binary(b"payload"))
RECEIVES, SENDS = True, False


class Peer:
    max_frame_size = 512
    can_write = True

    def hold_unfinished(self, size):
        pass

    def __init__(self):
        self.written = []

    def write(self, data):
        self.written.append(data)

    def take(self):
        frames, self.written = self.written, []
        return [perf.decode_performative(each[8:]) for each in frames]


class NeverRings:
    def cancel(self):
        pass


class Client:
    """A session with one queue, `orders`."""

    def __init__(self, *, window=1000):
        self.peer = Peer()
        self.namespace = Namespace([QueueSettings(name="orders")], lambda: 1000.0, lambda *_: NeverRings())
        self.queue = self.namespace.get("orders").queue
        fields = [NULL, codec.uint(0), codec.uint(window), codec.uint(window)]
        self.session = Session(self.peer, self.namespace, 1, self.performative(perf.BEGIN, *fields)[1])
        self.peer.take()

    def performative(self, code, *fields):
        body = codec.described(code, codec.list_of(fields))
        return body, perf.decode_performative(body)

    def frame(self, code, *fields):
        self.session.on_frame(*self.performative(code, *fields))
        return self.peer.take()

    def attach(self, handle, role, address="amqps://localhost:5672/Orders", snd_settle_mode=0):
        terminus = codec.described(0x28, codec.list_of([codec.string(address)]))
        name, modes = codec.string(f"link-{handle}"), [codec.ubyte(snd_settle_mode), codec.ubyte(1)]
        return self.frame(perf.ATTACH, name, codec.uint(handle), codec.boolean(role), *modes, terminus, terminus)

    def flow(self, handle, credit, *, delivery_count=0, window=1000, next_incoming_id=0, drain=False):
        flow = Flow(
            next_incoming_id, window, 0, 1000, handle, delivery_count, credit, None, drain, echo=False, properties=None
        )
        body = perf.flow_frame(1, flow)[8:]
        self.session.on_frame(body, perf.decode_performative(body))
        return self.peer.take()

    def settle(self, first, last, state, *, settled=False):
        return self.frame(
            perf.DISPOSITION, codec.TRUE, codec.uint(first), codec.uint(last), codec.boolean(settled), state
        )

    def store(self, count=1, body=BODY):
        for _ in range(count):
            self.queue.send(parse_message(body))


def codes(frames):
    return [each.code for each in frames]


def test_a_receiver_gets_as_many_messages_as_it_gave_credit_for():
    client = Client()
    client.store(3)
    [answer] = client.attach(1, RECEIVES)
    assert answer.code == perf.ATTACH
    assert codes(client.flow(1, 2)) == [perf.TRANSFER, perf.TRANSFER]
    assert codes(client.flow(1, 1, delivery_count=2, next_incoming_id=2)) == [perf.TRANSFER]


def test_an_attach_answer_writes_every_field():
    """Clients index them by position, and need the initial delivery count and the echoed address."""
    [answer] = Client().attach(1, RECEIVES)
    assert len(answer.fields) == 14
    assert (answer.fields[2], answer.fields[9], answer.fields[10]) == (False, 0, 256 * 1024)
    assert answer.fields[5] == ["amqps://localhost:5672/Orders"]


@pytest.mark.parametrize("role", [RECEIVES, SENDS])
def test_an_unknown_entity_is_attached_to_nothing_and_detached(role):
    attach, detach = Client().attach(1, role, "amqps://localhost/nowhere")
    assert (attach.fields[5], attach.fields[6]) == (None, None)
    condition, description, _ = detach.fields[2]
    assert (detach.fields[1], condition) == (True, "amqp:not-found")
    assert "orders" in description


def test_a_settlement_is_answered_with_a_frame_of_its_own_and_a_range_with_a_range_for_each_outcome():
    """Single ones joined: all but one of the SDK's concurrent waiters would sleep 0.2 s for a frame of their own."""
    client = Client()
    client.store(5)
    client.attach(1, RECEIVES)
    client.flow(1, 5)
    answers = client.settle(0, 1, perf.OUTCOME_ACCEPTED)
    assert [each.fields[:4] for each in answers] == [[False, 0, 1, True]]
    answers = client.settle(0, 3, perf.OUTCOME_ACCEPTED)
    assert [each.fields[:4] for each in answers] == [[False, 2, 3, True]]
    [abandoned] = client.settle(4, 4, codec.described(perf.MODIFIED, codec.list_of([codec.TRUE, codec.FALSE])))
    assert abandoned.fields[4] == [None, None, None]


def test_a_lost_lock_is_answered_with_an_error():
    client = Client()
    client.store()
    client.attach(1, RECEIVES)
    client.flow(1, 1)
    client.queue.expire_locks()
    answer = client.settle(0, 0, perf.OUTCOME_ACCEPTED)[0]
    assert answer.fields[4][0][0] == "com.microsoft:message-lock-lost"


def test_a_presettled_disposition_and_one_for_nothing_are_not_answered():
    client = Client()
    client.store()
    client.attach(1, RECEIVES)
    client.flow(1, 1)
    assert client.settle(0, 0, perf.OUTCOME_ACCEPTED, settled=True) == []
    assert client.settle(0, 2**32 - 1, perf.OUTCOME_ACCEPTED) == []


def test_a_large_message_takes_frames_that_repeat_id_and_tag():
    client = Client()
    client.store(body=codec.described(0x75, codec.binary(b"x" * 1000)))
    client.attach(1, RECEIVES)
    frames = client.flow(1, 1)
    assert [each.fields[5] for each in frames] == [True] * (len(frames) - 1) + [False]
    assert len(frames) > 1
    assert len({(each.fields[1], each.fields[2]) for each in frames}) == 1


def test_frames_beyond_the_clients_window_wait_for_it():
    client = Client(window=2)
    client.store(body=codec.described(0x75, codec.binary(b"x" * 1500)))
    client.attach(1, RECEIVES)
    assert codes(client.flow(1, 1, window=2)) == [perf.TRANSFER] * 2
    rest = client.flow(1, 0, delivery_count=1, window=10, next_incoming_id=2)
    assert codes(rest) == [perf.TRANSFER] * 3
    assert rest[-1].fields[5] is False


def test_draining_uses_up_the_credit_and_says_so():
    client = Client()
    client.store()
    client.attach(1, RECEIVES)
    transfer, flow = client.flow(1, 5, drain=True)
    assert (transfer.code, flow.code) == (perf.TRANSFER, perf.FLOW)
    assert (flow.fields[5], flow.fields[6], flow.fields[8]) == (5, 0, True)
    client.store()
    client.namespace.get("orders").pump()
    assert client.peer.take() == []


def test_answers_to_sends_are_joined_into_one_frame():
    client = Client()
    _, credit = client.attach(1, SENDS)
    assert credit.fields[6] == 1000
    for number in range(3):
        body, _ = client.performative(
            perf.TRANSFER,
            codec.uint(1),
            codec.uint(number),
            codec.binary(b"t"),
            codec.uint(0),
            codec.FALSE,
            codec.FALSE,
        )
        client.session.on_frame(body + BODY, perf.decode_performative(body + BODY))
    client.session.before_flush()
    [answer] = client.peer.take()
    assert answer.fields[:4] == [True, 0, 2, True]
    assert client.queue.counts().active == 3


def test_an_aborted_delivery_is_forgotten():
    client = Client()
    client.attach(1, SENDS)
    start = [codec.uint(1), codec.uint(0), codec.binary(b"t"), codec.uint(0), codec.FALSE, codec.TRUE]
    client.frame(perf.TRANSFER, *start)
    client.frame(perf.TRANSFER, *start, NULL, NULL, NULL, codec.TRUE)
    client.session.before_flush()
    assert client.peer.take() == []
    assert client.queue.counts().active == 0


def test_a_transfer_on_no_link_is_refused():
    with pytest.raises(AmqpError, match="unattached-handle"):
        Client().frame(perf.TRANSFER, codec.uint(9))


def test_a_detached_receiver_gets_nothing_more():
    client = Client()
    client.attach(1, RECEIVES)
    client.flow(1, 5)
    [answer] = client.frame(perf.DETACH, codec.uint(1), codec.TRUE, NULL)
    assert answer.code == perf.DETACH
    client.store()
    client.namespace.get("orders").pump()
    assert client.peer.take() == []


def test_consumers_take_turns():
    client = Client()
    for handle in (1, 2):
        client.attach(handle, RECEIVES)
        client.flow(handle, 5)
    client.store(4)
    client.namespace.get("orders").pump()
    assert [each.fields[0] for each in client.peer.take()] == [1, 2, 1, 2]
