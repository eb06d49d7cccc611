"""A session: its links, its windows, and the deliveries that wait for a settlement."""

from collections import deque
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from coremachine.local.broker import codec
from coremachine.local.broker import performatives as perf
from coremachine.local.broker.cbs import answer_cbs
from coremachine.local.broker.codec import NULL
from coremachine.local.broker.entity import CBS_NODE, MANAGEMENT_SUFFIX, Entity, Namespace, path_of
from coremachine.local.broker.links import (
    MAX_MESSAGE_SIZE,
    ConsumerLink,
    IncomingLink,
    Link,
    OutgoingLink,
    Receive,
    receive_into,
)
from coremachine.local.broker.management import Management
from coremachine.local.broker.performatives import AmqpError, Flow, Performative, Transfer
from coremachine.local.broker.settlement import SendAnswers, apply_outcome

INCOMING_WINDOW = 65536
_FRAME_ROOM = 128  # header and performative of a transfer
_MAX_REQUEST_SIZE = 4 * MAX_MESSAGE_SIZE
_SESSION_FILTER = "com.microsoft:session-filter"


class Peer(Protocol):
    """What a session needs from its connection."""

    @property
    def max_frame_size(self) -> int: ...

    @property
    def can_write(self) -> bool: ...

    def write(self, data: bytes) -> None: ...


