"""The broker's ends of links: what clients send to, and what they receive from."""

from collections.abc import Callable
from typing import Protocol
from uuid import UUID, uuid4

from coremachine.local.broker.codec import DecodeError
from coremachine.local.broker.entity import Entity, Namespace
from coremachine.local.broker.message import BATCH_FORMAT, encode_delivery, parse_message, unpack_batch
from coremachine.local.broker.performatives import OUTCOME_ACCEPTED, AmqpError, Flow, Transfer, rejected_with
from coremachine.local.broker.queue import Lock, Message

MAX_MESSAGE_SIZE = 256 * 1024
LINK_CREDIT = 1000

Receive = Callable[[bytes, int], None]


class LinkSession(Protocol):
    """What a link needs from its session."""

    @property
    def can_transfer(self) -> bool: ...

    def transfer(self, handle: int, tag: bytes, payload: bytes, *, settled: bool) -> int: ...

    def send_link_flow(self, handle: int, *, delivery_count: int, credit: int, drain: bool = False) -> None: ...

    def settle_incoming(self, delivery_id: int, state: bytes) -> None: ...

    def await_settlement(self, delivery_id: int, entity: Entity, token: UUID) -> None: ...


class IncomingLink:
    """A link on which the client sends; complete deliveries go to `receive`, which refuses one by raising AmqpError."""

    def __init__(self, session: LinkSession, handle: int, receive: Receive, max_size: int = MAX_MESSAGE_SIZE) -> None:
        self.handle = handle
        self._session = session
        self._receive = receive
        self._max_size = max_size
        self._delivery_count = 0
        self._credit = 0
        self._delivery: Transfer | None = None
        self._payload = bytearray()
        self._too_large = False

    def on_attached(self) -> None:
        self._give_credit()

    def on_flow(self, flow: Flow) -> None:
        if flow.echo:
            self._give_credit()

    def on_transfer(self, transfer: Transfer, payload: bytes) -> None:
        if self._delivery is None:
            self._delivery = transfer
        if len(self._payload) + len(payload) > self._max_size:
            self._too_large = True
            self._payload.clear()
        elif not self._too_large:
            self._payload += payload
        if transfer.more and not transfer.aborted:
            return
        first, data, too_large = self._delivery, bytes(self._payload), self._too_large
        self._delivery, self._too_large = None, False
        self._payload.clear()
        if not transfer.aborted:
            self._finish(first, data, too_large=too_large)
        self._delivery_count += 1
        self._credit -= 1
        if self._credit <= LINK_CREDIT // 2:
            self._give_credit()

    def close(self) -> None:
        self._payload.clear()

    def _finish(self, delivery: Transfer, data: bytes, *, too_large: bool) -> None:
        # Only accepted or rejected with an error: other outcomes leave the client's send call waiting for ever.
        try:
            if too_large:
                state = rejected_with(_too_large(self._max_size))
            else:
                self._receive(data, delivery.message_format or 0)
                state = OUTCOME_ACCEPTED
        except AmqpError as refusal:
            state = rejected_with(refusal)
        except DecodeError as exc:
            state = rejected_with(AmqpError("amqp:decode-error", str(exc)))
        if not delivery.settled and delivery.delivery_id is not None:
            self._session.settle_incoming(delivery.delivery_id, state)

    def _give_credit(self) -> None:
        self._credit = LINK_CREDIT
        self._session.send_link_flow(self.handle, delivery_count=self._delivery_count, credit=LINK_CREDIT)


def _too_large(limit: int) -> AmqpError:
    text = f"expected a message of at most {limit} bytes, found a larger one; send a reference to its payload"
    return AmqpError("amqp:link:message-size-exceeded", text)


def receive_into(namespace: Namespace, entity: Entity) -> Receive:
    """What an entity does with the deliveries of a sender."""

    def receive(payload: bytes, message_format: int) -> None:
        namespace.faults.check_send()
        contents = unpack_batch(payload) if message_format == BATCH_FORMAT else [parse_message(payload)]
        for content in contents:
            entity.queue.send(content)
        entity.pump()

    return receive


class OutgoingLink:
    """A link on which the client receives: its credit, and deliveries without credit for answers."""

    def __init__(self, session: LinkSession, handle: int, path: str) -> None:
        self.handle = handle
        self.path = path
        self._session = session
        self._credit = 0
        self._delivery_count = 0

    def on_attached(self) -> None:
        """Nothing to do until the client gives credit."""

    def on_flow(self, flow: Flow) -> None:
        if flow.link_credit is not None:
            self._credit = (flow.delivery_count or 0) + flow.link_credit - self._delivery_count
        self.use_credit()
        if flow.drain:
            self._delivery_count += max(0, self._credit)
            self._credit = 0
        if flow.drain or flow.echo:
            self._session.send_link_flow(
                self.handle, delivery_count=self._delivery_count, credit=self._credit, drain=bool(flow.drain)
            )

    def on_transfer(self, _transfer: Transfer, _payload: bytes) -> None:
        raise AmqpError(
            "amqp:not-allowed", "expected transfers on links the client sends on, found one on a receiving link"
        )

    def use_credit(self) -> None:
        """Deliver what is waiting, if this link has something to deliver."""

    def close(self) -> None:
        """Let go of what the link holds."""

    def send(self, tag: bytes, payload: bytes, *, settled: bool) -> int:
        self._credit -= 1
        self._delivery_count += 1
        return self._session.transfer(self.handle, tag, payload, settled=settled)

    def send_answer(self, payload: bytes) -> None:
        """Send whatever the credit: the SDK gives 10,000 once and never again, and renewals need more."""
        self.send(uuid4().bytes, payload, settled=True)


class ConsumerLink(OutgoingLink):
    """A receiver of an entity's messages."""

    def __init__(
        self, session: LinkSession, handle: int, path: str, *, entity: Entity, takes_and_deletes: bool
    ) -> None:
        super().__init__(session, handle, path)
        self._entity = entity
        self._takes_and_deletes = takes_and_deletes

    @property
    def takes_and_deletes(self) -> bool:
        return self._takes_and_deletes

    @property
    def wants_message(self) -> bool:
        return self._credit > 0 and self._session.can_transfer

    def on_attached(self) -> None:
        self._entity.attach(self)

    def use_credit(self) -> None:
        self._entity.pump()

    def close(self) -> None:
        self._entity.detach(self)

    def deliver_locked(self, lock: Lock) -> None:
        payload = encode_delivery(lock.message.content, lock.message.broker_properties(lock.locked_until))
        # The client reads the lock token out of the tag, in Microsoft's byte order.
        delivery_id = self.send(lock.token.bytes_le, payload, settled=False)
        self._session.await_settlement(delivery_id, self._entity, lock.token)

    def deliver_taken(self, message: Message) -> None:
        payload = encode_delivery(message.content, message.broker_properties())
        self.send(uuid4().bytes_le, payload, settled=True)


Link = IncomingLink | OutgoingLink
