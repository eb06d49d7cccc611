"""The nouns of a queue: its settings, a stored message, a lock, and what can go wrong."""

from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

from coremachine.local.broker.message import BrokerProperties, Content, MessageState

MAX_DELIVERIES_REASON = "MaxDeliveryCountExceeded"
EXPIRED_REASON = "TTLExpiredException"
DEAD_LETTER_SUFFIX = "$DeadLetterQueue"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """How a queue, topic or subscription behaves; durations in seconds, None for without limit."""

    name: str
    lock_duration_seconds: float = 60.0
    max_delivery_count: int | None = 10
    default_ttl_seconds: float | None = 3600.0
    dead_letter_on_expiration: bool = False
    duplicate_window_seconds: float | None = None
    requires_session: bool = False
    forward_to: str | None = None
    forward_dead_letters_to: str | None = None
    status: str = "Active"
    # What administration clients set and read again, but the broker does not act on.
    extras: tuple[tuple[str, str], ...] = ()

    @property
    def can_send(self) -> bool:
        return self.status not in {"Disabled", "SendDisabled"}

    @property
    def can_receive(self) -> bool:
        return self.status not in {"Disabled", "ReceiveDisabled"}

    def ttl_of(self, content: Content) -> float | None:
        """The shorter of the message's own time to live and the default."""
        default = self.default_ttl_seconds
        if content.ttl_seconds is None or default is None:
            return default if content.ttl_seconds is None else content.ttl_seconds
        return min(content.ttl_seconds, default)


class LockLost(Exception):
    """The lock ran out, or its message was settled already."""

    def __init__(self, token: UUID) -> None:
        self.token = token
        super().__init__(
            "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the "
            f"queue: expected a lock that is still held, found {token}; receive the message again"
        )


class SessionLockLost(Exception):
    """The lock of a session ran out, or somebody else holds it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"The session lock has expired on the MessageSession ({what}). Accept a new session receiver.")


class SessionTaken(Exception):
    """Another receiver holds the session."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        super().__init__(
            f"The requested session '{session_id}' cannot be accepted. It may be locked by another receiver."
        )


class SessionRequired(Exception):
    """A message without session id was sent to an entity of sessions."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The SessionId was not set on a message, and it cannot be sent to the entity '{name}'. Entities that have "
            "session support enabled can only receive messages that have the SessionId set to a valid value."
        )


class MessageNotFound(Exception):
    """No message of that sequence number is where it was looked for."""

    def __init__(self, sequence_number: int, place: str) -> None:
        self.sequence_number, self.place = sequence_number, place
        super().__init__(f"expected a {place} message with sequence number {sequence_number}, found none")


class AlreadyDead(Exception):
    """A dead letter cannot be dead-lettered again."""

    def __init__(self, token: UUID) -> None:
        self.token = token
        super().__init__(
            "expected a message of a queue to dead-letter, found one in a dead-letter queue; complete or abandon it"
        )


class Place(IntEnum):
    """Where a message is."""

    READY = 0
    LOCKED = 1
    DEFERRED = 2
    SCHEDULED = 3
    GONE = 4


@dataclass(slots=True, eq=False)
class Message:
    """A stored message."""

    content: Content
    sequence_number: int
    enqueued_at: float
    place: Place
    ttl_seconds: float | None = None
    delivery_count: int = 0
    deferred: bool = False
    dead_letter_source: str | None = None
    original_sequence_number: int | None = None

    @property
    def expires_at(self) -> float | None:
        return None if self.ttl_seconds is None else self.enqueued_at + self.ttl_seconds

    def broker_properties(self, locked_until: float | None = None) -> BrokerProperties:
        state = MessageState.DEFERRED if self.deferred else MessageState.ACTIVE
        return BrokerProperties(
            sequence_number=self.sequence_number,
            enqueued_at=self.enqueued_at,
            delivery_count=self.delivery_count,
            state=MessageState.SCHEDULED if self.place is Place.SCHEDULED else state,
            ttl_seconds=self.ttl_seconds,
            locked_until=locked_until,
            dead_letter_source=self.dead_letter_source,
            original_sequence_number=self.original_sequence_number,
        )


@dataclass(slots=True, eq=False)
class Lock:
    """A receiver's right to a message until `locked_until`, held under a random token."""

    token: UUID
    message: Message
    locked_until: float


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many messages are where."""

    active: int
    locked: int
    scheduled: int
    deferred: int
    dead_letter: int
