"""The broker's ends of links: what clients send to, and what they receive from."""

from collections import deque
from collections.abc import Callable
from typing import Protocol
from uuid import UUID, uuid4

from coremachine.local.broker.codec import DecodeError
from coremachine.local.broker.entity import Entity
from coremachine.local.broker.faults import Faults
from coremachine.local.broker.limits import LINK_CREDIT, MAX_MESSAGE_SIZE, MAX_REQUEST_SIZE, MAX_WAITING_BYTES
from coremachine.local.broker.message import BATCH_FORMAT, Content, encode_delivery, parse_message, unpack_batch
from coremachine.local.broker.performatives import (
    OUTCOME_ACCEPTED,
    UINT32,
    AmqpError,
    FatalError,
    Flow,
    Transfer,
    rejected_with,
)
from coremachine.local.broker.settlement import QUEUE_PROBLEMS, as_amqp_error
from coremachine.local.broker.stored import Lock, Message

_HALF = 2**31


class LinkSession(Protocol):
    """What a link needs from its session."""

    @property
    def can_transfer(self) -> bool: ...

    def now(self) -> float:
        """Seconds of the namespace's clock."""

    def transfer(self, handle: int, tag: bytes, payload: bytes, *, settled: bool) -> int: ...

    def send_link_flow(self, handle: int, *, delivery_count: int, credit: int, drain: bool = False) -> None: ...

    def settle_incoming(self, delivery_id: int, state: bytes, *, at_once: bool = False) -> None: ...

    def await_settlement(self, delivery_id: int, entity: Entity, token: UUID) -> None: ...

    def hold_unfinished(self, size: int) -> None:
        """Count bytes of deliveries whose last frame has not come; negative when they are let go."""

    def detach(self, link: "Link", error: AmqpError) -> None:
        """End a link from this side."""

    def reply_link(self, path: str, reply_to: object) -> "ReplyLink | None":
        """The link that the client receives answers from a node on."""


class _BaseLink:
    """What all links have."""

    def __init__(self, session: LinkSession, handle: int, path: str) -> None:
        self.handle = handle
        self.path = path
        self.used_at = session.now()
        self._session = session

    def force_detach(self, error: AmqpError) -> None:
        self._session.detach(self, error)  # type: ignore[arg-type]


class IncomingLink(_BaseLink):
    """A link on which the client sends; `_receive` gets complete deliveries and refuses one by raising AmqpError.

    Args:
        delivery_count: The client's initial one.
    """

    max_size = MAX_MESSAGE_SIZE
    # Instead of together with the settlements of other deliveries.
    settles_at_once = False

    def __init__(self, session: LinkSession, handle: int, path: str, delivery_count: int) -> None:
        super().__init__(session, handle, path)
        self._delivery_count = delivery_count
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
        if self._delivery is None and not transfer.more:
            # Most deliveries are one frame.
            if not transfer.aborted:
                self._finish(transfer, payload, len(payload))
        elif not self._gather(transfer, payload):
            return
        self._delivery_count = (self._delivery_count + 1) & UINT32
        self._credit -= 1
        if self._credit <= LINK_CREDIT // 2:
            self._give_credit()

    def close(self) -> None:
        self._let_go()

    def _gather(self, transfer: Transfer, payload: bytes) -> bool:
        """Add a frame to an unfinished delivery; True when it is finished or aborted."""
        if self._delivery is None:
            self._delivery = transfer
        if len(self._payload) + len(payload) > self.max_size:
            self._too_large = True
            self._let_go()
        elif not self._too_large:
            self._session.hold_unfinished(len(payload))
            self._payload += payload
        if transfer.more and not transfer.aborted:
            return False
        first, data, too_large = self._delivery, bytes(self._payload), self._too_large
        self._delivery, self._too_large = None, False
        self._let_go()
        if not transfer.aborted:
            self._finish(first, data, self.max_size + 1 if too_large else len(data))
        return True

    def _let_go(self) -> None:
        self._session.hold_unfinished(-len(self._payload))
        self._payload.clear()

    def _finish(self, delivery: Transfer, data: bytes, size: int) -> None:
        self.used_at = self._session.now()
        afterwards: Callable[[], None] | None = None
        # Only accepted or rejected with an error: other outcomes leave the client's send call waiting for ever.
        try:
            if size > self.max_size:
                raise too_large(size, self.max_size)
            afterwards = self._receive(delivery, data)
            state = OUTCOME_ACCEPTED
        except FatalError:
            raise
        except AmqpError as refusal:
            state = rejected_with(refusal)
        except QUEUE_PROBLEMS as problem:
            state = rejected_with(as_amqp_error(problem))
        except DecodeError as exc:
            state = rejected_with(AmqpError("amqp:decode-error", str(exc)))
        if not delivery.settled and delivery.delivery_id is not None:
            self._session.settle_incoming(delivery.delivery_id, state, at_once=self.settles_at_once)
        if afterwards is not None:
            afterwards()

    def _receive(self, delivery: Transfer, data: bytes) -> Callable[[], None] | None:
        """Take a delivery; what is returned is called when its settlement is written."""
        raise NotImplementedError

    def _give_credit(self) -> None:
        self._credit = LINK_CREDIT
        self._session.send_link_flow(self.handle, delivery_count=self._delivery_count, credit=LINK_CREDIT)


