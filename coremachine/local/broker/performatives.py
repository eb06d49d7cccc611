"""AMQP frames: what travels around the messages.

Outgoing performatives write every field, nulls included: clients index them by position.
Source: OASIS AMQP 1.0, part 2 (transport) and part 5 (security).
"""

import struct
from typing import NamedTuple

from coremachine.local.broker import codec
from coremachine.local.broker.codec import FALSE, NULL, TRUE, DecodeError

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
EMPTY_FRAME = b"\x00\x00\x00\x08\x02\x00\x00\x00"

OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE = range(0x10, 0x19)
SASL_MECHANISMS, SASL_INIT, SASL_CHALLENGE, SASL_RESPONSE, SASL_OUTCOME = range(0x40, 0x45)
RECEIVED, ACCEPTED, REJECTED, RELEASED, MODIFIED = range(0x23, 0x28)
ERROR = 0x1D

# Descriptors may also come as symbols.
_CODES = {
    f"amqp:{name}:list": code
    for name, code in {
        "open": OPEN,
        "begin": BEGIN,
        "attach": ATTACH,
        "flow": FLOW,
        "transfer": TRANSFER,
        "disposition": DISPOSITION,
        "detach": DETACH,
        "end": END,
        "close": CLOSE,
        "sasl-init": SASL_INIT,
        "sasl-response": SASL_RESPONSE,
        "received": RECEIVED,
        "accepted": ACCEPTED,
        "rejected": REJECTED,
        "released": RELEASED,
        "modified": MODIFIED,
    }.items()
}

# Small enough that a large message takes several frames, as it does on Service Bus Standard.
MAX_FRAME_SIZE = 65536
# As Service Bus answers them; they bound what one connection can ask for.
CHANNEL_MAX = 4999
HANDLE_MAX = 255
MECHANISMS = ("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL")
UINT32 = 0xFFFFFFFF
_SMALL_CODE = 0x53
_FIELD_COUNTS = {
    OPEN: 10, BEGIN: 8, ATTACH: 14, FLOW: 11, TRANSFER: 11, DISPOSITION: 6, DETACH: 3, END: 1, CLOSE: 1, SASL_INIT: 3,
}  # fmt: skip

# The fields that are computed with: index, type, largest number, and whether it must be there.
_Check = tuple[int, type, int, bool]
_CHECKS: dict[int, tuple[_Check, ...]] = {
    OPEN: ((2, int, UINT32, False), (3, int, 0xFFFF, False), (4, int, UINT32, False)),
    BEGIN: ((1, int, UINT32, True), (2, int, UINT32, True), (3, int, UINT32, True)),
    ATTACH: (
        (0, str, 0, True),
        (1, int, UINT32, True),
        (2, bool, 0, True),
        (3, int, 2, False),
        (4, int, 1, False),
        (5, list, 0, False),
        (6, list, 0, False),
        (9, int, UINT32, False),
        (10, int, 2**64 - 1, False),
        (13, dict, 0, False),
    ),
    FLOW: (
        (0, int, UINT32, False),
        (1, int, UINT32, True),
        (2, int, UINT32, True),
        (3, int, UINT32, True),
        (4, int, UINT32, False),
        (5, int, UINT32, False),
        (6, int, UINT32, False),
        (8, bool, 0, False),
        (9, bool, 0, False),
    ),
    TRANSFER: (
        (0, int, UINT32, True),
        (1, int, UINT32, False),
        (3, int, UINT32, False),
        (4, bool, 0, False),
        (5, bool, 0, False),
        (9, bool, 0, False),
    ),
    DISPOSITION: ((0, bool, 0, True), (1, int, UINT32, True), (2, int, UINT32, False), (3, bool, 0, False)),
    DETACH: ((0, int, UINT32, True), (1, bool, 0, False)),
}


class AmqpError(Exception):
    """A refusal that the client gets as an AMQP error."""

    def __init__(self, condition: str, description: str) -> None:
        self.condition, self.description = condition, description
        super().__init__(f"{condition}: {description}")

    def encoded(self) -> bytes:
        fields = (codec.symbol(self.condition), codec.string(self.description), codec.map_of(()))
        return codec.described(ERROR, codec.list_of(fields))


