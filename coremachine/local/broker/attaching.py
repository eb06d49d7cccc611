"""What a client's attach asks for, and the link that answers it."""

from collections.abc import Callable
from typing import NamedTuple

from coremachine.local.broker import codec
from coremachine.local.broker import performatives as perf
from coremachine.local.broker.cbs import answer_cbs
from coremachine.local.broker.codec import NULL
from coremachine.local.broker.entity import CallLater, Entity, SessionEntity, disabled
from coremachine.local.broker.limits import MAX_MESSAGE_SIZE
from coremachine.local.broker.links import ConsumerLink, Link, LinkSession, ReplyLink, RequestLink, SenderLink
from coremachine.local.broker.management import Management
from coremachine.local.broker.namespace import CBS_NODE, MANAGEMENT_SUFFIX, Namespace, path_of
from coremachine.local.broker.performatives import AmqpError, Performative
from coremachine.local.broker.session_link import SessionLink
from coremachine.local.broker.topic import Topic

_SESSION_FILTER = "com.microsoft:session-filter"
_TIMEOUT = "com.microsoft:timeout"
_FILTER = 7  # of a source
_SOURCE = 0x28
_COORDINATOR = (0x30, "amqp:coordinator:list")


class Attach(NamedTuple):
    """An attach: what is computed with, decoded; what is echoed, raw."""

    name: bytes
    handle: int
    client_receives: bool
    snd_settle_mode: bytes
    rcv_settle_mode: bytes
    source: bytes
    target: bytes
    terminus: list[codec.Value] | None
    reply_address: codec.Value
    takes_and_deletes: bool
    initial_delivery_count: int
    properties: dict[str, codec.Value]

    @classmethod
    def read(cls, body: bytes, performative: Performative) -> "Attach":
        raw = perf.raw_fields(body)
        raw += [NULL] * (len(performative.fields) - len(raw))
        fields = performative.fields
        client_receives = fields[2] is True
        return cls(
            name=raw[0],
            handle=fields[1],  # type: ignore[arg-type]
            client_receives=client_receives,
            snd_settle_mode=raw[3],
            rcv_settle_mode=raw[4],
            source=raw[5],
            target=raw[6],
            terminus=fields[5 if client_receives else 6],  # type: ignore[arg-type]
            reply_address=fields[6][0] if isinstance(fields[6], list) and fields[6] else None,
            takes_and_deletes=fields[3] == 1,
            initial_delivery_count=fields[9] or 0,  # type: ignore[arg-type]
            properties=fields[13] or {},  # type: ignore[arg-type]
        )

    @property
    def is_for_transactions(self) -> bool:
        """Whether the target is the coordinator of transactions, which is no entity."""
        return self.target[0] == codec.DESCRIBED and codec.decode(self.target, 1)[0] in _COORDINATOR

    def answered(
        self, channel: int, source: bytes, target: bytes, properties: tuple[tuple[bytes, bytes], ...]
    ) -> bytes:
        answer = perf.AttachAnswer(
            name=self.name,
            handle=self.handle,
            is_receiver=not self.client_receives,
            snd_settle_mode=self.snd_settle_mode,
            rcv_settle_mode=self.rcv_settle_mode,
            source=source,
            target=target,
            max_message_size=MAX_MESSAGE_SIZE,
            properties=properties,
        )
        return answer.encoded(channel)

    def source_with_session(self, session_id: str) -> bytes:
        """The source as it came, with the session that was granted in its filter."""
        items = codec.split_compound(self.source, codec.skip(self.source, 1))
        items += [NULL] * (_FILTER + 1 - len(items))
        items[_FILTER] = codec.map_of([(codec.symbol(_SESSION_FILTER), codec.string(session_id))])
        return codec.described(_SOURCE, codec.list_of(items))


class LinkFactory:
    """Makes the links of one session.

    Raises:
        AmqpError: The attach asks for what does not exist or is not possible; from all methods.
    """

    def __init__(self, session: LinkSession, namespace: Namespace, later: CallLater) -> None:
        self._session = session
        self._namespace = namespace
        self._later = later

    def make(self, attach: Attach) -> Link:
        if attach.is_for_transactions:
            raise AmqpError(
                "amqp:not-implemented",
                "expected a target with the address of a queue or topic, found a coordinator: this broker has no "
                "transactions, so that messages are sent and settled one by one",
            )
        if not attach.terminus:
            raise AmqpError("amqp:invalid-field", "expected a source or target with an address, found none")
        path = path_of(attach.terminus[0])
        if path == CBS_NODE or path.lower().endswith(MANAGEMENT_SUFFIX):
            return self._of_node(attach, path)
        entity = self._namespace.get(path)
        if attach.client_receives:
            return self._receiver(attach, path, entity)
        if entity.queue.dead_letters is None or self._namespace.find_subscription(path) is not None:
            raise AmqpError("amqp:not-allowed", f"expected a queue or topic to send to, found '{path}'")
        count = attach.initial_delivery_count
        faults = self._namespace.faults
        return SenderLink(self._session, attach.handle, path, count, entity=entity, faults=faults)

    def _of_node(self, attach: Attach, path: str) -> Link:
        answer: Callable[[bytes], tuple[object, bytes]] = answer_cbs
        if path != CBS_NODE:
            entity_path = path[: -len(MANAGEMENT_SUFFIX)]
            self._namespace.get(entity_path)
            answer = Management(self._namespace, entity_path).answer
        if attach.client_receives:
            return ReplyLink(self._session, attach.handle, path, attach.reply_address)
        return RequestLink(self._session, attach.handle, path, attach.initial_delivery_count, answer)

    def _receiver(self, attach: Attach, path: str, entity: Entity) -> Link:
        if isinstance(entity, Topic):
            raise AmqpError(
                "amqp:not-allowed", f"expected a queue or subscription to receive from, found topic '{path}'"
            )
        if not entity.queue.settings.can_receive:
            raise disabled(path)
        terminus = attach.terminus or []
        filters = terminus[_FILTER] if len(terminus) > _FILTER else None
        wants_session = isinstance(filters, dict) and _SESSION_FILTER in filters
        takes = attach.takes_and_deletes
        if not isinstance(entity, SessionEntity):
            if wants_session:
                text = "A sessionful message receiver cannot be created on an entity that does not require sessions"
                raise AmqpError("amqp:not-allowed", f"{text}: '{path}'.")
            return ConsumerLink(self._session, attach.handle, path, entity=entity, takes_and_deletes=takes)
        if not wants_session or not isinstance(filters, dict):
            text = "It is not possible for an entity that requires sessions to create a non-sessionful message receiver"
            raise AmqpError("amqp:not-allowed", f"{text}: '{path}'.")
        wanted, wait = filters[_SESSION_FILTER], attach.properties.get(_TIMEOUT)
        if wanted is not None and not isinstance(wanted, str):
            raise AmqpError("amqp:invalid-field", f"expected a session id, found {repr(wanted)[:100]}")
        return SessionLink(
            self._session,
            attach.handle,
            path,
            entity=entity,
            takes_and_deletes=takes,
            wanted=wanted,
            wait_seconds=wait / 1000 if isinstance(wait, int) and wait > 0 else None,
            later=self._later,
        )
