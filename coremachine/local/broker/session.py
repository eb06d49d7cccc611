"""A session: its links, its windows, and the deliveries that wait for a settlement."""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from coremachine.local.broker import performatives as perf
from coremachine.local.broker.attaching import Attach, LinkFactory
from coremachine.local.broker.codec import NULL
from coremachine.local.broker.entity import CallLater, Entity, call_later
from coremachine.local.broker.limits import MAX_UNSETTLED, MAX_WAITING_BYTES
from coremachine.local.broker.links import Link, OutgoingLink, ReplyLink
from coremachine.local.broker.namespace import Namespace
from coremachine.local.broker.performatives import UINT32, AmqpError, FatalError, Flow, Performative, Transfer
from coremachine.local.broker.session_link import SessionLink
from coremachine.local.broker.settlement import SettlementAnswers, apply_outcome, as_amqp_error
from coremachine.local.broker.stored import LockLost

INCOMING_WINDOW = 65536
_FRAME_ROOM = 128  # header and performative of a transfer
_HALF = 2**31


class Peer(Protocol):
    """What a session needs from its connection."""

    @property
    def max_frame_size(self) -> int: ...

    @property
    def can_write(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def hold_unfinished(self, size: int) -> None: ...


class Session:
    """One session of a connection.

    Args:
        peer: The connection.
        namespace: What links may attach to.
        channel: The channel, the same number in both directions.
        begin: The client's begin.
    """

    def __init__(
        self, peer: Peer, namespace: Namespace, channel: int, begin: Performative, later: CallLater = call_later
    ) -> None:
        self._peer = peer
        self._namespace = namespace
        self._channel = channel
        self._factory = LinkFactory(self, namespace, later)
        self._links: dict[int, Link] = {}
        # In the order of delivery; bounded, since a client may never settle.
        self._unsettled: OrderedDict[int, tuple[Entity, UUID]] = OrderedDict()
        self._received = SettlementAnswers(is_receiver=True)
        self._waiting_frames: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._next_delivery_id = 0
        self._next_outgoing_id = 0
        self._next_incoming_id: int = begin.fields[1]  # type: ignore[assignment]
        self._remote_window: int = begin.fields[2]  # type: ignore[assignment]
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
        self._waiting_frames.clear()

    def detach_idle(self, used_before: float) -> int:
        """Detach the links that were not used since a time; returns how many there were."""
        idle = [link for link in self._links.values() if link.used_at < used_before]
        for link in idle:
            text = f"The link '{link.path}' is force detached. Details: IdleTimerExpired: the link was not used."
            self.detach(link, AmqpError("amqp:link:detach-forced", text))
        return len(idle)

    # What links need of their session.

    def now(self) -> float:
        return self._namespace.clock()

    @property
    def can_transfer(self) -> bool:
        return self._remote_window > 0 and not self._waiting_frames and self._peer.can_write and self._has_room()

    def transfer(self, handle: int, tag: bytes, payload: bytes, *, settled: bool) -> int:
        """Send a delivery in as many frames as it takes; frames beyond the client's window wait. Returns its id."""
        delivery_id = self._next_delivery_id
        self._next_delivery_id = (delivery_id + 1) & UINT32
        room = self._peer.max_frame_size - _FRAME_ROOM
        for start in range(0, max(len(payload), 1), room):
            more = start + room < len(payload)
            body = perf.transfer_body(handle, delivery_id, tag, settled=settled, more=more)
            self._send(perf.frame(self._channel, body, payload[start : start + room]))
        return delivery_id

    def send_link_flow(self, handle: int, *, delivery_count: int, credit: int, drain: bool = False) -> None:
        self._write_flow(handle=handle, delivery_count=delivery_count, credit=credit, drain=drain)

    def settle_incoming(self, delivery_id: int, state: bytes, *, at_once: bool = False) -> None:
        self._received.add(delivery_id, state)
        if at_once:
            self.before_flush()

    def await_settlement(self, delivery_id: int, entity: Entity, token: UUID) -> None:
        self._unsettled[delivery_id] = (entity, token)

    def hold_unfinished(self, size: int) -> None:
        self._peer.hold_unfinished(size)

    def detach(self, link: Link, error: AmqpError) -> None:
        if self._links.get(link.handle) is link:
            del self._links[link.handle]
            link.close()
            self._peer.write(perf.detach_frame(self._channel, link.handle, error))

    def reply_link(self, path: str, reply_to: object) -> ReplyLink | None:
        links = [each for each in self._links.values() if isinstance(each, ReplyLink) and each.path == path]
        # A session may have several; the SDK for JavaScript names one by the address of its target.
        named = (each for each in links if reply_to is not None and each.address == reply_to)
        return next(named, links[0] if links else None)

    def _has_room(self) -> bool:
        if len(self._unsettled) >= MAX_UNSETTLED:
            delivery_id, (entity, token) = next(iter(self._unsettled.items()))
            if not entity.queue.holds(token):
                del self._unsettled[delivery_id]
        return len(self._unsettled) < MAX_UNSETTLED

    def _on_attach(self, body: bytes, performative: Performative) -> None:
        attach = Attach.read(body, performative)
        if attach.handle > perf.HANDLE_MAX:
            text = f"expected a handle of at most {perf.HANDLE_MAX}, found {attach.handle}"
            raise AmqpError("amqp:connection:framing-error", text)
        if attach.handle in self._links:
            raise AmqpError("amqp:session:handle-in-use", f"expected a free handle, found {attach.handle} in use")
        try:
            link = self._factory.make(attach)
        except AmqpError as refusal:
            self._refuse(attach, refusal)
            return
        self._links[attach.handle] = link
        if isinstance(link, SessionLink):
            link.start(
                lambda session_id, more: self._accept(link, attach, attach.source_with_session(session_id), more),
                lambda error: self._refuse(attach, error),
            )
        else:
            self._accept(link, attach, attach.source, ())

    def _accept(self, link: Link, attach: Attach, source: bytes, more: tuple[tuple[bytes, bytes], ...]) -> None:
        self._peer.write(attach.answered(self._channel, source, attach.target, more))
        link.on_attached()

    def _refuse(self, attach: Attach, error: AmqpError) -> None:
        link = self._links.pop(attach.handle, None)
        if link is not None:
            link.close()
        self._peer.write(attach.answered(self._channel, NULL, NULL, ()))
        self._peer.write(perf.detach_frame(self._channel, attach.handle, error))

    def _on_flow(self, _body: bytes, performative: Performative) -> None:
        flow = Flow(*performative.fields[:11])  # type: ignore[arg-type]
        # Serial numbers: what the client has not yet seen is taken off its window, also where the id wraps.
        unseen = (self._next_outgoing_id - (flow.next_incoming_id or 0)) & UINT32
        self._remote_window = flow.incoming_window - (unseen if unseen < _HALF else 0)
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
        self._next_incoming_id = (self._next_incoming_id + 1) & UINT32
        transfer = Transfer(*performative.fields[:11])  # type: ignore[arg-type]
        link = self._links.get(transfer.handle)
        if link is None:
            text = f"expected an attached link, found handle {transfer.handle}"
            raise AmqpError("amqp:session:unattached-handle", text)
        link.on_transfer(transfer, body[performative.end :])

    def _on_disposition(self, body: bytes, performative: Performative) -> None:
        is_receiver, first, last, settled, state, _ = performative.fields
        if not is_receiver or state is None or not isinstance(first, int):
            return
        raw_state = perf.raw_field(body, 4)
        if last is None or last == first:
            entity, answer = self._settle_one(first, raw_state)
            if not settled:
                # A frame for each: settling concurrently, the SDK reads a frame per waiter, and one that finds
                # itself answered by somebody else's frame waits out its 0.2 s socket timeout. It settles one by one.
                self._peer.write(perf.disposition_frame(self._channel, first, first, answer, is_receiver=False))
            entity.pump()
            return
        # A range may be far wider than what is held; the rest was settled before, and nobody waits for it.
        width = (int(last) - first) & UINT32  # type: ignore[call-overload]
        if int(last) < first and width >= _HALF:  # type: ignore[call-overload]
            raise AmqpError("amqp:invalid-field", f"expected a range of deliveries, found {first} to {last}")
        ids = [each for each in self._unsettled if (each - first) & UINT32 <= width]
        answers = SettlementAnswers(is_receiver=False)
        entities: dict[Entity | _Nothing, None] = {}
        for each in ids:
            entity, answer = self._settle_one(each, raw_state)
            entities[entity] = None
            answers.add(each, answer)
        if not settled:
            for frame in answers.take_frames(self._channel):
                self._peer.write(frame)
        for entity in entities:
            entity.pump()

    def _settle_one(self, delivery_id: int, raw_state: bytes) -> "tuple[Entity | _Nothing, bytes]":
        """The entity that the delivery was of, and the answer to its settlement."""
        held = self._unsettled.pop(delivery_id, None)
        if held is None:
            return _NOTHING, perf.rejected_with(as_amqp_error(LockLost(UUID(int=delivery_id))))
        return held[0], apply_outcome(*held, raw_state)

    def _on_detach(self, _body: bytes, performative: Performative) -> None:
        handle: int = performative.fields[0]  # type: ignore[assignment]
        link = self._links.pop(handle, None)
        if link is not None:
            link.close()
            self._peer.write(perf.detach_frame(self._channel, handle))

    def _send(self, frame: bytes) -> None:
        if self._remote_window > 0 and not self._waiting_frames:
            self._peer.write(frame)
            self._next_outgoing_id = (self._next_outgoing_id + 1) & UINT32
            self._remote_window -= 1
            return
        self._waiting_frames.append(frame)
        self._waiting_bytes += len(frame)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            raise FatalError("amqp:resource-limit-exceeded", "expected a session window for the answers, found none")

    def _send_waiting(self) -> None:
        while self._waiting_frames and self._remote_window > 0:
            frame = self._waiting_frames.popleft()
            self._waiting_bytes -= len(frame)
            self._peer.write(frame)
            self._next_outgoing_id = (self._next_outgoing_id + 1) & UINT32
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


class _Nothing:
    """In place of the entity of a delivery that is not known."""

    def pump(self) -> None:
        pass


_NOTHING = _Nothing()
