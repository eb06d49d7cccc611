"""The pump that receives from this project's broker without the SDK: what it takes, settles, renews and gives back."""

import contextlib
import os
import socket
import threading
import time
from functools import partial
from uuid import UUID

import pytest
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus._pyamqp._encode import encode_payload
from azure.servicebus._pyamqp.message import Header, Message, Properties
from azure.servicebus._pyamqp.types import TYPE, VALUE, AMQPTypes

from coremachine.local.broker import codec
from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.message import parse_message
from coremachine.local.broker.stored import QueueSettings
from coremachine.local.broker.thread import BrokerThread
from coremachine.local.host.direct.choice import ChosenPump, emulator_address
from coremachine.local.host.direct.delivery import read_delivery
from coremachine.local.host.direct.pump import DirectPump
from coremachine.local.host.direct.receiver import DirectReceiver
from coremachine.local.host.direct.wire import ForeignBroker, Wire
from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.functions import ServiceBusTrigger
from coremachine.local.host.messages import metadata_of, plain_properties
from coremachine.local.host.received import received_by_sdk
from coremachine.local.host.settings import ServiceBusOptions

from .conftest import wait_until
from .test_pump import FakeInvoker, function_of

QUEUES = BrokerConfig(
    (QueueSettings(name="jobs", max_delivery_count=3), QueueSettings(name="other", max_delivery_count=3))
)


@pytest.fixture(scope="module")
def broker():
    with BrokerThread(QUEUES) as running:
        yield running


@pytest.fixture(autouse=True)
def _empty(broker):
    yield
    broker.purge_all()


def put(broker, *bodies, queue="jobs"):
    """Messages in the broker, whose ids are their bodies' first characters."""
    contents = [
        parse_message(
            codec.described(0x73, codec.list_of([codec.string(body[:20].decode())]))
            + codec.described(0x75, codec.binary(body))
        )
        for body in bodies
    ]
    broker._call(lambda: broker._running().namespace.get(queue).send(contents))


def put_value(broker, value):
    """A message whose body is an AMQP value."""
    message = parse_message(codec.described(0x77, value))
    broker._call(lambda: broker._running().namespace.get("jobs").send([message]))


class Bench:
    """A pump between a real broker and an invoker that ends calls when the test says so."""

    def __init__(self, broker, calls=8, options=None, queue="jobs", *, is_dead_letter=False):
        self.broker = broker
        self.offset = 0.0
        self.invoker = FakeInvoker()
        self.dispatcher = Dispatcher(self.invoker, timeout_seconds=None)
        trigger = ServiceBusTrigger("Connection", queue, "", "", is_dead_letter, "UNDEFINED", None)
        self.pump = DirectPump(
            function_of(trigger),
            trigger,
            partial(Wire, ("127.0.0.1", broker.amqp_port)),
            self.dispatcher,
            options or ServiceBusOptions(),
            max_concurrent_calls=calls,
            clock=lambda: time.time() + self.offset,
        )

    def counts(self):
        found = self.broker.counts("jobs")
        return {name: count for name, count in found.items() if count}


@pytest.fixture
def bench(broker):
    made = []

    def make(**options) -> Bench:
        made.append(Bench(broker, **options))
        made[-1].pump.start()
        return made[-1]

    yield make
    for one in made:
        one.pump.stop()
        one.dispatcher.abort_all("the test is over")
        assert one.pump.join(20)


def test_success_completes_and_failure_is_delivered_again_until_it_is_a_dead_letter(bench, broker):
    one = bench()
    put(broker, b"good", b"fail", b"more")
    wait_until(lambda: one.counts() == {"dead_letter": 1}, "two completed, one dead after three deliveries")


def test_without_auto_complete_success_is_not_settled_but_failure_still_is(bench, broker):
    one = bench(options=ServiceBusOptions(auto_complete_messages=False))
    put(broker, b"good", b"fail")
    wait_until(lambda: one.counts() == {"locked": 1, "dead_letter": 1}, "the failure settled, the other left locked")


def test_a_body_that_is_no_data_fails_as_a_function_that_raises(bench, broker, caplog):
    one = bench()
    put_value(broker, codec.map_of([(codec.string("n"), codec.uint(1))]))
    put(broker, b"good")
    wait_until(lambda: one.counts() == {"dead_letter": 1}, "the good one completed, the other dead")
    assert "message_unreadable" in caplog.text


