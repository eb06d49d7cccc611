"""Uses the broker by the SDK for Python that it finds, in both of its colours, and prints what it saw as JSON.

A program, since a process has one version of the SDK. Arguments: connection string.
"""

import asyncio
import inspect
import json
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import azure.servicebus
import azure.servicebus.aio
from azure.servicebus import ServiceBusMessage

DAY = timedelta(days=1)


async def now(found):
    """The result of a call, whichever colour it has."""
    return await found if inspect.isawaitable(found) else found


class Opened:
    """Senders and receivers, kept open: opening one takes the SDK half a second."""

    def __init__(self, client, stack):
        self.client = client
        self.stack = stack

    async def __call__(self, kind, *names, **options):
        handler = getattr(self.client, f"get_{kind}")(*names, **options)
        if hasattr(handler, "__aenter__"):
            return await self.stack.enter_async_context(handler)
        return self.stack.enter_context(handler)


async def receive(receiver, count=1):
    found = []
    while len(found) < count:
        batch = await now(receiver.receive_messages(count - len(found), max_wait_time=10))
        if not batch:
            break
        found += batch
    return found


async def settle(sender, receiver, seen):
    await now(sender.send_messages([ServiceBusMessage(name) for name in ("complete", "abandon", "dead", "defer")]))
    complete, abandon, dead, defer = await receive(receiver, 4)
    await now(receiver.renew_message_lock(complete))
    await now(receiver.complete_message(complete))
    await now(receiver.dead_letter_message(dead, reason="why", error_description="because"))
    await now(receiver.defer_message(defer))
    await now(receiver.abandon_message(abandon))
    [again] = await receive(receiver)
    await now(receiver.complete_message(again))
    seen["abandoned"] = [str(again), again.delivery_count]
    for name in ("abandon", "defer", "dead_letter", "complete"):
        seen[f"deferred, then {name}"] = await settle_deferred(sender, receiver, name)


async def settle_deferred(sender, receiver, verb):
    await now(sender.send_messages(ServiceBusMessage(verb)))
    [message] = await receive(receiver)
    await now(receiver.defer_message(message))
    [deferred] = await now(receiver.receive_deferred_messages(message.sequence_number))
    await now(receiver.renew_message_lock(deferred))
    await now(getattr(receiver, f"{verb}_message")(deferred))
    return str(deferred)


async def schedule(sender, receiver, seen):
    [first, second] = await now(
        sender.schedule_messages([ServiceBusMessage("a"), ServiceBusMessage("b")], datetime.now(UTC) + DAY)
    )
    await now(sender.cancel_scheduled_messages(first))
    peeked = await now(receiver.peek_messages(10, sequence_number=second))
    seen["scheduled"] = [[str(each), each.state.name] for each in peeked]
    await now(sender.cancel_scheduled_messages(second))


async def properties(sender, receiver, seen):
    values = {"text": "é", "number": -5, "real": 1.5, "flag": True, "at": datetime(2026, 1, 2, tzinfo=UTC)}
    message = ServiceBusMessage(b"\0\xff", application_properties=values, subject="s", message_id="m", time_to_live=DAY)
    batch = await now(sender.create_message_batch())
    batch.add_message(message)
    await now(sender.send_messages(batch))
    [found] = await receive(receiver)
    await now(receiver.complete_message(found))
    got = {name.decode(): value for name, value in found.application_properties.items()}
    seen["properties"] = [got["text"].decode(), got["number"], got["real"], got["flag"], str(got["at"])]
    seen["message"] = [b"".join(found.body).hex(), found.subject, found.message_id, found.expires_at_utc is not None]


async def sessions(opened, seen):
    sender = await opened("queue_sender", "talks", keep_alive=0)
    await now(sender.send_messages([ServiceBusMessage(text, session_id="A") for text in ("1", "2")]))
    receiver = await opened("queue_receiver", "talks", session_id="A")
    first, second = await receive(receiver, 2)
    await now(receiver.session.set_state(b"state"))
    seen["session"] = [str(first), str(second), bytes(await now(receiver.session.get_state())).decode()]
    await now(receiver.session.set_state(None))
    await now(receiver.session.renew_lock())
    await now(receiver.complete_message(first))
    await now(receiver.defer_message(second))
    [deferred] = await now(receiver.receive_deferred_messages(second.sequence_number))
    await now(receiver.complete_message(deferred))


async def topics(opened, seen):
    sender = await opened("topic_sender", "news", keep_alive=0)
    await now(sender.send_messages([ServiceBusMessage("r", subject="red"), ServiceBusMessage("b", subject="blue")]))
    receiver = await opened("subscription_receiver", "news", "red", receive_mode="receiveanddelete")
    seen["topic"] = [str(each) for each in await receive(receiver)]


async def features(client, stack):
    seen, opened = {}, Opened(client, stack)
    sender = await opened("queue_sender", "orders", keep_alive=0)
    receiver = await opened("queue_receiver", "orders")
    for part in (settle, schedule, properties):
        await part(sender, receiver, seen)
    await sessions(opened, seen)
    await topics(opened, seen)
    return seen


async def main(connection_string):
    found = {"version": azure.servicebus.__version__}
    for colour, module in (("sync", azure.servicebus), ("aio", azure.servicebus.aio)):
        client = module.ServiceBusClient.from_connection_string(connection_string, retry_total=0)
        async with AsyncExitStack() as stack:
            found[colour] = await features(client, stack)
        await now(client.close())
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1]))))