class FatalError(AmqpError):
    """A refusal that ends the connection wherever it comes up: its client asks for more than there is."""


class Performative(NamedTuple):
    """A decoded frame body: its code, all its fields (padded with None), and where its payload starts."""

    code: int
    fields: list[codec.Value]
    end: int


class Flow(NamedTuple):
    """A flow, of a session or (with a handle) of a link."""

    next_incoming_id: int | None
    incoming_window: int
    next_outgoing_id: int
    outgoing_window: int
    handle: int | None
    delivery_count: int | None
    link_credit: int | None
    available: int | None
    drain: bool | None
    echo: bool | None
    properties: dict[str, codec.Value] | None


class Transfer(NamedTuple):
    """A frame of a delivery; continuation frames may leave out all but the handle."""

    handle: int
    delivery_id: int | None
    delivery_tag: bytes | None
    message_format: int | None
    settled: bool | None
    more: bool | None
    rcv_settle_mode: int | None
    state: codec.Value
    resume: bool | None
    aborted: bool | None
    batchable: bool | None


def decode_performative(body: bytes) -> Performative:
    """Read the performative at the start of a frame body."""
    if len(body) < 4 or body[0] != codec.DESCRIBED:  # noqa: PLR2004
        raise DecodeError("a described performative", body[:4].hex() or "nothing", 0)
    descriptor: codec.Value = body[2]
    position = 3
    if body[1] != _SMALL_CODE:
        descriptor, position = codec.decode(body, 1)
    fields, end = codec.decode(body, position)
    code = code_of(descriptor)
    if code is None or not isinstance(fields, list):
        raise DecodeError("a performative's code and list of fields", repr(descriptor)[:100], 0)
    missing = _FIELD_COUNTS.get(code, 0) - len(fields)
    if missing > 0:
        fields.extend([None] * missing)
    for index, kind, largest, required in _CHECKS.get(code, ()):
        value = fields[index]
        if value is None:
            if required:
                raise _wrong_field(code, index, kind, largest, value)
        elif type(value) is not kind or (kind is int and not 0 <= value <= largest):  # type: ignore[operator]
            raise _wrong_field(code, index, kind, largest, value)
    return Performative(code, fields, end)


def code_of(descriptor: codec.Value) -> int | None:
    """The code that a descriptor means, as a number or as a symbol; None for an unknown one."""
    if isinstance(descriptor, int):
        return descriptor
    return _CODES.get(descriptor) if isinstance(descriptor, str) else None


def _wrong_field(code: int, index: int, kind: type, largest: int, value: codec.Value) -> "AmqpError":
    expected = f"a number of 0 to {largest}" if kind is int else f"a value of type {kind.__name__}"
    return AmqpError(
        "amqp:decode-error",
        f"expected {expected} in field {index} of the performative 0x{code:02x}, found {repr(value)[:100]}",
    )


def raw_fields(body: bytes) -> list[bytes]:
    """The fields of a performative as raw bytes, to hand them back unchanged."""
    return codec.split_compound(body, codec.skip(body, 1))


def raw_field(body: bytes, index: int) -> bytes:
    """One of them, which must be there."""
    position = codec.items_start(body, codec.skip(body, 1))
    for _ in range(index):
        position = codec.skip(body, position)
    return body[position : codec.skip(body, position)]


def frame(channel: int, body: bytes, payload: bytes = b"", *, sasl: bool = False) -> bytes:
    return struct.pack(">IBBH", 8 + len(body) + len(payload), 2, 1 if sasl else 0, channel) + body + payload


def _performative(code: int, *fields: bytes) -> bytes:
    return codec.described(code, codec.list_of(fields))


def sasl_mechanisms() -> bytes:
    array = codec.array_of((codec.symbol(name) for name in MECHANISMS), 0xA3)
    return frame(0, _performative(SASL_MECHANISMS, array), sasl=True)


def sasl_outcome(code: int) -> bytes:
    return frame(0, _performative(SASL_OUTCOME, codec.ubyte(code), NULL), sasl=True)


def open_frame(container: str, idle_milliseconds: int | None = None) -> bytes:
    fields = [codec.string(container), NULL, codec.uint(MAX_FRAME_SIZE), codec.ushort(CHANNEL_MAX)]
    idle = NULL if idle_milliseconds is None else codec.uint(idle_milliseconds)
    return frame(0, _performative(OPEN, *fields, idle, *[NULL] * 5))


