"""A client played by hand: bytes into a connection, and the frames that come back."""

import asyncio

import pytest

from coremachine.local.broker import codec
from coremachine.local.broker import performatives as perf
from coremachine.local.broker.codec import NULL
from coremachine.local.broker.connection import Connection
from coremachine.local.broker.limits import IdleLimits
from coremachine.local.broker.namespace import Namespace
from coremachine.local.broker.stored import QueueSettings
from coremachine.local.connections import ConnectionBook


class Transport(asyncio.Transport):
    """Takes what is written; while `stalled`, as from a client that does not read."""

    def __init__(self):
        super().__init__()
        self.data = b""
        self.stalled = False
        self.is_reading = True
        self.is_closed = False
        self.protocol = None
        self.peak = 0

    def write(self, data):
        self.data += data
        if self.stalled and len(self.data) > 65536:
            self.protocol.pause_writing()
        self.peak = max(self.peak, len(self.data))

    def pause_reading(self):
        self.is_reading = False

    def resume_reading(self):
        self.is_reading = True

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_closed = True


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


class Wire:
    """A connection to a namespace with the queue `orders` and the session queue `talks`."""

    def __init__(self, loop, namespace=None, idle=None):
        self.loop = loop
        self.clock = namespace.clock if namespace else Clock()
        settings = [QueueSettings(name="orders"), QueueSettings(name="talks", requires_session=True)]
        self.namespace = namespace or Namespace(settings, self.clock, loop.call_later)
        self.transport = Transport()
        self.idle = idle
        self.connection = self.run(self._make)
        self.transport.protocol = self.connection

    def _make(self):
        connection = Connection(self.namespace, set(), ConnectionBook("test", 10), self.idle)
        connection.connection_made(self.transport)
        return connection

    def run(self, action):
        async def in_loop():
            found = action()
            for _ in range(5):
                await asyncio.sleep(0)
            return found

        return self.loop.run_until_complete(in_loop())

    def turns(self, count=1):
        """Let the loop work."""
        for _ in range(count):
            self.run(lambda: None)

    def feed(self, data):
        self.run(lambda: self.connection.data_received(data))
        return self.take()

    def take(self):
        """The frames that were written since the last look; headers are left out."""
        data, self.transport.data = self.transport.data, b""
        frames, position = [], 0
        while position < len(data):
            if data[position : position + 4] == b"AMQP":
                position += 8
                continue
            size = int.from_bytes(data[position : position + 4], "big")
            if size > 8:
                body = data[position + 8 : position + size]
                frames.append(perf.decode_performative(body)._replace(end=body))
            position += size
        return frames

    def drain(self):
        """The client reads again."""
        frames = self.take()
        self.run(self.connection.resume_writing)
        return frames + self.take()

    def frame(self, code, *fields, payload=b"", channel=0, sasl=False, symbolic=None):
        body = codec.described(code, codec.list_of(fields))
        if symbolic is not None:
            body = b"\x00" + codec.symbol(symbolic) + codec.list_of(fields)
        return perf.frame(channel, body, payload, sasl=sasl)

    def open(self, **changes):
        fields = [codec.string("me"), NULL, codec.uint(65536), codec.ushort(255), changes.get("idle", NULL)]
        begin = [NULL, codec.uint(changes.get("next_outgoing_id", 0)), codec.uint(5000), codec.uint(5000)]
        return self.feed(perf.AMQP_HEADER + self.frame(perf.OPEN, *fields) + self.frame(perf.BEGIN, *begin))

    def attach(self, handle, role, address, **changes):
        source = target = codec.described(0x28, codec.list_of([codec.string(address)]))
        count = codec.uint(changes.get("initial_delivery_count", 0))
        fields = [
            codec.string(f"link-{handle}"),
            codec.uint(handle),
            codec.boolean(role),
            codec.ubyte(changes.get("snd_settle_mode", 0)),
            codec.ubyte(1),
            changes.get("source", source),
            target,
            NULL,
            NULL,
            count,
            NULL,
            NULL,
            NULL,
            changes.get("properties", NULL),
        ]
        return self.feed(self.frame(perf.ATTACH, *fields))

    def credit(self, handle, credit, *, delivery_count=0, next_incoming_id=0, window=5000):
        fields = [codec.uint(next_incoming_id), codec.uint(window), codec.uint(0), codec.uint(5000)]
        fields += [codec.uint(handle), codec.uint(delivery_count), codec.uint(credit)]
        return self.feed(self.frame(perf.FLOW, *fields))

    def transfer(self, handle, delivery_id, payload, *, more=False, settled=False, message_format=0):
        fields = [codec.uint(handle), codec.uint(delivery_id), codec.binary(b"t%d" % delivery_id)]
        fields += [codec.uint(message_format), codec.boolean(settled), codec.boolean(more)]
        return self.frame(perf.TRANSFER, *fields, payload=payload)

    def settle(self, delivery_id, state):
        fields = [codec.TRUE, codec.uint(delivery_id), NULL, codec.FALSE, state]
        return self.feed(self.frame(perf.DISPOSITION, *fields))

    def request(self, handle, delivery_id, operation, body, *, message_id="1"):
        """A request to a node that is attached as `handle`; its answer is among the frames."""
        properties = codec.described(0x73, codec.list_of([codec.string(message_id)]))
        names = codec.map_of([(codec.string("operation"), codec.string(operation))])
        payload = properties + codec.described(0x74, names) + codec.described(0x77, body)
        return self.feed(self.transfer(handle, delivery_id, payload))


def payload_of(frame):
    """The sections of a transfer's message by their codes, decoded."""
    data, found = frame.end, {}
    position = perf.decode_performative(data).end
    while position < len(data):
        code, start = codec.decode(data, position + 1)
        found[code], position = codec.decode(data, start)
    return found


@pytest.fixture
def loop():
    made = asyncio.new_event_loop()
    yield made
    made.run_until_complete(asyncio.sleep(0))
    made.close()


@pytest.fixture
def make_wire(loop):
    wires = []

    def make(namespace=None, *, idle=None):
        wires.append(Wire(loop, namespace, IdleLimits(**idle) if idle else None))
        return wires[-1]

    yield make
    for wire in wires:
        wire.run(lambda wire=wire: wire.connection.connection_lost(None))
        wire.namespace.close()


@pytest.fixture
def wire(make_wire):
    """A connection that is open, with a session on channel 0."""
    made = make_wire()
    made.open()
    return made


@pytest.fixture
def sections():
    return payload_of
