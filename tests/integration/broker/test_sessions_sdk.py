"""Sessions by the real SDK: by id, next available, state, renewal, and a lock that is lost."""

import threading

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import (
    OperationTimeoutError,
    ServiceBusError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.stored import QueueSettings
from coremachine.local.broker.thread import BrokerThread

TALKS = QueueSettings(name="talks", requires_session=True, lock_duration_seconds=30.0)


@pytest.fixture(scope="module")
def broker():
    with BrokerThread(BrokerConfig((TALKS, QueueSettings(name="plain")))) as running:
        yield running


@pytest.fixture(scope="module")
def client(broker):
    with ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as opened:
        yield opened


@pytest.fixture
def send(broker, client):
    broker.purge("talks")

    def send_all(*pairs):
        with client.get_queue_sender("talks", keep_alive=0) as sender:
            sender.send_messages([ServiceBusMessage(body, session_id=session) for session, body in pairs])

    return send_all


def bodies(messages):
    return [str(each) for each in messages]


def test_a_receiver_gets_the_messages_of_its_session_in_order(client, send):
    send(("a", "1"), ("b", "2"), ("a", "3"), ("b", "4"))
    with client.get_queue_receiver("talks", session_id="b", keep_alive=0) as receiver:
        assert receiver.session.session_id == "b"
        assert receiver.session.locked_until_utc is not None
        messages = receiver.receive_messages(10, max_wait_time=5)
        assert bodies(messages) == ["2", "4"]
        for message in messages:
            receiver.complete_message(message)


def test_the_next_available_session_is_that_of_the_oldest_message(client, send):
    send(("x", "1"), ("y", "2"))
    with client.get_queue_receiver("talks", session_id=NEXT_AVAILABLE_SESSION, keep_alive=0) as first:
        assert first.session.session_id == "x"
        with client.get_queue_receiver("talks", session_id=NEXT_AVAILABLE_SESSION, keep_alive=0) as second:
            assert second.session.session_id == "y"


def test_a_receiver_waits_for_a_session_that_comes_later(broker, client, send):
    opened = []

    def wait():
        with ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as other:
            receiver = other.get_queue_receiver(
                "talks", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=30, keep_alive=0
            )
            with receiver:
                opened.append(receiver.session.session_id)

    waiting = threading.Thread(target=wait)
    waiting.start()
    send(("late", "1"))
    waiting.join(60)
    assert opened == ["late"]


def test_without_a_free_session_the_wait_ends(client, send):
    send()
    with (
        pytest.raises(OperationTimeoutError),
        client.get_queue_receiver("talks", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=1, keep_alive=0),
    ):
        pytest.fail("expected no session")


def test_a_session_has_one_receiver_at_a_time(client, send):
    send(("s", "1"))
    with (
        client.get_queue_receiver("talks", session_id="s", keep_alive=0),
        pytest.raises(SessionCannotBeLockedError),
        client.get_queue_receiver("talks", session_id="s", keep_alive=0),
    ):
        pytest.fail("expected the session to be taken")


def test_closing_gives_the_session_back_without_counting_the_delivery(client, send):
    send(("s", "1"))
    with client.get_queue_receiver("talks", session_id="s", keep_alive=0) as receiver:
        assert bodies(receiver.receive_messages(1, max_wait_time=5)) == ["1"]
    with client.get_queue_receiver("talks", session_id="s", keep_alive=0) as receiver:
        [again] = receiver.receive_messages(1, max_wait_time=5)
        assert again.delivery_count == 0
        receiver.complete_message(again)


def test_the_state_stays_with_the_session_and_its_lock_can_be_renewed(client, send):
    send(("s", "1"))
    with client.get_queue_receiver("talks", session_id="s", keep_alive=0) as receiver:
        assert receiver.session.get_state() is None
        receiver.session.set_state(b"half way")
        before = receiver.session.locked_until_utc
        assert receiver.session.renew_lock() >= before
    with client.get_queue_receiver("talks", session_id="s", keep_alive=0) as receiver:
        assert receiver.session.get_state() == b"half way"
        receiver.session.set_state(None)
        assert receiver.session.get_state() is None


def test_a_lost_session_lock_detaches_the_receiver_and_settles_nothing(broker, client, send):
    send(("s", "1"))
    with client.get_queue_receiver("talks", session_id="s", keep_alive=0) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=5)
        assert broker.expire_locks("talks") == 2
        with pytest.raises(SessionLockLostError):
            receiver.complete_message(message)
    with client.get_queue_receiver("talks", session_id="s", keep_alive=0) as receiver:
        [again] = receiver.receive_messages(1, max_wait_time=5)
        assert again.delivery_count == 1


def test_deferred_messages_of_a_session_come_back_by_number(client, send):
    send(("s", "1"))
    with client.get_queue_receiver("talks", session_id="s", keep_alive=0) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=5)
        receiver.defer_message(message)
        assert bodies(receiver.peek_messages(5, sequence_number=1)) == ["1"]
        [deferred] = receiver.receive_deferred_messages([message.sequence_number])
        receiver.complete_message(deferred)


def test_a_dead_letter_of_a_session_is_received_without_one(client, send):
    send(("s", "1"))
    with client.get_queue_receiver("talks", session_id="s", keep_alive=0) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=5)
        receiver.dead_letter_message(message, reason="why")
    with client.get_queue_receiver("talks", sub_queue="deadletter", keep_alive=0) as receiver:
        [dead] = receiver.receive_messages(1, max_wait_time=5)
        assert (dead.dead_letter_reason, dead.session_id) == ("why", "s")
        receiver.complete_message(dead)


def test_a_message_without_session_is_refused_with_its_batch(broker, client, send):
    send()
    with client.get_queue_sender("talks", keep_alive=0) as sender, pytest.raises(ServiceBusError, match="SessionId"):
        sender.send_messages([ServiceBusMessage("1", session_id="s"), ServiceBusMessage("2")])
    assert broker.counts("talks")["active"] == 0


def test_the_wrong_kind_of_receiver_is_refused(client):
    with pytest.raises(ServiceBusError, match="non-sessionful"), client.get_queue_receiver("talks", keep_alive=0):
        pytest.fail("expected a refusal")
    with pytest.raises(ServiceBusError, match="sessionful"), client.get_queue_receiver("plain", session_id="s"):
        pytest.fail("expected a refusal")


def test_a_state_above_the_size_of_a_message_is_refused(client):
    with client.get_queue_receiver("talks", session_id="large") as receiver:
        with pytest.raises(ServiceBusError, match="expected a session state of at most 262144 bytes, found 262145"):
            receiver.session.set_state(b"x" * 262145)
        assert receiver.session.get_state() is None
