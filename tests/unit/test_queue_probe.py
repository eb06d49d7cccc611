"""Which queues are not there: looked at aside, so that nobody waits long for an answer."""

import threading

import pytest

from core.errors import DeliveryError, QueueNotFound
from infrastructure.queue_probe import ABANDONED_SECONDS, FRESH_SECONDS, QueueProbe

QUEUES = ("jobs", "tasks", "raster")
LONG = 60.0


class Broker:
    """Raises what `trouble` has for a queue; a look at a queue in `gates` waits there."""

    def __init__(self):
        self.trouble = {}
        self.gates = {}
        self.all_gates = []
        self.looks = []
        self.came = threading.Event()

    def shut(self, queue):
        self.gates[queue] = threading.Event()
        self.all_gates.append(self.gates[queue])

    def check_queue(self, queue):
        self.looks.append(queue)
        if queue in self.gates:
            self.came.set()
            assert self.gates[queue].wait(LONG)
        if queue in self.trouble:
            raise self.trouble[queue]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def broker():
    broker = Broker()
    yield broker
    for gate in broker.all_gates:
        gate.set()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def probe(broker, clock):
    return QueueProbe(broker.check_queue, QUEUES, clock=clock, wait_seconds=LONG)


def test_missing_queues_are_told_apart_from_those_that_could_not_be_looked_at(probe, broker):
    broker.trouble = {"tasks": QueueNotFound("tasks", "none"), "raster": DeliveryError("raster", "down")}
    state = probe.look()
    assert (state.missing, state.unknown) == (("tasks",), ("raster",))


def test_a_look_is_kept_for_a_while(probe, broker, clock):
    assert probe.look() == probe.look()
    assert broker.looks == list(QUEUES)
    broker.trouble = {"tasks": QueueNotFound("tasks", "none")}
    clock.now = FRESH_SECONDS - 1
    assert probe.look().missing == ()
    clock.now = FRESH_SECONDS + 1
    assert probe.look().missing == ("tasks",)


def test_queue_that_was_seen_is_not_doubted_because_the_broker_is_away_for_a_moment(probe, broker, clock):
    broker.trouble = {"tasks": QueueNotFound("tasks", "none")}
    probe.look()
    broker.trouble = {queue: DeliveryError(queue, "down") for queue in QUEUES}
    clock.now = FRESH_SECONDS + 1
    state = probe.look()
    assert (state.missing, state.unknown) == (("tasks",), ())


def test_broker_that_says_nothing_holds_nobody_up_and_hides_no_other_queue(broker, clock):
    """The SDK may wait without end. Who asks next does not even wait for the look that is under way."""
    broker.shut("raster")
    broker.trouble = {"jobs": QueueNotFound("jobs", "none")}
    probe = QueueProbe(broker.check_queue, QUEUES, clock=clock, wait_seconds=0.0)
    probe.look()
    assert broker.came.wait(LONG)
    state = probe.look()
    assert (state.missing, state.unknown) == (("jobs",), ("raster",))
    assert broker.looks == list(QUEUES), "one look at a time"


def test_look_that_never_ends_does_not_prevent_later_ones(broker, clock):
    broker.shut("jobs")
    hung = QueueProbe(broker.check_queue, QUEUES, clock=clock, wait_seconds=0.0)
    hung.look()
    assert broker.came.wait(LONG)
    del broker.gates["jobs"]
    clock.now = ABANDONED_SECONDS + 1
    broker.shut("raster")
    broker.came.clear()
    hung.look()
    assert broker.came.wait(LONG)
    assert hung.look().unknown == ("raster",)


def test_many_who_ask_at_once_share_one_look(probe, broker):
    start = threading.Barrier(8)
    found = []

    def ask():
        start.wait(LONG)
        found.append(probe.look())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert broker.looks == list(QUEUES)


def test_error_that_nobody_expects_is_in_the_log_and_the_others_are_looked_at(probe, broker, caplog):
    broker.trouble = {"jobs": ValueError("surprise")}
    assert probe.look().unknown == ("jobs",)
    assert broker.looks == list(QUEUES)
    assert "queue_not_looked_at" in caplog.text