def test_a_message_rests_where_the_host_s_own_code_fails(bench, broker, monkeypatch):
    """A function had replaced `len` in that process: all deliveries were used up before anybody noticed."""

    def fail(*_arguments):
        raise TypeError("'NoneType' object is not callable")

    monkeypatch.setattr("coremachine.local.host.direct.pump.received_call", fail)
    one = bench()
    put(broker, b"good")
    wait_until(lambda: one.pump._resting, "it rests")
    (until,) = one.pump._resting.values()
    assert until > time.time() + 0.1
    monkeypatch.undo()
    wait_until(lambda: not one.counts(), "completed")


def test_a_value_that_is_text_is_given_to_the_function(bench, broker):
    """Senders of JMS and of plain AMQP write text so; Azure's host binds it to text, too."""
    one = bench()
    put_value(broker, codec.string("hold as text"))
    wait_until(lambda: "hold as text" in one.invoker.held, "its turn")
    one.invoker.release("hold as text")
    wait_until(lambda: not one.counts(), "completed")


def test_a_dead_letter_that_no_function_can_be_given_rests_before_it_is_abandoned(bench, broker, caplog):
    """Nothing else ends its deliveries: it came back hundreds of times per second, each with lines in the log."""
    bench()
    put_value(broker, codec.list_of([]))
    wait_until(lambda: broker.counts("jobs")["dead_letter"] == 1, "dead after three deliveries")
    caplog.clear()
    one = bench(is_dead_letter=True)
    wait_until(lambda: one.pump._resting, "it rests")
    (until,) = one.pump._resting.values()
    assert until > time.time()
    assert caplog.text.count("message_unreadable") == 1
    one.offset = 60.0
    one.pump._wake()
    wait_until(lambda: caplog.text.count("message_unreadable") == 2, "it came back after its rest")


def test_no_more_messages_are_locked_than_calls_may_run(bench, broker):
    """Too many raster tasks at once ran out of memory (lesson D41)."""
    one = bench(calls=3)
    put(broker, *(f"hold {number}".encode() for number in range(7)))
    for number in range(7):
        wait_until(lambda text=f"hold {number}": text in one.invoker.held, "its turn")
        assert broker.counts("jobs")["locked"] <= 3
        one.invoker.release(f"hold {number}")
    wait_until(lambda: not one.counts(), "all completed")
    assert one.invoker.most_at_once == 3


def test_messages_of_many_frames_come_whole(bench, broker):
    one = bench()
    large = b"hold" + b"x" * 200_000
    put(broker, large, b"good")
    wait_until(lambda: large.decode() in one.invoker.held, "the large one")
    one.invoker.release(large.decode())
    wait_until(lambda: not one.counts(), "both completed")


def test_lock_is_renewed_while_the_function_runs(bench, broker, caplog):
    caplog.set_level("DEBUG", logger="coremachine.local.host.direct.pump")
    one = bench()
    put(broker, b"hold", b"hold 2")
    wait_until(lambda: len(one.invoker.held) == 2, "both in flight")
    for renewals in (2, 4):
        broker.turn_clock(20)
        one.offset += 40
        put(broker, b"quick")  # wakes the pump
        wait_until(lambda count=renewals: caplog.text.count("lock_renewed") >= count, "renewed")
    broker.turn_clock(25)
    assert broker.counts("jobs")["locked"] == 2, "without renewals the locks would have ended"
    one.invoker.release("hold")
    one.invoker.release("hold 2")
    wait_until(lambda: not one.counts(), "completed")
    assert "settle_failed" not in caplog.text


def test_lock_is_not_renewed_beyond_the_limit(bench, broker, caplog):
    caplog.set_level("DEBUG", logger="coremachine.local.host.direct.pump")
    one = bench(options=ServiceBusOptions(max_auto_lock_renewal_seconds=10))
    put(broker, b"hold")
    wait_until(lambda: one.invoker.held, "in flight")
    one.offset += 40
    put(broker, b"quick")
    wait_until(lambda: broker.counts("jobs")["active"] == 0 and broker.counts("jobs")["locked"] == 1, "quick has ended")
    assert "lock_renewed" not in caplog.text
    one.invoker.release("hold")
    wait_until(lambda: not one.counts(), "completed")


def test_lost_lock_is_reported_with_its_message_and_the_pump_goes_on(bench, broker, caplog):
    one = bench(calls=1)
    put(broker, b"hold")
    wait_until(lambda: one.invoker.held, "in flight")
    first = one.invoker.held.pop("hold")
    broker.expire_locks("jobs")
    first.set_result(None)
    wait_until(lambda: "settle_failed function=on_message message_id=hold verb=complete" in caplog.text, "the warning")
    wait_until(lambda: one.invoker.held, "delivered again")
    one.invoker.release("hold")
    wait_until(lambda: not one.counts(), "completed in the end")


