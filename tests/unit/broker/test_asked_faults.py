"""Messages that come late or twice because a test asked for it."""

import pytest

from coremachine.local.broker import codec
from coremachine.local.broker.config import BrokerConfig, SubscriptionSettings, TopicSettings
from coremachine.local.broker.message import BATCH_FORMAT
from coremachine.local.broker.namespace import Namespace
from coremachine.local.broker.server import Broker
from coremachine.local.broker.stored import QueueSettings

SENDS = False
TOPIC = TopicSettings(QueueSettings(name="news"), (SubscriptionSettings(QueueSettings(name="all")),))
CONFIG = BrokerConfig(
    (QueueSettings(name="Orders"), QueueSettings(name="unique", duplicate_window_seconds=60.0)), (TOPIC,)
)


def body(text):
    return codec.described(0x75, codec.binary(text.encode()))


class Sender:
    """A client with a link to every entity; `send` sends bodies, in one batch if there are several."""

    def __init__(self, wire):
        self.wire = wire
        self.namespace = wire.namespace
        self.handles = {name: number for number, name in enumerate(["orders", "unique", "news"])}
        self.deliveries = 0
        wire.open()
        for name, handle in self.handles.items():
            wire.attach(handle, SENDS, name)

    def send(self, queue, *texts, annotations=b""):
        payloads = [annotations + body(text) for text in texts]
        payload, message_format = payloads[0], 0
        if len(payloads) > 1:
            message_format = BATCH_FORMAT
            payload = b"".join(codec.described(0x75, codec.binary(each)) for each in payloads)
        self.wire.feed(self.wire.transfer(self.handles[queue], self.deliveries, payload, message_format=message_format))
        self.deliveries += 1

    def counts(self, queue):
        found = self.namespace.get(queue).queue.counts()
        return found.active, found.scheduled

    def messages(self, queue):
        return list(self.namespace.get(queue).queue.peek(1))

    def turn(self, seconds):
        self.wire.clock.now += seconds
        self.wire.run(self.namespace.clock_turned)


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def sender(loop, make_wire):
    return Sender(make_wire(Namespace.of(CONFIG, Clock(), loop.call_later)))


def test_the_next_messages_come_twice(sender):
    sender.namespace.faults.duplicate(2)
    sender.send("orders", "a", "b", "c")
    sender.send("orders", "d")
    assert [each.content.body[-1:] for each in sender.messages("orders")] == [b"a", b"a", b"b", b"b", b"c", b"d"]


def test_both_copies_have_the_id_that_the_broker_gives(sender):
    """A message without an id gets one here: with two ids, the copy would be another message."""
    sender.namespace.faults.duplicate(1)
    sender.send("orders", "a")
    first, second = sender.messages("orders")
    assert first.content.message_id == second.content.message_id is not None
    assert first.sequence_number < second.sequence_number


def test_duplicate_detection_finds_the_copy(sender):
    sender.namespace.faults.duplicate(1)
    sender.send("unique", "a")
    assert sender.counts("unique") == (1, 0)


def test_the_next_messages_come_late(sender):
    sender.namespace.faults.delay(2, 30.0)
    sender.send("orders", "a")
    sender.send("orders", "b", "c")
    assert sender.counts("orders") == (1, 2)
    sender.turn(30.1)
    assert sender.counts("orders") == (3, 0)
    assert [each.content.body[-1:] for each in sender.messages("orders")] == [b"c", b"a", b"b"]


def test_the_subscriptions_get_a_late_message_when_it_is_due(sender):
    sender.namespace.faults.delay(1, 30.0, "news")
    sender.send("news", "a")
    assert sender.counts("news/Subscriptions/all") == (0, 0)
    sender.turn(30.1)
    assert sender.counts("news/Subscriptions/all") == (1, 0)


def test_a_fault_of_one_entity_leaves_the_others_alone(sender):
    sender.namespace.faults.delay(1, 30.0, "Orders")
    sender.namespace.faults.duplicate(1, "ORDERS")
    sender.send("unique", "a")
    assert sender.counts("unique") == (1, 0)
    sender.send("orders", "b")
    assert sender.counts("orders") == (0, 2)


def test_a_message_that_its_sender_scheduled_keeps_its_time(sender):
    due = codec.timestamp(sender.wire.clock.now + 600)
    annotations = codec.described(0x72, codec.map_of([(codec.symbol("x-opt-scheduled-enqueue-time"), due)]))
    sender.namespace.faults.delay(1, 30.0)
    sender.send("orders", "a", annotations=annotations)
    sender.send("orders", "b")
    sender.turn(31)
    assert sender.counts("orders") == (1, 1)


@pytest.mark.parametrize("calls", [["clear"], ["delay", "duplicate"]])
def test_what_was_asked_for_can_be_taken_back(sender, calls):
    faults = sender.namespace.faults
    faults.delay(5, 30.0)
    faults.duplicate(5)
    zero = {"clear": faults.clear, "delay": lambda: faults.delay(0, 1.0), "duplicate": lambda: faults.duplicate(0)}
    for call in calls:
        zero[call]()
    sender.send("orders", "a")
    assert sender.counts("orders") == (1, 0)


@pytest.mark.parametrize("name", ["nowhere", "orders/$DeadLetterQueue", "news/Subscriptions/all"])
def test_a_fault_needs_an_entity_that_clients_send_to(name):
    broker = Broker(CONFIG)
    for ask in (lambda: broker.duplicate_messages(1, name), lambda: broker.delay_messages(1, 5.0, name)):
        with pytest.raises(ValueError, match="expected a queue or topic that clients send to, found"):
            ask()


def test_a_delay_needs_a_time():
    with pytest.raises(ValueError, match="expected more than 0 seconds"):
        Broker(CONFIG).delay_messages(1, 0.0)
