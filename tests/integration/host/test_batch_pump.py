"""Batches and sessions against receivers in memory: sizes, all or none, what a session is left for."""

import threading
from collections import deque
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from coremachine.local.host.batch_pump import BatchPump
from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.functions import SERVICE_BUS, IndexedFunction, ServiceBusTrigger
from coremachine.local.host.message_batches import batch_metadata
from coremachine.local.host.session_pump import SessionPump
from coremachine.local.host.settings import ServiceBusOptions

from .conftest import received_message, wait_until


class Source:
    """A receiver and what opens it. Serves what was put, up to the size that is asked for."""

    def __init__(self, *bodies: bytes) -> None:
        self.waiting = deque(received_message(body, message_id=body.decode()) for body in bodies)
        self.settled = []
        self.opened = 0
        self.renewed = 0
        self.settle_error = None
        self.is_closed = False
        self.session = SimpleNamespace(
            session_id="s", locked_until_utc=datetime.now(UTC) + timedelta(seconds=30), renew_lock=self.renew
        )
        self._changed = threading.Condition()

    def open(self):
        self.opened += 1
        return self

    def renew(self) -> None:
        self.renewed += 1
        self.session.locked_until_utc = datetime.now(UTC) + timedelta(seconds=30)

    def receive_messages(self, max_message_count=1, max_wait_time=None):
        with self._changed:
            self._changed.wait_for(lambda: self.waiting, 0.02)
            return [self.waiting.popleft() for _ in range(min(max_message_count, len(self.waiting)))]

    def put(self, *bodies: bytes) -> None:
        with self._changed:
            self.waiting.extend(received_message(body, message_id=body.decode()) for body in bodies)
            self._changed.notify_all()

    def complete_message(self, message) -> None:
        self._settle("complete", message)

    def abandon_message(self, message) -> None:
        self._settle("abandon", message)

    def _settle(self, verb, message) -> None:
        self.settled.append((verb, message.message_id))
        if self.settle_error:
            raise self.settle_error

    def close(self) -> None:
        self.is_closed = True


class Recorder:
    """Calls that contain `fail` fail; `hold` waits for `release`."""

    def __init__(self) -> None:
        self.calls = []
        self.held: Future | None = None

    def submit(self, call):
        future = Future()
        value = call.data.value
        texts = list(value.string) if hasattr(value, "string") else [value]
        self.calls.append(texts)
        if "fail" in texts:
            future.set_exception(RuntimeError("poison"))
        elif "hold" in texts:
            self.held = future
        else:
            future.set_result(None)
        return future

    def close(self) -> None:
        pass


def function_of(**trigger) -> tuple[IndexedFunction, ServiceBusTrigger]:
    made = ServiceBusTrigger("C", "jobs", "", "", False, "STRING", None, **trigger)
    function = IndexedFunction(
        name="on_messages",
        handler=print,
        is_async=False,
        trigger_type=SERVICE_BUS,
        trigger_parameter="messages",
        trigger=made,
        context_parameter=None,
        raw_bindings=(),
        directory=Path(),
    )
    return function, made


@pytest.fixture
def pump_batches():
    pumps = []

    def start(source: Source, options: ServiceBusOptions | None = None, **trigger) -> Recorder:
        recorder = Recorder()
        dispatcher = Dispatcher(recorder, timeout_seconds=None)
        function, made = function_of(is_batch=True, **trigger)
        pumps.append(BatchPump(function, made, source, dispatcher, options or ServiceBusOptions()))
        pumps[-1].start()
        return recorder

    yield start
    for pump in pumps:
        pump.stop()
        assert pump.join(10)


@pytest.fixture
def pump_session():
    pumps = []

    def start(source: Source, **options) -> Recorder:
        recorder = Recorder()
        function, made = function_of(has_sessions=True)
        sources = deque([source])
        opener = SimpleNamespace(open=lambda _: sources.popleft() if sources else None, close=source.close)
        dispatcher = Dispatcher(recorder, timeout_seconds=None)
        settings = ServiceBusOptions(**options)
        pumps.append(SessionPump(function, made, opener, dispatcher, settings, max_concurrent_sessions=2))
        pumps[-1].start()
        return recorder

    yield start
    for pump in pumps:
        pump.stop()
        assert pump.join(10)


