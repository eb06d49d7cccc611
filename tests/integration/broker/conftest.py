"""One broker for all tests, and the real SDK on both sides of it.

Opening and closing the SDK's links takes it most of a second, so tests share long-lived ones where they can.
"""

from pathlib import Path
from uuid import uuid4

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage

from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.stored import QueueSettings
from coremachine.local.broker.thread import BrokerThread
from tests.sockets import collect_quietly

# The SDK renews a lock when ten seconds of it are left; of one that is not much longer, when half of it is: on a busy
# machine its first renewal, for which it opens a link, takes three seconds and more.
SHORT_LOCK_SECONDS = 12.0
QUEUES = BrokerConfig(
    (
        QueueSettings(name="plain"),
        QueueSettings(name="strict", max_delivery_count=2, default_ttl_seconds=60.0, dead_letter_on_expiration=True),
        QueueSettings(name="unique", duplicate_window_seconds=60.0),
        QueueSettings(name="short", lock_duration_seconds=SHORT_LOCK_SECONDS),
        QueueSettings(name="short-aio", lock_duration_seconds=SHORT_LOCK_SECONDS),
        QueueSettings(name="aio"),
    )
)


HERE = Path(__file__).parent

# See tests.sockets. test_admin.py, where nothing of that happens, stays strict and so watches the broker.
FORGETS_SOCKETS = {
    "test_sync_sdk.py",
    "test_aio_sdk.py",
    "test_faults.py",
    "test_sessions_sdk.py",
    "test_topics_sdk.py",
    "test_options.py",
    "test_websockets.py",
    "test_durable_kill.py",
}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == HERE and item.path.name in FORGETS_SOCKETS:
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))


@pytest.fixture(autouse=True)
def collect_forgotten_sockets(request):
    yield
    if request.path.name in FORGETS_SOCKETS:
        collect_quietly()


@pytest.fixture(scope="session")
def broker():
    with BrokerThread(QUEUES) as running:
        yield running


@pytest.fixture(scope="session")
def client(broker):
    # Without retries, errors come at once.
    with ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as opened:
        yield opened
    collect_quietly()


class Desk:
    """A sender and a receiver of one queue, kept open for all tests that use it."""

    def __init__(self, broker, client, queue):
        self.broker = broker
        self.queue = queue
        self.sender = client.get_queue_sender(queue, keep_alive=0)
        # Prefetching receivers close fast, but would take messages meant for others.
        self.receiver = client.get_queue_receiver(queue)

    def send(self, *bodies, **fields):
        fields = {"message_id": str(uuid4())} | fields
        self.sender.send_messages([ServiceBusMessage(body, **fields) for body in bodies or ("body",)])

    def receive(self, count=1, wait=10):
        found = []
        while len(found) < count:
            batch = self.receiver.receive_messages(count - len(found), max_wait_time=wait)
            if not batch:
                break
            found += batch
        return found

    def receive_one(self):
        [message] = self.receive(1)
        return message

    @property
    def counts(self):
        return self.broker.counts(self.queue)

    def close(self):
        self.sender.close()
        self.receiver.close()


@pytest.fixture(scope="session")
def desks(broker, client):
    opened = {}
    yield (
        lambda queue: (
            opened.setdefault(queue, None) or opened.update({queue: Desk(broker, client, queue)}) or opened[queue]
        )
    )
    for desk in opened.values():
        desk.close()


@pytest.fixture
def desk(desks, broker):
    """Desks by queue name, with the queue emptied first."""

    def get(queue):
        found = desks(queue)
        broker.purge(queue)
        broker.purge(f"{queue}/$DeadLetterQueue")
        return found

    return get


@pytest.fixture(scope="session")
def dead_letters(client):
    """Receivers of dead-letter queues by queue name, kept open."""
    opened = {}

    def get(queue):
        if queue not in opened:
            opened[queue] = client.get_queue_receiver(queue, sub_queue="deadletter")
        return opened[queue]

    yield get
    for receiver in opened.values():
        receiver.close()