@pytest.mark.parametrize("cut", ["drop_connections", "detach_links"])
def test_what_was_received_over_a_lost_connection_is_settled_over_the_next(bench, broker, cut, caplog):
    one = bench()
    put(broker, b"hold")
    wait_until(lambda: one.invoker.held, "in flight")
    if cut == "detach_links":
        broker.detach_links("jobs")
    else:
        broker.drop_connections()
    wait_until(lambda: "entity_unavailable" in caplog.text, "the loss noticed")
    one.invoker.release("hold")
    wait_until(lambda: not one.counts(), "completed, and not delivered again")
    put(broker, b"next")
    wait_until(lambda: not one.counts(), "the next one too")
    assert "settle_failed" not in caplog.text


def test_stop_takes_no_more_and_settles_what_is_in_flight(bench, broker):
    one = bench(calls=1)
    put(broker, b"hold", b"later")
    wait_until(lambda: one.invoker.held, "the first in flight")
    one.pump.stop()
    one.pump.quiesce(20)
    assert not one.pump.join(0.05)
    one.invoker.release("hold")
    assert one.pump.join(20)
    assert one.counts() == {"active": 1}


def test_giving_up_abandons_what_is_in_flight_once(bench, broker):
    """A message that is abandoned before the pump is quiet would come straight back to it, and cost a delivery."""
    one = bench(calls=4)
    put(broker, *(f"hold {number}".encode() for number in range(4)))
    wait_until(lambda: len(one.invoker.held) == 4, "in flight")
    one.pump.stop()
    one.pump.quiesce(20)
    one.dispatcher.abort_all("a test gives up")
    assert one.pump.join(20)
    queue = broker._running().namespace.get("jobs").queue
    assert one.counts() == {"active": 4}
    assert {message.delivery_count for message in queue.peek(0)} == {1}


def test_messages_that_come_after_the_stop_are_given_back_unseen(broker, monkeypatch):
    """They were on their way in the moment in which the pump was told to stop."""
    one = Bench(broker)
    offer = DirectReceiver.offer

    def offer_and_stop(receiver, count):
        offer(receiver, count)
        one.pump._stopping.set()

    monkeypatch.setattr(DirectReceiver, "offer", offer_and_stop)
    put(broker, b"hold", b"hold 2")
    one.pump.start()
    assert one.pump.join(20)
    assert one.counts() == {"active": 2}
    queue = broker._running().namespace.get("jobs").queue
    assert {message.delivery_count for message in queue.peek(0)} == {0}
    assert not one.invoker.held


def test_missing_entity_is_said_once_and_the_pump_ends_on_demand(broker, caplog):
    one = Bench(broker, queue="missing")
    one.pump.start()
    wait_until(lambda: "entity_unavailable entity=missing" in caplog.text, "the reason")
    one.pump.stop()
    assert one.pump.join(20)
    assert "messaging entity" in caplog.text.lower()


def test_many_messages_end_once_each(bench, broker):
    one = bench(calls=16)
    put(broker, *(f"quick {number}".encode() for number in range(2_000)))
    wait_until(lambda: not one.counts(), "all completed")


class NotedPump:
    def __init__(self, name, started):
        self.name, self.started = name, started

    def start(self):
        self.started.append(self.name)

    def stop(self): ...

    def quiesce(self, timeout_seconds): ...

    def join(self, timeout_seconds):
        return True


def chosen(port, started):
    return ChosenPump(
        "jobs",
        ("127.0.0.1", port),
        direct=lambda: NotedPump("direct", started),
        other=lambda: NotedPump("sdk", started),
    )


@pytest.mark.parametrize(("name", "expected"), [("coremachine-broker", "direct"), ("another", "sdk")])
def test_the_broker_that_answers_decides_which_pump_receives(broker, monkeypatch, name, expected):
    monkeypatch.setattr("coremachine.local.broker.connection._CONTAINER", name)
    started = []
    pump = chosen(broker.amqp_port, started)
    pump.start()
    wait_until(lambda: started, "a pump")
    pump.stop()
    assert pump.join(20)
    assert started == [expected]


def test_a_host_without_a_broker_waits_for_one_and_can_be_stopped(caplog):
    started = []
    pump = chosen(1, started)
    pump.start()
    wait_until(lambda: "entity_unavailable entity=jobs" in caplog.text, "the reason")
    pump.stop()
    assert pump.join(20)
    assert started == []