def too_large(size: int, limit: int) -> AmqpError:
    text = (
        f"The received message (size: {size} bytes or more) exceeds the limit ({limit} bytes) currently allowed on the "
        "link; send a reference to its payload"
    )
    return AmqpError("amqp:link:message-size-exceeded", text)


class SenderLink(IncomingLink):
    """A client's sender to a queue or topic."""

    def __init__(
        self, session: LinkSession, handle: int, path: str, delivery_count: int, *, entity: Entity, faults: Faults
    ) -> None:
        super().__init__(session, handle, path, delivery_count)
        self._entity = entity
        self._faults = faults

    def on_attached(self) -> None:
        self._entity.attach(self)
        super().on_attached()

    def close(self) -> None:
        super().close()
        self._entity.detach(self)

    def _receive(self, delivery: Transfer, data: bytes) -> None:
        self._faults.check_send()
        contents = unpack_batch(data) if delivery.message_format == BATCH_FORMAT else [parse_message(data)]
        self._entity.send(self._faults.applied(contents, self._entity.name))


class RequestLink(IncomingLink):
    """A client's requests to `$cbs` or `$management`, answered on the link that it receives from the same node."""

    max_size = MAX_REQUEST_SIZE
    # Some clients take an answer before the acceptance of its request for a failure.
    settles_at_once = True

    def __init__(
        self, session: LinkSession, handle: int, path: str, delivery_count: int, answer: Callable[[bytes], "Answer"]
    ) -> None:
        super().__init__(session, handle, path, delivery_count)
        self._answer = answer

    def _receive(self, _delivery: Transfer, data: bytes) -> Callable[[], None]:
        if self._session.reply_link(self.path, None) is None:
            raise AmqpError("amqp:precondition-failed", f"expected a receiving link on '{self.path}' for the answer")
        reply_to, payload = self._answer(data)
        return lambda: self._reply(reply_to, payload)

    def _reply(self, reply_to: object, payload: bytes) -> None:
        link = self._session.reply_link(self.path, reply_to)
        if link is not None:
            link.send_answer(payload)


# The request's reply-to, and the encoded answer.
Answer = tuple[object, bytes]


class OutgoingLink(_BaseLink):
    """A link on which the client receives: its credit."""

    def __init__(self, session: LinkSession, handle: int, path: str) -> None:
        super().__init__(session, handle, path)
        self._credit = 0
        self._delivery_count = 0

    def on_attached(self) -> None:
        """Nothing to do until the client gives credit."""

    def on_flow(self, flow: Flow) -> None:
        self.used_at = self._session.now()
        if flow.link_credit is not None:
            # Serial numbers: what the client has not yet seen is subtracted, also where the count wraps.
            unseen = (self._delivery_count - (flow.delivery_count or 0)) & UINT32
            self._credit = flow.link_credit - (unseen if unseen < _HALF else 0)
        self.use_credit()
        if flow.drain:
            self._delivery_count = (self._delivery_count + max(0, self._credit)) & UINT32
            self._credit = 0
        if flow.drain or flow.echo:
            self._session.send_link_flow(
                self.handle,
                delivery_count=self._delivery_count,
                credit=max(0, self._credit),
                drain=bool(flow.drain),
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
        self.used_at = self._session.now()
        self._delivery_count = (self._delivery_count + 1) & UINT32
        return self._session.transfer(self.handle, tag, payload, settled=settled)


class ReplyLink(OutgoingLink):
    """Where a client gets its answers.

    Answers wait for the client's first credit. After that they go whatever the credit: the SDK gives 10,000 once and
    never again, and renewals need more.
    """

    def __init__(self, session: LinkSession, handle: int, path: str, address: object) -> None:
        super().__init__(session, handle, path)
        self.address = address
        self._had_credit = False
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0

    def use_credit(self) -> None:
        self._had_credit = self._had_credit or self._credit > 0
        while self._had_credit and self._waiting:
            payload = self._waiting.popleft()
            self._waiting_bytes -= len(payload)
            self.send(uuid4().bytes, payload, settled=True)

    def send_answer(self, payload: bytes) -> None:
        if self._waiting_bytes > MAX_WAITING_BYTES:
            raise FatalError(
                "amqp:resource-limit-exceeded", f"expected credit on '{self.path}' before more requests, found none"
            )
        self._waiting.append(payload)
        self._waiting_bytes += len(payload)
        self.use_credit()


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
    def session_id(self) -> str | None:
        return None

    @property
    def wants_message(self) -> bool:
        return self._credit > 0 and self._session.can_transfer

    def on_attached(self) -> None:
        self._entity.attach(self)

    def use_credit(self) -> None:
        if self._credit > 0:
            self._entity.wants(self)
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


def contents_of(messages: list[bytes]) -> list[Content]:
    """Messages of a request, each within the limit of a sent one.

    Raises:
        AmqpError: One is too large.
    """
    for data in messages:
        if len(data) > MAX_MESSAGE_SIZE:
            raise too_large(len(data), MAX_MESSAGE_SIZE)
    return [parse_message(data) for data in messages]


Link = IncomingLink | OutgoingLink
