"""The broker as tests hold it: what one leaves is not there for the next, and mistakes are named."""

import time

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage

from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.stored import QueueSettings
from coremachine.local.broker.thread import BrokerThread


@pytest.fixture(scope="module")
def broker():
    with BrokerThread(BrokerConfig((QueueSettings(name="orders", requires_session=True),))) as running:
        yield running


def test_a_reset_leaves_nothing_for_the_next_test(broker):
    """A turned clock made the times of a later test wrong; a session's state and lock were still there."""
    with (
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
        client.get_queue_sender("orders") as sender,
        client.get_queue_receiver("orders", session_id="one") as receiver,
    ):
        sender.send_messages(ServiceBusMessage("left", session_id="one"))
        receiver.session.set_state(b"left")
        assert len(receiver.receive_messages(1, max_wait_time=10)) == 1
        broker.turn_clock(3600)
        broker.reset()
        assert broker.counts("orders") == dict.fromkeys(["active", "locked", "scheduled", "deferred", "dead_letter"], 0)
        with client.get_queue_receiver("orders", session_id="one") as next_receiver:
            assert next_receiver.session.get_state() is None
            assert next_receiver.session.locked_until_utc.timestamp() < time.time() + 600


@pytest.mark.parametrize("method", ["counts", "purge", "expire_locks", "detach_links"])
def test_an_unknown_queue_is_named_with_those_that_exist(broker, method):
    with pytest.raises(ValueError, match=r"'nope' could not be found. Known are: orders\."):
        getattr(broker, method)("nope")


def test_a_negative_number_of_faults_is_refused(broker):
    for ask in (broker.reject_sends, broker.duplicate_messages, lambda count: broker.delay_messages(count, seconds=1)):
        with pytest.raises(ValueError, match="expected 0 or more sends or messages to meet a fault, found -1"):
            ask(-1)
