"""Whether queues are there: looked at aside, so that nobody waits long for an answer."""

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
        self.came.clear()
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


def test_all_queues_were_looked_at_when_it_returns_and_again_after_a_while(probe, broker, clock):
    probe.refresh()
    assert broker.looks == list(QUEUES)
    clock.now = FRESH_SECONDS - 1
    probe.refresh()
    assert broker.looks == list(QUEUES)
    clock.now = FRESH_SECONDS + 1
    probe.refresh()
    assert broker.looks == list(QUEUES) * 2


@pytest.mark.parametrize(
    "error", [QueueNotFound("jobs", "none"), DeliveryError("jobs", "down"), ValueError("surprise")]
)
def test_queue_in_trouble_is_told_in_the_log_and_hides_no_other(probe, broker, caplog, error):
    broker.trouble = {"jobs": error}
    probe.refresh()
    assert broker.looks == list(QUEUES)
    assert [record.queue for record in caplog.records if record.message == "queue_check_failed"] == ["jobs"]


def test_broker_that_says_nothing_holds_nobody_up(broker, clock):
    """The SDK may wait without end. Who asks next does not even wait for the look that is under way."""
    broker.shut("raster")
    probe = QueueProbe(broker.check_queue, QUEUES, clock=clock, wait_seconds=0.0)
    probe.refresh()
    assert broker.came.wait(LONG)
    clock.now = FRESH_SECONDS + 1
    probe.refresh()
    assert broker.looks == list(QUEUES), "one look at a time"


def test_look_that_never_ends_does_not_prevent_later_ones(broker, clock):
    broker.shut("jobs")
    probe = QueueProbe(broker.check_queue, QUEUES, clock=clock, wait_seconds=0.0)
    probe.refresh()
    assert broker.came.wait(LONG)
    del broker.gates["jobs"]
    broker.shut("raster")
    clock.now = ABANDONED_SECONDS + 1
    probe.refresh()
    assert broker.came.wait(LONG)
    assert broker.looks == ["jobs", *QUEUES]


def test_who_asks_is_answered_though_the_system_gives_no_thread(probe, broker, clock, monkeypatch, caplog):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    probe.refresh()
    clock.now = FRESH_SECONDS + 1
    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", refuse)
        probe.refresh()
    assert [record.message for record in caplog.records] == ["queues_not_looked_at"]
    probe.refresh()
    assert broker.looks == list(QUEUES) * 2


def test_many_who_ask_at_once_share_one_look(probe, broker):
    start = threading.Barrier(8)

    def ask():
        start.wait(LONG)
        probe.refresh()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads)
    assert broker.looks == list(QUEUES)