class Session:
    """One session of a connection.

    Args:
        peer: The connection.
        namespace: What links may attach to.
        channel: The channel, the same number in both directions.
        begin: The client's begin.
    """

    def __init__(self, peer: Peer, namespace: Namespace, channel: int, begin: Performative) -> None:
        self._peer = peer
        self._namespace = namespace
        self._channel = channel
        self._links: dict[int, Link] = {}
        self._unsettled: dict[int, tuple[Entity, UUID]] = {}
        self._received = SendAnswers()
        self._waiting_frames: deque[bytes] = deque()
        self._next_delivery_id = 0
        self._next_outgoing_id = 0
        self._next_incoming_id = _number(begin.fields[1])
        self._remote_window = _number(begin.fields[2])
        self._handlers: dict[int, Callable[[bytes, Performative], None]] = {
            perf.ATTACH: self._on_attach,
            perf.FLOW: self._on_flow,
            perf.TRANSFER: self._on_transfer,
            perf.DISPOSITION: self._on_disposition,
            perf.DETACH: self._on_detach,
        }
        peer.write(perf.begin_frame(channel, channel, next_outgoing_id=0, window=INCOMING_WINDOW))

    def on_frame(self, body: bytes, performative: Performative) -> None:
        handler = self._handlers.get(performative.code)
        if handler is None:
            raise AmqpError("amqp:not-allowed", f"expected a frame of a session, found code 0x{performative.code:02x}")
        handler(body, performative)

    def before_flush(self) -> None:
        """Write the settlements that were held back to be joined."""
        for frame in self._received.take_frames(self._channel):
            self._peer.write(frame)

    def resume(self) -> None:
        """The connection takes data again."""
        for link in list(self._links.values()):
            if isinstance(link, OutgoingLink):
                link.use_credit()

    def close(self) -> None:
        links, self._links = self._links, {}
        for link in links.values():
            link.close()
        self._unsettled.clear()

    @property
    def can_transfer(self) -> bool:
        return self._peer.can_write and not self._waiting_frames and self._remote_window > 0

    def transfer(self, handle: int, tag: bytes, payload: bytes, *, settled: bool) -> int:
        """Send a delivery in as many frames as it takes; frames beyond the client's window wait. Returns its id."""
        delivery_id = self._next_delivery_id
        self._next_delivery_id += 1
        room = self._peer.max_frame_size - _FRAME_ROOM
        for start in range(0, max(len(payload), 1), room):
            more = start + room < len(payload)
            body = perf.transfer_body(handle, delivery_id, tag, settled=settled, more=more)
            self._waiting_frames.append(perf.frame(self._channel, body, payload[start : start + room]))
        self._send_waiting()
        return delivery_id

    def send_link_flow(self, handle: int, *, delivery_count: int, credit: int, drain: bool = False) -> None:
        self._write_flow(handle=handle, delivery_count=delivery_count, credit=credit, drain=drain)

    def settle_incoming(self, delivery_id: int, state: bytes) -> None:
        self._received.add(delivery_id, state)

    def await_settlement(self, delivery_id: int, entity: Entity, token: UUID) -> None:
        self._unsettled[delivery_id] = (entity, token)

    def _on_attach(self, body: bytes, performative: Performative) -> None:
        raw = perf.raw_fields(body)
        raw += [NULL] * (len(performative.fields) - len(raw))
        handle = _number(performative.fields[1])
        client_receives = bool(performative.fields[2])
        source, target = raw[5], raw[6]
        try:
            link = self._make_link(handle, performative)
            refusal = None
        except AmqpError as error:
            link, refusal, source, target = None, error, NULL, NULL
        answer = perf.AttachAnswer(
            name=raw[0],
            handle=handle,
            is_receiver=not client_receives,
            snd_settle_mode=raw[3],
            rcv_settle_mode=raw[4],
            source=source,
            target=target,
            max_message_size=MAX_MESSAGE_SIZE,
        )
        self._peer.write(answer.encoded(self._channel))
        if link is None:
            self._peer.write(perf.detach_frame(self._channel, handle, refusal))
            return
        self._links[handle] = link
        link.on_attached()

    def _make_link(self, handle: int, attach: Performative) -> Link:
        client_receives = bool(attach.fields[2])
        terminus = attach.fields[5 if client_receives else 6]
        if not isinstance(terminus, list) or not terminus:
            raise AmqpError("amqp:invalid-field", "expected a source or target with an address, found none")
        path = path_of(terminus[0])
        if not client_receives:
            return self._make_incoming(handle, path)
        if path == CBS_NODE:
            return OutgoingLink(self, handle, path)
        if path.lower().endswith(MANAGEMENT_SUFFIX):
            self._namespace.get(path[: -len(MANAGEMENT_SUFFIX)])
            return OutgoingLink(self, handle, path)
        entity = self._namespace.get(path)
        filters = terminus[7] if len(terminus) > 7 else None  # noqa: PLR2004
        if isinstance(filters, dict) and _SESSION_FILTER in filters:
            raise AmqpError("amqp:not-allowed", f"expected a receiver without session: '{path}' has no sessions")
        return ConsumerLink(self, handle, path, entity=entity, takes_and_deletes=attach.fields[3] == 1)

    def _make_incoming(self, handle: int, path: str) -> IncomingLink:
        if path == CBS_NODE:
            return IncomingLink(self, handle, self._answering(path, answer_cbs), _MAX_REQUEST_SIZE)
        if path.lower().endswith(MANAGEMENT_SUFFIX):
            entity = self._namespace.get(path[: -len(MANAGEMENT_SUFFIX)])
            management = Management(entity, self._namespace.faults)
            return IncomingLink(self, handle, self._answering(path, management.answer), _MAX_REQUEST_SIZE)
        entity = self._namespace.get(path)
        if entity.dead_letters is None:
            raise AmqpError("amqp:not-allowed", f"expected a queue to send to, found the dead-letter queue '{path}'")
        return IncomingLink(self, handle, receive_into(self._namespace, entity))

    def _answering(self, path: str, answer: Callable[[bytes], bytes]) -> Receive:
        """Answer requests on the link of this session that receives from the same node."""

        def receive(payload: bytes, _message_format: int) -> None:
            links = (each for each in self._links.values() if isinstance(each, OutgoingLink) and each.path == path)
            reply_link = next(links, None)
            if reply_link is None:
                raise AmqpError("amqp:precondition-failed", f"expected a receiving link on '{path}' for the answer")
            reply_link.send_answer(answer(payload))

        return receive

    def _on_flow(self, _body: bytes, performative: Performative) -> None:
        flow = Flow(*performative.fields[:11])  # type: ignore[arg-type]
        self._remote_window = (flow.next_incoming_id or 0) + flow.incoming_window - self._next_outgoing_id
        self._send_waiting()
        if flow.handle is None:
            if flow.echo:
                self._write_flow()
            self.resume()
            return
        link = self._links.get(flow.handle)
        if link is not None:
            link.on_flow(flow)

    def _on_transfer(self, body: bytes, performative: Performative) -> None:
        self._next_incoming_id += 1
        transfer = Transfer(*performative.fields[:11])  # type: ignore[arg-type]
        link = self._links.get(transfer.handle)
        if link is None:
            raise AmqpError(
                "amqp:session:unattached-handle", f"expected an attached link, found handle {transfer.handle}"
            )
        link.on_transfer(transfer, body[performative.end :])

    def _on_disposition(self, body: bytes, performative: Performative) -> None:
        is_receiver, first, last, settled, state, _ = performative.fields
        if not is_receiver or state is None:
            return
        raw_state = perf.raw_fields(body)[4]
        start = _number(first)
        end = start if last is None else _number(last)
        touched: dict[str, Entity] = {}
        # A range may be far wider than what is held; the rest was settled before, and nobody waits for it.
        ids = [start] if start == end else [each for each in self._unsettled if start <= each <= end]
        for delivery_id in ids:
            if delivery_id not in self._unsettled:
                continue
            entity, token = self._unsettled.pop(delivery_id)
            answer = apply_outcome(entity, token, raw_state)
            touched[entity.name] = entity
            if not settled:
                # A frame for each: settling concurrently, the SDK reads a frame per waiter, and one that finds
                # itself answered by somebody else's frame waits out its 0.2 s socket timeout.
                frame = perf.disposition_frame(self._channel, delivery_id, delivery_id, answer, is_receiver=False)
                self._peer.write(frame)
        for entity in touched.values():
            entity.pump()

    def _on_detach(self, _body: bytes, performative: Performative) -> None:
        handle = _number(performative.fields[0])
        link = self._links.pop(handle, None)
        if link is not None:
            link.close()
            self._peer.write(perf.detach_frame(self._channel, handle))

    def _send_waiting(self) -> None:
        while self._waiting_frames and self._remote_window > 0:
            self._peer.write(self._waiting_frames.popleft())
            self._next_outgoing_id += 1
            self._remote_window -= 1

    def _write_flow(
        self,
        handle: int | None = None,
        delivery_count: int | None = None,
        credit: int | None = None,
        *,
        drain: bool = False,
    ) -> None:
        flow = Flow(
            next_incoming_id=self._next_incoming_id,
            incoming_window=INCOMING_WINDOW,
            next_outgoing_id=self._next_outgoing_id,
            outgoing_window=INCOMING_WINDOW,
            handle=handle,
            delivery_count=delivery_count,
            link_credit=credit,
            available=None,
            drain=drain,
            echo=False,
            properties=None,
        )
        self._peer.write(perf.flow_frame(self._channel, flow))


def _number(value: codec.Value) -> int:
    if not isinstance(value, int):
        raise AmqpError("amqp:invalid-field", f"expected a number, found {value!r}")
    return value
