"""The pump's semantics against a receiver in memory."""

import threading
import time
from collections import deque
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.servicebus.exceptions import MessagingEntityNotFoundError, ServiceBusError

from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.functions import SERVICE_BUS, IndexedFunction, ServiceBusTrigger
from coremachine.local.host.service_bus import QueuePump
from coremachine.local.host.settings import ServiceBusOptions
from coremachine.local.host.slots import PATIENCE_SECONDS

from .conftest import received_message, wait_until

LOCK_SECONDS = 30.0


class FakeQueue:
    """Receivers over one list of messages. Counts what is asked for; fails on demand."""

    def __init__(self) -> None:
        self.waiting = deque()
        self.settled = []
        self.renewed = []
        self.errors = deque()
        self.settle_error = None
        self.renew_error = None
        self.open_receivers = 0
        self.asked_for = set()
        self.asked_seconds = deque(maxlen=1)
        self.is_closed = False
        self.redelivers = False
        self._changed = threading.Condition()

    def put(self, *messages) -> None:
        with self._changed:
            self.waiting.extend(messages)
            self._changed.notify_all()

    def open(self):
        with self._changed:
            self.open_receivers += 1
        return FakeReceiver(self)

    def close(self) -> None:
        self.is_closed = True

    def bodies(self, verb: str) -> list[str]:
        return [b"".join(message.body).decode() for found, message in self.settled if found == verb]


class FakeReceiver:
    def __init__(self, queue: FakeQueue) -> None:
        self._queue = queue

    def receive_messages(self, max_message_count=1, max_wait_time=None):
        queue = self._queue
        queue.asked_for.add(max_message_count)
        queue.asked_seconds.append(max_wait_time)
        if queue.errors:
            raise queue.errors.popleft()
        with queue._changed:
            queue._changed.wait_for(lambda: queue.waiting, min(max_wait_time, 0.05))
            return [queue.waiting.popleft()] if queue.waiting else []

    def _settle(self, verb, message) -> None:
        if self._queue.settle_error:
            raise self._queue.settle_error
        self._queue.settled.append((verb, message))
        if verb == "abandon" and self._queue.redelivers:
            self._queue.put(message)

    def complete_message(self, message) -> None:
        self._settle("complete", message)

    def abandon_message(self, message) -> None:
        self._settle("abandon", message)

    def renew_message_lock(self, message):
        if self._queue.renew_error:
            raise self._queue.renew_error
        self._queue.renewed.append(message.message_id)
        message._expiry = datetime.now(UTC) + timedelta(seconds=0.2)
        return message._expiry

    def close(self) -> None:
        with self._queue._changed:
            self._queue.open_receivers -= 1


