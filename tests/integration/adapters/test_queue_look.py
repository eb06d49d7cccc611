"""How old the oldest message of a queue is: the real SDK on the local broker, whatever became of the message."""

from datetime import UTC, datetime, timedelta

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusReceivedMessage, ServiceBusReceiver

from core.errors import QueueNotFound
from core.ports import NOT_SEEN_THROUGH
from infrastructure import service_bus


@pytest.fixture(scope="module")
def receiver(broker):
    with (
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
        client.get_queue_receiver("real-tasks") as opened,
    ):
        yield opened


def take(receiver: ServiceBusReceiver) -> ServiceBusReceivedMessage:
    [message] = receiver.receive_messages(1, max_wait_time=20)
    return message


def test_empty_queue_has_none(sender, task_message):
    assert sender.oldest_enqueued_at("tasks") is None
    sender.send_messages("tasks", [task_message(1)])
    assert sender.oldest_enqueued_at("jobs") is None


def test_it_is_the_first_that_came_and_a_look_takes_none(sender, broker, look, task_message):
    before = datetime.now(UTC)
    sender.send_messages("tasks", [task_message(1)])
    after = datetime.now(UTC)
    sender.send_messages("tasks", [task_message(2)])

    [first, second] = look("real-tasks")
    assert first.enqueued_time_utc <= second.enqueued_time_utc
    assert [sender.oldest_enqueued_at("tasks") for _ in range(3)] == [first.enqueued_time_utc] * 3
    # The broker tells milliseconds.
    assert before - timedelta(milliseconds=1) < first.enqueued_time_utc <= after
    assert (broker.counts("real-tasks")["active"], broker.counts("real-tasks")["locked"]) == (2, 0)


def test_message_in_a_workers_hands_is_the_oldest_and_keeps_its_time_when_it_comes_back(
    sender, receiver, broker, look, task_message
):
    sender.send_messages("tasks", [task_message(1)])
    sender.send_messages("tasks", [task_message(2)])
    [first, second] = [message.enqueued_time_utc for message in look("real-tasks")]

    message = take(receiver)
    assert broker.counts("real-tasks")["locked"] == 1
    assert sender.oldest_enqueued_at("tasks") == first
    receiver.abandon_message(message)
    assert sender.oldest_enqueued_at("tasks") == first
    message = take(receiver)
    assert (message.delivery_count, message.enqueued_time_utc) == (1, first)
    assert broker.expire_locks("real-tasks") == 1
    assert sender.oldest_enqueued_at("tasks") == first
    receiver.complete_message(take(receiver))
    assert sender.oldest_enqueued_at("tasks") == second


def test_scheduled_message_has_no_time_before_it_is_due_and_that_one_afterwards(sender, receiver, look, task_message):
    sender.send_message_with_delay("tasks", task_message(1), 2)
    [scheduled] = look("real-tasks")
    assert sender.oldest_enqueued_at("tasks") is None
    message = take(receiver)
    due = scheduled.scheduled_enqueue_time_utc
    assert due <= message.enqueued_time_utc
    assert sender.oldest_enqueued_at("tasks") == message.enqueued_time_utc
    receiver.complete_message(message)


def test_scheduled_messages_before_it_hide_none(sender, look, task_message):
    sender.send_message_with_delay("tasks", task_message(1), 3600)
    sender.send_messages("tasks", [task_message(2)])
    assert sender.oldest_enqueued_at("tasks") == look("real-tasks")[1].enqueued_time_utc


def test_deferred_message_is_passed_over(sender, receiver, broker, look, task_message):
    """No worker gets it any more."""
    sender.send_messages("tasks", [task_message(1)])
    receiver.defer_message(take(receiver))
    assert broker.counts("real-tasks")["deferred"] == 1
    assert sender.oldest_enqueued_at("tasks") is None
    sender.send_messages("tasks", [task_message(2)])
    assert sender.oldest_enqueued_at("tasks") == look("real-tasks")[1].enqueued_time_utc


def test_dead_letter_is_no_message_of_its_queue(sender, receiver, broker, task_message):
    sender.send_messages("tasks", [task_message(1)])
    receiver.dead_letter_message(take(receiver), reason="test")
    assert broker.counts("real-tasks")["dead_letter"] == 1
    assert sender.oldest_enqueued_at("tasks") is None


@pytest.mark.parametrize(("scheduled", "is_seen"), [(4, True), (5, False), (6, False)])
def test_look_goes_so_far_and_says_when_that_was_not_enough(
    sender, look, task_message, monkeypatch, caplog, scheduled, is_seen
):
    """One, and two pages of two."""
    monkeypatch.setattr(service_bus, "_PEEK_PAGE", 2)
    monkeypatch.setattr(service_bus, "_PEEK_PAGES", 2)
    caplog.set_level("INFO", "infrastructure.service_bus")
    for number in range(scheduled):
        sender.send_message_with_delay("tasks", task_message(number), 3600)
    sender.send_messages("tasks", [task_message("active")])

    found = sender.oldest_enqueued_at("tasks")
    assert found == (look("real-tasks")[-1].enqueued_time_utc if is_seen else NOT_SEEN_THROUGH)
    assert ("queue_not_seen_through" in caplog.messages) is not is_seen


def test_look_goes_through_hundreds_of_scheduled_messages(sender, broker, look, task_message):
    for number in range(120):
        sender.send_message_with_delay("tasks", task_message(number), 3600)
    assert sender.oldest_enqueued_at("tasks") is None
    sender.send_messages("tasks", [task_message("active")])
    oldest = sender.oldest_enqueued_at("tasks")
    assert oldest is not None
    assert oldest > look("real-tasks")[0].enqueued_time_utc
    assert broker.counts("real-tasks")["scheduled"] == 120


def test_look_into_a_queue_that_no_setting_names(sender):
    with pytest.raises(QueueNotFound, match=r"'raster': expected one of the configured queues .jobs, tasks."):
        sender.oldest_enqueued_at("raster")