def test_batch_holds_no_more_than_its_function_or_host_json_allows(pump_batches):
    recorder = pump_batches(source := Source(*(b"%d" % number for number in range(5))), max_batch_size=2)
    wait_until(lambda: len(source.settled) == 5, "all settled")
    assert recorder.calls == [["0", "1"], ["2", "3"], ["4"]]
    assert {verb for verb, _ in source.settled} == {"complete"}


def test_function_that_fails_gives_back_its_whole_batch(pump_batches):
    pump_batches(source := Source(b"good", b"fail", b"fine"))
    wait_until(lambda: len(source.settled) == 3, "all settled")
    assert source.settled == [("abandon", "good"), ("abandon", "fail"), ("abandon", "fine")]


def test_smallest_batch_is_waited_for(pump_batches):
    options = ServiceBusOptions(min_message_batch_size=3, max_batch_wait_seconds=60)
    recorder = pump_batches(source := Source(b"1"), options)
    wait_until(lambda: not source.waiting, "the first taken")
    source.put(b"2", b"3")
    wait_until(lambda: recorder.calls == [["1", "2", "3"]], "one batch of three")


def test_smallest_batch_is_not_waited_for_without_end(pump_batches):
    options = ServiceBusOptions(min_message_batch_size=3, max_batch_wait_seconds=0)
    recorder = pump_batches(Source(b"1"), options)
    wait_until(lambda: recorder.calls == [["1"]], "a batch of one")


def test_one_message_that_cannot_be_settled_does_not_keep_the_others(pump_batches):
    source = Source(b"1", b"2")
    source.settle_error = RuntimeError("lock lost")
    pump_batches(source)
    wait_until(lambda: source.settled == [("complete", "1"), ("complete", "2")], "both tried")


def test_texts_of_a_batch_lose_their_empty_entries_and_other_fields_keep_their_places():
    """So does Azure's host on the way to a Python worker."""
    first = received_message(b"1", message_id="a", properties={"n": 1})
    second = received_message(b"2", message_id="b", correlation_id="c", delivery_count=4)
    metadata = batch_metadata([first, second])
    assert metadata["MessageIdArray"].value.string == ("a", "b")
    assert metadata["CorrelationIdArray"].value.string == ("c",)
    assert metadata["UserPropertiesArray"].value == '[{"n": 1}, {}]'
    assert metadata["DeliveryCountArray"].value == "[1, 5]"


def test_session_is_read_in_order_and_left_when_idle(pump_session):
    source = Source(b"1", b"fail", b"3")
    recorder = pump_session(source, session_idle_seconds=0.1)
    wait_until(lambda: source.is_closed, "the session left")
    assert recorder.calls == [["1"], ["fail"], ["3"]]
    assert source.settled == [("complete", "1"), ("abandon", "fail"), ("complete", "3")]


def test_lock_of_a_session_is_renewed_while_its_function_runs(pump_session):
    source = Source(b"hold")
    source.session.locked_until_utc = datetime.now(UTC) + timedelta(seconds=3)
    recorder = pump_session(source, session_idle_seconds=0.1)
    wait_until(lambda: source.renewed, "a renewal")
    recorder.held.set_result(None)
    wait_until(lambda: source.settled == [("complete", "hold")], "settled")


def test_messages_of_a_session_run_beside_each_other_if_host_json_says_so(pump_session):
    """`maxConcurrentCallsPerSession`: the second message is not kept by the first, and each is settled as it ends."""
    source = Source(b"hold", b"2", b"fail")
    recorder = pump_session(source, max_calls_per_session=2, session_idle_seconds=0.1)
    wait_until(lambda: len(source.settled) == 2, "the others settled")
    assert source.settled == [("complete", "2"), ("abandon", "fail")]
    recorder.held.set_result(None)
    wait_until(lambda: source.is_closed, "the session left")
    assert source.settled[-1] == ("complete", "hold")