class Clock:
    """Stands still but for messages that turn it."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class FakeInvoker:
    """Calls end when the test says so, or at once: `fail` is a failure, `turn` turns the clock."""

    def __init__(self) -> None:
        self.held: dict[str, Future] = {}
        self.most_at_once = 0
        self.clock = Clock()
        self._lock = threading.Lock()
        self._running = 0

    def submit(self, call):
        future = Future()
        text = call.data.value
        if text == "fail":
            future.set_exception(RuntimeError("poison"))
        elif text.startswith("hold"):
            with self._lock:
                self._running += 1
                self.most_at_once = max(self.most_at_once, self._running)
                self.held[text] = future
        else:
            if text == "turn":
                self.clock.seconds += PATIENCE_SECONDS
            future.set_result(None)
        return future

    def release(self, text: str) -> None:
        with self._lock:
            self._running -= 1
            future = self.held.pop(text)
        future.set_result(None)

    def close(self) -> None:
        pass


def function_of(trigger):
    return IndexedFunction(
        name="on_message",
        handler=print,
        is_async=False,
        trigger_type=SERVICE_BUS,
        trigger_parameter="message",
        trigger=trigger,
        context_parameter=None,
        raw_bindings=(),
        directory=Path(),
    )


class Bench:
    """A pump with everything around it replaced."""

    def __init__(
        self,
        slots: int = 1,
        *,
        options: ServiceBusOptions | None = None,
        errors: tuple = (),
        bodies: tuple[bytes, ...] = (),
        is_clock_turned: bool = False,
    ) -> None:
        self.queue = FakeQueue()
        self.queue.errors.extend(errors)
        self.queue.put(*map(received_message, bodies))
        self.invoker = FakeInvoker()
        self.dispatcher = Dispatcher(self.invoker, timeout_seconds=None)
        trigger = ServiceBusTrigger("Connection", "jobs", "", "", False, "UNDEFINED", None)
        self.pump = QueuePump(
            function_of(trigger),
            trigger,
            self.queue,
            self.dispatcher,
            options or ServiceBusOptions(),
            max_concurrent_calls=slots,
            clock=self.invoker.clock if is_clock_turned else time.monotonic,
        )


@pytest.fixture
def bench():
    made = []

    def make(*args, **kwargs) -> Bench:
        made.append(Bench(*args, **kwargs))
        made[-1].pump.start()
        return made[-1]

    yield make
    for one in made:
        one.pump.stop()
        one.dispatcher.abort_all("the test is over")
        assert one.pump.join(20)
        assert one.queue.open_receivers == 0
        assert one.queue.is_closed


def test_success_completes_and_failure_abandons(bench):
    one = bench()
    one.queue.put(received_message(b"good"), received_message(b"fail"), received_message(b"more"))
    wait_until(lambda: len(one.queue.settled) == 3, "three messages settled")
    assert one.queue.bodies("complete") == ["good", "more"]
    assert one.queue.bodies("abandon") == ["fail"]


def test_without_auto_complete_success_is_not_settled_but_failure_still_is(bench):
    one = bench(options=ServiceBusOptions(auto_complete_messages=False))
    one.queue.put(received_message(b"good"), received_message(b"fail"))
    wait_until(lambda: one.queue.settled, "the failure abandoned")
    assert one.queue.bodies("complete") == []
    assert one.queue.bodies("abandon") == ["fail"]


def test_message_that_cannot_be_converted_is_abandoned(bench):
    one = bench()
    unreadable = received_message(b"x")
    unreadable._raw_amqp_message._body_type = None
    unreadable._raw_amqp_message._data_body = None
    one.queue.put(unreadable, received_message(b"good"))
    wait_until(lambda: len(one.queue.settled) == 2, "both messages settled")
    assert [verb for verb, _ in one.queue.settled] == ["abandon", "complete"]


def test_no_more_messages_are_taken_than_slots_are_free(bench):
    """Too many raster tasks at once ran out of memory (lesson D41)."""
    one = bench(slots=3)
    one.queue.put(*(received_message(f"hold {number}".encode()) for number in range(5)))
    wait_until(lambda: len(one.invoker.held) == 3, "three calls at once")
    assert len(one.queue.waiting) == 2
    for number in range(5):
        wait_until(lambda text=f"hold {number}": text in one.invoker.held, "its turn")
        one.invoker.release(f"hold {number}")
    wait_until(lambda: len(one.queue.settled) == 5, "all settled")
    assert one.invoker.most_at_once == 3
    assert one.queue.asked_for == {1}


def test_one_receiver_is_open_while_there_is_little_to_do(bench):
    one = bench(slots=8, is_clock_turned=True)
    for number in range(5):
        one.queue.put(received_message(f"hold {number}".encode()))
        wait_until(lambda text=f"hold {number}": text in one.invoker.held, "its turn")
        one.invoker.release(f"hold {number}")
        wait_until(lambda count=number + 1: len(one.queue.settled) == count, "settled")
    assert one.queue.open_receivers == 1


def test_requests_stay_open_longer_where_no_message_came_for_a_while(bench):
    """An idle stack took two to five hundredths of a core, nearly all of it by asking twice a second per queue."""
    one = bench(is_clock_turned=True)
    wait_until(lambda: list(one.queue.asked_seconds) == [0.5], "asked as usual")
    one.invoker.clock.seconds += 31
    wait_until(lambda: list(one.queue.asked_seconds) == [2.0], "asked for longer")
    one.queue.put(received_message(b"good"))
    wait_until(lambda: list(one.queue.asked_seconds) == [0.5], "asked as usual after a message")


def test_burst_that_is_soon_over_opens_no_further_receiver(bench):
    """Opening links as the burst came cost more than its messages did."""
    one = bench(slots=8, bodies=(b"quick",) * 50, is_clock_turned=True)
    wait_until(lambda: len(one.queue.settled) == 50, "all settled")
    assert len(one.pump._threads) == 1


def test_burst_that_goes_on_opens_more_receivers(bench):
    one = bench(slots=8, bodies=(b"quick", b"turn", b"quick"), is_clock_turned=True)
    wait_until(lambda: len(one.queue.settled) == 3, "all settled")
    assert len(one.pump._threads) == 4


def test_lock_is_renewed_while_the_function_runs(bench):
    one = bench()
    one.queue.put(received_message(b"hold", message_id="long", lock_seconds=0.2))
    wait_until(lambda: len(one.queue.renewed) >= 3, "three renewals")
    one.invoker.release("hold")
    wait_until(lambda: one.queue.settled, "settled")
    assert set(one.queue.renewed) == {"long"}
    assert one.queue.bodies("complete") == ["hold"]


def test_lock_is_not_renewed_beyond_the_limit(bench):
    one = bench(options=ServiceBusOptions(max_auto_lock_renewal_seconds=0.35))
    one.queue.put(received_message(b"hold", lock_seconds=0.2))
    wait_until(lambda: one.queue.renewed, "a first renewal")
    time.sleep(1.0)  # far beyond the limit
    assert len(one.queue.renewed) <= 4
    one.invoker.release("hold")
    wait_until(lambda: one.queue.settled, "settled")


def test_failed_renewal_leaves_the_function_alone(bench, caplog):
    one = bench()
    one.queue.renew_error = ServiceBusError("lock lost")
    one.queue.put(received_message(b"hold", lock_seconds=0.2))
    wait_until(lambda: "lock_renewal_failed" in caplog.text, "the renewal's failure in the log")
    one.invoker.release("hold")
    wait_until(lambda: one.queue.settled, "settled")
    assert one.queue.bodies("complete") == ["hold"]


def test_failed_settlement_is_logged_and_the_pump_goes_on(bench, caplog):
    one = bench()
    one.queue.settle_error = ServiceBusError("lock lost")
    one.queue.put(received_message(b"good", message_id="unlucky"))
    wait_until(lambda: "settle_failed" in caplog.text, "the failure in the log")
    assert "unlucky" in caplog.text
    one.queue.settle_error = None
    one.queue.put(received_message(b"next"))
    wait_until(lambda: one.queue.bodies("complete") == ["next"], "the next message completed")


def test_missing_entity_is_said_once_and_tried_again(bench, caplog):
    caplog.set_level("INFO")
    one = bench(errors=(MessagingEntityNotFoundError(), MessagingEntityNotFoundError()))
    one.queue.put(received_message(b"good"))
    wait_until(lambda: one.queue.bodies("complete") == ["good"], "the message completed in the end")
    assert caplog.text.count("entity_unavailable entity=jobs") == 1
    assert "entity_available entity=jobs" in caplog.text


def test_stop_takes_no_more_and_settles_what_is_in_flight(bench):
    one = bench()
    one.queue.put(received_message(b"hold"), received_message(b"later"))
    wait_until(lambda: one.invoker.held, "the first in flight")
    one.pump.stop()
    assert not one.pump.join(0.05)
    one.invoker.release("hold")
    assert one.pump.join(20)
    assert one.queue.bodies("complete") == ["hold"]
    assert len(one.queue.waiting) == 1


def test_giving_up_abandons_what_is_in_flight(bench):
    one = bench()
    one.queue.put(received_message(b"hold"))
    wait_until(lambda: one.invoker.held, "in flight")
    one.pump.stop()
    one.dispatcher.abort_all("a test gives up")
    assert one.pump.join(20)
    assert one.queue.bodies("abandon") == ["hold"]


def test_given_up_message_is_not_taken_again_by_another_slot_of_the_same_pump(bench):
    """An abandoned message comes back at once: idle slots used to take it, only to abandon it again and again."""
    one = bench(slots=4)
    one.queue.put(*(received_message(f"hold {number}".encode()) for number in range(4)))
    wait_until(lambda: len(one.invoker.held) == 4, "all slots open")
    for number in range(1, 4):
        one.invoker.release(f"hold {number}")
    wait_until(lambda: len(one.queue.settled) == 3, "three slots idle again")
    one.queue.redelivers = True
    one.pump.stop()
    one.pump.quiesce(20)
    one.dispatcher.abort_all("a test gives up")
    assert one.pump.join(20)
    assert one.queue.bodies("abandon") == ["hold 0"]