def begin_frame(channel: int, remote_channel: int, *, next_outgoing_id: int, window: int) -> bytes:
    fields = [
        codec.ushort(remote_channel),
        codec.uint(next_outgoing_id),
        codec.uint(window),
        codec.uint(window),
        codec.uint(HANDLE_MAX),
    ]
    return frame(channel, _performative(BEGIN, *fields, NULL, NULL, NULL))


class AttachAnswer(NamedTuple):
    """What an attach is answered with; raw fields are echoed as they came, null means that the link is refused."""

    name: bytes
    handle: int
    is_receiver: bool
    snd_settle_mode: bytes
    rcv_settle_mode: bytes
    source: bytes
    target: bytes
    max_message_size: int
    properties: tuple[tuple[bytes, bytes], ...] = ()

    def encoded(self, channel: int) -> bytes:
        batch_size = (codec.symbol("com.microsoft:max-message-batch-size"), codec.ulong(self.max_message_size))
        properties = codec.map_of([batch_size, *self.properties])
        body = _performative(
            ATTACH,
            self.name,
            codec.uint(self.handle),
            codec.boolean(self.is_receiver),
            self.snd_settle_mode,
            self.rcv_settle_mode,
            self.source,
            self.target,
            NULL,  # unsettled
            NULL,  # incomplete-unsettled
            codec.uint(0),  # initial-delivery-count
            codec.ulong(self.max_message_size),
            NULL,  # offered-capabilities
            NULL,  # desired-capabilities
            properties,
        )
        return frame(channel, body)


def flow_frame(channel: int, flow: Flow) -> bytes:
    def optional(value: int | None) -> bytes:
        return NULL if value is None else codec.uint(value)

    numbers = [optional(value) for value in flow[:8]]
    flags = [codec.boolean(bool(flow.drain)), codec.boolean(bool(flow.echo))]
    return frame(channel, _performative(FLOW, *numbers, *flags, NULL))


def transfer_body(
    handle: int, delivery_id: int, tag: bytes, *, settled: bool, more: bool, message_format: int = 0
) -> bytes:
    """The performative of one transfer frame. Id and tag are in every frame: clients read them from the last one."""
    data = b"".join(
        (
            codec.uint(handle),
            codec.uint(delivery_id),
            codec.binary(tag),
            codec.uint(message_format),
            TRUE if settled else FALSE,
            TRUE if more else FALSE,
            _TRANSFER_END,
        )
    )
    return _TRANSFER_START + bytes((len(data) + 1, 11)) + data


_TRANSFER_START, _TRANSFER_END = b"\x00\x53\x14\xc0", NULL * 5


def disposition_frame(
    channel: int, first: int, last: int, state: bytes, *, is_receiver: bool, settled: bool = True
) -> bytes:
    role = TRUE if is_receiver else FALSE
    fields = (role, codec.uint(first), codec.uint(last), TRUE if settled else FALSE, state, NULL)
    return frame(channel, _performative(DISPOSITION, *fields))


def detach_frame(channel: int, handle: int, error: AmqpError | None = None) -> bytes:
    encoded = error.encoded() if error else NULL
    return frame(channel, _performative(DETACH, codec.uint(handle), TRUE, encoded))


def end_frame(channel: int, error: AmqpError | None = None) -> bytes:
    return frame(channel, _performative(END, error.encoded() if error else NULL))


def close_frame(error: AmqpError | None = None) -> bytes:
    return frame(0, _performative(CLOSE, error.encoded() if error else NULL))


OUTCOME_ACCEPTED = codec.described(ACCEPTED, codec.list_of(()))
OUTCOME_RELEASED = codec.described(RELEASED, codec.list_of(()))
OUTCOME_MODIFIED = codec.described(MODIFIED, codec.list_of((NULL, NULL, NULL)))
OUTCOME_REJECTED = codec.described(REJECTED, codec.list_of((NULL,)))


def rejected_with(error: AmqpError) -> bytes:
    return codec.described(REJECTED, codec.list_of((error.encoded(),)))
