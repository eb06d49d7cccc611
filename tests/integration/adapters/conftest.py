"""The sender over the real SDK, and a receiver that only looks."""

import pytest
from azure.servicebus import ServiceBusClient

from core.models import TaskQueueMessage
from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.thread import BrokerThread
from infrastructure.service_bus import ServiceBusRepository, connect_with_string

JOB_ID = "ab" * 32


@pytest.fixture(scope="session")
def task_message():
    """Makes a message of its own for each number, with a body of at least so many bytes."""

    def make(number, *, size=0):
        task_ids = (f"n{number}" + "x" * size,)
        return TaskQueueMessage(job_id=JOB_ID, job_type="test", stage=1, task_ids=task_ids, correlation_id="corr")

    return make


@pytest.fixture(scope="session")
def broker():
    with BrokerThread(BrokerConfig.for_queues(["real-jobs", "real-tasks"])) as running:
        yield running


@pytest.fixture(scope="session")
def shared_sender(broker):
    """Opening takes the SDK half a second a queue."""
    repository = ServiceBusRepository(
        {"jobs": "real-jobs", "tasks": "real-tasks"},
        lambda: connect_with_string(broker.connection_string),
    )
    yield repository
    repository.close()


@pytest.fixture
def sender(shared_sender, broker):
    for queue in ("real-jobs", "real-tasks"):
        broker.purge(queue)
    return shared_sender


@pytest.fixture(scope="session")
def look(broker):
    """The messages of a queue, scheduled ones too; they stay there."""
    receivers = {}
    with ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as client:

        def peek(queue):
            receiver = receivers.setdefault(queue, None) or client.get_queue_receiver(queue, prefetch_count=1)
            receivers[queue] = receiver
            return receiver.peek_messages(100, sequence_number=0)

        yield peek
        for receiver in receivers.values():
            receiver.close()