def test_what_does_not_speak_as_the_own_broker_is_left_to_the_sdk(monkeypatch):
    """A broker that ends the connection at once may only be ending itself, so it is asked three times."""
    monkeypatch.setattr("coremachine.local.host.direct.choice.back_off", lambda _failures: 0.0)
    started, accepted = [], []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def close_each():
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()
                    accepted.append(1)

        threading.Thread(target=close_each, daemon=True).start()
        pump = chosen(server.getsockname()[1], started)
        pump.start()
        wait_until(lambda: started, "a pump")
        pump.stop()
        assert pump.join(20)
        server.shutdown(socket.SHUT_RDWR)
    assert (started, len(accepted)) == (["sdk"], 3)


def test_another_name_is_a_foreign_broker(broker, monkeypatch):
    monkeypatch.setattr("coremachine.local.broker.connection._CONTAINER", "another")
    with pytest.raises(ForeignBroker, match="another"):
        Wire(("127.0.0.1", broker.amqp_port))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("Endpoint=sb://localhost;SharedAccessKeyName=a;UseDevelopmentEmulator=true;", ("localhost", 5672)),
        ("Endpoint=sb://127.0.0.1:7001;UseDevelopmentEmulator=True", ("127.0.0.1", 7001)),
        ("Endpoint=sb://mine.servicebus.windows.net/;SharedAccessKeyName=a;SharedAccessKey=b=", None),
        ("UseDevelopmentEmulator=true", None),
        ("", None),
    ],
)
def test_only_a_broker_for_development_is_asked_for_its_name(text, address):
    assert emulator_address(text) == address


def typed(kind, value):
    return {TYPE: kind, VALUE: value}


def test_a_message_looks_as_it_does_through_the_sdk():
    """Whatever a sender put in: both ways give a function the same."""
    annotations = {
        "x-opt-sequence-number": typed(AMQPTypes.long, 42),
        "x-opt-enqueued-time": typed(AMQPTypes.timestamp, 1_767_323_045_678),
        "x-opt-locked-until": typed(AMQPTypes.timestamp, 1_767_323_075_000),
        "x-opt-partition-key": "partition",
        "x-opt-deadletter-source": "orders",
    }
    properties = Properties(
        message_id="m1",
        correlation_id="c1",
        content_type="application/json",
        subject="s",
        to="t",
        reply_to="r",
        group_id="session",
        reply_to_group_id="other",
    )
    own = {"text": "ä", "number": 7, "real": 0.5, "yes": True, "bytes": b"abc", "raw": b"\xff", "none": None}
    for message in (
        Message(
            header=Header(delivery_count=2, ttl=60_000),
            properties=properties,
            application_properties=own | {"id": typed(AMQPTypes.uuid, UUID(int=5))},
            message_annotations=annotations,
            data=[b"first ", b"second"],
        ),
        Message(message_annotations=annotations, data=[b""]),
        Message(properties=Properties(message_id=UUID(int=9)), message_annotations={}, value="no data"),
    ):
        data = bytes(encode_payload(bytearray(), message))
        token = UUID(int=7)
        by_sdk = ServiceBusReceivedMessage.from_bytes(data)
        by_sdk._delivery_tag = token.bytes_le
        expected, (found, _) = received_by_sdk(by_sdk), read_delivery(data, token)
        assert found.body == expected.body
        shown = [
            {name: datum.value for name, datum in metadata_of(one, plain_properties(one)).items()}
            for one in (expected, found)
        ]
        assert shown[0] == shown[1]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), OSError("gone")], ids=repr)
def test_pump_outlives_whatever_a_function_raises_in_its_thread(broker, error):
    """A worker whose pump had ended lived on, and received nothing of the queue any more."""
    one = Bench(broker)
    connect, raised = one.pump._connect, []

    def fail_once():
        if not raised:
            raised.append(error)
            raise error
        return connect()

    one.pump._connect = fail_once
    put(broker, b"good")
    one.pump.start()
    wait_until(lambda: one.counts() == {}, "the message completed")
    one.pump.stop()
    assert one.pump.join(20)
    assert raised == [error]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_child_has_no_connection_of_its_worker(broker):
    """It outlived its worker, and the broker sent messages for that, each of which waited for the end of its lock."""
    with Wire(("127.0.0.1", broker.amqp_port)) as wire:
        number = wire._socket.fileno()
        pid = os.fork()
        if pid == 0:
            try:
                os.fstat(number)
            except OSError:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert wire._socket.fileno() == number
