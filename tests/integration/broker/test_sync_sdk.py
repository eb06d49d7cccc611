"""Every feature of a queue through the real SDK's blocking client."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from azure.servicebus import (
    AutoLockRenewer,
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusMessageState,
    ServiceBusReceiveMode,
)
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusError,
    ServiceBusServerBusyError,
)


def later(seconds):
    return datetime.now(UTC) + timedelta(seconds=seconds)


def text(message):
    return str(message)


def test_a_message_arrives_with_everything_its_sender_wrote(desk):
    plain = desk("plain")
    properties = {"int": 5, "float": 1.5, "text": "ä", "flag": True, "uuid": UUID(int=7), "when": datetime.now(UTC)}
    plain.sender.send_messages(
        ServiceBusMessage(
            b"payload",
            message_id="id-1",
            correlation_id="corr",
            subject="subject",
            content_type="application/json",
            to="there",
            reply_to="here",
            partition_key="p",
            time_to_live=timedelta(seconds=50),
            application_properties=properties,
        )
    )
    message = plain.receive_one()
    assert b"".join(message.body) == b"payload"
    assert (message.message_id, message.correlation_id, message.subject) == ("id-1", "corr", "subject")
    assert (message.content_type, message.to, message.reply_to) == ("application/json", "there", "here")
    assert message.partition_key == "p"
    received = {key.decode(): value for key, value in message.application_properties.items()}
    assert (received["int"], received["float"], received["flag"]) == (5, 1.5, True)
    assert (received["text"], received["uuid"]) == ("ä".encode(), UUID(int=7))
    assert message.time_to_live == timedelta(seconds=50)
    assert message.expires_at_utc == message.enqueued_time_utc + timedelta(seconds=50)
    assert message.delivery_count == 0
    assert message.sequence_number > 0
    assert message.locked_until_utc > datetime.now(UTC) + timedelta(seconds=30)
    plain.receiver.complete_message(message)
    assert plain.counts == {"active": 0, "locked": 0, "scheduled": 0, "deferred": 0, "dead_letter": 0}


def test_a_batch_of_a_thousand_arrives_in_order(desk):
    plain = desk("plain")
    batch = plain.sender.create_message_batch()
    for number in range(1000):
        batch.add_message(ServiceBusMessage(str(number), message_id=str(number)))
    plain.sender.send_messages(batch)
    messages = plain.receive(1000)
    assert [text(each) for each in messages] == [str(number) for number in range(1000)]
    for message in messages[:100]:
        plain.receiver.complete_message(message)
    assert plain.counts["locked"] == 900


def test_a_batch_is_limited_to_256_kilobytes(desk):
    batch = desk("plain").sender.create_message_batch()
    assert batch.max_size_in_bytes == 256 * 1024
    batch.add_message(ServiceBusMessage(b"x" * 200_000))
    with pytest.raises(MessageSizeExceededError):
        batch.add_message(ServiceBusMessage(b"x" * 100_000))


def test_a_message_of_many_frames_arrives_whole(desk):
    plain = desk("plain")
    body = bytes(range(256)) * 900
    plain.send(body)
    message = plain.receive_one()
    assert b"".join(message.body) == body
    plain.receiver.complete_message(message)


def test_a_message_beyond_the_limit_is_refused(desk):
    plain = desk("plain")
    with pytest.raises(MessageSizeExceededError):
        plain.sender.send_messages(ServiceBusMessage(b"x" * 300_000))
    assert plain.counts["active"] == 0
    plain.send("still open")
    assert text(plain.receive_one()) == "still open"


def test_receive_and_delete_leaves_no_lock(desk, client):
    plain = desk("plain")
    plain.send("a", "b")
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    with client.get_queue_receiver("plain", receive_mode=mode, prefetch_count=2, keep_alive=0) as receiver:
        assert text(next(receiver)) == "a"
        assert text(next(receiver)) == "b"
    assert plain.counts["active"] == plain.counts["locked"] == 0


def test_an_abandoned_message_comes_again_and_then_is_dead_lettered(desk, dead_letters):
    strict = desk("strict")
    strict.send()
    for delivery in range(2):
        message = strict.receive_one()
        assert message.delivery_count == delivery
        strict.receiver.abandon_message(message)
    [dead] = dead_letters("strict").receive_messages(1, max_wait_time=10)
    assert dead.dead_letter_reason == "MaxDeliveryCountExceeded"
    dead_letters("strict").complete_message(dead)
    assert strict.counts["dead_letter"] == 0


def test_a_dead_lettered_message_says_why_and_keeps_its_properties(desk, dead_letters):
    plain = desk("plain")
    plain.send("broken", application_properties={"number": 5})
    plain.receiver.dead_letter_message(plain.receive_one(), reason="Unreadable", error_description="no JSON")
    [dead] = dead_letters("plain").receive_messages(1, max_wait_time=10)
    assert (dead.dead_letter_reason, dead.dead_letter_error_description) == ("Unreadable", "no JSON")
    assert dead.dead_letter_source == "plain"
    assert dead.application_properties[b"number"] == 5
    dead_letters("plain").complete_message(dead)


def test_a_dead_letter_queue_cannot_be_sent_to(desk, client):
    desk("plain")
    with pytest.raises(ServiceBusError), client.get_queue_sender("plain/$DeadLetterQueue", keep_alive=0) as sender:
        sender.send_messages(ServiceBusMessage("x"))


def test_a_deferred_message_is_received_by_its_number(desk):
    plain = desk("plain")
    plain.send("later", "now")
    message = plain.receive_one()
    plain.receiver.defer_message(message)
    assert text(plain.receive_one()) == "now"
    [deferred] = plain.receiver.receive_deferred_messages(message.sequence_number)
    assert (text(deferred), deferred.state) == ("later", ServiceBusMessageState.DEFERRED)
    plain.receiver.renew_message_lock(deferred)
    plain.receiver.complete_message(deferred)
    with pytest.raises(MessageNotFoundError):
        plain.receiver.receive_deferred_messages(message.sequence_number)


@pytest.mark.parametrize("settle", ["abandon_message", "defer_message", "dead_letter_message"])
def test_a_deferred_message_is_settled_through_management(desk, settle):
    plain = desk("plain")
    plain.send()
    message = plain.receive_one()
    plain.receiver.defer_message(message)
    [deferred] = plain.receiver.receive_deferred_messages(message.sequence_number)
    getattr(plain.receiver, settle)(deferred)
    expected = "dead_letter" if settle == "dead_letter_message" else "deferred"
    assert plain.counts[expected] == 1


def test_a_lock_is_renewed(desk):
    plain = desk("plain")
    plain.send()
    message = plain.receive_one()
    before = message.locked_until_utc
    # Lock times travel in whole milliseconds: the renewal has to fall into a later one than the delivery.
    delivered = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= delivered:
        pass
    assert plain.receiver.renew_message_lock(message) > before
    plain.receiver.complete_message(message)


def test_a_lost_lock_is_told_and_the_message_comes_again(desk, broker):
    plain = desk("plain")
    plain.send()
    first = plain.receive_one()
    assert broker.expire_locks("plain") == 1
    with pytest.raises(MessageLockLostError):
        plain.receiver.complete_message(first)
    second = plain.receive_one()
    assert second.delivery_count == 1
    with pytest.raises(MessageLockLostError):
        plain.receiver.renew_message_lock(first)
    plain.receiver.complete_message(second)


def test_scheduled_messages_arrive_in_time_unless_cancelled(desk):
    plain = desk("plain")
    kept, cancelled = plain.sender.schedule_messages(
        [ServiceBusMessage("kept", message_id="1"), ServiceBusMessage("cancelled", message_id="2")], later(1.5)
    )
    assert plain.counts["scheduled"] == 2
    assert [each.state for each in plain.receiver.peek_messages(2)] == [ServiceBusMessageState.SCHEDULED] * 2
    plain.sender.cancel_scheduled_messages(cancelled)
    message = plain.receive_one()
    assert (text(message), message.sequence_number > kept) == ("kept", True)
    assert plain.counts["scheduled"] == 0
    with pytest.raises(MessageNotFoundError):
        plain.sender.cancel_scheduled_messages([kept])


def test_a_message_may_carry_its_own_schedule(desk):
    plain = desk("plain")
    plain.sender.send_messages(ServiceBusMessage("own", scheduled_enqueue_time_utc=later(600)))
    assert (plain.counts["scheduled"], plain.counts["active"]) == (1, 0)


def test_peeking_pages_through_messages_without_locking_them(desk, client):
    plain = desk("plain")
    plain.send(*map(str, range(5)))
    locked = plain.receive_one()
    # A receiver of its own: the SDK's paging starts behind what it has received.
    with client.get_queue_receiver("plain", prefetch_count=0) as browser:
        first = browser.peek_messages(3)
        second = browser.peek_messages(3)
        assert [text(each) for each in first + second] == list("01234")
        assert browser.peek_messages(3) == []
    assert first[0].sequence_number == locked.sequence_number
    assert (plain.counts["active"], plain.counts["locked"]) == (4, 1)


def test_large_messages_are_peeked_in_portions(desk):
    plain = desk("plain")
    for number in range(4):
        plain.send(bytes([number]) * 200_000)
    found = plain.receiver.peek_messages(10, sequence_number=1)
    found += plain.receiver.peek_messages(10, sequence_number=found[-1].sequence_number + 1)
    assert [b"".join(each.body)[0] for each in found] == [0, 1, 2, 3]


def test_a_duplicate_is_accepted_and_dropped(desk):
    unique = desk("unique")
    for _ in range(2):
        unique.sender.send_messages(ServiceBusMessage("x", message_id="same"))
    batch = [ServiceBusMessage("x", message_id=each) for each in ("same", "other", "other")]
    unique.sender.send_messages(batch)
    unique.sender.schedule_messages(ServiceBusMessage("x", message_id="same"), later(600))
    assert (unique.counts["active"], unique.counts["scheduled"]) == (2, 0)


def test_an_expired_message_is_dead_lettered_with_a_reason(desk, dead_letters):
    strict = desk("strict")
    strict.send(time_to_live=timedelta(milliseconds=300))
    [dead] = dead_letters("strict").receive_messages(1, max_wait_time=10)
    assert dead.dead_letter_reason == "TTLExpiredException"
    dead_letters("strict").complete_message(dead)


def test_an_unknown_queue_is_told_at_once(client):
    with pytest.raises(MessagingEntityNotFoundError), client.get_queue_sender("nowhere", keep_alive=0) as sender:
        sender.send_messages(ServiceBusMessage("x"))
    with pytest.raises(MessagingEntityNotFoundError), client.get_queue_receiver("nowhere", keep_alive=0) as receiver:
        receiver.receive_messages(1, max_wait_time=1)


def test_names_of_queues_do_not_depend_on_case(desk, client):
    plain = desk("plain")
    with client.get_queue_sender("PLAIN", keep_alive=0) as sender:
        sender.send_messages(ServiceBusMessage("x"))
    assert plain.counts["active"] == 1


def test_prefetched_messages_are_released_on_close_without_a_count(desk, client):
    plain = desk("plain")
    plain.send(*map(str, range(10)))
    with client.get_queue_receiver("plain", prefetch_count=10, keep_alive=0) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=10)
        receiver.complete_message(message)
    messages = plain.receive(9)
    assert [text(each) for each in messages] == list("123456789")
    assert {each.delivery_count for each in messages} == {0}


def test_a_busy_server_is_told_and_passes(desk, broker):
    plain = desk("plain")
    broker.reject_sends(2)
    with pytest.raises(ServiceBusServerBusyError):
        plain.send()
    with pytest.raises(ServiceBusServerBusyError):
        plain.sender.schedule_messages(ServiceBusMessage("x"), later(600))
    plain.send()
    assert (plain.counts["active"], plain.counts["scheduled"]) == (1, 0)


def test_a_busy_server_is_retried_by_the_sdk(desk, broker):
    plain = desk("plain")
    broker.reject_sends(2)
    with (
        ServiceBusClient.from_connection_string(broker.connection_string, retry_backoff_factor=0.05) as patient,
        patient.get_queue_sender("plain", keep_alive=0) as sender,
    ):
        sender.send_messages(ServiceBusMessage("x", message_id=str(uuid4())))
    assert plain.counts["active"] == 1


def test_sessions_are_refused(client, desk):
    desk("plain")
    with pytest.raises(ServiceBusError), client.get_queue_receiver("plain", session_id="s") as receiver:
        receiver.receive_messages(1, max_wait_time=1)


def hold_beyond_lock(broker):
    with (
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
        client.get_queue_sender("short", keep_alive=0) as sender,
        client.get_queue_receiver("short") as receiver,
        AutoLockRenewer(max_lock_renewal_duration=60) as renewer,
    ):
        sender.send_messages([ServiceBusMessage("renewed"), ServiceBusMessage("forgotten")])
        renewed, _forgotten = receiver.receive_messages(2, max_wait_time=10)
        renewer.register(receiver, renewed, max_lock_renewal_duration=60)
        [again] = receiver.receive_messages(1, max_wait_time=40)
        assert renewed.auto_renew_error is None
        receiver.complete_message(renewed)
        receiver.complete_message(again)
        return text(again)


@pytest.fixture(scope="module", autouse=True)
def renewal(broker):
    """Started with the first test, because it takes a lock to run out."""
    with ThreadPoolExecutor(1) as background:
        yield background.submit(hold_beyond_lock, broker)


def test_the_renewer_keeps_a_lock_beyond_its_duration(renewal, broker):
    assert renewal.result(timeout=60) == "forgotten"
    assert set(broker.counts("short").values()) == {0}
