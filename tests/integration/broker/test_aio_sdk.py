"""Every feature of a queue through the real SDK's asyncio client.

One test holds the links open for all steps: opening and closing them would take most of the time.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusMessageState, ServiceBusReceiveMode
from azure.servicebus.aio import AutoLockRenewer, ServiceBusClient
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusServerBusyError,
)


def later(seconds):
    return datetime.now(UTC) + timedelta(seconds=seconds)


class Steps:
    """The features, one method each, on the open links of one queue that each step leaves empty."""

    def __init__(self, broker, sender, receiver, dead):
        self.broker, self.sender, self.receiver, self.dead = broker, sender, receiver, dead

    async def send(self, *bodies, **fields):
        await self.sender.send_messages([ServiceBusMessage(body, **fields) for body in bodies])

    async def receive(self, count=1):
        found = []
        while len(found) < count:
            batch = await self.receiver.receive_messages(count - len(found), max_wait_time=10)
            assert batch, f"expected {count} messages, found {len(found)}"
            found += batch
        return found

    async def send_receive_complete(self):
        batch = await self.sender.create_message_batch()
        for number in range(100):
            batch.add_message(ServiceBusMessage(str(number)))
        await self.sender.send_messages(batch)
        messages = await self.receive(100)
        assert [str(each) for each in messages] == [str(number) for number in range(100)]
        await asyncio.gather(*(self.receiver.complete_message(each) for each in messages))

    async def large_messages(self):
        await self.send(b"x" * 250_000)
        [message] = await self.receive()
        assert len(b"".join(message.body)) == 250_000
        await self.receiver.complete_message(message)
        with pytest.raises(MessageSizeExceededError):
            await self.sender.send_messages(ServiceBusMessage(b"x" * 300_000))

    async def abandon(self):
        await self.send("again")
        [message] = await self.receive()
        await self.receiver.abandon_message(message)
        [message] = await self.receive()
        assert message.delivery_count == 1
        await self.receiver.complete_message(message)

    async def dead_letter(self):
        await self.send("broken")
        [message] = await self.receive()
        await self.receiver.dead_letter_message(message, reason="Unreadable", error_description="no JSON")
        [dead] = await self.dead.receive_messages(1, max_wait_time=10)
        assert (dead.dead_letter_reason, dead.dead_letter_error_description) == ("Unreadable", "no JSON")
        await self.dead.complete_message(dead)

    async def defer(self):
        await self.send("later")
        [message] = await self.receive()
        await self.receiver.defer_message(message)
        [deferred] = await self.receiver.receive_deferred_messages(message.sequence_number)
        assert deferred.state is ServiceBusMessageState.DEFERRED
        await self.receiver.complete_message(deferred)

    async def schedule(self):
        numbers = await self.sender.schedule_messages([ServiceBusMessage("a"), ServiceBusMessage("b")], later(1))
        [first, second] = await self.receiver.peek_messages(2, sequence_number=numbers[0])
        assert {first.state, second.state} == {ServiceBusMessageState.SCHEDULED}
        await self.sender.cancel_scheduled_messages(numbers[0])
        [message] = await self.receive()
        assert str(message) == "b"
        await self.receiver.complete_message(message)
        with pytest.raises(MessageNotFoundError):
            await self.sender.cancel_scheduled_messages(numbers)

    async def lose_lock(self):
        await self.send("lost")
        [message] = await self.receive()
        await self.receiver.renew_message_lock(message)
        self.broker.expire_locks("aio")
        with pytest.raises(MessageLockLostError):
            await self.receiver.complete_message(message)
        [message] = await self.receive()
        await self.receiver.complete_message(message)

    async def server_busy(self):
        self.broker.reject_sends(1)
        with pytest.raises(ServiceBusServerBusyError):
            await self.send("x")


async def run_steps(broker):
    async with ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as client:
        async with (
            client.get_queue_sender("aio", keep_alive=0) as sender,
            client.get_queue_receiver("aio") as receiver,
            client.get_queue_receiver("aio", sub_queue="deadletter") as dead,
        ):
            steps = Steps(broker, sender, receiver, dead)
            for step in (
                steps.send_receive_complete,
                steps.large_messages,
                steps.abandon,
                steps.dead_letter,
                steps.defer,
                steps.schedule,
                steps.lose_lock,
                steps.server_busy,
            ):
                await step()
                assert set(broker.counts("aio").values()) == {0}, step.__name__
        with pytest.raises(MessagingEntityNotFoundError):
            async with client.get_queue_receiver("nowhere", keep_alive=0) as nowhere:
                await nowhere.receive_messages(1, max_wait_time=1)


def test_all_features_work_with_the_asyncio_client(broker):
    asyncio.run(run_steps(broker))


async def take_all(broker):
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    async with (
        ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as client,
        client.get_queue_sender("plain", keep_alive=0) as sender,
        client.get_queue_receiver("plain", receive_mode=mode, prefetch_count=10, keep_alive=0) as receiver,
    ):
        await sender.send_messages([ServiceBusMessage(str(number)) for number in range(5)])
        return [str(await anext(receiver)) for _ in range(5)]


def test_the_asyncio_iterator_takes_and_deletes(broker):
    broker.purge("plain")
    assert asyncio.run(take_all(broker)) == list("01234")
    assert set(broker.counts("plain").values()) == {0}


async def hold_beyond_lock(broker):
    async with (
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
        client.get_queue_sender("short-aio", keep_alive=0) as sender,
        client.get_queue_receiver("short-aio") as receiver,
        AutoLockRenewer() as renewer,
    ):
        await sender.send_messages([ServiceBusMessage("renewed"), ServiceBusMessage("forgotten")])
        renewed, _forgotten = await receiver.receive_messages(2, max_wait_time=10)
        renewer.register(receiver, renewed, max_lock_renewal_duration=60)
        [again] = await receiver.receive_messages(1, max_wait_time=40)
        assert renewed.auto_renew_error is None
        await receiver.complete_message(renewed)
        await receiver.complete_message(again)
        return str(again)


@pytest.fixture(scope="module", autouse=True)
def renewal(broker):
    """Started with the first test, because it takes a lock to run out."""
    with ThreadPoolExecutor(1) as background:
        yield background.submit(lambda: asyncio.run(hold_beyond_lock(broker)))


def test_the_asyncio_renewer_keeps_a_lock_beyond_its_duration(renewal, broker):
    assert renewal.result(timeout=60) == "forgotten"
    assert set(broker.counts("short-aio").values()) == {0}
