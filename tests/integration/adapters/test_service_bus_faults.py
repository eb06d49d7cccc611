"""The sender when queues are missing, connections are cut, and the broker refuses, is silent or gone."""

import socket
import threading

import pytest

from core.errors import DeliveryError, MessageTooLarge, QueueNotFound
from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.thread import BrokerThread
from infrastructure.service_bus import ServiceBusRepository, connect_with_string
from tests.sockets import collect_quietly

# See tests.sockets.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def collect_forgotten_sockets():
    yield
    collect_quietly()


@pytest.fixture(scope="module")
def broker():
    """Of this module alone: other tests keep their connections."""
    with BrokerThread(BrokerConfig.for_queues(["real-tasks"])) as running:
        yield running


@pytest.fixture(scope="module")
def shared_sender(broker):
    queues = {"tasks": "real-tasks", "ghost": "real-ghost"}
    repository = ServiceBusRepository(queues, lambda: connect_with_string(broker.connection_string))
    yield repository
    repository.close()


@pytest.fixture
def sender(shared_sender, broker):
    broker.purge("real-tasks")
    return shared_sender


def make_repository(connection_string, **options):
    return ServiceBusRepository({"tasks": "real-tasks"}, lambda: connect_with_string(connection_string), **options)


def test_a_missing_queue_is_said_so(sender, task_message):
    with pytest.raises(
        QueueNotFound, match="'ghost': expected a queue 'real-ghost' in the namespace, found none; crea"
    ):
        sender.send_messages("ghost", [task_message(1)])
    with pytest.raises(QueueNotFound):
        sender.send_messages("ghost", [task_message(1), task_message(2)])


def test_a_look_into_a_missing_queue_is_said_so(sender):
    with pytest.raises(QueueNotFound, match="'ghost': expected a queue 'real-ghost' in the namespace, found none"):
        sender.oldest_enqueued_at("ghost")
    with pytest.raises(QueueNotFound, match="'ghost': expected a queue 'real-ghost' in the namespace, found none"):
        sender.check_queue("ghost")


def test_a_queue_that_is_there_is_looked_at_without_taking_anything(sender, broker, task_message):
    sender.check_queue("tasks")
    sender.send_messages("tasks", [task_message(1)])
    sender.check_queue("tasks")
    assert (broker.counts("real-tasks")["active"], broker.counts("real-tasks")["locked"]) == (1, 0)


def test_a_connection_cut_between_looks_is_replaced(sender, broker, task_message):
    assert sender.oldest_enqueued_at("tasks") is None
    assert broker.drop_connections() > 0
    assert sender.oldest_enqueued_at("tasks") is None
    sender.send_messages("tasks", [task_message(1)])
    assert sender.oldest_enqueued_at("tasks") is not None


@pytest.mark.parametrize("count", [1, 3])
def test_a_connection_cut_between_sends_is_replaced(sender, broker, count, task_message):
    """What was reported as sent has arrived, once."""
    sender.send_messages("tasks", [task_message("before")])
    for turn in range(2):
        assert broker.drop_connections() > 0
        sender.send_messages("tasks", [task_message(f"{turn}-{number}") for number in range(count)])
    assert broker.counts("real-tasks")["active"] == 1 + 2 * count


def test_a_delayed_message_survives_a_cut_too(sender, broker, task_message):
    sender.send_messages("tasks", [task_message("before")])
    broker.drop_connections()
    sender.send_message_with_delay("tasks", task_message("delayed"), 600)
    assert broker.counts("real-tasks")["scheduled"] == 1


def test_connections_cut_while_eight_threads_send(sender, broker, task_message):
    """At most once too often, never lost: a send that returns is in the queue."""
    barrier = threading.Barrier(9)
    sent = []

    def send(thread):
        barrier.wait()
        for number in range(10):
            message = task_message(f"{thread}-{number}")
            try:
                sender.send_messages("tasks", [message])
            except DeliveryError:
                continue
            sent.append(message.message_id)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait()
    while not sent:
        assert any(thread.is_alive() for thread in threads)
    broker.drop_connections()
    for thread in threads:
        thread.join()

    assert len(sent) == 80
    assert broker.counts("real-tasks")["active"] >= 80


def test_a_busy_broker_is_asked_again_after_a_while(broker, task_message):
    broker.purge("real-tasks")
    repository = ServiceBusRepository(
        {"tasks": "real-tasks"},
        lambda: connect_with_string(broker.connection_string),
        busy_pauses_seconds=(0.01, 0.01),
    )
    broker.reject_sends(2)
    repository.send_messages("tasks", [task_message("patient")])
    assert broker.counts("real-tasks")["active"] == 1
    repository.close()


def test_a_broker_that_stays_busy_is_left_alone(broker, task_message):
    broker.purge("real-tasks")
    sender = ServiceBusRepository(
        {"tasks": "real-tasks"},
        lambda: connect_with_string(broker.connection_string),
        busy_pauses_seconds=(0.01,),
    )
    sender.send_messages("tasks", [task_message("before")])
    broker.reject_sends(2)
    with pytest.raises(DeliveryError, match="'tasks': ServiceBusServerBusyError: ") as caught:
        sender.send_messages("tasks", [task_message("refused")])
    assert not isinstance(caught.value, QueueNotFound | MessageTooLarge)
    sender.send_messages("tasks", [task_message("after")])
    assert broker.counts("real-tasks")["active"] == 2
    sender.close()


def test_a_connection_idle_for_long_is_replaced_before_it_is_used(broker, task_message):
    """A dead link swallowed messages that were told as sent (lesson D17)."""
    now = [0.0]
    opened = []

    class Client:
        def __init__(self):
            self.client = connect_with_string(broker.connection_string)

        def get_queue_sender(self, *args, **kwargs):
            opened.append(now[0])
            return self.client.get_queue_sender(*args, **kwargs)

        def close(self):
            self.client.close()

    repository = ServiceBusRepository({"tasks": "real-tasks"}, Client, clock=lambda: now[0])
    for moment in (1000, 1180, 1361):
        now[0] = moment
        repository.send_messages("tasks", [task_message(moment)])
    repository.close()
    assert opened == [1000, 1361]


def test_a_broker_that_is_gone_and_comes_back(task_message):
    with BrokerThread(BrokerConfig.for_queues(["real-tasks"])) as first:
        port = first.amqp_port
        repository = make_repository(first.connection_string)
        repository.send_messages("tasks", [task_message(1)])
    with pytest.raises(DeliveryError, match="'tasks': ServiceBusConnectionError: "):
        repository.send_messages("tasks", [task_message(2)])
    with pytest.raises(DeliveryError, match="'tasks': ServiceBusConnectionError: "):
        repository.oldest_enqueued_at("tasks")
    with BrokerThread(BrokerConfig.for_queues(["real-tasks"]), amqp_port=port) as second:
        repository.send_messages("tasks", [task_message(3)])
        assert second.counts("real-tasks")["active"] == 1
        repository.close()


def test_a_silent_peer_catches_one_thread_and_not_the_others(task_message):
    """It takes connections and answers nothing; the SDK waits for it without end."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        repository = make_repository(
            f"Endpoint=sb://127.0.0.1:{port};SharedAccessKeyName=a;SharedAccessKey=b;UseDevelopmentEmulator=true",
            patience_seconds=0.1,
        )
        outcomes = []

        def caught():
            try:
                repository.send_messages("tasks", [task_message(1)])
            except DeliveryError as error:
                outcomes.append(error)

        thread = threading.Thread(target=caught)
        thread.start()
        peer, _ = silent.accept()
        with pytest.raises(DeliveryError, match="found it in use by a thread that waits for the broker"):
            repository.send_messages("tasks", [task_message(2)])
        silent.close()
        peer.close()
        thread.join()
    assert len(outcomes) == 1
    repository.close()


def test_a_host_that_does_not_exist_is_a_delivery_error(task_message):
    repository = make_repository(
        "Endpoint=sb://nothing.invalid;SharedAccessKeyName=a;SharedAccessKey=v3ry-s3cret;UseDevelopmentEmulator=true"
    )
    with pytest.raises(DeliveryError, match="'tasks': ServiceBusConnectionError: ") as caught:
        repository.send_messages("tasks", [task_message(1)])
    assert "v3ry-s3cret" not in str(caught.value)
    repository.close()
